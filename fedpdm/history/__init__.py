"""History: the rounds of a run on disk. Commit, read, resume, roll back.

``python -m fedpdm.history list|show|rollback|export RUN`` is the same by hand.
"""

from fedpdm.errors import HistoryError
from fedpdm.history.record import RoundRecord
from fedpdm.history.rounds import History

__all__ = ["History", "HistoryError", "RoundRecord"]
