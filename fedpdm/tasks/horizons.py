"""The task ``horizons``: failures within several horizons, with nested probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedpdm.data.rows import Bools, Floats, Rows, within_horizon
from fedpdm.errors import ConfigError
from fedpdm.tasks import metrics as measure
from fedpdm.tasks.base import NEEDS_TIMES, Metrics, Risk, Task


class Horizons(Task):
    """Will this machine fail within each of several horizons? Nested probabilities.

    Output h is the logit of failing in (horizon[h-1], horizon[h]] given that it has not
    failed before (discrete-time hazard), so p(h) = 1 - prod(1 - hazard) rises with the
    horizon by construction.
    """

    name = "horizons"
    primary = "average_precision"
    higher_is_better = True

    def __init__(self, horizons: Sequence[float] | None) -> None:
        if horizons is None:
            raise ConfigError(NEEDS_TIMES.format(task=self.name))
        values = [float(h) for h in horizons]
        if not values or min(values) <= 0 or values != sorted(set(values)):
            raise ConfigError(
                f"task.horizons={list(horizons)} must be positive and increasing, "
                "for example [30,60,90]"
            )
        self.horizons = tuple(values)
        self.outputs = len(values)
        self.reach = values[-1]

    def targets(self, rows: Rows) -> tuple[NDArray[np.generic], Floats, Bools]:
        if rows.label is not None:
            raise ConfigError(NEEDS_TIMES.format(task=self.name))
        pairs = [within_horizon(rows, h) for h in self.horizons]
        positive = np.stack([p for p, _ in pairs], axis=1)
        known: Bools = np.asarray(np.stack([k for _, k in pairs], axis=1).all(axis=1))
        return positive.astype(np.float32), positive[:, 0].astype(np.float64), known

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return self.row_losses(output, target).mean()

    def row_losses(self, output: Tensor, target: Tensor) -> Tensor:
        losses = functional.binary_cross_entropy_with_logits(output, target, reduction="none")
        return (losses * _survived(target)).sum(dim=1)

    def log_likelihoods(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        fails, survives = functional.logsigmoid(output), functional.logsigmoid(-output)
        true = torch.where(target > 0.5, fails, survives)
        known = _survived(target)
        return true * known, (fails + survives) / 2 * known

    def scores(self, output: Tensor) -> NDArray[np.float64]:
        survival = torch.cumsum(functional.logsigmoid(-output.double()), dim=1)
        return np.asarray(-torch.expm1(survival).cpu().numpy())

    def metrics(self, target: NDArray[np.generic], truth: Floats, scores: Floats) -> Metrics:
        return self._each(measure.classification, target, scores)

    def details(self, target: NDArray[np.generic], truth: Floats, scores: Floats) -> Metrics:
        return self._each(measure.detailed, target, scores)

    @property
    def risks(self) -> tuple[Risk, ...]:
        return tuple(Risk(f"{h:g}", f"_{h:g}", h, i) for i, h in enumerate(self.horizons))

    def _each(
        self,
        measured: Callable[[NDArray[np.generic], Floats], Metrics],
        target: NDArray[np.generic],
        scores: Floats,
    ) -> Metrics:
        """Return the metrics of every horizon, and their means."""
        result: Metrics = {}
        per = [measured(risk.of(target), risk.of(scores)) for risk in self.risks]
        for risk, values in zip(self.risks, per, strict=True):
            result |= {f"{name}{risk.suffix}": value for name, value in values.items()}
        for name in per[0]:
            known = [value for v in per if (value := v[name]) is not None]
            result[name] = float(np.mean(known)) if len(known) == len(per) else None
        return result


def _survived(target: Tensor) -> Tensor:
    """Return (N, H) 1 where a machine has not failed before the horizon's interval, else 0."""
    return torch.cat([torch.ones_like(target[:, :1]), 1 - target[:, :-1]], dim=1)
