"""Saves a strategy's state as a tree of plain values, so that a run can be resumed.

Flower's strategies keep momentum and moments as attributes. Everything that is plain
data is taken: numbers, text, arrays, ArrayRecords, and lists, tuples and dicts of them. So
is the memory of strategies that a strategy holds, and of objects with ``state_dict`` and
``load_state_dict``, such as Flower's privacy accountant. Functions and other objects are
configuration; they come back with the yaml.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy

_RECORD = "__array_record__"
_HELD = "__held__"
"""Marks the memory of an object, which goes back into the object that the yaml made."""


class _Skip(Exception):
    """Raised for a value that is not plain data."""


def capture(strategy: Strategy) -> dict[str, Any]:
    """Return the strategy's data attributes as a tree of scalars, containers and arrays."""
    tree = {}
    for name, value in sorted(vars(strategy).items()):
        try:
            tree[name] = _encode(value)
        except _Skip:
            continue
    return tree


def restore(strategy: Strategy, tree: dict[str, Any]) -> None:
    """Put a captured tree back into a strategy built from the same yaml."""
    for name, value in tree.items():
        setattr(strategy, name, _decode(value, vars(strategy).get(name)))


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str | np.ndarray):
        return value
    if isinstance(value, np.generic):
        return np.asarray(value)
    if isinstance(value, ArrayRecord):
        return {_RECORD: {key: array.numpy() for key, array in value.items()}}
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_encode(item) for item in value)
    if isinstance(value, Strategy):
        return {_HELD: capture(value)}
    if hasattr(value, "load_state_dict"):
        return {_HELD: _encode(value.state_dict())}
    raise _Skip


def _decode(value: Any, held: Any = None) -> Any:
    """Return what ``_encode`` took; ``held`` is what the yaml made in its place."""
    if isinstance(value, dict):
        if set(value) == {_RECORD}:
            return ArrayRecord({key: Array(array) for key, array in value[_RECORD].items()})
        if set(value) == {_HELD}:
            if isinstance(held, Strategy):
                restore(held, value[_HELD])
            else:
                held.load_state_dict(_decode(value[_HELD]))
            return held
        known = held if isinstance(held, dict) else {}
        return {key: _decode(item, known.get(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        kind = type(value)
        old = held if isinstance(held, kind) else ()
        return kind(_decode(item, other) for item, other in zip_longest(value, old[: len(value)]))
    return value
