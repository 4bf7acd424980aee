"""The registry of architectures: a name, and the class that builds it.

A file dropped into ``fedpdm/models/`` whose class carries ``@register("name")`` is found
by itself; a class from elsewhere is added with ``ModelFactory.register_model``.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import TypeVar

from torch import nn

import fedpdm.models
from fedpdm.errors import ModelError

Architecture = TypeVar("Architecture", bound=nn.Module)

_classes: dict[str, type[nn.Module]] = {}


class _ByName(type):
    def __getattr__(cls, name: str) -> ModelType:
        if name.lower() not in _classes:
            raise AttributeError(f"no model is registered as {name.lower()!r}")
        return ModelType(name.lower())


class ModelType(str, metaclass=_ByName):
    """The name of a registered architecture: ``ModelType.CNN`` or ``ModelType("cnn")``.

    Raises:
        ValueError: nothing is registered under this name.
    """

    def __new__(cls, value: str) -> ModelType:
        if value not in _classes:
            raise ValueError(f"no model is registered as {value!r}")
        return super().__new__(cls, value)

    @property
    def value(self) -> str:
        """The name itself."""
        return str(self)


def register(name: str) -> Callable[[type[Architecture]], type[Architecture]]:
    """Class decorator that makes an architecture known as ``name``.

    The class is called with ``input_dim``, ``num_classes``, ``sequence_length`` (None for
    tabular rows) and its own settings, and maps (B, F) or (B, T, F) to (B, num_classes). It may
    say in ``good_for`` why ``ModelFactory.recommend`` should name it: wish → reason.

    Raises:
        ModelError: another class already has this name.
    """

    def add(cls: type[Architecture]) -> type[Architecture]:
        known = _classes.get(name)
        # A notebook cell or a reload defines the same class again: that is no conflict.
        if known and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ModelError(
                f"model {name!r} is already registered by {known.__module__}."
                f"{known.__qualname__}: choose another name for {cls.__qualname__}"
            )
        _classes[name] = cls
        return cls

    return add


def find(model_type: str) -> type[nn.Module]:
    """Return the class registered as ``model_type``.

    Raises:
        ModelError: nothing has this name; the message lists what exists.
    """
    if str(model_type) not in _classes:
        discover()
    try:
        return _classes[str(model_type)]
    except KeyError:
        raise ModelError(
            f"model={model_type} does not exist: choose one of {', '.join(names())}, "
            "or decorate your own class with @register and name its module with imports=[MODULE]"
        ) from None


def names() -> list[str]:
    """Return the registered names in alphabetical order."""
    discover()
    return sorted(_classes)


@functools.cache
def discover() -> None:
    """Import every file of ``fedpdm.models`` once, so that its ``@register`` lines run."""
    for module in pkgutil.iter_modules(fedpdm.models.__path__, "fedpdm.models."):
        importlib.import_module(module.name)
