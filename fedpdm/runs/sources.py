"""From a composed config to the data source and to how its windows are made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from fedpdm.config.values import OF_ANY_SITE, Config, block, class_of, make, plain, select, whole
from fedpdm.data.features import RAW
from fedpdm.data.leakage.label_shuffle import LabelShuffle
from fedpdm.data.partition import Natural, Partition, RepartitionedSource
from fedpdm.data.resampling import Resampler
from fedpdm.data.sources.base import Source, expand_replicas
from fedpdm.data.sources.classes import ClassSource
from fedpdm.data.sources.with_history import HistorySource
from fedpdm.data.sources.without import WithoutSource
from fedpdm.data.splits.saved_split import NAME as SPLIT
from fedpdm.data.splits.saved_split import SavedSplit
from fedpdm.errors import ConfigError
from fedpdm.federation import Federation
from fedpdm.history.sealed import read_sealed
from fedpdm.tasks import Task

MOST_SITES = 200_000
"""Sites of a run. The default fleet's take 0.08 s each to generate, in every round."""


def build_source(cfg: Config, task: Task, seed: int) -> Source:
    """Make the data set of a config, with its sites."""
    data = plain(cfg.data)
    data.pop("task_defaults", None)
    sites = site_blocks(cfg)
    replicas = whole(cfg, "replicas", 1)
    if replicas > 1 and not sites:
        raise ConfigError(f"replicas={replicas} multiplies named sites; name some with site=…")
    if replicas * len(sites) > MOST_SITES:
        raise ConfigError(
            f"replicas={replicas} makes {replicas * len(sites):,} sites, and generating the data "
            f"of over {MOST_SITES:,} takes days at the very least; lower it"
        )
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
    if task.column is not None:
        source = ClassSource(source, task.column, seed if task.by_machine else None)
    split = select(cfg, "split")
    if split is not None:
        folder = Path(str(split)).expanduser()
        if (folder / SPLIT).exists():  # a run folder: its history tells whether the file is whole
            read_sealed(folder, SPLIT)
        source = SavedSplit(source, str(split))
    without = plain(select(cfg, "without")) or []
    if not isinstance(without, list):
        raise ConfigError(f"without={without} must be a list, for example without=[vibration]")
    source = WithoutSource(source, [str(name) for name in without]) if without else source
    past = select(cfg, "features.mode") == "history" and source.window is not None
    return HistorySource(source) if past else source


def repartitions(data: Mapping[str, Any], partition: Partition) -> bool:
    """Return whether a partition deals the machines of sites that are generated."""
    if isinstance(partition, Natural) or "_target_" not in data:
        return False
    return bool(getattr(class_of(data, "data"), "generated", False))


def build_federation(cfg: Config, task: Task, source: Source, seed: int) -> Federation:
    """Make the sites of a config that take part, with what happens to their windows."""
    resample, shuffle = select(cfg, "training.resample"), select(cfg, "shuffle_labels")
    if resample is not None and not task.learns_labels:
        raise ConfigError(
            f"training.resample={resample} needs labels, and task={task.name} trains without any: "
            "leave it null"
        )
    if shuffle is not None and task.prepares:
        raise ConfigError(
            f"shuffle_labels={shuffle} shows what a score owes to labels, and task={task.name} "
            "reads none: leave it out"
        )
    left_out = select(cfg, "newcomers.sites")  # the rows are not read for a config without any
    return Federation(
        source,
        task,
        features=RAW if select(cfg, "features") is None else make(cfg.features, "features"),
        resampler=None if resample is None else Resampler(str(resample), seed, source.categorical),
        shuffle=None if shuffle is None else LabelShuffle(str(shuffle), seed),
        without=named_newcomers(cfg, source.sites)[0] if left_out else (),
    )


def site_blocks(cfg: Config) -> dict[str, Any]:
    """Return the sites' blocks as their data set reads them: without what their test reads."""
    sites = block(cfg, "sites")
    for own in sites.values():
        for key in OF_ANY_SITE if isinstance(own, dict) else ():
            own.pop(key, None)
    return sites


def named_newcomers(cfg: Config, sites: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
    """Return which sites a config leaves out of training, and for how many epochs to tune.

    Args:
        cfg: a composed config.
        sites: all sites of its data.

    Raises:
        ConfigError: one is no site of the data, or no site would be left.
    """
    given = plain(select(cfg, "newcomers.sites")) or []
    if not isinstance(given, list):
        raise ConfigError(f"newcomers.sites={given} must be a list: newcomers.sites=[houston]")
    names = tuple(str(name) for name in given)
    if strange := [name for name in names if name not in sites]:
        raise ConfigError(
            f"newcomers.sites: there is no site {strange[0]!r} in this run; there are "
            f"{', '.join(sites[:20])}"
        )
    if set(names) == set(sites):
        raise ConfigError("newcomers.sites names every site, so that none is left to train")
    if select(cfg, "newcomers.epochs") is None:  # a run from before
        return names, 1
    return names, whole(cfg, "newcomers.epochs", 1)
