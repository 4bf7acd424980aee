"""Generated machines per plant: the default data set, no download.

Telemetry of rotating machines (pumps, spindles, fans) with latent wear per failure mode,
failures, repairs, load cycles, weather, drifting instruments and missing readings. Plants
share the physics of degradation and differ in regime and in which parts are weak, so each
knows some failures well and others hardly: that is what they can learn from each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpdm.data.checks import require_positive
from fedpdm.data.fleet_physics import SENSORS, operate
from fedpdm.data.fleet_plant import MODES, number, plant_settings
from fedpdm.data.partition import Natural, Partition
from fedpdm.data.rows import Floats, Ints, Rows, Split, Strings
from fedpdm.data.source import Source
from fedpdm.data.splits import by_time
from fedpdm.errors import ConfigError
from fedpdm.keys import numpy_generator


@dataclass(frozen=True)
class Latent:
    """The truth behind a plant's rows, for checking; no model sees it.

    Attributes:
        modes: K names.
        wear: (R, K) wear as a share of what the part bears: it fails at 1.
        mode: (R,) which mode ends the row's life; -1 where no failure was seen.
    """

    modes: tuple[str, ...]
    wear: Floats
    mode: Ints


class FleetSource(Source):
    """Plants generated from a seed, each when it is first asked for."""

    name = "fleet"
    time_unit = "days"
    features = tuple(sensor.name for sensor in SENSORS)
    generated = True

    def __init__(
        self,
        *,
        sites: Mapping[str, Mapping[str, Any] | None],
        seed: int = 0,
        reach: float = 0.0,
        partition: Partition | None = None,
        days: float = 320,
        step_hours: float = 6,
        window: int = 12,
        stride: int = 28,
        evaluation_stride: int = 4,
        missing: float = 0.02,
        outages: float = 0.01,
        outage_hours: float = 36,
    ) -> None:
        """Check the settings; nothing is generated yet.

        Args:
            sites: the plants' settings by name (``fedpdm.data.fleet_plant.Plant``).
            seed: of every draw.
            reach: how far past a row its label looks, in days.
            partition: only the natural one: every plant has machines of its own.
            days: length of every plant's record.
            step_hours: time between two rows of a machine.
            window: rows in a model input.
            stride: rows between the ends of two training windows.
            evaluation_stride: the same for validation, test and held-out windows.
            missing: share of readings that are missing, one by one.
            outages: share of readings that are missing because a sensor is out for a while.
            outage_hours: mean length of an outage.

        Raises:
            ConfigError: a setting that does not exist or is out of range, by its key.
        """
        if partition is not None and not isinstance(partition, Natural):
            raise ConfigError(
                "data=fleet generates the machines of each plant, there is nothing to divide: use "
                "partition=natural, and name plants with site=detroit,houston (replicas=50 makes "
                "fifty of each)"
            )
        if not sites:
            raise ConfigError("data=fleet needs plants: name them with site=detroit,houston")
        self.window = require_positive("data.window", window)
        self.stride = require_positive("data.stride", stride)
        self.evaluation_stride = require_positive("data.evaluation_stride", evaluation_stride)
        self.step_days = number("data.step_hours", step_hours, 0.01, 24 * 7) / 24
        self.steps = int(number("data.days", days, 0) / self.step_days + 1e-9)
        if self.steps < 1:
            raise ConfigError(f"data.days={days} is shorter than a step of {step_hours} hours")
        self.missing = number("data.missing", missing, 0, 0.9)
        self.outages = number("data.outages", outages, 0, 0.9)
        self.outage_steps = number("data.outage_hours", outage_hours, 0) / 24 / self.step_days
        self.seed, self.reach = seed, reach
        self.plants = {name: plant_settings(name, settings) for name, settings in sites.items()}

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.plants)

    def rows(self, site: str) -> Rows:
        return self._generate(site)[0]

    def latent(self, site: str) -> Latent:
        """Return the latent truth behind each row of ``rows(site)``, in the same order."""
        return self._generate(site)[1]

    def _generate(self, site: str) -> tuple[Rows, Latent]:
        plant = self.plants[site]
        telemetry = operate(plant, site, self.seed, self.steps, self.step_days)
        running = telemetry.running
        values = self._lose(telemetry.values, site)[running]
        time = np.broadcast_to(telemetry.time, running.shape)[running]
        to_failure = telemetry.time_to_failure[running]
        end = _last_running(running, telemetry.time)[running]
        rows = Rows(
            features=self.features,
            values=values,
            machine=np.repeat(_machine_names(site, plant.machines), running.sum(axis=1)),
            time=time,
            life=telemetry.life[running],
            time_to_failure=to_failure,
            observed=np.where(np.isnan(to_failure), end - time, to_failure),
            split=np.full(len(time), Split.UNUSED, dtype=np.int8),
            condition=np.zeros(len(time), dtype=np.int64),
        )
        generator = numpy_generator(self.seed, "heldout", site)
        rows = by_time(rows, reach=self.reach, generator=generator, site=site)
        return rows, Latent(MODES, telemetry.wear[running], telemetry.mode[running])

    def _lose(self, values: Floats, site: str) -> Floats:
        """Return (M, S, F) values with NaN where readings got lost, singly or in outages."""
        lost = np.zeros(values.shape, dtype=bool)
        length = max(self.outage_steps, 1.0)
        for index, machine in enumerate(lost):
            generator = numpy_generator(self.seed, "fleet", site, index, "missing")
            machine |= generator.random(machine.shape) < self.missing
            # An outage begins with this chance and lasts a geometric number of steps.
            begins = np.argwhere(generator.random(machine.shape) < self.outages / length)
            for step, feature in begins:
                machine[step : step + generator.geometric(1 / length), feature] = True
        return np.where(lost, np.nan, values)


def _machine_names(site: str, machines: int) -> Strings:
    width = max(3, len(str(machines)))
    return np.array([f"{site}-m{index:0{width}d}" for index in range(1, machines + 1)])


def _last_running(running: np.ndarray[Any, np.dtype[np.bool_]], time: Floats) -> Floats:
    """Return (M, S) the time of each machine's last row."""
    last = running.shape[1] - 1 - np.argmax(running[:, ::-1], axis=1)
    return np.broadcast_to(time[last][:, None], running.shape)
