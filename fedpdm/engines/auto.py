"""Chooses the engine of a run: the one asked for, or with ``engine=auto`` the one that fits.

The rule of ``auto`` looks at the model, the device, the cores and the amount of work, never at
a clock, so that the same command makes the same choice on the same machine. Serial and ray give
the same bits, batched rounds differently in the last digits; the choice is kept in the manifest
and a resumed run obeys it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import nn

from fedpdm.config.schema import conf_dir, refuse_unknown
from fedpdm.config.values import class_of, make, plain, read_config
from fedpdm.engines.hardware import check_counts, check_workers
from fedpdm.training.loop import TrainingSettings
from fedpdm.training.objective import Objective


@dataclass(frozen=True)
class Workload:
    """What a run asks of an engine.

    Attributes:
        sampled: sites that train in a round.
        rounds: federated rounds.
        steps: optimizer steps of one site in one round.
        module: the model.
        device: where it trains.
        cores: processor cores that this process may use.
        obstacle: tries whether the model can be stacked; says why not.
    """

    sampled: int
    rounds: int
    steps: int
    module: nn.Module
    device: torch.device
    cores: int
    obstacle: Callable[[], str | None] = lambda: None

    @property
    def total(self) -> int:
        """Optimizer steps of the whole run."""
        return self.sampled * self.rounds * self.steps


@dataclass(frozen=True)
class Choice:
    """An engine of ``conf/engine`` by name, settings that differ from its yaml, and why."""

    name: str
    settings: Mapping[str, Any]
    reason: str


class Auto:
    """Chooses an engine.

    Args:
        stack_from: from so many sites in a round on, a model that stacking speeds up is
            trained as one stack.
        ray_from: from so many optimizer steps in a run on, several processes repay their start.
        workers: handed to ray.
        chunk: handed to batched.
    """

    def __init__(
        self,
        stack_from: int = 8,
        ray_from: int = 20_000,
        workers: int | None = None,
        chunk: int | None = None,
    ) -> None:
        check_counts(stack_from=stack_from, ray_from=ray_from)
        check_counts(null=True, workers=workers, chunk=chunk)
        check_workers(workers)
        self.stack_from, self.ray_from = stack_from, ray_from
        self.workers, self.chunk = workers, chunk

    @classmethod
    def check(cls, device: torch.device, **settings: Any) -> None:
        """Refuse settings that cannot work, as engines do."""
        cls(**settings)

    def choose(self, work: Workload) -> Choice:
        """Return the engine for a workload."""
        on_gpu = work.device.type == "cuda"
        gains = on_gpu or getattr(work.module, "cheap_layers", False) is True
        stack = work.sampled >= self.stack_from and gains
        obstacle = work.obstacle() if stack else None
        if stack and obstacle is None:
            what = "a GPU" if on_gpu else "a model of small dense layers"
            reason = f"{work.sampled} sites a round on {what} train faster as one stack"
            return Choice("batched", {"chunk": self.chunk}, reason)
        workers = min(self.workers or work.cores, work.sampled)
        if not on_gpu and workers > 1 and work.total >= self.ray_from:
            reason = f"{work.total:,} training steps repay the start of {workers} processes"
            return Choice("ray", {"workers": self.workers}, reason)
        if obstacle is not None:
            reason = obstacle
        elif on_gpu:
            reason = f"{work.sampled} sites a round are too few to stack (from {self.stack_from})"
        elif workers < 2:
            reason = "there is one core, or one site a round"
        else:
            reason = f"{work.total:,} training steps take less time than starting more processes"
        return Choice("serial", {}, reason)


class Engine(TypedDict):
    """A run's engine as the manifest keeps it.

    ``settings`` is its yaml, ``name`` that of its class, ``reason`` why it was chosen
    (None if a person chose it).
    """

    name: str
    settings: dict[str, Any]
    reason: str | None


def settle_engine(settings: Mapping[str, Any], work: Workload) -> Engine:
    """Return the engine of a run.

    Args:
        settings: the chosen yaml of ``conf/engine``.
        work: what the run asks of it.
    """
    asked = class_of(settings, "engine")
    if (settle := getattr(asked, "settle", None)) and (same := settle(settings, work.device)):
        return engine_of(read("ray") | same)
    if not hasattr(asked, "choose"):  # as ``Auto`` does, in place of a Grid
        return engine_of(settings)
    choice = make(settings, "engine").choose(work)
    return engine_of(read(choice.name) | dict(choice.settings), choice.reason)


def engine_of(settings: Mapping[str, Any], reason: str | None = None) -> Engine:
    """Return an engine's yaml as the manifest keeps it."""
    cls = class_of(settings, "engine")
    name = getattr(cls, "name", cls.__name__)
    return Engine(name=name, settings=dict(settings), reason=reason)


def check_engine(settings: Mapping[str, Any], device: torch.device) -> None:
    """Refuse an engine that cannot work, before anything is read or written.

    Raises:
        ConfigError: names the setting.
    """
    refuse_unknown(settings, "engine")
    given = {key: value for key, value in settings.items() if key != "_target_"}
    check = getattr(class_of(settings, "engine"), "check", None)
    if check is not None:  # a user's own engine need not have it
        check(device, **given)


def check_can_train(
    engine: Mapping[str, Any], module: nn.Module, objective: Objective, settings: TrainingSettings
) -> None:
    """Refuse training that an engine cannot do, before anything is written.

    Args:
        engine: the chosen yaml of ``conf/engine``.
        module: the model.
        objective: what sites minimise.
        settings: of their training.

    Raises:
        ConfigError: says what it cannot do.
    """
    check = getattr(class_of(engine, "engine"), "check_training", None)
    if check is not None:
        given = {key: value for key, value in engine.items() if key != "_target_"}
        check(module, objective, settings, **given)


def read(name: str) -> dict[str, Any]:
    """Return an engine's yaml."""
    content = plain(read_config(conf_dir() / "engine" / f"{name}.yaml"))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
