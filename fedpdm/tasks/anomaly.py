"""The task ``anomaly``: how unlike its training data is a window? It learns without labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpdm.errors import ConfigError
from fedpdm.tasks.failure import Failure


class Anomaly(Failure):
    """A masked autoencoder's error on a window, as a score between 0 and 1.

    Failures within ``horizon`` take no part in training, nor in the choice of the round: the
    lowest error on validation windows decides. They measure the result, and the threshold.
    """

    name = "anomaly"
    predicts = "tells how unusual a window is"
    outputs = 1
    learns_labels = False

    def check_model(self, model: nn.Module) -> None:
        if not hasattr(model, "rebuild"):
            raise ConfigError(
                "task=anomaly scores windows by the error of a masked autoencoder: use "
                "model=masked_autoencoder, trained as by task=reconstruction"
            )

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return output[:, 0].mean()

    def row_losses(self, output: Tensor, target: Tensor) -> Tensor:
        return output[:, 0]

    def log_likelihoods(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        raise ConfigError("task=anomaly learns no classes: use objective=task")

    def scores(self, output: Tensor) -> NDArray[np.float64]:
        """Return (N,) 1 - exp(-error): no probability, but it keeps the order."""
        return np.asarray(-np.expm1(-output[:, 0].double().cpu().numpy()))
