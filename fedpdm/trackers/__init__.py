"""Trackers: copies of rounds and results for a tool such as MLflow or TensorBoard.

    tracker=none          nothing (the default)
    tracker=tensorboard   event files in the run folder; pip install fedpdm[tensorboard]
    tracker=mlflow        an MLflow run; pip install fedpdm[mlflow]

The run's own files are the truth, a tracker is a copy: whatever goes wrong in it, the run goes
on (``fedpdm.trackers.guard``). Another tool takes one class with three methods and a yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

Record = Mapping[str, Any]


class Tracker(Protocol):
    """What a tracker does. Each method may raise; the guard sees to it that the run goes on."""

    def begin(self, folder: Path, config: Record, state: dict[str, Any]) -> None:
        """Begin, or go on after a resume.

        Args:
            folder: the run folder; it exists.
            config: the resolved config.
            state: what the tracker wants to find again after a resume, JSON; empty at first.
                It may write into it at any time.
        """

    def round(self, number: int, scalars: Mapping[str, float], seconds_since_1970: float) -> None:
        """Take a finished round.

        Args:
            number: of the round; it comes again after a rollback.
            scalars: by name: ``train_loss``, ``average_precision``, ``bytes/up``, ``seconds``;
                a site's are ``sites/NAME/…``.
            seconds_since_1970: when the round was finished.
        """

    def end(self, scalars: Mapping[str, float], summary: Record) -> None:
        """Take the test scores (``test/…``) and finish; ``folder`` holds all files now."""


def round_scalars(record: Record) -> dict[str, float]:
    """Return a round of the history as scalars by name; what is not a number is left out."""
    found: dict[str, Any] = {
        **record["metrics"],
        "bytes/up": record["bytes_up"],
        "bytes/down": record["bytes_down"],
        "seconds": record["seconds"],
    }
    for site, values in record["sites"].items():
        of_site = {name: value for name, value in values.items() if name != "validation"}
        for name, value in (values.get("validation") or {}).items():
            of_site["validation_loss" if name == "loss" else name] = value
        found |= {f"sites/{site}/{name}": value for name, value in of_site.items()}
    return _numbers(found)


def result_scalars(summary: Record) -> dict[str, float]:
    """Return the test scores of a summary as scalars by name."""
    test = summary.get("test") or {}
    found = {f"test/{name}": value for name, value in (test.get("global") or {}).items()}
    for site, values in (test.get("per_site") or {}).items():
        found |= {f"test/sites/{site}/{name}": value for name, value in values.items()}
    return _numbers(found)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
