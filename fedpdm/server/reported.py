"""Checks of the numbers that a site reports: can they be what they are called?"""

from __future__ import annotations

import re
from collections.abc import Mapping

SHARES = {
    "average_precision", "roc_auc", "brier", "ece", "ece_mass", "prevalence", "precision",
    "recall", "f1", "false_alarm_rate",
}  # fmt: skip
"""Metrics that lie between 0 and 1; each may have a horizon behind it, as in ``brier_24``."""
MOST = 1000
"""Metrics in one reply."""
SLACK = 1e-6
"""Rounding may lead so far out of the range."""


def flaw_of(metrics: Mapping[str, float]) -> str | None:
    """Return the first metric that is out of its range, or None.

    NaN is a metric that could not be computed, and a loss may be infinite.
    """
    if len(metrics) > MOST:
        return f"{len(metrics)} metrics are too many"
    for name, value in metrics.items():
        share = re.sub(r"(_\d[\d.]*)?$", "", name) in SHARES
        if share and (value < -SLACK or value > 1 + SLACK):
            return f"{name} is {value:g} and not between 0 and 1"
    return None
