"""The default data source: a generated fleet of machines per site, no download.

Telemetry of rotating machines (pumps, spindles, fans) with latent wear per failure mode,
failures, repairs, load cycles, weather, drifting instruments and missing readings. Sites
share the physics of degradation and differ in regime and in which parts are weak, so each
knows some failures well and others hardly: that is what they can learn from each other.
What can be set, and what is realistic: docs/fleet.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from fedpdm.data.fleet.adapt import adapt
from fedpdm.data.fleet.assets import KINDS, MODES, NAMES
from fedpdm.data.fleet.folder import FleetFolder
from fedpdm.data.fleet.record import Latent, Log, Record, record
from fedpdm.data.fleet.settings import (
    HETEROGENEITY,
    SCENARIOS,
    Dials,
    SiteProfile,
    SiteSpec,
    dials,
    number,
    site_settings,
    weights,
)
from fedpdm.data.partition import Natural, Partition
from fedpdm.data.rows import Floats, Rows, Strings, rows_with_lives
from fedpdm.data.sources.base import Source, require_positive
from fedpdm.data.splits.cuts import by_time
from fedpdm.errors import ConfigError
from fedpdm.seeding import numpy_generator

__all__ = ["FleetSource", "Latent"]

MOST_FACTS = 6
"""Sites whose days of change are said."""


class FleetSource(Source):
    """Sites generated from a seed, each when it is first asked for."""

    name = "fleet"
    time_unit = "days"
    features = NAMES
    generated = True

    def __init__(
        self,
        *,
        sites: Mapping[str, Mapping[str, Any] | None],
        seed: int = 0,
        reach: float = 0.0,
        partition: Partition | None = None,
        path: str | None = None,
        days: float = 320,
        step_hours: float = 6,
        window: int = 12,
        stride: int = 16,
        evaluation_stride: int = 4,
        missing: float = 0.02,
        outages: float = 0.01,
        outage_hours: float = 36,
        heterogeneity: Mapping[str, Any] | None = None,
        prevalence: float | None = None,
        prevalence_horizon: float = 7,
        scenarios: Mapping[str, Any] | None = None,
        concept_drift: float = 0,
        sensor_drift: float = 0,
        dropout: float = 0,
    ) -> None:
        """Check the settings; nothing is generated yet.

        Args:
            sites: the sites' settings by name (``fedpdm.data.fleet.settings.SiteProfile``).
            seed: of every draw.
            reach: how far past a row its label looks, in days.
            partition: only the natural one: every site has machines of its own.
            path: folder that ``python -m fedpdm.data generate`` wrote: sites are read from
                it instead of generated. The other settings must be those it was made with.
            days: length of every site's record.
            step_hours: time between two rows of a machine.
            window: rows in a model input.
            stride: rows between the ends of two training windows.
            evaluation_stride: the same for validation, test and held-out windows.
            missing: share of readings that are missing, one by one.
            outages: share of readings that are missing because a sensor is out for a while.
            outage_hours: mean length of an outage.
            heterogeneity, prevalence, prevalence_horizon, concept_drift, sensor_drift,
                dropout: see ``fedpdm.data.fleet.settings.Dials``.
            scenarios: weights for all sites, instead of each site's own.

        Raises:
            ConfigError: a setting that does not exist or is out of range, by its key.
            DataError: the folder cannot be read.
        """
        if partition is not None and not isinstance(partition, Natural):
            raise ConfigError(
                "data=fleet generates the machines of each site, there is nothing to divide: use "
                "partition=natural, and name sites with site=detroit,houston (replicas=50 makes "
                "fifty of each)"
            )
        if not sites:
            raise ConfigError("data=fleet needs sites: name them with site=detroit,houston")
        self.window = require_positive("data.window", window)
        self.stride = require_positive("data.stride", stride)
        self.evaluation_stride = require_positive("data.evaluation_stride", evaluation_stride)
        self.step_days = number("data.step_hours", step_hours, 0.01, 24 * 7) / 24
        self.steps = int(number("data.days", days, 0) / self.step_days + 1e-9)
        if self.steps < 1:
            raise ConfigError(f"data.days={days} is shorter than a step of {step_hours} hours")
        self.dials = dials(
            heterogeneity, missing=missing, outages=outages, outage_hours=outage_hours,
            prevalence=prevalence, prevalence_horizon=prevalence_horizon,
            concept_drift=concept_drift, sensor_drift=sensor_drift, dropout=dropout,
        )  # fmt: skip
        self.seed, self.reach, self.days = seed, reach, float(days)
        self.profiles = _profiles(sites, scenarios)
        self.families = {
            name: profile.archetype or profile.industry for name, profile in self.profiles.items()
        }
        self.folder = None if path is None else FleetFolder(path)
        if self.folder is not None:
            self.folder.require(self.settings, self.site_settings)
        self.facts = self._facts(seed if self.folder is None else self.folder.seed)

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.profiles)

    @property
    def settings(self) -> dict[str, Any]:
        """All that shapes generated data, but for the sites' own settings, by key."""
        return {
            "data.days": self.days,
            "data.step_hours": round(self.step_days * 24, 9),
            **{
                f"data.{'heterogeneity.' if key in HETEROGENEITY else ''}{key}": value
                for key, value in asdict(self.dials).items()
            },
        }

    @property
    def site_settings(self) -> dict[str, dict[str, Any]]:
        """Every site's settings by name, as its yaml and archetype give them."""
        return {name: asdict(profile) for name, profile in self.profiles.items()}

    def rows(self, site: str) -> Rows:
        if self.folder is not None:
            return self.labelled(site, *self.folder.readings(site))
        made = self.record(site)
        return self.labelled(site, made.machine, made.time, made.values, made.log)

    def expected_rows(self, site: str) -> int:
        machines = self.profiles[site].machines
        return self.steps * (30 if machines is None else machines)  # unasked: of a middling size

    def latent(self, site: str) -> Latent:
        """Return the latent truth behind each row of ``rows(site)``, in the same order."""
        return self.record(site).latent if self.folder is None else self.folder.latent(site)

    def truth(self, site: str) -> Mapping[str, Strings]:
        """Return ``kind``, which machine it is, and ``mode``, of what the row's life ends."""
        latent = self.latent(site)
        modes = np.array([*MODES, "none"])  # -1: no failure was seen
        return {"kind": np.array(KINDS)[latent.kind], "mode": modes[latent.mode]}

    def _facts(self, seed: int) -> tuple[str, ...]:
        """Return on which days the first sites' weak parts change, as one fact; nothing if none."""
        days: list[str] = []
        for site in list(self.profiles)[:MOST_FACTS]:
            plain = SiteSpec(site, self.profiles[site], seed, self.steps, self.step_days)
            if plain.change_day is not None:
                of = "" if days else f" of {self.days:g}"
                days.append(f"day {plain.change_day:g}{of} on at {site}")
        if not days:
            return ()
        more = ", …" if len(self.profiles) > MOST_FACTS else ""
        return (f"repaired machines fail in other ways from {', '.join(days)}{more}",)

    def spec(self, site: str, settings: Dials | None = None) -> SiteSpec:
        """Return a site as it is generated: with its drawn size and the dials' effect.

        Args:
            site: its name.
            settings: dials to use instead of the fleet's.

        Raises:
            ConfigError: ``data.prevalence`` cannot be reached.
        """
        plain = SiteSpec(site, self.profiles[site], self.seed, self.steps, self.step_days)
        return adapt(plain, settings or self.dials)

    def record(self, site: str) -> Record:
        """Generate all there is to know about a site.

        Raises:
            ConfigError: ``data.prevalence`` cannot be reached.
        """
        return record(self.spec(site), self.dials)

    def labelled(self, site: str, machine: Strings, time: Floats, values: Floats, log: Log) -> Rows:
        """Return readings and a log as rows with outcomes and splits.

        Raises:
            DataError: the record is too short to cut.
        """
        rows = rows_with_lives(self.features, machine, time, values, log, digits=None)
        generator = numpy_generator(self.seed, "heldout", site)
        return by_time(rows, reach=self.reach, generator=generator, site=site)


def _profiles(
    sites: Mapping[str, Mapping[str, Any] | None], scenarios: Mapping[str, Any] | None
) -> dict[str, SiteProfile]:
    """Return the sites' profiles by name, with the scenarios of all sites where those are given."""
    of_all: dict[str, Any] = {}
    if scenarios is not None:
        of_all["scenarios"] = weights("data.scenarios", scenarios, SCENARIOS, "scenario")
    made: dict[int, SiteProfile] = {}  # replicas share their settings: a million are read once
    return {
        name: made.get(id(settings))
        or made.setdefault(id(settings), replace(site_settings(name, settings), **of_all))
        for name, settings in sites.items()
    }
