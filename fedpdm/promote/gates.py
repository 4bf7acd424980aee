"""The gates that a model must pass, in order. "Skipped" and "accepted" are never "passed"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from fedpdm.errors import ConfigError
from fedpdm.promote.evidence import Evidence
from fedpdm.promote.export import Exported
from fedpdm.promote.thresholds import Thresholds

Status = Literal["passed", "failed", "skipped", "accepted"]


@dataclass(frozen=True)
class Found:
    """What a gate found.

    Attributes:
        passed: None where it could not be asked.
        said: the result, or why it could not be asked.
        numbers: behind the sentence, by name.
        criterion: what was asked for, with its numbers.
    """

    passed: bool | None
    said: str
    criterion: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """All that a gate may look at.

    Attributes:
        evidence: the run, tested again.
        exported: the model's file.
        seeds: scores of runs that differ in their seed alone, this one's included, by folder.
        thresholds: what is asked for.
    """

    evidence: Evidence
    exported: Exported
    seeds: Mapping[str, float]
    thresholds: Thresholds


Question = Callable[[Candidate], Found | None]


@dataclass(frozen=True)
class Kind:
    """A gate.

    Attributes:
        hypothesis: what is true of the model if it passes.
        if_it_fails: what to do then.
        acceptable: whether a person may accept that it is not passed. Gates that say whether the
            numbers are true at all are not.
        ask: the question; None where nothing is asked of such a model.
    """

    hypothesis: str
    if_it_fails: str
    acceptable: bool
    ask: Question


@dataclass(frozen=True)
class Gate:
    """A gate that was asked.

    Attributes:
        name: of the gate.
        kind: what it asks.
        found: what it found.
        status: passed, failed, skipped, or accepted for ``reason``.
        critical: whether a model that does not pass is refused.
        reason: why a person accepts that it was not passed.
    """

    name: str
    kind: Kind
    found: Found
    status: Status
    critical: bool
    reason: str | None = None

    @property
    def refuses(self) -> bool:
        return self.critical and self.status in ("failed", "skipped")


GATES: dict[str, Kind] = {}
"""Every gate by its name, in the order in which they are asked."""


def gate(
    name: str, hypothesis: str, if_it_fails: str, *, acceptable: bool = True
) -> Callable[[Question], Question]:
    """Decorate the question of a gate: see ``Kind``."""

    def add(ask: Question) -> Question:
        GATES[name] = Kind(hypothesis, if_it_fails, acceptable, ask)
        return ask

    return add


def ask_all(candidate: Candidate, accepted: Mapping[str, str]) -> list[Gate]:
    """Return the gates that were asked.

    Args:
        candidate: the model.
        accepted: reasons by the name of a gate that need not be passed.
    """
    result = []
    for name, kind in GATES.items():
        if (found := kind.ask(candidate)) is None:
            continue
        status: Status = (
            "skipped" if found.passed is None else "passed" if found.passed else "failed"
        )
        critical = name in candidate.thresholds.critical
        asked = Gate(name, kind, found, status, critical)
        if name in accepted and status != "passed":
            asked = replace(asked, status="accepted", reason=accepted[name])
        result.append(asked)
    return result


def check_names(accepted: Mapping[str, str], thresholds: Thresholds) -> None:
    """Refuse gates that do not exist, and those that nobody may accept.

    Raises:
        ConfigError: names the gate.
    """
    for name in (*accepted, *thresholds.critical):
        if name not in GATES:
            raise ConfigError(f"there is no gate {name}; there are {', '.join(GATES)}")
    for name in accepted:
        if not GATES[name].acceptable:
            may = ", ".join(n for n, kind in GATES.items() if kind.acceptable)
            raise ConfigError(
                f"--accept {name}: nobody can accept that; {GATES[name].if_it_fails}. "
                f"What can be accepted: {may}"
            )
