"""Augmentation of training batches: mixup, cutmix, jitter, scaling and time warp.

An augmented objective changes what ``loss`` sees and nothing else: validation and test
go through ``mean_loss`` and ``predictor``, which get the data as it is. Shapes: B windows of
a batch, T time steps, F features.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from fedpdm.errors import ConfigError
from fedpdm.training.objective import LocalContext, Objective, Supervised

JITTERED, SCALED, WARPED = 0.5, 0.3, 0.5
"""Shares of the windows that are changed; those of jitter and scaling are the source's."""
KNOTS = 4
"""Points between which the speed of a warped window changes evenly."""


@dataclass(frozen=True)
class Augmentations:
    """What is done to a training batch; None: nothing. The source's values stand behind each.

    Attributes:
        mixup: alpha of Beta(alpha, alpha), from which the share of the other window is drawn
            (Zhang et al. 2018, eq. 1): 0.4.
        cutmix: the same for a run of time steps that is taken from the other window (Yun et
            al. 2019, in one dimension): 0.5. Of the two, each batch gets one.
        jitter: deviation of noise on every reading, in deviations of the sensor: 0.05.
        scaling: deviation of a factor of each sensor in a window, around 1: 0.1.
        time_warp: deviation of the logarithm of the speed at which time passes: 0.12.

    Raises:
        ConfigError: a value is not above 0, or above 10.
    """

    mixup: float | None = None
    cutmix: float | None = None
    jitter: float | None = None
    scaling: float | None = None
    time_warp: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not 0 < value <= 10:
                raise ConfigError(
                    f"training.augment.{name}={value} must be above 0 and at most 10, or null"
                )

    @staticmethod
    def of(given: Mapping[str, float | None] | None) -> Augmentations | None:
        """Return what a config asks for, or None where it asks for nothing."""
        known = {field.name for field in fields(Augmentations)}
        wanted = {k: v for k, v in (given or {}).items() if v is not None and k in known}
        return Augmentations(**wanted) if wanted else None

    def check(self, length: int | None, codes: Collection[str], statistics: bool) -> None:
        """Refuse what would make inputs of another meaning.

        Args:
            length: time steps of a model's input; None for rows.
            codes: features that are numbers of categories.
            statistics: whether statistics of the whole window stand at every step.

        Raises:
            ConfigError: names the augmentation.
        """
        if codes:
            raise ConfigError(
                f"training.augment would turn {next(iter(codes))} into another category: leave it "
                "out for this data"
            )
        for name in ("cutmix", "time_warp"):
            if statistics and getattr(self, name) is not None:
                raise ConfigError(
                    f"training.augment.{name} changes some time steps, and features=both tells of "
                    "the window as a whole: leave it null, or use features=raw"
                )
            if length is None and getattr(self, name) is not None:
                raise ConfigError(
                    f"training.augment.{name} changes time steps, and these inputs are rows: leave "
                    "it null, or use mixup, jitter or scaling"
                )

    def changed(self, x: Tensor, random: np.random.Generator) -> Tensor:
        """Return (B, …) inputs with warped time, scaled sensors and noise."""
        count = len(x)
        if self.time_warp is not None:
            x = warped(x, self.time_warp, random.random(count) < WARPED, random)
        if self.scaling is not None:
            shape = (count, *[1] * (x.ndim - 2), x.shape[-1])
            factor = 1 + self.scaling * random.standard_normal(shape)
            factor[random.random(count) >= SCALED] = 1.0
            x = x * _like(x, factor)
        if self.jitter is not None:
            noise = self.jitter * random.standard_normal(x.shape)
            noise[random.random(count) >= JITTERED] = 0.0
            x = x + _like(x, noise)
        return x

    def mixed(self, x: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor, float]:
        """Return (B, …) inputs, (B,) the other window in each, and the share of its own."""
        order = torch.from_numpy(random.permutation(len(x))).to(x.device)
        cut = self.mixup is None or (self.cutmix is not None and random.random() < 0.5)
        alpha = self.cutmix if cut else self.mixup
        assert alpha is not None
        own = float(random.beta(alpha, alpha))
        if not cut:
            return own * x + (1 - own) * x[order], order, own
        length = round((1 - own) * x.shape[1])
        start = int(random.integers(x.shape[1] - length + 1))
        x = x.clone()
        x[:, start : start + length] = x[order, start : start + length]
        return x, order, 1 - length / x.shape[1]


def warped(x: Tensor, deviation: float, chosen: np.ndarray, random: np.random.Generator) -> Tensor:
    """Return (B, T, F) windows whose time passes faster here and slower there.

    First and last step stay where they are; between two steps readings are interpolated.

    Args:
        x: windows.
        deviation: of the logarithm of the speed at each of ``KNOTS`` points.
        chosen: (B,) which windows are changed.
        random: draws the speeds.
    """
    count, steps = x.shape[:2]
    if steps < 2:
        return x
    speeds = np.exp(deviation * random.standard_normal((count, KNOTS)))
    speeds[~chosen] = 1.0
    places = np.linspace(0, KNOTS - 1, steps - 1)
    between = np.stack([np.interp(places, np.arange(KNOTS), speed) for speed in speeds])
    time = np.concatenate([np.zeros((count, 1)), between.cumsum(axis=1)], axis=1)
    time *= (steps - 1) / time[:, -1:]
    before = np.minimum(time.astype(np.int64), steps - 2)
    part = _like(x, (time - before)[:, :, None])
    index = torch.from_numpy(before).to(x.device)[:, :, None].expand(-1, -1, x.shape[2])
    return x.gather(1, index) * (1 - part) + x.gather(1, index + 1) * part


def _like(x: Tensor, values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).to(x.device, x.dtype)


class Augmented(Supervised):
    """A supervised loss of augmented batches. A stack of sites cannot be trained with it.

    Args:
        objective: whose loss it is.
        augmentations: what is done to each batch.

    Raises:
        ConfigError: the objective is not a supervised one.
    """

    stacks = False

    def __init__(self, objective: Objective, augmentations: Augmentations) -> None:
        if not isinstance(objective, Supervised):
            raise ConfigError(
                "training.augment changes the inputs of a supervised loss, and "
                f"{type(objective).__name__} is none: leave training.augment alone"
            )
        super().__init__(objective.loss_function)
        self.augmentations = augmentations

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        key = int(torch.randint(2**62, (), generator=context.generator))
        random = np.random.default_rng(key)
        x = self.augmentations.changed(x, random)
        if self.augmentations.mixup is None and self.augmentations.cutmix is None:
            return self.loss_function(model(x), y)
        x, order, own = self.augmentations.mixed(x, random)
        output = model(x)
        return own * self.loss_function(output, y) + (1 - own) * self.loss_function(
            output, y[order]
        )
