"""What boosted trees minimise: losses by their first and second derivatives.

Shapes: N rows, C outputs, J of them with trees, H horizons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.rows import Bools, Floats
from fedpdm.errors import ConfigError
from fedpdm.tasks import Failure, Horizons, Task


@dataclass(frozen=True)
class Loss:
    """A loss whose trees grow from first and second derivatives.

    Attributes:
        outputs: (J,) the outputs of the model that get trees; the others stay 0.
        mean: (N, J) answers to means, of which the gradient is mean less target; None: the
            answers are means themselves, and second derivatives are 1.
        target: a task's (N, …) targets to (N, J) targets, and which of them count.
        origin: (J,) mean targets to the answers that have them as means.
    """

    outputs: tuple[int, ...]
    mean: Callable[[Floats], Floats] | None
    target: Callable[[NDArray[Any]], tuple[Floats, Bools]]
    origin: Callable[[Floats], Floats]


def loss_of(task: Task) -> Loss:
    """Return the loss of a task: squared errors, or the logarithmic loss of classes.

    Raises:
        ConfigError: there is none for it.
    """
    if task.lives:
        return Loss((0,), None, lambda y: _counted(y[:, None]), lambda mean: mean)
    every = tuple(range(task.outputs))
    if isinstance(task, Horizons):
        return Loss(every, _sigmoid, _hazards, _logit)
    if isinstance(task, Failure):  # the output of the healthy class stays 0
        return Loss((1,), _sigmoid, lambda y: _counted(y[:, None]), _logit)
    if task.per_class and task.columns and task.learns_labels:
        return Loss(
            every, _softmax, lambda y: _counted(y[:, None] == np.arange(task.classes)), _log
        )
    raise ConfigError(
        f"model=gbdt has no loss for task={task.name}: use task=failure, horizons, rul or one of "
        "classes (asset_type, device_failure), or another model"
    )


def _counted(targets: NDArray[Any]) -> tuple[Floats, Bools]:
    return targets.astype(np.float64), np.ones(targets.shape, dtype=bool)


def _hazards(y: NDArray[Any]) -> tuple[Floats, Bools]:
    """A row counts for a horizon as long as it has not failed within the one before."""
    targets, counted = _counted(y)
    counted[:, 1:] = targets[:, :-1] == 0
    return targets, counted


def _sigmoid(answers: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-answers)))


def _softmax(answers: Floats) -> Floats:
    powers = np.exp(answers - answers.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _log(mean: Floats) -> Floats:
    return np.asarray(np.log(np.clip(mean, 1e-6, 1.0)))


def _logit(mean: Floats) -> Floats:
    share = np.clip(mean, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(share / (1 - share)))
