"""Chooses the engine of a run: the one asked for, or with ``engine=auto`` the one that fits.

The rule of ``auto`` predicts what a run takes on each engine from a small table of measured
times, and looks at the model, the device, the cores and the amount of work, never at a clock, so
that the same command makes the same choice on the same machine. Serial and ray give the same
bits; stacks, in one process or several, give other last digits and other dropout masks. The
choice is kept in the manifest and a resumed run obeys it.
"""

from __future__ import annotations

import math
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


STEPS: tuple[tuple[int, float, float], ...] = (
    (2_978, 0.19, 0.020),
    (55_682, 1.30, 1.15),
    (97_666, 1.80, 0.75),
    (115_106, 1.80, 1.05),
)
"""Parameters of a model (mlp, lstm, cnn, hybrid), milliseconds of a site's step on one core, in
turn and as part of a stack of 32; docs/decisions/062. What counts are ratios to each other and
to the start of processes, which are much the same on every machine."""

START = 6.0
"""Seconds until worker processes are there, on the machine of ``STEPS``."""


class Auto:
    """Chooses an engine.

    Args:
        stack_from: from so many sites in a round on, they are trained as stacks.
        workers: processes, if there are to be several; None is one per core.
        chunk: sites in one stack.
    """

    def __init__(
        self, stack_from: int = 8, workers: int | None = None, chunk: int | None = None
    ) -> None:
        check_counts(stack_from=stack_from)
        check_counts(null=True, workers=workers, chunk=chunk)
        check_workers(workers)
        self.stack_from, self.workers, self.chunk = stack_from, workers, chunk

    @classmethod
    def check(cls, device: torch.device, **settings: Any) -> None:
        """Refuse settings that cannot work, as engines do."""
        cls(**settings)

    def choose(self, work: Workload) -> Choice:
        """Return the engine for a workload."""
        on_gpu = work.device.type == "cuda"
        stack = work.sampled >= self.stack_from
        obstacle = work.obstacle() if stack else None
        stack = stack and obstacle is None
        if on_gpu:
            if stack:
                reason = f"{work.sampled} sites a round on a GPU train faster as one stack"
                return Choice("batched", {"chunk": self.chunk}, reason)
            few = f"{work.sampled} sites a round are too few to stack (from {self.stack_from})"
            return Choice("serial", {}, obstacle or few)
        workers = min(self.workers or work.cores, work.sampled)
        alone, together = seconds(work, stack, 1), seconds(work, stack, workers)
        if workers > 1 and together < alone:
            settings = {"workers": self.workers, "stacked": stack, "chunk": self.chunk}
            what = f"stacks in {workers} processes" if stack else f"{workers} processes"
            reason = f"{work.total:,} training steps repay the start of {what}"
            return Choice("ray", settings, reason)
        if stack:
            reason = f"{work.sampled} sites a round train faster as stacks"
            return Choice("batched", {"chunk": self.chunk}, reason)
        if obstacle is not None:
            reason = obstacle
        elif workers < 2:
            reason = "there is one core, or one site a round"
        else:
            reason = f"{work.total:,} training steps take less time than starting more processes"
        return Choice("serial", {}, reason)


def seconds(work: Workload, stacked: bool, workers: int) -> float:
    """Return what a run's training is predicted to take on CPU cores."""
    size = max(1, sum(parameter.numel() for parameter in work.module.parameters()))
    nearest = min(STEPS, key=lambda row: abs(math.log(row[0] / size)))
    step = nearest[2 if stacked else 1] * max(1.0, size / STEPS[-1][0])
    return work.total * step / workers / 1000 + (START if workers > 1 else 0.0)


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
