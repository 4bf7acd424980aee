"""The best model that a site has by itself: of several kinds, the one its validation data chooses.

A federation must be worth more to a site than the best it can do alone. With one kind of model
alone (the network) that is this one; with several (boosted trees, too) each site takes the kind
that scores best on its own validation windows, as it would without a federation. Test windows
choose nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fedpdm.baselines.registry import BASELINES, DERIVED, Baseline
from fedpdm.data.rows import Split
from fedpdm.evaluation.scoring import Predictions, score
from fedpdm.federation import Site
from fedpdm.tasks import Task

NAME = "best_alone"
NETWORK = "alone"
DERIVED[NAME] = Baseline(
    "Best alone", "the best model the site has by itself, chosen on its own validation data",
    name="The best model alone", marker="o", colour="alone", interval=True,
)  # fmt: skip


def kinds_alone(found: Iterable[str]) -> tuple[str, ...]:
    """Return which of the names are models that a site has by itself, the network first."""
    kinds = [name for name in found if name in BASELINES and BASELINES[name].per_site]
    order = list(BASELINES)
    return tuple(sorted(kinds, key=lambda name: (name != NETWORK, order.index(name))))


def reference_alone(found: Iterable[str]) -> str | None:
    """Return the predictor that the gain is measured against; None where no site trained alone.

    Args:
        found: names of the predictors there are.
    """
    names = tuple(found)
    return NAME if NAME in names else next(iter(kinds_alone(names)), None)


def best_alone(
    found: Mapping[str, Predictions], sites: Sequence[Site], task: Task
) -> tuple[Predictions, dict[str, str]] | None:
    """Return each site's predictions by its best kind of model alone, and which kind that is.

    The kinds are compared by the task's primary metric on the site's own validation windows. A
    site takes the network where the metric is equal, or cannot be computed.

    Args:
        found: predictions of baselines, by name.
        sites: those that were tested.
        task: gives the metric.

    Returns:
        None with fewer than two kinds.
    """
    kinds = kinds_alone(found)
    if len(kinds) < 2:
        return None
    predictions: Predictions = {}
    chosen: dict[str, str] = {}
    for site in sites:
        own = [kind for kind in kinds if site.name in found[kind]]
        if not own:
            continue
        best, least = own[0], None
        for kind in own:
            scored = score(found[kind], [site], task, Split.VALIDATION)
            value = scored["per_site"][site.name].get(task.primary)
            if task.better(value, least):
                best, least = kind, value
        predictions[site.name], chosen[site.name] = found[best][site.name], best
    return predictions, chosen
