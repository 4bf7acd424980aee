"""The model of a run: its settings from the config, and the weights of round 0."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from fedpdm.config.values import Config, plain
from fedpdm.federation import Federation
from fedpdm.models import ModelFactory, ModelWrapper, registry
from fedpdm.runs.initial import Start
from fedpdm.seeding import torch_seeded


def model_entries(cfg: Config, federation: Federation) -> dict[str, Any]:
    """Return what ``create_model`` needs, as ``model.json`` keeps it."""
    return {
        "model_type": str(cfg.model.model_type),
        "config": model_config(cfg, federation),
        "input_dim": len(federation.inputs),
        "num_classes": federation.task.outputs,
        "sequence_length": federation.input_length,
    }


def model_config(cfg: Config, federation: Federation) -> dict[str, Any]:
    """Return a model's settings; one that asks is told how many inputs are readings, or codes.

    Args:
        cfg: a composed config.
        federation: knows the inputs.
    """
    config: dict[str, Any] = plain(cfg.model.config) or {}
    levels = [federation.source.levels.get(name, 0) for name in federation.inputs]
    if any(levels) and "levels" in signature(registry.find(str(cfg.model.model_type))).parameters:
        config["levels"] = config.get("levels") or levels
    if config.get("sensors", 0) is None:
        config["sensors"] = len(federation.source.features)
    return config


def started_model(model: Mapping[str, Any], seed: int, start: Start | None = None) -> ModelWrapper:
    """Make the model of round 0: fresh, but for what ``start`` takes over from another run."""
    with torch_seeded(seed, "model"):
        made = create_model(model)
    if start is not None:
        made.set_parameters({**made.get_parameters(), **start.weights})
    return made


def create_model(model: Mapping[str, Any]) -> ModelWrapper:
    """Make a model from the entries of ``model.json``."""
    return ModelFactory.create_model(
        model["model_type"],
        model["input_dim"],
        model["num_classes"],
        sequence_length=model["sequence_length"],
        **model["config"],
    )
