"""MiniRocket: fixed convolution kernels turn windows into features, without training.

Dempster, Schmidt and Webb, "MiniRocket: A Very Fast (Almost) Deterministic Transform for Time
Series Classification", KDD 2021; for several sensors as the authors' multivariate version does
it: every kernel and dilation looks at a random subset of the sensors. 84 kernels of length 9
have three weights 2 and six weights -1, so a constant has the answer 0 wherever no padding
reaches. A feature is the share of time steps at which an answer exceeds a bias; biases are
quantiles of answers to training windows, and nothing else is learnt. Shapes: N windows, T time
steps, F sensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedpdm.data.rows import Bools, Floats, Floats32, Ints
from fedpdm.seeding import numpy_generator

LENGTH = 9
"""Time steps of a kernel; shorter windows cannot be transformed."""
KERNELS: Ints = np.array(list(combinations(range(LENGTH), 3)))
"""(84, 3): where each kernel has its weights 2."""
MOST_DILATIONS = 32
MOST_SENSORS = 9  # in one subset
CHUNK = 256  # windows transformed at once: bounds memory


@dataclass(frozen=True)
class Dilation:
    """The kernels at one dilation.

    Attributes:
        steps: between two weights of a kernel.
        weight: (84, F, 9) kernels, 0 where a kernel does not look.
        bias: (84, B) thresholds, in the order of the features.
        padded: (84,) whether answers near the ends, computed with zeros beyond, count.
    """

    steps: int
    weight: Tensor
    bias: Tensor
    padded: Bools


class MiniRocket:
    """The transform, fitted to training windows.

    Args:
        windows: (N, T, F) training windows, T >= 9; biases come from them alone.
        features: about how many features; rounded down to a multiple of 84, at least 84.
        seed: of every draw.
        key: what the draws are for.

    Raises:
        ValueError: windows are too short, or there are none.
    """

    def __init__(
        self, windows: Floats32, features: int = 9996, *, seed: int, key: tuple[str | int, ...] = ()
    ) -> None:
        if windows.ndim != 3 or windows.shape[1] < LENGTH or len(windows) == 0:
            raise ValueError(
                f"MiniRocket needs (N, T, F) windows of at least {LENGTH} time steps, "
                f"got {windows.shape}"
            )
        random = numpy_generator(seed, "minirocket", *key)
        _, length, sensors = windows.shape
        steps, counts = dilations(length, max(1, features // len(KERNELS)))
        quantiles = low_discrepancy(int(counts.sum()) * len(KERNELS))
        self.dilations: list[Dilation] = []
        used = 0
        for position, (step, count) in enumerate(zip(steps, counts, strict=True)):
            weight = kernels(subsets(len(KERNELS), sensors, random), sensors)
            # Every second kernel has its ends, and with every dilation it is the other ones.
            padded = (np.arange(len(KERNELS)) + position) % 2 == 0
            part = quantiles[used : used + count * len(KERNELS)].reshape(len(KERNELS), count)
            used += part.size
            chosen = random.integers(len(windows), size=len(KERNELS))
            bias = biases(windows[chosen], int(step), weight, part)
            self.dilations.append(Dilation(int(step), weight, bias, padded))

    @property
    def features(self) -> int:
        """Number of features."""
        return sum(part.bias.numel() for part in self.dilations)

    def __call__(self, windows: Floats32) -> Floats32:
        """Return (N, features) shares between 0 and 1 of (N, T, F) windows."""
        x = torch.from_numpy(np.ascontiguousarray(windows))
        parts = [
            torch.cat([self._shares(x[i : i + CHUNK], part) for part in self.dilations], 1).numpy()
            for i in range(0, len(x), CHUNK)
        ]
        return np.concatenate([np.zeros((0, self.features), dtype=np.float32), *parts])

    def _shares(self, x: Tensor, part: Dilation) -> Tensor:
        answers = convolve(x, part.weight, part.steps)
        margin = (LENGTH // 2) * part.steps
        result = torch.empty((len(x), *part.bias.shape))
        for padded in (True, False):
            chosen = torch.from_numpy(np.flatnonzero(part.padded == padded))
            seen = answers[:, chosen] if padded else answers[:, chosen, margin:-margin]
            for column in range(part.bias.shape[1]):
                above = seen > part.bias[chosen, column, None]
                result[:, chosen, column] = above.float().mean(dim=2)
        return result.flatten(1)


def biases(windows: Floats32, steps: int, weight: Tensor, quantiles: Floats) -> Tensor:
    """Return (84, B) quantiles of each kernel's answers to a window of its own, (84, T, F)."""
    answers = convolve(torch.from_numpy(np.ascontiguousarray(windows)), weight, steps)
    own = torch.arange(len(KERNELS))
    rows = answers[own, own].numpy()
    values = [np.quantile(row, part) for row, part in zip(rows, quantiles, strict=True)]
    return torch.from_numpy(np.stack(values).astype(np.float32))


def dilations(length: int, features: int) -> tuple[Ints, Ints]:
    """Return the dilations for windows of ``length``, and how many features a kernel has at each.

    Exponentially spaced up to a kernel as long as the window; equal ones are merged, so their
    features add up, and what rounding leaves over goes to the smallest dilations.
    """
    most = min(features, MOST_DILATIONS)
    exponent = np.log2((length - 1) / (LENGTH - 1))
    steps, counts = np.unique(
        np.logspace(0, exponent, most, base=2).astype(np.int64), return_counts=True
    )
    counts = (counts * (features / most)).astype(np.int64)
    for extra in range(features - int(counts.sum())):
        counts[extra % len(counts)] += 1
    return steps, counts


def low_discrepancy(count: int) -> Floats:
    """Return ``count`` quantiles that fill 0 to 1 evenly: multiples of the golden ratio."""
    return np.asarray((np.arange(1, count + 1) * ((np.sqrt(5) + 1) / 2)) % 1)


def subsets(count: int, sensors: int, random: np.random.Generator) -> list[Ints]:
    """Return ``count`` random subsets of the sensors, small ones more often than large ones."""
    exponent = np.log2(min(sensors, MOST_SENSORS) + 1)
    sizes = (2 ** random.uniform(0, exponent, count)).astype(np.int64)
    return [random.choice(sensors, size, replace=False) for size in sizes]


def kernels(looks_at: list[Ints], sensors: int) -> Tensor:
    """Return (84, F, 9) weights: 2 at a kernel's places, -1 elsewhere, 0 for other sensors."""
    weight = np.zeros((len(KERNELS), sensors, LENGTH), dtype=np.float32)
    for kernel, (places, chosen) in enumerate(zip(KERNELS, looks_at, strict=True)):
        weight[kernel, chosen] = -1.0
        weight[kernel, chosen[:, None], places] = 2.0
    return torch.from_numpy(weight)


def convolve(x: Tensor, weight: Tensor, steps: int) -> Tensor:
    """Return (N, 84, T) answers of kernels to (N, T, F) windows with zeros beyond their ends."""
    with torch.no_grad():
        return functional.conv1d(
            x.transpose(1, 2), weight, padding=(LENGTH // 2) * steps, dilation=steps
        )
