"""The rounds of a run on disk: commit, read, resume, roll back.

``python -m fedpdm.history list|show|rollback|export RUN`` is the same by hand.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedpdm.errors import HistoryError
from fedpdm.history.record import RoundRecord
from fedpdm.history.rounds import History

__all__ = ["History", "HistoryError", "RoundRecord", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    from fedpdm.history.command import main as run

    return run(argv)
