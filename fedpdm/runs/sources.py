"""From a composed config to the data set, and to what happens to its windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from fedpdm.config.values import (
    OF_ANY_SITE,
    Config,
    block,
    class_of,
    make,
    plain,
    select,
    whole,
)
from fedpdm.data.features import RAW, WindowFeatures
from fedpdm.data.leakage.label_shuffle import LabelShuffle
from fedpdm.data.partition import Natural, Partition, RepartitionedSource
from fedpdm.data.resampling import Resampler
from fedpdm.data.sources.base import Source, expand_replicas
from fedpdm.data.splits.saved_split import SavedSplit
from fedpdm.errors import ConfigError
from fedpdm.tasks import Task


def build_source(cfg: Config, task: Task, seed: int) -> Source:
    """Make the data set of a config, with its sites."""
    data = plain(cfg.data)
    data.pop("task_defaults", None)
    sites = site_blocks(cfg)
    replicas = whole(cfg, "replicas", 1)
    if replicas > 1 and not sites:
        raise ConfigError(f"replicas={replicas} multiplies named sites; name some with site=…")
    reach = {"reach": task.reach} if "purge" in cfg.partition else {}
    partition = make(cfg.partition, "partition", **reach)
    source = cast(
        Source,
        make(
            data,
            "data",
            sites=expand_replicas(sites, replicas),
            partition=Natural() if (again := repartitions(data, partition)) else partition,
            seed=seed,
            reach=task.reach,
        ),
    )
    if replicas > 1 and not source.generated:
        raise ConfigError(
            f"replicas={replicas} needs generated sites; data={source.name} has real ones: "
            "leave replicas at 1, or use data=fleet"
        )
    source = RepartitionedSource(source, partition, seed, task.reach) if again else source
    split = select(cfg, "split")  # a run from before there was this choice has none
    return source if split is None else SavedSplit(source, str(split))


def repartitions(data: Mapping[str, Any], partition: Partition) -> bool:
    """Return whether a partition deals the machines of sites that are generated."""
    if isinstance(partition, Natural) or "_target_" not in data:
        return False
    try:
        return bool(getattr(class_of(data), "generated", False))
    except Exception:  # there is no such class: ``make`` says so
        return False


def build_features(cfg: Config) -> WindowFeatures:
    """Make what models see of a window; a run from before there was a choice saw the readings."""
    if select(cfg, "features") is None:
        return RAW
    return cast(WindowFeatures, make(cfg.features, "features"))


def build_resampler(cfg: Config, source: Source, seed: int) -> Resampler | None:
    """Make what resamples training windows, or None."""
    kind = select(cfg, "training.resample")
    return None if kind is None else Resampler(str(kind), seed, source.categorical)


def build_shuffle(cfg: Config, seed: int) -> LabelShuffle | None:
    """Make what gives labels to the wrong windows, or None."""
    kind = select(cfg, "shuffle_labels")
    return None if kind is None else LabelShuffle(str(kind), seed)


def site_blocks(cfg: Config) -> dict[str, Any]:
    """Return the sites' blocks as their data set reads them: without what their test reads."""
    sites = block(cfg, "sites")
    for own in sites.values():
        for key in OF_ANY_SITE if isinstance(own, dict) else ():
            own.pop(key, None)
    return sites
