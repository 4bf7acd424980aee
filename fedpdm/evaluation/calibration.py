"""Calibration of risks: temperature or isotonic, fitted on validation machines.

Ranking is untouched, so average precision and ROC-AUC stay; horizons keep their order.
N windows, H horizons.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.rows import Floats

METHODS = ("none", "temperature", "isotonic")
TINY = 1e-12
_RANGE = (0.05, 20.0)
BLEND = 1e-5
"""How much of the raw log-odds stays in a risk, so that no two scores become one. With it, scores
that differ as 32-bit numbers differ afterwards, and the Brier score moves by less than 2e-5."""
ODDS = (-104.0, 37.5)
"""Log-odds of the least 32-bit number above 0, and of the greatest 64-bit one below 1."""


class Calibration(ABC):
    """A map of risks to risks that keeps their order, without new ties."""

    def __call__(self, scores: Floats) -> Floats:
        """Return (N,) or (N, H) calibrated probabilities."""
        low, high = ODDS
        with np.errstate(divide="ignore"):
            odds = np.clip(np.log(scores) - np.log1p(-scores), low, high)
        kept = (odds - low) / (high - low)
        return np.asarray((1 - BLEND) * self.risks(scores) + BLEND * kept)

    @abstractmethod
    def risks(self, scores: Floats) -> Floats:
        """Return (N,) or (N, H) probabilities that do not fall where scores rise."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """Return what ``calibration_of`` makes it from again: plain values."""


@dataclass(frozen=True)
class Temperature(Calibration):
    """Log-odds are divided by ``temperature`` (Guo et al. 2017, arXiv 1706.04599)."""

    temperature: float

    def risks(self, scores: Floats) -> Floats:
        return np.asarray(1.0 / (1.0 + np.exp(-_log_odds(scores) / self.temperature)))

    def described(self) -> dict[str, Any]:
        return {"method": "temperature", "temperature": self.temperature}


@dataclass(frozen=True)
class Isotonic(Calibration):
    """A rising step-wise linear function per horizon, by its corners.

    Attributes:
        corners: per horizon (said, calibrated), each of (K,), rising.
    """

    corners: tuple[tuple[Floats, Floats], ...]

    def risks(self, scores: Floats) -> Floats:
        if len(scores) == 0:
            return scores
        columns = scores.reshape(len(scores), -1).T
        # A failure within 30 is one within 60: each horizon is fitted for itself, and a score
        # means at least as much for a longer one. The order within a horizon is kept this way.
        found = [
            np.max([np.interp(s, *corners) for corners in self.corners[: h + 1]], axis=0)
            for h, s in enumerate(columns)
        ]
        return np.stack(found, axis=1).reshape(scores.shape)

    def described(self) -> dict[str, Any]:
        return {
            "method": "isotonic",
            "corners": [{"said": x.tolist(), "calibrated": y.tolist()} for x, y in self.corners],
        }


def calibration_of(described: Mapping[str, Any] | None) -> Calibration | None:
    """Return the calibration that ``described`` says; None of None.

    Raises:
        KeyError: something is missing, or the method is unknown.
    """
    if described is None:
        return None
    if described["method"] == "temperature":
        return Temperature(float(described["temperature"]))
    if described["method"] != "isotonic":
        raise KeyError(described["method"])
    corners = [(c["said"], c["calibrated"]) for c in described["corners"]]
    return Isotonic(tuple((np.asarray(x, float), np.asarray(y, float)) for x, y in corners))


def fit(
    method: str, target: NDArray[np.generic], scores: Floats, weights: Floats | None = None
) -> Calibration | None:
    """Return a calibration fitted on validation windows; None where there is nothing to learn.

    Args:
        method: ``none``, ``temperature`` or ``isotonic``.
        target: (N,) or (N, H) of 0/1.
        scores: of the same shape.
        weights: (N,) how much each window counts, or None where all count alike.
    """
    weight = np.ones(len(target)) if weights is None else weights
    if method == "none" or not (weight > 0).any():
        return None
    truth = target.reshape(len(target), -1).astype(np.float64)
    if (np.ptp(truth[weight > 0], axis=0) == 0).any():
        return None
    said = scores.reshape(len(scores), -1)
    if method == "temperature":
        return Temperature(best_temperature(truth, said, weight))
    from sklearn.isotonic import IsotonicRegression

    corners = []
    for column in range(truth.shape[1]):
        model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        model.fit(said[:, column], truth[:, column], sample_weight=weight)
        corners.append((np.asarray(model.X_thresholds_), np.asarray(model.y_thresholds_)))
    return Isotonic(tuple(corners))


def best_temperature(truth: Floats, scores: Floats, weights: Floats) -> float:
    """Return the temperature of the least weighted negative log-likelihood.

    Args:
        truth: (N, H) of 0/1.
        scores: (N, H).
        weights: (N,).
    """
    from scipy.optimize import minimize_scalar

    odds = _log_odds(scores)

    def loss(log_temperature: float) -> float:
        scaled = odds / np.exp(log_temperature)
        # log(1 + e^z) - y z, without overflow
        return float(np.sum(weights[:, None] * (np.logaddexp(0.0, scaled) - truth * scaled)))

    low, high = np.log(_RANGE)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def _log_odds(scores: Floats) -> Floats:
    kept = np.clip(scores, TINY, 1.0 - TINY)
    return np.asarray(np.log(kept) - np.log1p(-kept))
