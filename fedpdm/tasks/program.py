"""Which line of a program a machine executes, read from its sensors.

Shapes: R rows, N windows, L tokens of a line, P parts of a token, V values of all parts.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedpdm.data import programs
from fedpdm.data.programs import COMMAND, LENGTH, NUMBER, PARAMETER, PARTS, SIZES, SPECIAL
from fedpdm.data.rows import Bools, Floats, Rows
from fedpdm.errors import ConfigError
from fedpdm.tasks.base import Metrics, Task

HEADS = {
    "type_accuracy": ((SPECIAL, COMMAND, PARAMETER, NUMBER), (0,)),
    "command_accuracy": ((COMMAND,), (1,)),
    "parameter_accuracy": ((PARAMETER,), (2,)),
    "sign_accuracy": ((NUMBER,), (3,)),
    "digit_accuracy": ((NUMBER,), (4, 5, 6, 7)),
    "number_accuracy": ((NUMBER,), (3, 4, 5, 6, 7)),
}
"""By metric: the types of true tokens that it looks at, and the parts that it compares."""


class Program(Task):
    """The program line in force at a window's last row, written token by token.

    The truth is the column ``program`` of ``Rows.groups``. Targets are (R, L, P) tokens; scores
    are the (N, (L - 1) * P) tokens that a model decodes by itself, without the true ones before.
    """

    name = "program"
    predicts = "writes the line of the program that a machine executes"
    outputs = (LENGTH - 1) * sum(SIZES)
    primary = "exact_match"
    higher_is_better = True
    reach = 0.0
    columns = False
    score_digits = 0
    score_columns = tuple(f"token{n}_{part}" for n in range(1, LENGTH) for part in PARTS)

    def targets(self, rows: Rows) -> tuple[NDArray[np.generic], Floats, Bools]:
        if "program" not in rows.groups:
            raise ConfigError(
                "task=program needs data whose rows name the line of a program: data=milling or "
                "data=npz"
            )
        tokens = programs.encode(rows.groups["program"])
        return tokens, np.zeros(len(rows)), np.ones(len(rows), dtype=bool)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Refuse: a line is learned token by token (``fedpdm.training.teacher_forcing``)."""
        raise ConfigError("task=program is trained by fedpdm.training.teacher_forcing only")

    def scores(self, output: Tensor) -> NDArray[np.float64]:
        """Return (N, (L - 1) * P) tokens: the largest of each part's (N, (L - 1) * V) logits."""
        steps = output.view(len(output), LENGTH - 1, sum(SIZES))
        ends = accumulate(SIZES)
        parts = [steps[..., end - size : end] for size, end in zip(SIZES, ends, strict=True)]
        flat = [part.argmax(dim=-1).cpu().numpy() for part in parts]
        tokens = np.stack(flat, axis=-1).astype(np.float64)
        return tokens.reshape(len(output), (LENGTH - 1) * len(PARTS))

    def metrics(self, target: NDArray[np.generic], truth: Floats, scores: Floats) -> Metrics:
        """Return shares of lines and tokens that are right.

        ``exact_match``: lines that are right in every token. ``token_accuracy``: tokens that are
        right in every part, the end of a line not counted. Then the heads' own: tokens of a type
        whose part is right. A token that should not be there, or is missing, is wrong wherever
        the true line has another at its place.
        """
        count = len(target)
        names = ("exact_match", "token_accuracy", *HEADS, "well_formed")
        if count == 0:
            return {**dict.fromkeys(names), "n": 0.0}
        true = target.reshape(count, LENGTH, len(PARTS))[:, 1:].astype(np.int64)
        found = scores.reshape(true.shape).astype(np.int64)
        right = found == true
        said = true[..., 0] != SPECIAL
        line = np.logical_and.accumulate(np.c_[np.ones((count, 1), dtype=bool), said[:, :-1]], 1)
        result: Metrics = {
            "exact_match": float(right.all(axis=(1, 2)).mean()),
            "token_accuracy": _share(right.all(axis=2)[said]),
        }
        for name, (kinds, parts) in HEADS.items():
            here = line & np.isin(true[..., 0], kinds)
            # A part is told by a token of its type only: what is 0 elsewhere is not right by luck.
            own = right[here][:, [0, *parts]]
            joint = own.all(axis=1) if name != "digit_accuracy" else own[:, 1:] & own[:, :1]
            result[name] = _share(joint)
        start = np.zeros((count, 1, len(PARTS)), dtype=np.int64)
        formed = programs.well_formed(np.concatenate([start, found], axis=1))
        return {**result, "well_formed": float(formed.mean()), "n": float(count)}

    def trivial(self, target: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return the most frequent line of training windows, as scores."""
        lines, counts = np.unique(target.reshape(len(target), -1), axis=0, return_counts=True)
        return np.asarray(lines[counts.argmax()][len(PARTS) :], dtype=np.float64)


def _share(right: NDArray[np.bool_]) -> float | None:
    return float(right.mean()) if right.size else None
