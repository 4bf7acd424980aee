"""A site's own files: CSV or Parquet with sensor rows, and logs of failures or a label.

What the columns mean stands in the site's yaml (``fedpdm.data.sources.mapping``; see
docs/bring-your-own-data.md). Every file is checked when its site is first needed, and
refused with the file, the column, the line and the way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedpdm.data.partition import Natural, Partition
from fedpdm.data.rows import Floats, Ints, Rows, Strings, rows_with_lives
from fedpdm.data.sources.agreement import agreed, unit_of
from fedpdm.data.sources.base import Source, require_fraction, require_positive
from fedpdm.data.sources.events import read_events
from fedpdm.data.sources.mapping import SiteMapping, site_mapping
from fedpdm.data.sources.readings import columns_of, read_site, values_of
from fedpdm.data.sources.tables import Table
from fedpdm.data.sources.times import are_spreadsheet_days
from fedpdm.data.splits import cuts as splits
from fedpdm.data.windows import longest_step, segment_starts
from fedpdm.errors import ConfigError, DataError
from fedpdm.seeding import numpy_generator

LEAST_ROWS = 10  # of a site: three cuts by time and a purge need some


class FilesSource(Source):
    """Sites that bring their own files.

    Args:
        sites: the sites' yamls by name: roles of the columns, failure log or label.
        seed: draws the held-out machines.
        reach: how far past a row its label looks, in ``time_unit``.
        path: folder that the sites' relative paths start from; None: the current one.
        time_unit: unit of times that are numbers, and into which dates are turned.
        window: rows in a model input; None gives the model single rows.
        stride: rows between the ends of two training windows.
        max_missing: share of empty readings above which a feature is refused.
        max_gap: the longest time between two rows that a window spans, in ``time_unit``; None:
            what ``fedpdm.data.windows.longest_step`` makes of the site's rows.
        heldout_fraction: share of a site's machines that is only tested on.
        partition: only the natural one: every site owns its file.

    Raises:
        ConfigError: a site's yaml is incomplete, or sites disagree about features.
    """

    name = "files"
    local_machines = True

    def __init__(
        self,
        sites: Mapping[str, Mapping[str, Any]],
        seed: int = 0,
        reach: float = 0.0,
        path: str | None = None,
        time_unit: str = "days",
        window: int | None = 14,
        stride: int = 1,
        max_missing: float = 0.5,
        heldout_fraction: float = 0.2,
        partition: Partition | None = None,
        max_gap: float | None = None,
    ) -> None:
        if partition is not None and not isinstance(partition, Natural):
            raise ConfigError(
                "data=files has one file per site: use partition=natural, and name the sites "
                "with site=NAME,NAME"
            )
        if not sites:
            raise ConfigError(
                "data=files needs sites: name them with site=NAME,NAME; each one's yaml must "
                "begin with the line '# @package sites', else its settings are not found"
            )
        if not 0 <= max_missing <= 1:
            raise ConfigError(f"data.max_missing={max_missing} must lie between 0 and 1")
        if max_gap is not None and not 0 < max_gap < float("inf"):
            raise ConfigError(f"data.max_gap={max_gap} must be above 0, in data.time_unit, or null")
        self.max_gap = max_gap
        self.window = None if window is None else require_positive("data.window", window)
        self.stride = require_positive("data.stride", stride)
        self.max_missing = max_missing
        self.heldout_fraction = require_fraction("data.heldout_fraction", heldout_fraction)
        self.seed, self.reach = seed, reach
        self.folder = None if path is None else Path(path).expanduser()
        self.time_unit = str(time_unit)
        mappings, found = agreed([site_mapping(str(n), given or {}) for n, given in sites.items()])
        self.mappings = {mapping.site: mapping for mapping in mappings}
        self.features = mappings[0].inputs
        self.groups = {name: mappings[0].inputs_of(name) for name in mappings[0].columns}
        self.categorical = tuple(f for f in self.features if f not in _quantities(mappings[0]))
        units = {name: unit_of(mappings[0], name) for name in mappings[0].columns}
        self.units = {name: unit for name, unit in units.items() if unit is not None}
        self.warnings: list[str] = found
        self._failed: dict[str, bool] = {}
        """For each site read so far: whether it saw a failure."""

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.mappings)

    def rows(self, site: str) -> Rows:
        mapping = self.mappings[site]
        table = self._read(mapping)
        machine = table.names(mapping.machine)
        time, dates = table.times(mapping.time, self.time_unit, machine)
        if not dates and self.time_unit != "days" and are_spreadsheet_days(time):
            self._warn(
                f"{table.where}: column '{mapping.time}' looks like a spreadsheet's dates, which "
                f"count days, and is read as {self.time_unit}; if so, set data.time_unit=days"
            )
        label = None if mapping.label is None else _labels(table, mapping.label)
        groups = {name: table.names(name) for name in mapping.groups}
        values = self._readings(table, mapping)
        if len(table) < LEAST_ROWS:
            raise DataError(
                f"{table.where} has {len(table)} rows; a site needs at least {LEAST_ROWS} to be "
                "cut into training, validation and test; bring a longer record"
            )
        self._note_spellings(table.where, machine)
        order = table.in_order(machine, time, mapping.time)
        back = int((pd.Series(time).groupby(machine).diff() < 0).sum())
        if back:
            self._warn(f"{table.where}: {back} rows were out of time order and have been sorted")
        said = read_events(mapping, table, machine, self.time_unit, self._place)
        still = said.standing(machine[order], time[order])
        if still.any():
            self._warn(
                f"{table.where}: {int(still.sum())} rows between an event and the end of its "
                "repair are left out"
            )
        order = order[~still]
        machine, time, values = machine[order], time[order], values[order]
        label = None if label is None else label[order]
        rows = rows_with_lives(self.features, machine, time, values, said.events, label=label)
        rows = replace(rows, groups={name: column[order] for name, column in groups.items()})
        rows = replace(rows, max_gap=self.max_gap or longest_step(machine, time, self.window))
        self._require_window(table.where, rows)
        self._note_failures(mapping, rows)
        return splits.by_time(
            rows,
            reach=self.reach,
            generator=numpy_generator(self.seed, "heldout machines", site),
            heldout_fraction=self.heldout_fraction,
            site=table.where,
        )

    def _place(self, path: str) -> Path:
        """Return where a path of a site's yaml leads: relative ones start from ``data.path``."""
        place = Path(path).expanduser()
        return place if self.folder is None else self.folder / place

    def _read(self, mapping: SiteMapping) -> Table:
        """Read the columns of a site's sensor files that its yaml maps."""
        site, paths = mapping.site, [self._place(path) for path in mapping.paths]
        return read_site(
            mapping,
            paths,
            columns_of(mapping),
            where=f"{site}: {', '.join(map(str, paths))}",
            hint=f"correct the file, or map another column in sites.{site} (site/{site}.yaml)",
            machines=None if mapping.machines is None else self._place(mapping.machines[0]),
        )

    def _readings(self, table: Table, mapping: SiteMapping) -> Floats:
        """Return (R, F) readings; refuse a feature with too many empty cells."""
        values = values_of(table, mapping)
        shares = dict(zip(mapping.inputs, np.isnan(values).mean(axis=0).tolist(), strict=True))
        for name, column in mapping.columns.items():
            share = shares[mapping.inputs_of(name)[0]]
            if share == 1.0:
                raise DataError(
                    f"{table.where}: column '{column}' (feature '{name}') is empty in every row; "
                    "map another column, or take the feature out of every site's yaml"
                )
            if share > self.max_missing:
                raise DataError(
                    f"{table.where}: column '{column}' (feature '{name}') is empty in {share:.0%} "
                    f"of the rows, more than data.max_missing={self.max_missing:g}; take the "
                    "feature out of every site's yaml, or raise data.max_missing"
                )
        return values

    def _require_window(self, where: str, rows: Rows) -> None:
        """Refuse a window that is longer than every stretch of rows of every machine."""
        if self.window is None:
            return
        first, counts = np.unique(segment_starts(rows), return_counts=True)
        longest = int(counts.max())
        if longest < self.window:
            raise DataError(
                f"{where}: data.window={self.window} is longer than every machine's life; the "
                f"longest has {longest} rows (machine '{rows.machine[first[counts.argmax()]]}') "
                f"without a gap of more than {rows.max_gap:g} {self.time_unit}; lower data.window, "
                "raise data.max_gap or bring a longer record"
            )

    def _note_spellings(self, where: str, machine: Strings) -> None:
        """Warn of ids that differ in case alone: half of such a machine's rows know no failure."""
        known: dict[str, str] = {}
        for name in np.unique(machine).tolist():
            other = known.setdefault(name.casefold(), name)
            if other != name:
                self._warn(
                    f"{where}: '{other}' and '{name}' are taken for two machines; if they are "
                    "one, write its id in the same way"
                )
                return

    def _note_failures(self, mapping: SiteMapping, rows: Rows) -> None:
        """Warn of a site without failures; refuse sites that all have none."""
        if rows.label is not None:
            seen, source = bool(rows.label.any()), f"column '{mapping.label}' holds no 1"
        else:
            logs = ", ".join(path for log in mapping.logs for path in log.paths)
            # A failure years after a machine's last row is none that the rows lead to.
            near = max(self.reach, float(np.ptp(rows.time)))
            seen = bool((rows.time_to_failure <= near).any())
            source = f"no failure in {logs} ends a life that {', '.join(mapping.paths)} shows"
        self._failed[mapping.site] = seen
        if not seen:
            self._warn(f"{mapping.site}: {source}; this site has healthy rows only")
        if len(self._failed) == len(self.mappings) and not any(self._failed.values()):
            raise DataError(
                f"no failure at any site ({', '.join(self.mappings)}): {mapping.site}: {source}; "
                "nothing can be learned; check the failure logs' machine ids and times, or bring "
                "a longer record"
            )

    def _warn(self, message: str) -> None:
        if message not in self.warnings:  # a site may be read again
            self.warnings.append(message)


def _quantities(mapping: SiteMapping) -> set[str]:
    return {name for name in mapping.columns if name not in mapping.values}


def _labels(table: Table, column: str) -> Ints:
    """Return a label column as (R,) 0 or 1."""
    values = table.numbers(column)
    table.refuse(
        column, ~np.isin(values, (0.0, 1.0)), "holds {value}, which is not 0 or 1,",
        "a label is 1 where a failure is near or present, else 0",
    )  # fmt: skip
    return values.astype(np.int64)
