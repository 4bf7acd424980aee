"""What a model sees of a window: its readings, statistics of them, or both.

Statistics are taken of readings in raw units, inside one window, so no reading of another
window, machine or split goes into them. They are scaled like readings, by means and deviations
of training windows: their sums travel in the same message as the readings' (``Moments`` of F + K
columns), so a federation needs no further question and the scaler of a run holds both. Shapes:
N windows, T time steps, F sensors, K = 28·F + 11·(sensors with limits).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedpdm.data.normalise import Moments, Scaler
from fedpdm.data.rows import Bools, Floats, Floats32
from fedpdm.data.sources.base import Source
from fedpdm.data.sources.checksums import require_choice
from fedpdm.data.window_statistics import RANGE, STATISTICS, range_features, statistics
from fedpdm.errors import ConfigError

MODES = ("raw", "statistics", "both")
CHUNK = 2048  # windows computed at once: bounds memory
FARTHEST = 10.0
"""Scaled statistics end at so many deviations: a ratio to a mean near 0 has no bound."""


@dataclass(frozen=True)
class WindowFeatures:
    """Features of windows, for every model and the boosted trees.

    Attributes:
        mode: ``raw``: (N, T, F) readings. ``statistics``: (N, K) rows, for models of tables.
            ``both``: (N, T, F + K), the statistics as channels that are the same at every step.
        limits: lowest and highest allowed reading by sensor, in raw units, as data sheets give
            them; such a sensor gets the 11 range features, too. Limits are given, never
            estimated, so no data can leak through them.

    Raises:
        ConfigError: an unknown mode, or limits that are no range.
    """

    mode: str = "raw"
    limits: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_choice("features.mode", self.mode, MODES)
        limits = {}
        for sensor, pair in dict(self.limits or {}).items():
            try:
                lower, upper = (float(value) for value in pair)
            except (TypeError, ValueError):
                lower, upper = np.nan, np.nan
            if not lower < upper:
                raise ConfigError(
                    f"features.limits.{sensor}={pair} must be two numbers, the lower one first, "
                    "for example [0.2, 4.5]"
                )
            limits[sensor] = (lower, upper)
        object.__setattr__(self, "limits", limits)

    @property
    def active(self) -> bool:
        """Whether there is anything to compute."""
        return self.mode != "raw"

    def check(self, source: Source) -> None:
        """Raise ConfigError if this data has no such features; the message says what to do."""
        unknown = [name for name in self.limits if name not in source.features]
        if unknown:
            raise ConfigError(
                f"features.limits: {unknown[0]} is no sensor of data={source.name}; there are "
                f"{', '.join(source.features)}"
            )
        if self.limits and not self.active:
            raise ConfigError(
                "features.limits is of use only with features=statistics or features=both"
            )
        if not self.active:
            return
        if source.window is None:
            raise ConfigError(
                f"features={self.mode} takes statistics over time, and data={source.name} has "
                "single rows: leave features=raw"
            )
        if source.conditions > 1:
            raise ConfigError(
                f"features={self.mode}: data={source.name} switches between {source.conditions} "
                "operating conditions within a window, so statistics of raw readings would "
                "describe the switching: leave features=raw, or take data with one condition "
                "(C-MAPSS FD001 and FD003)"
            )

    def names(self, sensors: Sequence[str]) -> tuple[str, ...]:
        """Return the K names, sensor by sensor: ``vibration: mean`` …"""
        if not self.active:
            return ()
        return tuple(
            f"{sensor}: {name}"
            for sensor in sensors
            for name in (*STATISTICS, *(RANGE if sensor in self.limits else ()))
        )

    def inputs(self, sensors: Sequence[str]) -> tuple[str, ...]:
        """Return the names of a model's input features, in their order."""
        return (*(() if self.mode == "statistics" else sensors), *self.names(sensors))

    def length(self, window: int | None) -> int | None:
        """Return the time steps of a model's input, None for rows."""
        return None if self.mode == "statistics" else window

    def compute(self, windows: Floats, sensors: Sequence[str]) -> Floats:
        """Return (N, K) features of (N, T, F) windows of raw readings.

        A missing reading counts as the one before it in the window, at the window's start as
        the first known one. A sensor without any reading in a window has NaN.
        """
        parts = [
            self._compute(windows[first : first + CHUNK], sensors)
            for first in range(0, len(windows), CHUNK)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.names(sensors))))

    def _compute(self, windows: Floats, sensors: Sequence[str]) -> Floats:
        x = fill_inside(windows)
        # (N, F): what is filled has no reading missing, or all of them.
        silent: Bools = np.asarray(np.isnan(x).any(axis=1))
        x = np.where(silent[:, None], 0.0, x)
        found = statistics(x)
        found[silent] = np.nan
        columns = []
        for position, sensor in enumerate(sensors):
            columns.append(found[:, position])
            if sensor in self.limits:
                lower, upper = (np.array([value]) for value in self.limits[sensor])
                part = range_features(x[:, :, position : position + 1], lower, upper)[:, 0]
                part[silent[:, position]] = np.nan
                columns.append(part)
        return np.concatenate(columns, axis=1)

    def add_moments(self, readings: Moments, features: Floats) -> Moments:
        """Return the moments of F readings and K features: (1, F + K)."""
        own = Moments.of(features, np.zeros(len(features), dtype=np.int64), 1)
        return Moments(
            *(
                np.concatenate([vars(readings)[name], new], axis=1)
                for name, new in vars(own).items()
            )
        )

    def of_readings(self, scaler: Scaler, count: int) -> Scaler:
        """Return the scaler of the ``count`` readings out of that of readings and features."""
        if not self.active:
            return scaler
        return Scaler(scaler.mean[:, :count], scaler.scale[:, :count])

    def join(self, x: Floats32, features: Floats, scaler: Scaler) -> Floats32:
        """Return what the model sees: (N, K) or (N, T, F + K) float32.

        Args:
            x: (N, T, F) scaled readings.
            features: (N, K) features in raw units; NaN counts as the training mean.
            scaler: of readings and features.
        """
        count = x.shape[2]
        own = Scaler(scaler.mean[:, count:], scaler.scale[:, count:])
        scaled = own.apply(features, np.zeros(len(features), dtype=np.int64))
        scaled = np.clip(np.nan_to_num(scaled, nan=0.0), -FARTHEST, FARTHEST)
        if self.mode == "statistics":
            return scaled
        steps = np.broadcast_to(scaled[:, None], (*x.shape[:2], scaled.shape[1]))
        return np.concatenate([x, steps], axis=2)

    def apart(self, x: Floats32, sensors: int) -> tuple[Floats32 | None, Floats32 | None]:
        """Return a model's input as (N, T, F) or (N, F) readings and (N, K) features.

        None for what the input does not hold.
        """
        if self.mode == "statistics":
            return None, x
        if self.mode == "raw":
            return x, None
        return x[:, :, :sensors], x[:, -1, sensors:]


RAW = WindowFeatures()
"""The readings themselves."""


def fill_inside(windows: Floats) -> Floats:
    """Return (N, T, F) windows with NaN filled from readings of the same window only.

    Each takes the last one known before it, those at the start the first one known. NaN stays
    where a sensor has no reading in the whole window.
    """
    missing = np.isnan(windows)
    if not missing.any():
        return windows
    steps = np.arange(windows.shape[1])[:, None]
    known = np.maximum.accumulate(np.where(missing, -1, steps), axis=1)
    source = np.where(known < 0, np.argmin(missing, axis=1)[:, None], known)
    return np.asarray(np.take_along_axis(windows, source, axis=1))
