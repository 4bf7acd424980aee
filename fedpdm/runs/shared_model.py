"""What the shared model scores where each site is tested with a model of its own."""

from __future__ import annotations

from typing import Any

from fedpdm.client.state import PersonalModels
from fedpdm.data.rows import Split
from fedpdm.evaluation.final_test import FinalTest
from fedpdm.evaluation.scoring import predict, score
from fedpdm.runs.experiment import Experiment
from fedpdm.wire.records import Arrays


def shared_scores(experiment: Experiment, trial: FinalTest, weights: Arrays) -> dict[str, Any]:
    """Return the test scores of the shared model, in the form of ``test``.

    Args:
        experiment: what was run; all tensors of its model travel.
        trial: the test of the personal models; has the sites.
        weights: the tensors of the round that was tested.
    """
    task, device = experiment.task, experiment.device
    models = PersonalModels(
        experiment.build_model(), weights, (), {}, experiment.objective.without_federation(), device
    )
    sites = list(trial.sites)
    found = predict(models("any"), sites, task, device, (Split.TEST,))
    scored = score(found, sites, task, Split.TEST)
    return {part: scored[part] for part in ("global", "mean_site", "per_site")}
