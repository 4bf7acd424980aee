"""What the server computes with received arrays. Pure: nothing here changes its input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flwr.app import Message

from fedpdm.messages import EXAMPLES, Arrays


@dataclass(frozen=True)
class Update:
    """One plant's accepted reply of a round."""

    site: str
    message: Message
    arrays: Arrays
    buffers: Arrays
    metrics: dict[str, float]
    norm: float

    @property
    def examples(self) -> float:
        return self.metrics[EXAMPLES]


def flaw_in(arrays: Arrays, expected: Arrays) -> str | None:
    """Return what is wrong with received arrays, or None."""
    if set(arrays) != set(expected):
        odd = sorted(set(arrays) ^ set(expected))
        return f"its tensors are not the model's: {', '.join(odd[:3])}"
    for name, array in arrays.items():
        if array.shape != expected[name].shape:
            return f"{name} has shape {array.shape} and not {expected[name].shape}"
        if not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            return f"{count} of {array.size} values of {name} are NaN or infinite"
    return None


def average_buffers(updates: list[Update]) -> Arrays:
    """Return the buffers' mean weighted by examples; integer buffers take the maximum."""
    if not updates:
        return {}
    total = sum(update.examples for update in updates)
    result = {}
    for name, first in updates[0].buffers.items():
        values = [update.buffers[name] for update in updates]
        if np.issubdtype(first.dtype, np.integer):
            result[name] = np.asarray(np.max(np.stack(values), axis=0), dtype=first.dtype)
        else:
            mean = sum(
                value.astype(np.float64) * (update.examples / total)
                for value, update in zip(values, updates, strict=True)
            )
            result[name] = np.asarray(mean, dtype=first.dtype)
    return result
