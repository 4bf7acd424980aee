"""Boosted trees on summaries of the pooled windows."""

from __future__ import annotations

from fedpdm.baselines.estimators import PerColumn, trees
from fedpdm.baselines.inputs import BaselineInputs, predicted
from fedpdm.baselines.registry import Shown, register_baseline
from fedpdm.data.windows import Windows
from fedpdm.evaluation.scoring import Predictions


@register_baseline(
    "hgb",
    Shown(
        "Trees",
        "boosted trees on pooled rows, with summary features of each window",
        name="Boosted trees",
        subject="Boosted trees on pooled data",
        marker="^",
        colour="hgb",
        column="asked",
    ),
    cost=lambda inputs: 0.4 * len(inputs.pool),
)
def boosted_trees(inputs: BaselineInputs) -> Predictions:
    """Histogram gradient boosting (scikit-learn) on summary features of the pooled windows.

    With features=statistics or both it gets those features, too.
    """
    from threadpoolctl import threadpool_limits

    sites = inputs.sites()
    train = Windows.concatenate([site.train for site in inputs.sites(inputs.pool)])
    with threadpool_limits(limits=1):
        model = PerColumn(inputs.task, train.y, trees(inputs.table(train), inputs.seed))
        return predicted(sites, lambda windows: model(inputs.table(windows)))
