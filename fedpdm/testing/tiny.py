"""A small data set for tests: sums of sensors decide, sites differ, all is seeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedpdm.data.rows import Rows
from fedpdm.data.sources.base import Source
from fedpdm.data.splits.cuts import by_time
from fedpdm.errors import DataError
from fedpdm.seeding import numpy_generator


class TinySource(Source):
    """Machines whose second sensor creeps up before they fail.

    Args:
        sites: sites by name; ``machines`` and ``rows`` per site may be set in each.
        broken: sites whose rows cannot be read.
    """

    name = "tiny"
    time_unit = "hours"
    features = ("a", "b", "c")
    stride = 2
    generated = True

    def __init__(
        self,
        sites: Mapping[str, Mapping[str, Any]],
        seed: int = 0,
        reach: float = 4.0,
        window: int | None = 8,
        broken: Sequence[str] = (),
        **_: Any,
    ) -> None:
        self._sites = dict(sites)
        self._seed, self._reach, self._broken = seed, reach, broken
        self.window = window
        self.read: list[str] = []

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self._sites)

    def rows(self, site: str) -> Rows:
        self.read.append(site)
        if site in self._broken:
            raise DataError(f"{site}: its file is gone")
        settings = self._sites[site]
        machines, count = settings.get("machines", 4), settings.get("rows", 120)
        random = numpy_generator(self._seed, "tiny", site)
        life = 30 + int(random.integers(10))
        # Machines are at different ages when the record begins, so every split has failures.
        step = np.arange(count) + random.integers(life, size=machines)[:, None]
        left = (life - 1 - step % life).astype(float)
        observed = np.broadcast_to(count - 1.0 - np.arange(count), left.shape)
        fails = left <= observed
        values = random.normal(size=(machines * count, 3))
        values[:, 1] += 3.0 * np.exp(-left.ravel() / 4.0)
        values[:, 2] = 5.0 + random.normal()
        number = np.repeat(np.arange(machines), count)
        rows = Rows(
            features=self.features,
            values=values,
            machine=np.array([f"{site}-{n}" for n in number]),
            time=np.tile(np.arange(count, dtype=float), machines),
            life=(step // life).ravel().astype(np.int64),
            time_to_failure=np.where(fails, left, np.nan).ravel(),
            observed=np.minimum(left, observed).ravel(),
            split=np.zeros(machines * count, dtype=np.int8),
            condition=np.zeros(machines * count, dtype=np.int64),
        )
        return by_time(
            rows,
            reach=self._reach,
            generator=numpy_generator(self._seed, "heldout", site),
            site=site,
        )
