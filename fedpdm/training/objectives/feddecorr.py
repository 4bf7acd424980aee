"""FedDecorr: a site's features stay uncorrelated, so that skewed labels do not collapse them.

Shi et al. 2023, Towards Understanding and Mitigating Dimensional Collapse in Heterogeneous
Federated Learning (ICLR), eq. 8. With K the (D, D) correlation matrix of a batch's features,

    loss = base + β·‖K‖²_F / D²

Features are what the last layer (``output``) gets. The diagonal of K is 1 whatever the features
are; it is left out, so the term is 0 for uncorrelated features, and gradients are the paper's.
Deviations get 10⁻⁸ added to their squares: features that do not vary give nothing. β = 0 is the
base, bit for bit, and so is a batch of one window.

Use it where labels differ between sites. It costs a product of a batch's features with themselves,
and neither memory nor bytes. Networks alone and pooled train with the term, too: it needs no
server.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedpdm.training.objective import LocalContext, Objective
from fedpdm.training.objectives.wrapping import (
    Wrapping,
    check_share,
    head_of,
    outputs_and_features,
)

__all__ = ["FedDecorr"]

SMALL = 1e-8


class FedDecorr(Wrapping):
    """A supervised loss and the term against correlated features.

    Args:
        beta: β, weight of the term; 0: none.
        base: the supervised loss; None: the task's own.

    Raises:
        ConfigError: a value out of its range; (check_model) a model without features.
    """

    def __init__(self, beta: float = 0.1, base: Objective | None = None) -> None:
        check_share("beta", beta)
        super().__init__(base)
        self.beta = float(beta)

    def check_model(self, model: nn.Module) -> None:
        head_of(model)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        if self.beta == 0 or len(x) < 2:
            return self.base.loss(model, x, y, context)
        output, z = outputs_and_features(model, x)
        return self.base.loss_function(output, y) + self.beta * correlation(z)


def correlation(z: Tensor) -> Tensor:
    """Return the squared correlations between (B, D) features, added up and divided by D²."""
    centred = z - z.mean(dim=0)
    scaled = centred / (centred.var(dim=0) + SMALL).sqrt()
    matrix = scaled.T @ scaled / (len(z) - 1)
    return (matrix - torch.diag(matrix.diagonal())).square().mean()
