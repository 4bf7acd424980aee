"""Baseline of task=anomaly: an isolation forest (Liu et al. 2008), which needs no labels."""

from __future__ import annotations

import numpy as np

from fedpdm.baselines.inputs import BaselineInputs, predicted
from fedpdm.baselines.registry import Baseline, register_baseline
from fedpdm.data.rows import Floats
from fedpdm.data.windows import Windows
from fedpdm.evaluation.scoring import Predictions


@register_baseline("isolation_forest", Baseline(
    "Forest", "an isolation forest on summary features of the pooled windows", marker="X",
    name="Isolation forest", subject="An isolation forest on pooled data", task="anomaly",
))  # fmt: skip
def isolation_forest(inputs: BaselineInputs) -> Predictions:
    """scikit-learn's forest of 100 trees, on the pooled training windows."""
    from sklearn.ensemble import IsolationForest

    pool = inputs.sites(inputs.pool)
    table = inputs.table(Windows.concatenate([site.train.real() for site in pool]))
    forest = IsolationForest(random_state=inputs.seed % 2**32).fit(table)

    def scores(windows: Windows) -> Floats:
        if not len(windows):
            return np.zeros(0)
        return np.asarray(-forest.score_samples(inputs.table(windows)), dtype=np.float64)

    return predicted(inputs.sites(), scores)
