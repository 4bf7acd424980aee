"""Labels given to the wrong windows on purpose: a pipeline without a leak then knows nothing.

Labels of training, validation and test windows are shuffled, each part and each plant for
itself, so all shares stay as they were. What a model learns then can only be chance, and
its average precision at each plant lies at that plant's prevalence, up to the chance of few
windows (``fedpdm.evaluation.shuffled`` says how far that reaches). Any path by which a
label gets from training to test by another way than the sensors, or a metric that is wrong,
lifts it. Only training labels would not do: a model of noise still moves slowly with the
sensors, and so do true labels, which gives large chance correlations.

Judge it per plant (and by the mean over plants). Over pooled windows the score may lie above
the common prevalence without any leak: plants differ in prevalence and in their sensors, and
which plant a window comes from can be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fedpdm.data.rows import Ints, Split
from fedpdm.data.windows import Windows
from fedpdm.errors import ConfigError
from fedpdm.keys import numpy_generator

KINDS = ("windows", "rotated")


@dataclass(frozen=True)
class LabelShuffle:
    """Shuffles the labels of a plant's windows.

    Attributes:
        kind: ``windows`` permutes the labels of all windows of a part, so that each is drawn
            for itself; ``rotated`` turns each machine's sequence of labels by a random number
            of windows, which keeps their runs: neighbours overlap and still agree, as they do
            in real data. A leak through overlapping windows shows with ``rotated`` only; its
            chance deviations are larger, because machines are fewer than windows.
        seed: the run's seed; each plant and part draws by itself.

    Raises:
        ConfigError: an unknown kind.
    """

    kind: str
    seed: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(
                f"shuffle_labels={self.kind} is unknown; choose {', '.join(KINDS)} or null"
            )

    def __call__(self, parts: Mapping[Split, Windows], site: str) -> dict[Split, Windows]:
        """Return a plant's windows with the labels of others."""
        result = {}
        for split, windows in parts.items():
            order = self.order(windows, numpy_generator(self.seed, "shuffle", site, int(split)))
            result[split] = replace(windows, y=windows.y[order], truth=windows.truth[order])
        return result

    def order(self, windows: Windows, random: np.random.Generator) -> Ints:
        """Return (N,) whose label each window gets."""
        if self.kind == "windows":
            return np.asarray(random.permutation(len(windows)), dtype=np.int64)
        order = np.arange(len(windows))
        for machine in np.unique(windows.machine):
            own = np.flatnonzero(windows.machine == machine)
            order[own] = np.roll(own, int(random.integers(len(own))))
        return order
