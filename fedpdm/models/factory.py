"""The model factory: models by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fedpdm.config.kinds import check_arguments
from fedpdm.errors import ConfigError, ModelError
from fedpdm.models import registry
from fedpdm.models.registry import ModelType
from fedpdm.models.wrapper import ModelWrapper
from fedpdm.seeding import torch_seeded

SOURCE_SHAPE = {"input_dim": 10, "num_classes": 2}
"""The shape for which the source system states its parameter counts."""

ANY = "none of them wins everywhere: compare on your validation data"


class ModelFactory:
    """Builds, lists, extends and recommends models; it holds no state of its own."""

    @staticmethod
    def create_model(
        model_type: str | ModelType, input_dim: int, num_classes: int, **config: Any
    ) -> ModelWrapper:
        """Build a model with fresh weights, drawn from torch's global generator.

        Wrap the call in ``fedpdm.seeding.torch_seeded`` to make the weights a function of a key.

        Args:
            model_type: A registered name.
            input_dim: Features F of the input.
            num_classes: Size C of the output.
            **config: ``sequence_length``: None for tabular rows (B, F), T for windows
                (B, T, F); left out, the architecture's own default. Every other key is a
                setting of the architecture, as ``get_default_config`` lists them.

        Raises:
            ModelError: no such model or setting, or the model cannot take this input.
        """
        cls = registry.find(model_type)
        settings = {"input_dim": input_dim, "num_classes": num_classes, **config}
        for key in ("input_dim", "num_classes", "sequence_length"):
            value = settings.get(key)
            if value is not None and value < 1:
                raise ModelError(f"model={model_type}: {key}={value} must be 1 or more")
        accepted = inspect.signature(cls).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
        if not anything:
            # A class that has no such argument takes rows: that is what None says.
            if settings.get("sequence_length", 0) is None and "sequence_length" not in accepted:
                del settings["sequence_length"]
            unknown = [key for key in settings if key not in accepted]
            if unknown:
                known = [key for key in accepted if key not in SOURCE_SHAPE]
                raise ModelError(
                    f"model={model_type} has no setting {', '.join(unknown)}: "
                    f"it has {', '.join(known) or 'none'}"
                )
        try:
            check_arguments(cls, settings, "model.config")
        except ConfigError as error:
            raise ModelError(str(error)) from None
        try:
            module = cls(**settings)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"model={model_type} cannot be built with {settings}: {error}"
            ) from error
        return ModelWrapper(module, str(model_type), {**defaults(cls), **_plain(settings)})

    @staticmethod
    def get_default_config(model_type: str | ModelType) -> dict[str, Any]:
        """Return every argument of a model at its default: ``create_model`` takes it with ``**``.

        Read off the class itself, so it cannot disagree with it. ``input_dim`` and
        ``num_classes`` are those of the source, 10 and 2, or what the class says in ``shape``.

        Raises:
            ModelError: no such model.
        """
        cls = registry.find(model_type)
        return _plain({**defaults(cls), **SOURCE_SHAPE, **getattr(cls, "shape", {})})

    @staticmethod
    def register_model(model_type: str | ModelType, model_class: type[nn.Module]) -> None:
        """Make ``model_class`` known as ``model_type``, any string.

        Raises:
            ModelError: it is no ``nn.Module`` class, or another class has this name.
        """
        if not (isinstance(model_class, type) and issubclass(model_class, nn.Module)):
            raise ModelError(f"model {model_type}: {model_class!r} is not a torch.nn.Module class")
        registry.discover()
        registry.register(str(model_type))(model_class)

    @staticmethod
    def list_available_models() -> list[ModelType]:
        """Return every registered model in alphabetical order."""
        return [ModelType(name) for name in registry.names()]

    @staticmethod
    def recommend(
        data_characteristics: Mapping[str, Any],
        performance_requirements: Mapping[str, Any] | None = None,
        measured: Mapping[str, str] | None = None,
    ) -> list[tuple[str, str]]:
        """Return (model, reason) pairs in order of preference, each model once.

        What was measured comes first.

        A model is named for the wishes that its class lists in ``good_for``, where it takes
        this data. If no such model is left, or ``max_accuracy`` is wished for, every model that
        takes the data is named: no accuracy is claimed for any.

        Args:
            data_characteristics: ``feature_count``, ``sequence_length`` (None: tabular), and
                wishes as truth values: ``temporal_dominant``, ``spatial_dominant``,
                ``complex_patterns``. Without ``sequence_length`` the data is taken to be windows
                if patterns in time are wished for, else tabular.
            performance_requirements: further wishes: ``fastest_training``, ``smallest_update``,
                ``comprehensive_analysis``, ``max_accuracy``. They come before those.
            measured: models and what runs of your own found, the best first, as
                ``fedpdm.comparison.recommend.measured_models`` returns them.
        """
        data = dict(data_characteristics)
        features = data.pop("feature_count", SOURCE_SHAPE["input_dim"])
        in_time = data.get("temporal_dominant") or data.get("complex_patterns")
        length = data.pop("sequence_length", 10 if in_time else None)
        able = [
            name
            for name in registry.names()
            # None: what it is for is no prediction.
            if getattr(registry.find(name), "good_for", {}) is not None
            and _takes(name, features, length)
        ]
        wishes = [w for w, wished in {**(performance_requirements or {}), **data}.items() if wished]
        found = {name: reason for name, reason in (measured or {}).items() if name in able}
        for wish in wishes:
            for name in able:
                if reason := getattr(registry.find(name), "good_for", {}).get(wish):
                    found.setdefault(name, reason)
        if not found or "max_accuracy" in wishes:
            found |= {name: ANY for name in able if name not in found}
        return list(found.items())


def _takes(name: str, features: int, length: int | None) -> bool:
    """Return whether a model can be built for rows (B, F) or windows (B, T, F), and takes them."""
    shape = (1, features) if length is None else (1, length, features)
    try:
        with torch_seeded(0, "recommend"):
            model = ModelFactory.create_model(name, features, 2, sequence_length=length)
        model.eval()(torch.zeros(shape))
    except Exception:  # whatever a model raises: it does not take this data
        return False
    return True


def defaults(model_class: type[nn.Module]) -> dict[str, Any]:
    """Return the arguments of a class that have a default, at that default."""
    arguments = inspect.signature(model_class).parameters
    found = {name: p.default for name, p in arguments.items() if p.default is not p.empty}
    return _plain(found)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``config`` with lists for tuples, as JSON and YAML keep them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}
