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


def goals(entries: Entries) -> list[Goal]:
    """Return targets 2, 3, 4, 5 and 7 of the engines' issue."""
    by = Measured(entries)
    found = []
    cold, name = by.first("cnn", 10, "auto", "serial", of="process_seconds")
    found.append(
        Goal(2, f"whole process, 10 sites, cnn, {name}: times faster than Flower",
             ratio(by.value("cnn", 10, "flower", of="process_seconds"), cold), least=4),
    )  # fmt: skip
    pfl = ("pfl1", "pfl2")
    for model in ("cnn", "lstm"):
        found.append(
            Goal(3, f"100 sites, {model}: ray with two workers against Flower",
                 ratio(by.value(model, 100, "flower"), by.value(model, 100, "ray")), least=3),
        )  # fmt: skip
    batched = by.value("mlp", 100, "batched")
    found += [
        Goal(3, "100 sites, mlp: batched against Flower",
             ratio(by.value("mlp", 100, "flower"), batched), least=60),
        Goal(3, "100 sites, mlp: batched against pfl-research",
             ratio(by.value("mlp", 100, *pfl), batched), least=8),
    ]  # fmt: skip
    for model in ("mlp", "cnn", "lstm", "hybrid"):
        found.append(
            Goal(4, f"100 sites, {model}: best engine of one process against pfl of one process",
                 ratio(by.value(model, 100, "pfl1"), by.value(model, 100, "serial", "batched")),
                 least=0.95),
        )  # fmt: skip
    for model in ("cnn", "lstm"):
        ray = by.value(model, 100, "ray")
        found += [
            Goal(4, f"100 sites, {model}: ray with two workers against pfl's better",
                 ratio(by.value(model, 100, *pfl), ray), least=1.5),
            Goal(4, f"100 sites, {model}: ray with two workers against pfl of one process",
                 ratio(by.value(model, 100, "pfl1"), ray), least=1.5),
        ]  # fmt: skip
    for model in ("cnn", "lstm"):
        found.append(
            Goal(5, f"100 sites, {model}: serial over the bare loop",
                 ratio(by.value(model, 100, "serial"), by.value(model, 100, "floor")), most=1.15),
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
