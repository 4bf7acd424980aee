"""Models by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from fedpdm.errors import ModelError
from fedpdm.models import registry
from fedpdm.models.recommendation import recommend_model_for_usecase
from fedpdm.models.registry import ModelType
from fedpdm.models.wrapper import ModelWrapper

SOURCE_SHAPE = {"input_dim": 10, "num_classes": 2}
"""The shape for which the source system states its parameter counts."""


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
        ``num_classes`` are those of the source, 10 and 2.

        Raises:
            ModelError: no such model.
        """
        return _plain({**defaults(registry.find(model_type)), **SOURCE_SHAPE})

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
    ) -> list[tuple[str, str]]:
        """Return (model, reason) pairs, best first: see ``recommend_model_for_usecase``."""
        return recommend_model_for_usecase(data_characteristics, performance_requirements or {})


def defaults(model_class: type[nn.Module]) -> dict[str, Any]:
    """Return the arguments of a class that have a default, at that default."""
    arguments = inspect.signature(model_class).parameters
    found = {name: p.default for name, p in arguments.items() if p.default is not p.empty}
    return _plain(found)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``config`` with lists for tuples, as JSON and YAML keep them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}
