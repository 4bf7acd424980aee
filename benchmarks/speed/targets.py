"""The goals that were set for speed, and what was measured: ratios of medians."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Entries = Iterable[dict[str, Any]]


@dataclass(frozen=True)
class Goal:
    """A ratio of two medians with a bound.

    Attributes:
        number: of the target in the issue.
        what: in words.
        measured: the ratio, or None where a side was not measured.
        least: it must be at least this …
        most: … or at most this.
    """

    number: int
    what: str
    measured: float | None
    least: float | None = None
    most: float | None = None

    @property
    def asked(self) -> str:
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        if self.least is not None:
            return self.measured >= self.least
        return self.most is not None and self.measured <= self.most


class Measured:
    """Medians by model, sites and contender."""

    def __init__(self, entries: Entries) -> None:
        self._by = {(e["model"], e["plants"], e["contender"]): e for e in entries}

    def value(self, model: str, sites: int, *names: str, of: str = "round_seconds") -> Any:
        """Return the smallest value among contenders, or None."""
        found = [
            value
            for name in names
            if (value := self._by.get((model, sites, name), {}).get(of)) is not None
        ]
        return min(found, default=None)

    def first(self, model: str, sites: int, *names: str, of: str) -> tuple[Any, str]:
        """Return the value of the first contender that has one, and its name."""
        for name in names:
            if (value := self.value(model, sites, name, of=of)) is not None:
                return value, name
        return None, names[0]


def ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below


OURS = ("serial", "ray", "batched", "batched2")
PFL = ("pfl1", "pfl2")
PROCESS = "process_seconds"
FASTER = {"cnn": (7.0, 2.5), "lstm": (4.5, 1.6), "hybrid": (5.0, 2.0), "mlp": (35.0, 7.0)}
"""At 100 sites: times as fast as Flower and as the better of pfl-research, by model."""
AUTO_AT_MOST = 1.15


def goals(entries: Entries) -> list[Goal]:
    """Return the goals: per round, for the whole process, of ``auto``, and on a GPU."""
    entries = list(entries)
    by, found = Measured(entries), []
    for model, (flower, pfl) in FASTER.items():
        ours = by.value(model, 100, *OURS)
        found += [
            Goal(1, f"100 sites, {model}: a round, times as fast as Flower",
                 ratio(by.value(model, 100, "flower"), ours), least=flower),
            Goal(1, f"100 sites, {model}: a round, times as fast as pfl-research",
                 ratio(by.value(model, 100, *PFL), ours), least=pfl),
        ]  # fmt: skip
    for model, sites, least in (("cnn", 10, 5.0), ("mlp", 1000, 50.0)):
        found.append(
            Goal(2, f"{sites:,} sites, {model}: whole process, times as fast as Flower",
                 ratio(by.value(model, sites, "flower", of=PROCESS),
                       by.value(model, sites, *OURS, of=PROCESS)), least=least),
        )  # fmt: skip
    found.append(
        Goal(2, "1,000 sites, mlp: whole process, times as fast as pfl-research",
             ratio(by.value("mlp", 1000, *PFL, of=PROCESS),
                   by.value("mlp", 1000, *OURS, of=PROCESS)), least=5.0),
    )  # fmt: skip
    for model, sites in sorted({(e["model"], e["plants"]) for e in entries}):
        if (auto := by.value(model, sites, "auto", of=PROCESS)) is None:
            continue
        found.append(
            Goal(3, f"{sites:,} sites, {model}: whole process, auto over the best engine",
                 ratio(auto, by.value(model, sites, *OURS, of=PROCESS)), most=AUTO_AT_MOST),
        )  # fmt: skip
    for model, least in (("cnn", 50), ("lstm", 20)):
        for sites in (100, 1000):
            slow, name = by.first(
                model, sites, "serial-cuda", "floor-cuda", of="round_seconds"
            )  # fmt: skip
            found.append(
                Goal(7, f"{sites:,} sites, {model}, one GPU: batched against "
                     f"{'serial' if name == 'serial-cuda' else 'the bare loop'}",
                     ratio(slow, by.value(model, sites, "batched-cuda")), least=least),
            )  # fmt: skip
    return found


def as_text(found: Iterable[Goal]) -> str:
    """Return the goals as a table for the screen."""
    word = {True: "met", False: "MISSED", None: "not measured"}
    lines = [f"{'target':<7} {'asked':>7} {'measured':>9}"]
    for goal in found:
        measured = "–" if goal.measured is None else f"{goal.measured:.2f}"
        lines.append(
            f"{goal.number:<7} {goal.asked:>7} {measured:>9}  {word[goal.met]:<12}  {goal.what}"
        )
    return "\n".join(lines)


def as_json(found: Iterable[Goal]) -> list[dict[str, Any]]:
    return [
        {"target": g.number, "what": g.what, "asked": g.asked, "measured": g.measured,
         "met": g.met}
        for g in found
    ]  # fmt: skip
