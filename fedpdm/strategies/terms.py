"""The registry of what strategies add to a plant's local gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedpdm.training import GradientTerm

_TERMS: dict[str, Callable[[float], GradientTerm | None]] = {}


def local_term(
    key: str,
) -> Callable[[Callable[[float], GradientTerm | None]], Callable[[float], GradientTerm | None]]:
    """Register the client half of a strategy under the train config's ``key``.

    The decorated function gets the value that the server sent and returns what to add to
    the gradient, or None if that value asks for nothing.
    """

    def register(
        make: Callable[[float], GradientTerm | None],
    ) -> Callable[[float], GradientTerm | None]:
        _TERMS[key] = make
        return make

    return register


def gradient_terms(config: Mapping[str, Any]) -> list[GradientTerm]:
    """Return the terms that a train config asks for, in the order of their keys."""
    made = [_TERMS[key](config[key]) for key in sorted(_TERMS) if key in config]
    return [term for term in made if term is not None]
