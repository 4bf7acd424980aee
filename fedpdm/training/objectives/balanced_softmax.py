"""Balanced softmax: a site's own share of failures is taken out of what its model learns.

Ren et al. 2020, Balanced Meta-Softmax for Long-Tailed Visual Recognition (NeurIPS), eq. 4; Menon et
al. 2021, Long-tail learning via logit adjustment (ICLR), eq. 10. With n_c the number of a site's
training windows of class c and N of all, the loss sees the logits

    f_c + log(n_c / N)

So f itself learns how likely windows are under each class, not how often the class comes: by Bayes'
rule the same at two sites that differ in their shares of classes only. Predictions use f, which
takes all classes for equally frequent: risks are too high where failures are rare, until
``evaluate.calibration`` sets them right; ranking is unaffected. A class that a site lacks gets 10⁻⁸
windows. With equally many of all classes it is the base, but for rounding.

Use it where sites differ in how many failures they have seen. It costs nothing, and the counts stay
at the site. Networks alone and pooled train by the base.
"""

from __future__ import annotations

from torch import Tensor

from fedpdm.training.objectives.label_counts import FEWEST, OfLabelCounts

__all__ = ["BalancedSoftmax"]


class BalancedSoftmax(OfLabelCounts):
    """A supervised loss of logits to which the site's frequencies are added.

    Args:
        base: the supervised loss; None: the task's own.

    Raises:
        ConfigError: a task without a logit for each class.
    """

    def changed(self, logits: Tensor) -> Tensor:
        counts = self.counts.clamp_min(FEWEST)
        return logits + (counts / counts.sum()).log().to(logits.dtype)
