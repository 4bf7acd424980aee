"""Run a small federation: the real loop, engine and history on tiny data."""

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
    """Collects what the loop shows."""

    rounds: list[tuple[int, float | None, float | None]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def round(
        self, round_num: int, loss: float | None, metric: float | None, events: Iterable[Any]
    ) -> None:
        self.rounds.append((round_num, loss, metric))
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


def named(overrides: Sequence[str]) -> Strategy:
    """Return the strategy that a command line would make."""
    return make(yaml_of(tuple(overrides)), "strategy")  # type: ignore[no-any-return]


@functools.cache
def training_of(strategy: str) -> dict[str, Any]:
    """Return the optimizer that a strategy's yaml asks for, and a rate to go with it."""
    chosen = compose([f"strategy={strategy}"]).training
    rate = chosen.learning_rate if chosen.optimizer == "sgd" else 5e-3
    return {"optimizer": chosen.optimizer, "learning_rate": rate}


@functools.cache
def yaml_of(overrides: tuple[str, ...]) -> Any:
    """Return the strategy's yaml; composing takes longer than a tiny round."""
    return compose(overrides).strategy


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
    monitor: MonitorSettings | None = None,
    mods: Sequence[Mod] = (),
    broken: Sequence[str] = (),
    evaluate_fraction: float = 1.0,
    federated_scaling: bool = True,
    task: Task | None = None,
    epochs: int = 1,
    round_timeout: float | None = None,
    source: type[TinySource] = TinySource,
    engine: EngineOf = SerialGrid,
    model_config: Mapping[str, Any] | None = None,
    settings: TrainingSettings | None = None,
    double: bool = False,
    policy: ParameterPolicy = ALL,
    objective: Objective | None = None,
    transforms: Mapping[str, Transform] | None = None,
    server: Callable[[], Server] = Synchronous,
) -> Federated:
    """Run or continue a federation in ``folder``."""
    names = (
        sites
        if isinstance(sites, Mapping)
        else {f"p{n}": {"machines": 3 + n} for n in range(sites)}
    )
    members = source(names, seed=seed, broken=broken)
    federation = Federation(members, task or Failure(horizon=4.0))
    settings = settings or TrainingSettings(
        local_epochs=epochs, batch_size=16, weight_decay=1e-4, clip_norm=1.0,
        **training_of(strategy if isinstance(strategy, str) else "fedavg"),
    )  # fmt: skip

    def build() -> ModelWrapper:
        with torch_seeded(seed, "model"):
            made = ModelFactory.create_model(
                model, 3, federation.task.outputs, sequence_length=members.window,
                **(model_config or {}),
            )  # fmt: skip
        if double:
            made.module.register_forward_pre_hook(as_double)
        return made.to(torch.float64) if double else made

    injected = parse_faults(dict(faults or {}), federation.sites, rounds)
    client = make_client_app(
        federation, build, settings, seed=seed, policy=policy, objective=objective,
        train_mods=[*mods, fault_mod(injected, seed)], transforms=Chain(transforms, seed),
    )  # fmt: skip
    grid, screen = engine(client, federation.sites), Screen()
    folder.mkdir(parents=True, exist_ok=True)
    exists = (folder / "history.sqlite").exists()
    history = History.open(folder) if exists else History.create(folder)
    parts, initial = policy.parts(build()), build().get_parameters()
    loop = RoundLoop(
        strategy=named([f"strategy={strategy}", *overrides])
        if isinstance(strategy, str)
        else strategy,
        history=history,
        initial={n: initial[n].numpy() for n in (*parts.shared, *parts.buffers)},
        trainable=parts.shared,
        task=federation.task,
        rounds=rounds,
        seed=seed,
        monitor=monitor or MonitorSettings(),
        display=screen,
        evaluate_fraction=evaluate_fraction,
        federated_scaling=federated_scaling,
        round_timeout=round_timeout,
        transforms=Chain(transforms, seed),
        server=server(),
    )
    result = Federated(history, loop, grid, members, screen)
    loop.run(grid, Context(1, 1, {}, RecordDict(), {}))
    return result


def states(run: Federated) -> dict[str, bytes]:
    """Return what each site remembers, as bytes."""
    return {site: pack_state(state) for site, state in run.grid.states.items()}


def check_resume(run: Callable[[str, int], Federated]) -> None:
    """Check that a run that is stopped after round 2 and continued is one in one piece.

    Args:
        run: runs or continues so many rounds in the folder of this name.

    Raises:
        AssertionError: says what differs.
    """
    whole = run("whole", 3)
    run("parts", 2).history.close()
    parts = run("parts", 3)
    told = "differs after a stop and a restart in round 2"
    if whole.screen.events:
        raise AssertionError(f"an event in a run of three rounds: {whole.screen.events[0]}")
    if states(whole) != states(parts):
        raise AssertionError(f"what sites remember {told}")
    try:
        np.testing.assert_equal(parts.history.strategy_state(), whole.history.strategy_state())
    except AssertionError as error:
        raise AssertionError(f"what the server remembers {told}: {error}") from None
    if not same(whole.weights(), parts.weights()):
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
