"""Scores of a finished run with and without a group of sensors; nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedpdm.ablate.groups import Groups, columns_of, groups_of
from fedpdm.ablate.replacing import replaced
from fedpdm.data.rows import Bools, Split
from fedpdm.errors import HistoryError
from fedpdm.evaluation.calibration import calibration_of
from fedpdm.evaluation.scoring import Predictions, predict_site, score
from fedpdm.federation import Site
from fedpdm.runs.reopened import Reopened, reopen
from fedpdm.seeding import numpy_generator

PERMUTATIONS = 5
"""Permutations whose scores are averaged, as in scikit-learn's permutation importance."""
WHOLE = ""
"""Stands for all sites' test windows together."""

Scores = Mapping[str, float | None]
"""The task's primary metric by site, and under ``WHOLE`` of all test windows together."""


@dataclass(frozen=True)
class Ablated:
    """One finished run, scored with each group of sensors replaced.

    Attributes:
        run: its folder.
        seed: of every draw.
        intact: scores with all sensors.
        without: scores by group and by how the group was replaced.
    """

    run: Path
    seed: int
    intact: Scores
    without: Mapping[tuple[str, str], Scores]


def ablate_run(
    run: Path,
    asked: Sequence[str],
    hows: Sequence[str],
    *,
    imports: Sequence[str] = (),
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Ablated, Groups]:
    """Score a finished run's test windows with each group of sensors replaced.

    Args:
        run: its folder, which stays as it is.
        asked: groups, as ``groups_of`` reads them.
        hows: ways to replace.
        imports: the modules that the run's own code comes from.
        say: told what is done now.

    Returns:
        The scores, and the groups.

    Raises:
        HistoryError: the run is not finished, was edited, or its data is another now.
        UserError: its model or its data cannot be read, or there is no such sensor.
    """
    opened = reopen(run, imports=imports)
    federation = opened.experiment.federation
    groups = groups_of(federation.source, asked)
    if opened.data_sha256() != opened.manifest["data"]["sha256"]:
        raise HistoryError(
            f"the data behind {run} has changed since the run (other rows or splits); put the old "
            "data back, or train again"
        )
    tested = opened.test()
    scale = calibration_of(tested.card["calibration"])

    def scores_on(sites: Sequence[Site]) -> Predictions:
        task, device = opened.experiment.task, opened.experiment.device
        found = {s.name: predict_site(opened.models(s.name), s, task, device, [Split.TEST])
                 for s in sites}  # fmt: skip
        if scale is None:
            return found
        return {name: {k: scale(v) for k, v in own.items()} for name, own in found.items()}

    codes = np.array([name in federation.source.levels for name in federation.inputs])
    without = {}
    for group, sensors in groups.items():
        columns = columns_of(sensors, federation.source, federation.features)
        for how in hows:
            say(f"{run.name}: without {group} ({how})")
            drawn = [
                _scores(opened, scores_on(sites))
                for sites in _ablated_sites(opened, group, how, columns, codes)
            ]
            without[group, how] = {
                place: _mean([own[place] for own in drawn]) for place in drawn[0]
            }
    seed = opened.experiment.seed
    return Ablated(run, seed, _scores(opened, tested.predictions), without), groups


def _ablated_sites(
    opened: Reopened, group: str, how: str, columns: Any, codes: Bools
) -> Iterator[list[Site]]:
    """Return the sites with a group replaced in their test windows, once for each permutation."""
    for draw in range(PERMUTATIONS if how == "permute" else 1):
        sites = []
        for site in opened.sites:
            generator = numpy_generator(opened.experiment.seed, "ablate", group, site.name, draw)
            x = replaced(how, site.test.x, columns, site.train.x, codes, generator)
            test = replace(site.test, x=x)
            sites.append(Site(site.name, {**site.windows, Split.TEST: test}))
        yield sites


def _scores(opened: Reopened, predictions: Predictions) -> Scores:
    task = opened.experiment.task
    found = score(predictions, opened.sites, task, Split.TEST)
    each = {site: own.get(task.primary) for site, own in found["per_site"].items()}
    return {WHOLE: found["global"].get(task.primary), **each}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
