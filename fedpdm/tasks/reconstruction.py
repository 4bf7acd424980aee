"""The task ``reconstruction``: rebuild hidden readings. It needs no labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpdm.data.rows import Bools, Floats, Rows
from fedpdm.errors import ConfigError
from fedpdm.tasks.base import Metrics, Task

ERRORS = ("reconstruction_error", "mean_error", "last_error", "interpolation_error")
"""What is measured of every window: ``fedpdm.models.masked_autoencoder``."""


class Reconstruction(Task):
    """Pretraining: the readings themselves are the target, so every row is of use.

    The model gives (N, 4) mean squared errors over hidden readings in scaled units: its own, and
    those of the training mean, of the last reading seen and of a straight line between the
    readings seen before and after. Targets are zero and mean nothing.
    """

    name = "reconstruction"
    predicts = "rebuilds hidden readings"
    outputs = len(ERRORS)
    primary = ERRORS[0]
    higher_is_better = False
    reach = 0.0
    prepares = True
    score_digits = 4
    columns = False
    score_columns = ERRORS

    def check_model(self, model: nn.Module) -> None:
        if not hasattr(model, "rebuild"):
            raise ConfigError(
                "task=reconstruction trains a masked autoencoder: use model=masked_autoencoder, "
                "and name the model whose encoder it pretrains with model.config.encoder=lstm"
            )

    def targets(self, rows: Rows) -> tuple[NDArray[np.generic], Floats, Bools]:
        count = len(rows)
        return np.zeros(count, np.float32), np.zeros(count), np.ones(count, dtype=bool)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return output[:, 0].mean()

    def row_losses(self, output: Tensor, target: Tensor) -> Tensor:
        return output[:, 0]

    def scores(self, output: Tensor) -> NDArray[np.float64]:
        return np.asarray(output.double().cpu().numpy())

    def metrics(self, target: NDArray[np.generic], truth: Floats, scores: Floats) -> Metrics:
        found: Metrics = {
            name: float(scores[:, k].mean()) if len(scores) else None
            for k, name in enumerate(ERRORS)
        }
        return found | {"n": float(len(scores))}
