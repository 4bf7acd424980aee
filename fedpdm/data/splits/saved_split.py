"""A data set with the sites and splits of an earlier run: ``split=RUN_FOLDER``."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property
from inspect import get_annotations

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.life_labels import machine_slices
from fedpdm.data.partition import PartitionedSource, RepartitionedSource
from fedpdm.data.rows import Bools, Ints, Rows, Split
from fedpdm.data.sources.base import Source
from fedpdm.data.splits.split_file import Part, read_split_file
from fedpdm.errors import ConfigError, DataError, LeakError

NUMBERED = re.compile(r"plant-\d+")
"""The name of a site that a partition named."""


class SavedSplit(Source):
    """The rows of another source, at the sites and in the splits that a file says.

    Seed and partition then decide neither, but ``partition.sites`` must be left out or be the
    number of sites in the file. Rows that a partition gave to no site stay without.
    Data that comes with sites of its own must have the sites of the file; generated sites
    that the earlier run did not look at keep the split that the data gives them.

    Args:
        inner: the data.
        path: a split file, or a run folder.

    Raises:
        ConfigError: the file has other sites than ``site=`` names, or another number than
            ``partition.sites`` asks for.
        DataError: the file is not there or damaged.
    """

    def __init__(self, inner: Source, path: str) -> None:
        for name in get_annotations(Source):  # name, unit, features, window …
            setattr(self, name, getattr(inner, name))
        self.inner, self.path = inner, path
        self._parts = read_split_file(path)
        self._partitioned = inner if isinstance(inner, PartitionedSource) else None
        named = inner.names if isinstance(inner, PartitionedSource) else inner.sites
        strange = [site for site in self._parts if named and site not in named]
        absent = [site for site in named if site not in self._parts]
        if strange or (absent and not inner.generated):
            raise ConfigError(
                f"split={path} has the sites {_some(list(self._parts))}, and this run has "
                f"{_some(list(named))}; name the same sites, or leave site=[] where a partition "
                "made them"
            )
        if isinstance(inner, PartitionedSource):
            self._require_all(inner)
        if absent:
            self.warnings = [
                *inner.warnings,
                f"split={path} says nothing of {len(absent)} sites ({_some(absent)}): they keep "
                "the split that the data gives them",
            ]

    def _require_all(self, inner: PartitionedSource) -> None:
        """Refuse a file that has only some of the sites that a partition makes."""
        found = list(self._parts)
        wanted = inner.asked
        # Earlier versions wrote of dealt sites only those that a run looked at.
        numbers = {int(name[6:]): len(name) - 6 for name in found if NUMBERED.fullmatch(name)}
        width = max(numbers.values(), default=0)
        missing = [
            f"plant-{number:0{width}d}"
            for number in range(1, max(numbers, default=0))
            if number not in numbers
        ]
        if isinstance(inner, RepartitionedSource) and missing:
            raise ConfigError(
                f"split={self.path} has {len(found)} sites ({_some(found)}) and lacks "
                f"{_some(missing)}: the run that wrote it kept only the sites that it looked at; "
                "repeat that run, and give its new split"
            )
        if wanted is not None and wanted != len(found):
            raise ConfigError(
                f"split={self.path} has {len(found)} sites ({_some(found)}), and "
                f"partition.sites={wanted} asks for {wanted}: leave partition.sites out, or give "
                f"the split of a run with {wanted} sites"
            )

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self._parts) if self._partitioned else self.inner.sites

    def rows(self, site: str) -> Rows:
        if site not in self._parts:
            return self.inner.rows(site)
        if self._partitioned is not None:
            whole, places = self._whole
            return self._cut(site, whole, places)
        rows = self.inner.rows(site)
        cut = self._cut(site, rows, machine_slices(rows.machine))
        if len(cut) < len(rows):
            raise DataError(
                f"split={self.path} has {len(cut)} rows of {site}, and its data has {len(rows)}: "
                "the file was written for other data (other days, another seed or another record)"
            )
        return cut

    def rules(self, rows: Rows) -> Bools | None:
        return self.inner.rules(rows)

    @cached_property
    def _whole(self) -> tuple[Rows, dict[str, slice]]:
        assert self._partitioned is not None
        whole = self._partitioned.whole
        return whole, machine_slices(whole.machine)

    def _cut(self, site: str, rows: Rows, places: dict[str, slice]) -> Rows:
        """Return the rows of a site's parts, with their splits."""
        split = np.full(len(rows), Split.UNUSED, dtype=np.int8)
        taken = np.zeros(len(rows), dtype=bool)
        for part in self._parts[site]:
            found = self._rows_of(site, part, rows, places)
            if taken[found].any():
                raise DataError(
                    f"split={self.path}: rows of machine {part.machine} at {site} from "
                    f"{part.first:g} to {part.last:g} are in two lines of the file"
                )
            taken[found], split[found] = True, part.split
        official = taken & (rows.split == Split.TEST) & np.isin(split, (0, 1))
        if self.test_truncated and official.any():
            raise LeakError(
                f"split={self.path}: machine {rows.machine[official][0]} at {site} belongs to the "
                "official test set and must not be trained or validated on"
            )
        index = np.flatnonzero(taken)
        return replace(rows.take(index), split=split[index])

    def _rows_of(self, site: str, part: Part, rows: Rows, places: dict[str, slice]) -> Ints:
        place = places.get(part.machine)
        if place is None:
            raise DataError(
                f"split={self.path} names machine {part.machine} at {site}, which data={self.name} "
                "has not; is it the same data (data.subset, data.path) that the file was made of?"
            )
        time = rows.time[place]
        inside: NDArray[np.bool_] = (
            (time >= part.first) & (time <= part.last) & (rows.life[place] == part.life)
        )
        if part.condition is not None:
            inside &= rows.condition[place] == part.condition
        if int(inside.sum()) != part.rows:
            again = (
                "; generated sites change with the seed: keep the seed of that run, or write "
                "them once with python -m fedpdm.data generate and name data.path"
                if self.inner.generated or isinstance(self.inner, RepartitionedSource)
                else ""
            )
            raise DataError(
                f"split={self.path}: machine {part.machine} at {site} has {part.rows} rows from "
                f"{part.first:g} to {part.last:g} {self.time_unit} in the file and "
                f"{int(inside.sum())} in data={self.name}: the file was made of other "
                f"data{again}"
            )
        return np.asarray(place.start + np.flatnonzero(inside), dtype=np.int64)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
