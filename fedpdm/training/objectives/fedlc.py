"""FedLC: a margin for the classes of which a site has few windows.

Zhang et al. 2022, Federated Learning with Label Distribution Skew via Logits Calibration (ICML),
eq. 7 and 8. With n_c the number of a site's training windows of class c, the loss sees the logits

    f_c − τ·n_c^(−1/4)

so a rare class must win by more. A class that a site lacks gets 10⁻⁸ windows, as in the authors'
code: it is practically left out of the softmax, and the site does not unlearn it. τ = 0 is the
base, bit for bit; so is an equal number of all classes, but for rounding. Predictions and
validation use the logits as they are.

Use it where sites differ in how many failures they have seen. It costs nothing, and the counts stay
at the site. Networks alone and pooled train by the base.
"""

from __future__ import annotations

from torch import Tensor

from fedpdm.training.objective import Objective
from fedpdm.training.objectives.label_counts import FEWEST, OfLabelCounts
from fedpdm.training.objectives.wrapping import check_share

__all__ = ["FedLC"]


class FedLC(OfLabelCounts):
    """A supervised loss of calibrated logits.

    Args:
        tau: τ, the size of the margins; 0: none.
        base: the supervised loss; None: the task's own.

    Raises:
        ConfigError: a value out of its range, or a task without a logit for each class.
    """

    def __init__(self, tau: float = 1.0, base: Objective | None = None) -> None:
        check_share("tau", tau)
        super().__init__(base)
        self.tau = float(tau)

    def changed(self, logits: Tensor) -> Tensor:
        if self.tau == 0:
            return logits
        margin = self.tau * self.counts.clamp_min(FEWEST) ** -0.25
        return logits - margin.to(logits.dtype)
