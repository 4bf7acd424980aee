"""Which engine a run gets: the one that was asked for, or the one that a chooser names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypedDict, runtime_checkable

import torch

from fedpdm.config.schema import conf_dir, refuse_unknown
from fedpdm.config.values import class_of, make, plain, read_config
from fedpdm.engines.auto import Choice, Workload


class Engine(TypedDict):
    """A run's engine as the manifest keeps it.

    ``settings`` is its yaml, ``name`` that of its class, ``reason`` why it was chosen
    (None if a person chose it).
    """

    name: str
    settings: dict[str, Any]
    reason: str | None


@runtime_checkable
class Chooser(Protocol):
    """What an engine yaml may name in place of a Grid."""

    def choose(self, work: Workload) -> Choice:
        """Return the engine for a workload."""


def settle_engine(settings: Mapping[str, Any], work: Workload) -> Engine:
    """Return the engine of a run.

    Args:
        settings: the chosen yaml of ``conf/engine``.
        work: what the run asks of it.
    """
    if not issubclass(class_of(settings, "engine"), Chooser):
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
    if check is not None:  # an engine of somebody's own need not have it
        check(device, **given)


def read(name: str) -> dict[str, Any]:
    """Return an engine's yaml."""
    content = plain(read_config(conf_dir() / "engine" / f"{name}.yaml"))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
