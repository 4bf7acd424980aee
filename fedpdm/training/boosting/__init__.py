"""Boosted trees from sums: what holders of rows add up, and what is made of the sums.

The growing side (``growth``) is a generator: it yields a ``Request``, is sent the sums over all who
hold rows, and fills the arrays of the trees. A federation sends requests to sites and adds their
answers up; on pooled rows one ``Rows`` answers. Gradients are whole numbers of 2^-20 before they
are summed, so a sum is exact whatever its order, and both grow the same trees, bit for bit.
"""

from __future__ import annotations

from fedpdm.training.boosting.checks import flaw_of
from fedpdm.training.boosting.growth import Changed, Growth, Steps, boost, drive
from fedpdm.training.boosting.losses import Loss, loss_of
from fedpdm.training.boosting.rows import Request, Rows, Sums

__all__ = [
    "Changed", "Growth", "Loss", "Request", "Rows", "Steps", "Sums", "boost", "drive", "flaw_of",
    "loss_of",
]  # fmt: skip
