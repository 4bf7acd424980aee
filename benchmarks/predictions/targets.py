"""What was set out to reach, beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, TypeVar

from benchmarks.predictions.collect import at

Stored = Mapping[str, Any]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Target:
    """A number to reach.

    Attributes:
        what: the quantity.
        limit: the number asked for, or a range.
        measured: what came out; None if it has not been measured.
        highest: whether ``limit`` is an upper bound; None for a range.
        note: what stands beside it, for example a published figure.
    """

    what: str
    limit: float | tuple[float, float]
    measured: float | None
    highest: bool | None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        if self.measured is None:
            return None
        if isinstance(self.limit, tuple):
            return self.limit[0] <= self.measured <= self.limit[1]
        return self.measured <= self.limit if self.highest else self.measured >= self.limit

    @property
    def asked(self) -> str:
        if isinstance(self.limit, tuple):
            return f"{self.limit[0]:g} to {self.limit[1]:g}"
        return f"{'at most' if self.highest else 'at least'} {self.limit:g}"


def mean(stored: Stored, path: str) -> float | None:
    """Return the mean over seeds at ``path``."""
    found: float | None = at(stored, path + ".mean")
    return found


def of(stored: Stored, read: Callable[[Stored], Value]) -> Value | None:
    """Return ``read(stored)``, None where a part of it has not been measured."""
    try:
        return read(stored)
    except (KeyError, TypeError, ValueError):
        return None


PUBLISHED = {"a": 16.99, "b": 20.63, "c": 19.93, "d": 14.44, "e": 32.95}
TASKS = {"a": 12.5, "b": 12.0, "c": 12.5, "d": 13.0, "e": 12.0}
POOLED = {"fd001": 12.8, "fd002": 14.0, "fd003": 12.8, "fd004": 14.5}
WIDTHS = {"fd001": 47.6, "fd002": 50.7, "fd003": 42.2, "fd004": 58.5}
BUDGET = 0.05
T_OF_TEN = 2.262
"""97.5 % point of Student's t with nine degrees of freedom: the fleet has ten seeds."""


def targets(stored: Stored) -> Iterator[Target]:
    """Yield every target, with what ``evidence.json`` holds of it."""
    for task, limit in TASKS.items():
        yield Target(
            f"FedCMAPSS {task.upper()}, RMSE", limit,
            mean(stored, f"fedcmapss_{task}.global.federated"), True,
            f"published best {PUBLISHED[task]}",
        )  # fmt: skip
    for subset, limit in POOLED.items():
        yield Target(
            f"{subset.upper()} pooled, RMSE", limit,
            mean(stored, f"rul_{subset}.global.pooled"), True,
        )  # fmt: skip
    if found := of(stored, lambda s: best_alone(s, "fleet_chosen")):
        kind, gained = found
        middle, half = fmean(gained), T_OF_TEN * stdev(gained) / len(gained) ** 0.5
        yield Target(
            "default fleet, experiment=fleet, AP over the best kind of model alone", 0.0, middle,
            False, f"{kind} is best; 95 % of Student's t over {len(gained)} seeds: "
            f"{middle - half:+.3f} to {middle + half:+.3f}",
        )  # fmt: skip
    name = "failure_fd001"
    yield Target(
        "FD001, failure within 30 cycles, federated AP", 0.93,
        mean(stored, f"{name}.global.federated"), False,
        "published .911 at 10 nodes, .946 at 5, pooled .949",
    )  # fmt: skip
    yield Target("… gap to pooled", 0.02, gap(stored, name), True)
    for name, what in (("ai4i", "forward"), ("ai4i_folds", "stratified 5-fold")):
        found = folds(stored) if name == "ai4i_folds" else stored
        rules = mean(found, f"{name}.global.rules")
        beside = f"rules without learning {rules:.3f}" if rules is not None else ""
        yield Target(f"AI4I, {what}, federated AP", 0.70,
                     mean(found, f"{name}.global.federated"), False, beside)  # fmt: skip
        yield Target("… gap to pooled", 0.04, gap(found, name), True)
    for subset in POOLED:
        rates = at(stored, f"failure_{subset}.also.false_alarm_rate.values")
        yield Target(f"{subset.upper()}, false alarms over budget, mean", 1.5,
                     of(stored, lambda _, r=rates: fmean(r) / BUDGET), True)  # fmt: skip
        yield Target("… worst seed", 2.0, of(stored, lambda _, r=rates: max(r) / BUDGET), True)
    for subset, width in WIDTHS.items():
        clipped, whole = (mean(stored, f"rul_{subset}.also.{key}")
                          for key in ("width", "width_unclipped"))  # fmt: skip
        beside = f"; ours {clipped:.1f} within [0, 125]" if clipped is not None else ""
        beside += f", {whole:.1f} unclipped" if whole is not None else ""
        yield Target(
            f"{subset.upper()}, coverage of 90 % intervals", (0.86, 0.95),
            mean(stored, f"rul_{subset}.also.coverage"), None,
            f"GBM+CQR {width} cycles wide{beside}",
        )  # fmt: skip
        yield Target(
            "… sites whose exact 95 % interval holds 0.90", 1.0,
            mean(stored, f"rul_{subset}.plants_covered"), False, "share; 5 % miss it by chance",
        )  # fmt: skip
    for data in ("fleet", "ai4i", "cmapss"):
        name = f"shuffled_{data}"
        yield Target(
            f"labels shuffled, {data}: share of seeds that score as chance does", 1.0,
            mean(stored, f"{name}.also.within"), False,
            of(stored, lambda s, n=name: f"AP {s[n]['global']['federated']['mean']:.3f}, "
               f"prevalence {s[n]['prevalence']['mean']:.3f}") or "",
        )  # fmt: skip


def best_alone(stored: Stored, name: str) -> tuple[str, list[float]]:
    """Return the kind of model alone with the best mean, and the federated gain over it by seed."""
    scores = stored[name]["mean_site"]
    kinds = [kind for kind in ("alone", "hgb_alone", "best_alone") if kind in scores]
    best = max(kinds, key=lambda kind: scores[kind]["mean"])
    pairs = zip(scores["federated"]["values"], scores[best]["values"], strict=True)
    return best, [ours - theirs for ours, theirs in pairs]


def gap(stored: Stored, name: str) -> float | None:
    """Return pooled minus federated, in the mean over seeds."""
    pooled, federated = (mean(stored, f"{name}.global.{a}") for a in ("pooled", "federated"))
    return None if pooled is None or federated is None else pooled - federated


def folds(stored: Stored) -> dict[str, Any]:
    """Return the five folds of AI4I as if they were seeds of one experiment."""
    parts = [stored[f"ai4i_fold_{k}"] for k in range(5) if f"ai4i_fold_{k}" in stored]
    if len(parts) < 5:
        return {}
    return {
        "ai4i_folds": {
            "global": {
                arm: {"mean": fmean(part["global"][arm]["mean"] for part in parts)}
                for arm in ("federated", "pooled", "rules")
                if all(arm in part["global"] for part in parts)
            }
        }
    }


def as_markdown(stored: Stored) -> str:
    """Return the targets as a table in Markdown."""
    lines = ["| what | asked | measured | reached | beside it |", "|---|---|---|---|---|"]
    for t in targets(stored):
        value = "not measured" if t.measured is None else f"{t.measured:.3g}"
        said = {True: "yes", False: "**no**", None: "–"}[t.reached]
        if t.measured is not None and abs(t.measured) >= 10:
            value = f"{t.measured:.2f}"
        lines.append(f"| {t.what} | {t.asked} | {value} | {said} | {t.note} |")
    return "\n".join(lines)


def as_text(stored: Stored) -> str:
    """Return the targets as lines for a terminal."""
    lines = []
    for t in targets(stored):
        value = "–" if t.measured is None else f"{t.measured:.3f}"
        mark = {True: "yes", False: "NO", None: ""}[t.reached]
        lines.append(f"{t.what:<72} {t.asked:<14} {value:>9} {mark:<4}{t.note}")
    return "\n".join(lines)
