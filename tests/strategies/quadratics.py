"""Sites whose loss is a quadratic with a known optimum, through the real two halves.

Site k's loss is ½·Σ_i a_ki·(w_i − b_ki)². The model is w itself, and every one of a site's
rows says (a_k, b_k), so that rows and batches set how many equal steps the site makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context, RecordDict
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn

from fedpdm.client.app import make_client_app
from fedpdm.data.rows import Split
from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.serial import SerialGrid
from fedpdm.federation import Site
from fedpdm.history import History
from fedpdm.models import ModelWrapper
from fedpdm.server.loop import RoundLoop
from fedpdm.server.monitor import MonitorSettings
from fedpdm.testing.federated import Screen, named
from fedpdm.training.loop import TrainingSettings
from fedpdm.training.objective import Objective
from fedpdm.transforms.base import Chain, Transform


@dataclass(frozen=True)
class Bowl:
    """A site: curvatures, where its own optimum is, and its number of rows."""

    a: tuple[float, ...]
    b: tuple[float, ...]
    rows: int = 4


class Point(nn.Module):
    """The model: a point of the plane, whatever the input."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.w.expand(len(x), 2)


class Quadratic:
    """What the loop and the sites ask of a task."""

    name, outputs, primary, higher_is_better = "quadratic", 2, "loss", False
    learns_labels = True

    def row_losses(self, output: Tensor, target: Tensor) -> Tensor:
        return (0.5 * target[:, :2] * (output - target[:, 2:]) ** 2).sum(1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return self.row_losses(output, target).mean()

    def better(self, new: float | None, old: float | None) -> bool:
        return new is not None and (old is None or new < old)


@dataclass(frozen=True)
class Rows:
    x: Any
    y: Any

    def __len__(self) -> int:
        return len(self.x)


class Bowls:
    """What sites ask of a federation."""

    def __init__(self, sites: Mapping[str, Bowl]) -> None:
        self.sites, self.task = tuple(sites), Quadratic()
        self._sites = {
            name: Site(name, {Split.TRAIN: Rows(  # type: ignore[dict-item]
                np.zeros((bowl.rows, 1)), np.tile([*bowl.a, *bowl.b], (bowl.rows, 1)))})
            for name, bowl in sites.items()
        }  # fmt: skip

    def site(self, name: str, scaler: object) -> Site:
        return self._sites[name]

    def moments(self, name: str) -> Any:
        return self

    def scaler(self) -> None:
        """Nothing has to be scaled."""


def optimum(sites: Mapping[str, Bowl], by_rows: bool = False) -> Any:
    """Return where the mean of the sites' losses is smallest."""
    weights = np.array([bowl.rows if by_rows else 1.0 for bowl in sites.values()])[:, None]
    a, b = (np.array([getattr(bowl, name) for bowl in sites.values()]) for name in "ab")
    return (weights * a * b).sum(0) / (weights * a).sum(0)


def settle(
    folder: Path,
    strategy: Strategy | str,
    sites: Mapping[str, Bowl],
    *,
    rounds: int,
    rate: float,
    epochs: int = 1,
    overrides: Sequence[str] = (),
    clip_norm: float | None = None,
    engine: Callable[..., LocalGrid] = SerialGrid,
    transforms: Callable[[], Mapping[str, Transform]] = dict,
    objective: Objective | None = None,
    kept: dict[str, RecordDict] | None = None,
) -> Any:
    """Return the point that a run comes to, from the origin; ``kept`` gets the sites' states."""
    bowls = Bowls(sites)
    settings = TrainingSettings(
        epochs, 2, rate, optimizer="sgd", gamma=1.0, clip_norm=clip_norm
    )  # fmt: skip
    app = make_client_app(
        bowls, lambda: ModelWrapper(Point()), settings, seed=0,  # type: ignore[arg-type]
        objective=objective, transforms=Chain(transforms()),
    )  # fmt: skip
    grid = engine(app, bowls.sites)
    folder.mkdir(parents=True, exist_ok=True)
    with History.create(folder, keep=1) as history:
        RoundLoop(
            strategy=named([f"strategy={strategy}", *overrides])
            if isinstance(strategy, str)
            else strategy,
            history=history, initial={"w": np.zeros(2)}, trainable=("w",),
            task=bowls.task,  # type: ignore[arg-type]
            rounds=rounds, seed=0, monitor=MonitorSettings(), display=Screen(),
            evaluate_fraction=0, federated_scaling=False, transforms=Chain(transforms()),
        ).run(grid, Context(1, 1, {}, RecordDict(), {}))  # fmt: skip
        if kept is not None:
            kept.update(grid.states)
        return history.weights()["w"]
