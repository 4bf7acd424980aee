"""What every baseline gets: the sites' data, the model, the schedules; and windows as features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedpdm.data.normalise import Scaler
from fedpdm.data.rows import Floats, Floats32
from fedpdm.data.windows import Windows
from fedpdm.evaluation.scoring import SPLITS, Predictions
from fedpdm.federation import Federation, Site
from fedpdm.models import ModelWrapper
from fedpdm.tasks import Task
from fedpdm.training.loop import TrainingSettings
from fedpdm.training.objective import Objective

STATISTICS = ("last", "mean", "std", "min", "max", "slope")
"""What is taken of every feature of a window, in the order of the result's blocks."""


@dataclass(frozen=True)
class RocketSettings:
    """How much MiniRocket may take.

    Attributes:
        features: about how many; rounded down to a multiple of 84.
        windows: the most training windows that it sees.
    """

    features: int = 2016
    windows: int = 2000


@dataclass(frozen=True)
class BaselineSchedule:
    """How a network is trained without a federation.

    Attributes:
        settings: its training.
        rounds: how often it looks at its validation data, after ``local_epochs`` each.
    """

    settings: TrainingSettings
    rounds: int


@dataclass(frozen=True)
class BaselineInputs:
    """What baselines need.

    Attributes:
        federation: the sites' data.
        names: sites that are tested.
        build_model: makes the federation's initial model.
        pooled: how the network on pooled rows trains: as sites do in the federation, unless
            ``baselines.training`` and ``baselines.rounds`` say otherwise.
        alone: how a site alone trains: as pooled, unless ``baselines.alone`` says otherwise.
        seed: the run's seed.
        scaler: its shared scaler; None where each site scales by itself.
        pool: sites whose rows are pooled for training.
        device: where to compute.
        baselines: names of those that are wanted (``fedpdm.baselines.registry``).
        rocket: how much MiniRocket may take.
        objective: what networks minimise; None for the task's loss.
    """

    federation: Federation
    names: tuple[str, ...]
    build_model: Callable[[], ModelWrapper]
    pooled: BaselineSchedule
    alone: BaselineSchedule
    seed: int
    scaler: Scaler | None
    pool: tuple[str, ...]
    device: torch.device
    baselines: tuple[str, ...]
    rocket: RocketSettings = RocketSettings()
    objective: Objective | None = None

    @property
    def task(self) -> Task:
        return self.federation.task

    def own_site(self, name: str) -> Site:
        """Return a site scaled by its own training rows."""
        return self.federation.site(name, self.federation.moments(name).scaler())

    def sites(self, names: Sequence[str] | None = None) -> list[Site]:
        """Return the tested sites, or ``names``, as the federation scales them."""
        names = self.names if names is None else names
        if self.scaler is None:
            return [self.own_site(name) for name in names]
        return [self.federation.site(name, self.scaler) for name in names]

    def series(self, windows: Windows) -> Floats32:
        """Return the (N, T, F) readings of windows, without features of whole windows."""
        readings, _ = self.federation.features.apart(
            windows.x, len(self.federation.source.features)
        )
        assert readings is not None
        return readings

    def table(self, windows: Windows) -> Floats:
        """Return (N, K) summaries of windows, and the features of whole windows, if any."""
        parts = self.federation.features.apart(windows.x, len(self.federation.source.features))
        known = [summarise(part) for part in parts if part is not None]
        return np.concatenate(known, axis=1)


def predicted(sites: Sequence[Site], model: Callable[[Windows], Floats]) -> Predictions:
    """Return what a model says of the sites' validation, test and held-out windows."""
    return {site.name: {split: model(site.windows[split]) for split in SPLITS} for site in sites}


def summarise(x: NDArray[np.floating]) -> Floats:
    """Return (N, 6·F) float64 summary features of (N, T, F) windows; (N, F) stays (N, F).

    Blocks of F columns in the order of ``STATISTICS``: last value, mean, population
    standard deviation, minimum, maximum, and least-squares slope per time step
    (0 for a window of one step). NaN in a feature of a window gives NaN there.
    """
    if x.ndim == 2:
        return x.astype(np.float64)
    steps = np.arange(x.shape[1], dtype=np.float64)
    steps -= steps.mean()
    # One row of weights turns every window into its slope; they add to zero, so a
    # constant has slope zero up to rounding.
    weights = steps / (float(steps @ steps) or 1.0)
    mean, std = x.mean(axis=1, dtype=np.float64), x.std(axis=1, dtype=np.float64)
    slope = np.einsum("ntf,t->nf", x, weights, dtype=np.float64)
    blocks = [x[:, -1], mean, std, x.min(axis=1), x.max(axis=1), slope]
    return np.concatenate(blocks, axis=1, dtype=np.float64)
