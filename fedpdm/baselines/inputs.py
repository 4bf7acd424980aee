"""What every baseline gets: the sites' data, the model, the schedules; and windows as features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedpdm.data.normalise import Scaler
from fedpdm.data.rows import Floats, Floats32
from fedpdm.data.summaries import summarise
from fedpdm.data.windows import Windows
from fedpdm.evaluation.scoring import SPLITS, Predictions
from fedpdm.federation import Federation, Site
from fedpdm.models import ModelWrapper
from fedpdm.tasks import Task
from fedpdm.training.loop import TrainingSettings
from fedpdm.training.objective import Objective


@dataclass(frozen=True)
class RocketSettings:
    """How much MiniRocket may take.

    Attributes:
        features: about how many; rounded down to a multiple of 84.
        windows: the most training windows that it sees; None for all.
    """

    features: int = 2016
    windows: int | None = 30_000


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
        taken_scaler: that of the run whose weights all networks start from; a site alone has it
            with the weights, which make no sense without it.
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
    taken_scaler: Scaler | None = None

    @property
    def task(self) -> Task:
        return self.federation.task

    def own_scaler(self, name: str) -> Scaler:
        """Return the scaler of a site's own training rows, or of the weights it starts from."""
        return self.taken_scaler or self.federation.moments(name).scaler()

    def scaler_of(self, name: str) -> Scaler:
        """Return the scaler of a site in the federation."""
        return self.own_scaler(name) if self.scaler is None else self.scaler

    def own_site(self, name: str) -> Site:
        """Return a site scaled by itself."""
        return self.federation.site(name, self.own_scaler(name))

    def sites(self, names: Sequence[str] | None = None) -> list[Site]:
        """Return the tested sites, or ``names``, as the federation scales them."""
        names = self.names if names is None else names
        return [self.federation.site(name, self.scaler_of(name)) for name in names]

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
