"""Refuses a round whose weights or state are not finite, whatever strategy computed it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedpdm.errors import ConfigError
from fedpdm.strategies.wrappers import unwrap


def refuse_non_finite(number: int, strategy: Strategy, state: Any, models: Any) -> None:
    """Refuse a round whose model or strategy state is not finite.

    The updates that it was made of were finite, so it is the strategy's options that cannot work.

    Args:
        number: of the round.
        strategy: the run's, named with its options.
        state: what it remembers, a tree of plain values and arrays.
        models: the new parameters, buffers and further models, a tree as well.

    Raises:
        ConfigError: names the tensor, the strategy and its options.
    """
    for what, tree in (("model", models), ("strategy's state", state)):
        for path, value in _floats(tree):
            if count := int((~np.isfinite(value)).sum()):
                raise ConfigError(
                    f"round {number}: {with_options(strategy)} made finite updates into a "
                    f"{what} with {count} NaN or infinite values in {path}; round {number - 1} is "
                    "the last good one. Start again with other options of the strategy"
                )


def _floats(tree: Any, path: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    if isinstance(tree, dict | list | tuple):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for name, value in pairs:
            yield from _floats(value, f"{path}/{name}" if path else str(name))
    elif isinstance(tree, np.ndarray) and tree.dtype.kind in "fc":
        yield path, tree


def with_options(strategy: Strategy) -> str:
    """Return the names of a strategy and of those that it holds, with their options."""
    return " around ".join(_named(layer) for layer in unwrap(strategy))


def _named(strategy: Strategy) -> str:
    numbers = ", ".join(
        f"{name}={value:g}"
        for name, value in sorted(vars(strategy).items())
        if isinstance(value, float) and not name.startswith(("_", "fraction_"))
    )
    return f"{type(strategy).__name__}({numbers})"
