"""Oversampling of failures in training windows: repeated, or interpolated by SMOTE.

Resampling comes after the split and after scaling, site by site; validation and test keep
the share of failures that a site really has. The work is done by imbalanced-learn (Lemaître
et al. 2017). What was added is marked (``Windows.made``), so that a check can tell that it
stayed in training.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedpdm.data.rows import Floats32, Ints
from fedpdm.data.sources.base import require_choice
from fedpdm.data.windows import Windows
from fedpdm.errors import ConfigError
from fedpdm.seeding import key_seed

KINDS = ("smote", "oversample")
NEIGHBOURS = 5  # SMOTE's own default; fewer where a site has fewer failures


@dataclass(frozen=True)
class Resampler:
    """Makes the two classes of a site's training windows equally many.

    Attributes:
        kind: ``oversample`` repeats windows of the rarer class; ``smote`` interpolates between
            neighbours of it (Chawla et al. 2002), for single rows only.
        seed: the run's seed; each site draws by itself.
        categorical: features that must not be interpolated: SMOTE takes the most frequent value
            among the neighbours (SMOTE-NC).

    Raises:
        ConfigError: an unknown kind, or imbalanced-learn is not installed.
    """

    kind: str
    seed: int
    categorical: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_choice("training.resample", self.kind, KINDS, null=True)
        if importlib.util.find_spec("imblearn") is None:
            raise ConfigError(
                f"training.resample={self.kind} needs imbalanced-learn: "
                "pip install 'fedpdm[resampling]'"
            )

    def __call__(self, windows: Windows, site: str, names: Sequence[str]) -> Windows:
        """Return a site's training windows, its own first, then what was added.

        A site with one class only, or for SMOTE with a single window of the rarer class, has
        nothing to resample from and keeps what it has.

        Args:
            windows: the site's training windows, scaled.
            site: its name, part of the key of the draw.
            names: features, the last axis of ``x``.

        Raises:
            ConfigError: the task has no classes, or SMOTE is asked to interpolate sequences.
        """
        if windows.y.dtype.kind != "i" or windows.y.ndim != 1:
            raise ConfigError(
                f"training.resample={self.kind} evens out the classes of task=failure; other "
                "tasks have none: leave training.resample=null"
            )
        if self.kind == "smote" and windows.x.ndim != 2:
            raise ConfigError(
                "training.resample=smote interpolates between single rows; a mixture of two "
                "machines' histories is the history of none: use training.resample=oversample, "
                "or features=statistics"
            )
        counts = np.unique(windows.y, return_counts=True)[1]
        rarer = int(counts.min()) if len(counts) > 1 else 0
        if rarer < (2 if self.kind == "smote" else 1):
            return windows
        state = key_seed(self.seed, "resample", site) % 2**32
        if self.kind == "oversample":
            return self._repeated(windows, state)
        x, y = self._smote(windows, names, state, min(NEIGHBOURS, rarer - 1))
        added = len(y) - len(windows)
        x, y, none = x[-added:], y[-added:], np.zeros(added, dtype=bool)
        machine, time = np.full(added, ""), np.full(added, np.nan)
        new = Windows(x, y, y.astype(np.float64), machine, time, none, none, made=~none)
        return Windows.concatenate([windows, new])

    def _repeated(self, windows: Windows, state: int) -> Windows:
        from imblearn.over_sampling import RandomOverSampler

        sampler = RandomOverSampler(random_state=state)
        sampler.fit_resample(np.arange(len(windows))[:, None], windows.y)
        index: Ints = np.asarray(sampler.sample_indices_)
        return replace(windows.take(index), made=np.arange(len(index)) >= len(windows))

    def _smote(
        self, windows: Windows, names: Sequence[str], state: int, neighbours: int
    ) -> tuple[Floats32, Ints]:
        from imblearn.over_sampling import SMOTE, SMOTENC

        fixed = [position for position, name in enumerate(names) if name in self.categorical]
        settings: dict[str, Any] = {"random_state": state, "k_neighbors": neighbours}
        sampler = SMOTENC(fixed, **settings) if fixed else SMOTE(**settings)
        x, y = sampler.fit_resample(windows.x, windows.y)
        return np.ascontiguousarray(x, dtype=np.float32), np.asarray(y, dtype=windows.y.dtype)
