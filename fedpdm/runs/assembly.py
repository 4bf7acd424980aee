"""Builds the parts of a run: the sites' Flower app, rounds, baselines and engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from flwr.clientapp.typing import Mod

from fedpdm.baselines.inputs import BaselineInputs
from fedpdm.client.app import SiteApp, make_client_app
from fedpdm.client.faults import fault_mod
from fedpdm.client.mods import AdaptedMod, unprotected
from fedpdm.data.normalise import Scaler
from fedpdm.engines.auto import Engine, Workload, settle_engine
from fedpdm.engines.hardware import cores
from fedpdm.history import History
from fedpdm.runs.attacked import warnings_of
from fedpdm.runs.experiment import Experiment
from fedpdm.runs.progress import Progress
from fedpdm.server.loop import RoundLoop
from fedpdm.server.selection import fraction_of, sample_size, scaler_sites
from fedpdm.training.loop import tensors


def client_app(experiment: Experiment) -> SiteApp:
    """Return the Flower app of an experiment's sites, with faults put in on purpose, and mods."""
    faults, seed = experiment.faults, experiment.seed
    mods: list[Mod] = [fault_mod(faults, seed)] if faults else []
    return make_client_app(
        experiment.federation,
        experiment.build_model,
        experiment.settings,
        seed=experiment.seed,
        device=experiment.device,
        policy=experiment.policy,
        objective=experiment.privacy.trains(experiment.objective)
        if experiment.privacy
        else experiment.objective,
        train_mods=[*mods, *(AdaptedMod(mod, seed) for mod in experiment.client_mods)],
        transforms=experiment.transforms,
        attack=experiment.attack,
    )


def round_loop(
    experiment: Experiment,
    history: History,
    display: Progress,
    on_scaler: Callable[[Scaler], None],
) -> RoundLoop:
    """Return the rounds of an experiment; ``on_scaler`` is told of the shared scaler."""
    initial, parts = experiment.initial, experiment.parts
    mods, scaling = experiment.client_mods, experiment.federated_scaling
    said = unprotected(mods, experiment.strategy, parts.buffers, scaling)
    if said is not None and history.head() is None:
        history.note({"kind": "warning", "round": 0, "message": said})
        display.say(f"note: {said}")
    if (hidden := experiment.server.uncovered(scaling)) is not None:
        if history.head() is None:
            history.note({"kind": "warning", "round": 0, "message": hidden})
        display.say(hidden)
    defended = warnings_of(
        experiment.strategy, experiment.attack, experiment.federation.sites, parts.buffers
    )
    for kind, sentence in defended:
        if history.head() is None and kind != "note":
            history.note({"kind": kind, "round": 0, "message": sentence})
        display.say(sentence if kind == "attack" else f"note: {sentence}")
    return RoundLoop(
        strategy=experiment.strategy,
        history=history,
        initial={name: initial[name] for name in (*parts.shared, *parts.buffers)},
        trainable=parts.shared,
        task=experiment.task,
        rounds=experiment.rounds,
        seed=experiment.seed,
        monitor=experiment.monitor,
        display=display,
        evaluate_fraction=0.0
        if (experiment.privacy and experiment.privacy.withholds_validation)
        or experiment.server.withholds_validation
        else experiment.evaluate_fraction,
        federated_scaling=experiment.federated_scaling,
        round_timeout=experiment.round_timeout,
        on_scaler=on_scaler,
        scaler=start.scaler if (start := experiment.start) else None,
        transforms=experiment.transforms,
        server=experiment.server,
        clock=experiment.clock,
        valuation=experiment.valuation,
    )


def baseline_inputs(experiment: Experiment) -> BaselineInputs:
    """Return what the baselines of an experiment need."""
    return BaselineInputs(
        federation=experiment.federation,
        names=tuple(experiment.compared),
        build_model=experiment.build_model,
        pooled=experiment.baselines.pooled,
        alone=experiment.baselines.alone,
        seed=experiment.seed,
        scaler=shared_scaler(experiment),
        pool=tuple(experiment.pooled),
        device=experiment.device,
        baselines=experiment.baselines.names,
        rocket=experiment.baselines.rocket,
        objective=experiment.objective.without_federation(),
        taken_scaler=experiment.start.scaler if experiment.start else None,
    )


def shared_scaler(experiment: Experiment) -> Scaler | None:
    """Return the scaler that the server will make of the same sites' sums; None without one.

    A run that starts from another's weights scales as that run did.
    """
    federation = experiment.federation
    if not experiment.federated_scaling:
        return None
    if experiment.start is not None and experiment.start.scaler is not None:
        return experiment.start.scaler
    names = scaler_sites(federation.sites, experiment.seed)
    total = federation.moments(names[0])
    for name in names[1:]:
        total = total + federation.moments(name)
    return total.scaler()


def settled_engine(experiment: Experiment, shapes: list[dict[str, Any]]) -> Engine:
    """Return the engine of a run; who resumes it gets the same.

    Args:
        experiment: what is run.
        shapes: of the sites looked at, as ``Federation.shape`` returns them.
    """
    sites, settings = experiment.federation.sites, experiment.settings
    share = fraction_of(experiment.strategy)
    windows = [shape["windows"]["train"] for shape in shapes]
    epoch = -(-int(np.mean(windows)) // settings.batch_size) if windows else 1
    work = Workload(
        sampled=sample_size(share, len(sites)),
        rounds=experiment.rounds,
        steps=settings.local_epochs * max(1, epoch),
        module=experiment.build_model().module,
        device=experiment.device,
        cores=cores(),
        obstacle=lambda: stack_obstacle(experiment),
    )
    return settle_engine(experiment.engine, work)


def stack_obstacle(experiment: Experiment) -> str | None:
    """Try whether the model can be trained as a stack; return why not."""
    from fedpdm.engines.stacked.sites import obstacle

    federation = experiment.federation
    name = experiment.looked_at[0]
    part = federation.site(name, federation.moments(name).scaler()).train
    x, y = tensors(part.x[:5], part.y[:5], torch.device("cpu"))
    return obstacle(client_app(experiment).client, x, y)


def one_thread() -> None:
    """Use one torch thread: at these sizes two are slower, and children share the cores."""
    torch.set_num_threads(1)
    np.seterr(all="ignore")
