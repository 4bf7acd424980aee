"""The registry of baselines, and their work in pieces that several processes can share.

A new baseline is one function under ``@register_baseline``, here or in any module that is
imported: table, plots, report and summary take everything else from its registration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedpdm.baselines.inputs import BaselineInputs
from fedpdm.data.rows import Floats, Split
from fedpdm.errors import ConfigError
from fedpdm.evaluation.scoring import Predictions
from fedpdm.evaluation.wording import listing

Run = Callable[..., Predictions]


@dataclass(frozen=True)
class Baseline:
    """How a baseline appears in tables, plots and sentences, and how it is run.

    Attributes:
        heading: of its column.
        explained: what it is, in half a sentence.
        name: in the sentence that says why it is missing; ``heading`` where it is empty.
        subject: of the sentence that compares it with the shared model; empty for none.
        marker: Matplotlib's, in plots.
        hollow: whether the marker is a ring.
        colour: a colour of ``page.css``.
        column: when it has a column: ``always``; ``asked`` for it, or where no baselines ran;
            or where scores were ``found``.
        cost: rough time, a site's share of a pooled network's training being 1.
        per_site: whether the function takes a site's name too, and is called for each: what a
            site can have by itself. ``fedpdm.baselines.best_alone`` chooses among such by their
            scores of validation windows, so what makes those must not have trained on them.
        missing: says why it cannot be had here, or None.
        interval: whether the gain over it gets a bootstrap interval.
        task: the only task that it is a control for; None: any.
    """

    heading: str
    explained: str = ""
    name: str = ""
    subject: str = ""
    marker: str = "P"
    hollow: bool = False
    colour: str = "quiet"
    column: str = "found"
    cost: Callable[[BaselineInputs], float] = lambda inputs: 0.01
    per_site: bool = False
    missing: Callable[[BaselineInputs], str | None] = lambda inputs: None
    interval: bool = False
    task: str | None = None

    @property
    def in_sentence(self) -> str:
        """The name as it stands in the middle of a sentence."""
        first, *rest = (self.name or self.heading).split(" ")
        return " ".join([first.lower() if first.istitle() else first, *rest])


BASELINES: dict[str, Baseline] = {}
"""Every baseline by the name that ``baselines.controls`` and summary.json call it."""
RUNS: dict[str, Run] = {}
"""What makes the predictions of each."""
DERIVED: dict[str, Baseline] = {}
"""What follows from the predictions of baselines that ran, and is not run itself."""
FEDERATED = Baseline(
    "Federated", "the shared model: sites exchange model weights, never rows",
    marker="o", colour="federated", column="always",
)  # fmt: skip


def register_baseline(name: str, appears: Baseline) -> Callable[[Run], Run]:
    """Decorate a function of ``BaselineInputs`` that returns scores by site and split.

    Args:
        name: in ``baselines.controls`` and summary.json.
        appears: its column, mark and sentences, and how it is run.
    """

    def add(run: Run) -> Run:
        BASELINES[name], RUNS[name] = appears, run
        return run

    return add


def predictors(found: Iterable[str] = ()) -> dict[str, Baseline]:
    """Return how the shared model and all baselines appear, in the order of the columns.

    Args:
        found: names in a summary; one that nobody registered here appears by its name.
    """
    found = tuple(found)
    derived = {name: each for name, each in DERIVED.items() if name in found}
    known = BASELINES | derived
    unknown = {n: Baseline(n.replace("_", " ").capitalize()) for n in found if n not in known}
    baselines = known | unknown
    # The gain is federated against what a site has by itself, so these stand side by side.
    first = {n: each for n, each in baselines.items() if each.column == "always"}
    first |= {n: each for n, each in baselines.items() if each.per_site} | derived
    return first | {"federated": FEDERATED} | baselines


def able(task: str) -> tuple[str, ...]:
    """Return the names of the baselines that are a control for a task, by its name."""
    return tuple(name for name, each in BASELINES.items() if each.task in (None, task))


def wanted(names: Sequence[str], task: str) -> tuple[str, ...]:
    """Return names of baselines in the order of ``BASELINES``.

    Args:
        names: as ``baselines.controls`` has them.
        task: name of the run's task.

    Raises:
        ConfigError: there is no such baseline, or it is a control for another task.
    """
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        raise ConfigError(
            f"baselines.controls: {unknown[0]} is unknown; choose some of {', '.join(BASELINES)}"
        )
    if foreign := [name for name in names if name not in able(task)]:
        raise ConfigError(
            f"baselines.controls: {foreign[0]} is a control for task={BASELINES[foreign[0]].task} "
            f"only, and this run has task={task}; choose some of {', '.join(able(task))}"
        )
    return tuple(name for name in BASELINES if name in names)


@dataclass(frozen=True)
class Piece:
    """A piece of work of a baseline: all of it, or one site's part."""

    baseline: str
    site: str | None = None


def left_out(inputs: BaselineInputs) -> dict[str, str]:
    """Return which of the wanted baselines cannot be had here, and why."""
    reasons = {name: BASELINES[name].missing(inputs) for name in inputs.baselines}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def pieces(inputs: BaselineInputs) -> list[Piece]:
    """Return all work, the longest first, so that two processes finish together."""
    absent = left_out(inputs)
    parts = [
        Piece(name, site)
        for name in inputs.baselines
        if name not in absent
        for site in (inputs.names if BASELINES[name].per_site else (None,))
    ]
    return sorted(parts, key=lambda piece: -BASELINES[piece.baseline].cost(inputs))


def work(inputs: BaselineInputs, todo: Sequence[Piece]) -> dict[str, Floats]:
    """Do pieces of work; return scores by ``baseline/site/SPLIT``."""
    result = {}
    for piece in todo:
        arguments = () if piece.site is None else (piece.site,)
        for site, splits in RUNS[piece.baseline](inputs, *arguments).items():
            for split, scores in splits.items():
                result[f"{piece.baseline}/{site}/{split.name}"] = scores
    return result


def gather(scores: dict[str, Floats]) -> dict[str, Predictions]:
    """Return the predictions of each baseline from what ``work`` made."""
    result: dict[str, Predictions] = {}
    for key, values in scores.items():
        baseline, _, rest = key.partition("/")
        site, _, split = rest.rpartition("/")
        result.setdefault(baseline, {}).setdefault(site, {})[Split[split]] = values
    return result


def diverged(found: Mapping[str, Predictions]) -> dict[str, str]:
    """Return which baselines have scores that are no numbers, and why they are left out."""
    reasons = {}
    for name, predictions in found.items():
        lost = [
            site
            for site, splits in predictions.items()
            if not all(np.isfinite(scores).all() for scores in splits.values())
        ]
        if lost:
            reasons[name] = (
                f"its training diverged (no finite output at {listing(lost, most=3)}); lower "
                "training.learning_rate, or set baselines.training"
            )
    return reasons
