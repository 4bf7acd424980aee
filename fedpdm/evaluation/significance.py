"""Whether a gain is more than chance: from how many machines on, and how far from 0.

What average precision rests on is machines that failed in the test part. Of two equally good
models with two such machines, percentiles of a bootstrap call one better in half of all runs,
with five in every seventh. So nothing is called sure of fewer than ``FEWEST``; from there on
trials of equal models (tests/evaluation/test_significance.py) call a site sure in about 5 %
of the runs, however many sites there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpdm.data.rows import Floats
from fedpdm.evaluation.wording import counted

RISK = 0.05
"""Of calling any site's gain sure where no site has one."""
FEWEST = 10
"""Machines that carry the metric (for a risk those that failed) below which nothing is sure."""


@dataclass(frozen=True)
class Size:
    """How many machines stand behind a number.

    Attributes:
        machines: with a test window.
        failing: of them with a failure ahead, of the nearest horizon; None where the task
            asks for no risk.
        sites: whose machines carry the number, drawn apart from each other.
    """

    machines: int
    failing: int | None
    sites: int

    @property
    def carrying(self) -> int:
        return self.machines if self.failing is None else self.failing

    @property
    def too_few(self) -> str | None:
        """Why nothing can be called sure; None if it can."""
        failed = "" if self.failing is None else " failed"
        if self.carrying < FEWEST:
            only = f"only {counted(self.carrying, 'machine')}" if self.carrying else "no machine"
            return f"{only}{failed}: too few to be sure"
        if self.carrying <= self.sites:
            return f"only one machine{failed} at each site: too few to be sure"
        return None


def beyond_chance(value: float, values: Floats, size: Size, looks: int) -> bool:
    """Return whether a difference is more than chance, where ``looks`` sites are looked at.

    Percentiles promise too much of few machines, more so the further out they lie. So the
    spread of the resamples goes with Student's t: a bootstrap within sites has as many
    degrees of freedom as machines less sites, and its variance is too small by their share.
    The risk is divided by ``looks`` (Bonferroni).

    Args:
        value: difference on the sample itself.
        values: (B,) resampled differences; NaN where there is none.
        size: of the sample, with more machines that carry the metric than sites.
        looks: how many such questions are asked at once.
    """
    from scipy import stats

    freedom = size.carrying - size.sites
    spread = float(np.std(values[np.isfinite(values)], ddof=1)) * np.sqrt(size.carrying / freedom)
    return bool(abs(value) > float(stats.t.isf(RISK / looks / 2, freedom)) * spread)
