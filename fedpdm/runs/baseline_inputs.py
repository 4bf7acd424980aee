"""From an experiment to what its baselines need."""

from __future__ import annotations

from fedpdm.baselines.inputs import BaselineInputs
from fedpdm.data.normalise import Scaler
from fedpdm.runs.experiment import Experiment
from fedpdm.server.selection import scaler_sites


def baseline_inputs(experiment: Experiment) -> BaselineInputs:
    """Return what the baselines of an experiment need."""
    return BaselineInputs(
        federation=experiment.federation,
        names=tuple(experiment.compared),
        build_model=experiment.build_model,
        pooled=experiment.pooled_schedule,
        alone=experiment.alone_schedule,
        seed=experiment.seed,
        scaler=shared_scaler(experiment),
        pool=tuple(experiment.pooled),
        device=experiment.device,
        controls=experiment.controls,
        rocket=experiment.rocket,
        objective=experiment.objective,
    )


def shared_scaler(experiment: Experiment) -> Scaler | None:
    """Return the scaler that the server will make of the same sites' sums; None without one."""
    federation = experiment.federation
    if not experiment.federated_scaling:
        return None
    names = scaler_sites(federation.sites, experiment.seed)
    total = federation.moments(names[0])
    for name in names[1:]:
        total = total + federation.moments(name)
    return total.scaler()
