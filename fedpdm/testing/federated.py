"""Runs a small federation: the real loop, engine and history on tiny data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context, RecordDict
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import Strategy

from fedpdm.client.app import SiteApp, make_client_app
from fedpdm.client.attacks.base import Attack
from fedpdm.client.faults import fault_mod, parse_faults
from fedpdm.config.compose import compose
from fedpdm.config.values import make
from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.serial import SerialGrid
from fedpdm.federation import Federation
from fedpdm.history import History
from fedpdm.models import ModelFactory, ModelWrapper
from fedpdm.models.policy import ALL, ParameterPolicy
from fedpdm.seeding import torch_seeded
from fedpdm.server.base import Server
from fedpdm.server.loop import RoundLoop
from fedpdm.server.monitor import MonitorSettings
from fedpdm.server.synchronous import Synchronous
from fedpdm.tasks import Failure, Task
from fedpdm.testing.tiny import TinySource
from fedpdm.training.loop import TrainingSettings
from fedpdm.training.objective import Objective
from fedpdm.transforms.base import Chain, Transform
from fedpdm.wire.flower import pack_state

EngineOf = Callable[[SiteApp, Sequence[str]], LocalGrid]
"""Makes an engine from the client app and the names of the sites, as an engine's class does."""


@dataclass
class Screen:
    """Collects the events that the loop shows."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def round(
        self, round_num: int, loss: float | None, metric: float | None, events: Iterable[Any]
    ) -> None:
        self.events += list(events)


@dataclass
class Federated:
    """A finished run."""

    history: History
    loop: RoundLoop
    grid: LocalGrid
    source: TinySource
    screen: Screen

    def weights(self, round_num: int | None = None) -> dict[str, np.ndarray]:
        return self.history.weights(round_num)


@functools.cache
def composed(overrides: tuple[str, ...]) -> Any:
    """Return the config of a command line; composing takes longer than a tiny round."""
    return compose(overrides)


def named(overrides: Sequence[str]) -> Strategy:
    """Return the strategy that a command line would make."""
    return make(composed(tuple(overrides)).strategy, "strategy")  # type: ignore[no-any-return]


def as_named(strategy: str, epochs: int) -> TrainingSettings:
    """Return local training with the optimizer of a strategy's yaml and a rate to go with it."""
    chosen = composed((f"strategy={strategy}",)).training
    rate = chosen.learning_rate if chosen.optimizer == "sgd" else 5e-3
    return TrainingSettings(
        local_epochs=epochs, batch_size=16, weight_decay=1e-4, clip_norm=1.0,
        optimizer=chosen.optimizer, learning_rate=rate,
    )  # fmt: skip


def as_double(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
    """Let a float64 model take the sites' float32 windows."""
    return tuple(x.double() for x in inputs)


def federate(
    folder: Path,
    strategy: Strategy | str = "fedavg",
    *,
    overrides: Sequence[str] = (),
    sites: int | Mapping[str, Mapping[str, Any]] = 3,
    rounds: int = 3,
    model: str = "mlp",
    seed: int = 0,
    faults: Mapping[str, str] | None = None,
    mods: Sequence[Mod] = (),
    broken: Sequence[str] = (),
    task: Task | None = None,
    epochs: int = 1,
    source: type[TinySource] = TinySource,
    engine: EngineOf = SerialGrid,
    model_config: Mapping[str, Any] | None = None,
    settings: TrainingSettings | None = None,
    double: bool = False,
    policy: ParameterPolicy = ALL,
    objective: Objective | None = None,
    transforms: Mapping[str, Transform] | None = None,
    server: Callable[[], Server] = Synchronous,
    monitor: MonitorSettings | None = None,
    attack: Attack | None = None,
    **loop_options: Any,
) -> Federated:
    """Run or continue a federation in ``folder``; ``loop_options`` are fields of ``RoundLoop``."""
    if isinstance(sites, int):
        sites = {f"p{n}": {"machines": 3 + n} for n in range(sites)}
    members = source(sites, seed=seed, broken=broken)
    federation = Federation(members, task or Failure(horizon=4.0))
    settings = settings or as_named(strategy if isinstance(strategy, str) else "fedavg", epochs)

    def build() -> ModelWrapper:
        with torch_seeded(seed, "model"):
            made = ModelFactory.create_model(
                model, 3, federation.task.outputs, sequence_length=members.window,
                **(model_config or {}),
            )  # fmt: skip
        if double:
            made.module.register_forward_pre_hook(as_double)
        return made.to(torch.float64) if double else made

    if attack is not None:
        attack.settle(federation, rounds, seed)
    injected = parse_faults(dict(faults or {}), federation.sites, rounds)
    client = make_client_app(
        federation, build, settings, seed=seed, policy=policy, objective=objective,
        train_mods=[*mods, fault_mod(injected, seed)], transforms=Chain(transforms, seed),
        attack=attack,
    )  # fmt: skip
    grid, screen = engine(client, federation.sites), Screen()
    exists = (folder / "history.sqlite").exists()
    history = History.open(folder) if exists else History.create(folder)
    parts, initial = policy.parts(build()), build().get_parameters()
    if isinstance(strategy, str):
        strategy = named([f"strategy={strategy}", *overrides])
    loop = RoundLoop(
        strategy=strategy,
        history=history,
        initial={name: initial[name].numpy() for name in (*parts.shared, *parts.buffers)},
        trainable=parts.shared,
        task=federation.task,
        rounds=rounds,
        seed=seed,
        monitor=monitor or MonitorSettings(),
        display=screen,
        transforms=Chain(transforms, seed),
        server=server(),
        **loop_options,
    )
    result = Federated(history, loop, grid, members, screen)
    loop.run(grid, Context(1, 1, {}, RecordDict(), {}))
    return result


def states(run: Federated) -> dict[str, bytes]:
    """Return what each site remembers, as bytes."""
    return {site: pack_state(state) for site, state in run.grid.states.items()}


def check_resume(run: Callable[[str, int], Federated], notes: Sequence[str] = ()) -> None:
    """Check that a run that is stopped after round 2 and continued is one in one piece.

    Args:
        run: runs or continues so many rounds in the folder of this name.
        notes: kinds of events that may happen.

    Raises:
        AssertionError: says what differs.
    """
    whole = run("whole", 3)
    run("parts", 2).history.close()
    parts = run("parts", 3)
    told = "differs after a stop and a restart in round 2"
    if events := [event for event in whole.screen.events if event["kind"] not in notes]:
        raise AssertionError(f"an event in a run of three rounds: {events[0]}")
    if states(whole) != states(parts):
        raise AssertionError(f"what sites remember {told}")
    try:
        np.testing.assert_equal(parts.history.strategy_state(), whole.history.strategy_state())
    except AssertionError as error:
        raise AssertionError(f"what the server remembers {told}: {error}") from None
    models, others = whole.history.models(), parts.history.models()
    alike = set(models) == set(others) and all(same(models[n], others[n]) for n in models)
    if not alike or not same(whole.weights(), parts.weights()):
        raise AssertionError(
            f"the model {told}: keep memory in plain data, and draw random numbers by round"
        )


def same(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    """Return whether two models are equal to the bit."""
    return set(first) == set(second) and all(
        first[n].dtype == second[n].dtype and first[n].tobytes() == second[n].tobytes()
        for n in first
    )


def distance(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> float:
    """Return the relative distance of two models."""
    gap = sum(float(np.sum((first[n].astype(float) - second[n]) ** 2)) for n in first)
    return float(np.sqrt(gap / sum(float(np.sum(first[n].astype(float) ** 2)) for n in first)))
