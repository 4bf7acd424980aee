"""A strategy's memory as a tree of plain values, so that a run can be resumed.

Flower's strategies keep momentum and moments as attributes. Everything that is plain
data is taken: numbers, text, arrays, ArrayRecords, and lists, tuples and dicts of them.
Functions and other objects are configuration; they come back with the yaml.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy

_RECORD = "__array_record__"


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
        setattr(strategy, name, _decode(value))


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str | np.ndarray):
        return value
    if isinstance(value, np.generic):
        return np.asarray(value)
    if isinstance(value, ArrayRecord):
        return {_RECORD: {key: array.numpy() for key, array in value.items()}}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_encode(item) for item in value)
    raise _Skip


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {_RECORD}:
            return ArrayRecord({key: Array(array) for key, array in value[_RECORD].items()})
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_decode(item) for item in value)
    return value
