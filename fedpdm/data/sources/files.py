"""A site's own files: one CSV or Parquet of sensor rows, and a log of failures or a label.

What the columns mean stands in the site's yaml (``fedpdm.data.sources.mapping``; see
docs/bring-your-own-data.md). Every file is checked when its site is first needed, and
refused with the file, the column, the line and the way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedpdm.data.partition import Natural, Partition
from fedpdm.data.rows import Events, Floats, Ints, Rows, Strings, rows_with_lives
from fedpdm.data.sources.base import Source
from fedpdm.data.sources.checksums import require_fraction, require_positive
from fedpdm.data.sources.mapping import SiteMapping, agreed_features, closest, site_mapping
from fedpdm.data.sources.tables import Table, read_table
from fedpdm.data.splits import cuts as splits
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
        self.window = None if window is None else require_positive("data.window", window)
        self.stride = require_positive("data.stride", stride)
        self.max_missing = max_missing
        self.heldout_fraction = require_fraction("data.heldout_fraction", heldout_fraction)
        self.seed, self.reach = seed, reach
        self.folder = None if path is None else Path(path).expanduser()
        self.time_unit = str(time_unit)
        self.mappings = {
            name: site_mapping(name, settings or {}) for name, settings in sites.items()
        }
        self.features, found = agreed_features(list(self.mappings.values()))
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
        time, dates = table.times(mapping.time, self.time_unit)
        label = None if mapping.label is None else _labels(table, mapping.label)
        values = np.stack([self._readings(table, mapping, f) for f in self.features], axis=1)
        if len(table) < LEAST_ROWS:
            raise DataError(
                f"{table.where} has {len(table)} rows; a site needs at least {LEAST_ROWS} to be "
                "cut into training, validation and test; bring a longer record"
            )
        order = table.in_order(machine, time, mapping.time)
        back = int((pd.Series(time).groupby(machine).diff() < 0).sum())
        if back:
            self._warn(f"{table.where}: {back} rows were out of time order and have been sorted")
        machine, time, values = machine[order], time[order], values[order]
        label = None if label is None else label[order]
        events = self._events(mapping, table.where, machine, dates)
        rows = rows_with_lives(self.features, machine, time, values, events, label=label)
        self._require_window(table.where, machine, rows.life)
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
        """Read the columns of a site's sensor file that its yaml maps."""
        site = mapping.site
        columns = {mapping.machine: "the machine", mapping.time: "the time"}
        columns |= {column: f"feature '{name}'" for name, column in mapping.columns.items()}
        if mapping.label is not None:
            columns[mapping.label] = "the label"
        place = self._place(mapping.path)
        return read_table(
            place,
            columns,
            where=f"{site}: {place}",
            hint=f"mend the file, or map another column in sites.{site} (site/{site}.yaml)",
            dialect=mapping.dialect,
            text=mapping.text,
        )

    def _readings(self, table: Table, mapping: SiteMapping, feature: str) -> Floats:
        """Return a feature as (R,) numbers; refuse one with too many empty cells."""
        column = mapping.columns[feature]
        values = table.numbers(column)
        share = float(np.isnan(values).mean())
        if share == 1.0:
            raise DataError(
                f"{table.where}: column '{column}' (feature '{feature}') is empty in every row; "
                "map another column, or take the feature out of every site's yaml"
            )
        if share > self.max_missing:
            raise DataError(
                f"{table.where}: column '{column}' (feature '{feature}') is empty in {share:.0%} "
                f"of the rows, more than data.max_missing={self.max_missing:g}; take the feature "
                "out of every site's yaml, or raise data.max_missing"
            )
        return values

    def _events(self, mapping: SiteMapping, data: str, machine: Strings, dates: bool) -> Events:
        """Read a site's failure log; a site with a label has no events.

        Args:
            mapping: the site's yaml.
            data: site and file of the sensor rows, for messages.
            machine: (R,) machine ids of the sensor rows: the log must name no others.
            dates: whether the times of the sensor rows are dates: the log's must be, too.
        """
        log = mapping.failures
        if log is None:
            return Events(np.zeros(0, np.str_), np.zeros(0), np.zeros(0, dtype=bool))
        place, key = self._place(log.path), f"sites.{mapping.site}.failures"
        where = f"{mapping.site}: {place}"
        kind = log.kind or "kind"
        columns = {log.machine: "the machine", log.time: "the time"}
        if log.kind is not None:
            columns[kind] = "the kind of event"
        table = read_table(
            place, columns, where=where, hint=f"mend the file, or map the column in {key}",
            dialect=log.dialect, optional=("kind",) if log.kind is None else (),
            text=(log.machine, kind, *((log.time,) * log.dialect.times_are_text)),
        )  # fmt: skip
        names = table.names(log.machine)
        time, log_dates = table.times(log.time, self.time_unit)
        if log_dates != dates:
            spelled = ("numbers", "dates")
            raise DataError(
                f"{where}: column '{log.time}' holds {spelled[log_dates]}, but the times in {data} "
                f"are {spelled[dates]}; write both in the same way"
            )
        counts = np.ones(len(table), dtype=bool)
        failure = np.ones(len(table), dtype=bool)
        if kind in table:
            kinds = np.char.lower(table.names(kind))
            known = (*log.failure_kinds, *log.repair_kinds, *log.ignored_kinds)
            table.refuse(
                kind, ~np.isin(kinds, known), "holds {value}, which is no known kind of event,",
                f"list it in {key}.failure_kinds, repair_kinds or ignored_kinds "
                f"(known: {', '.join(known)})",
            )  # fmt: skip
            failure = np.isin(kinds, log.failure_kinds)
            counts = ~np.isin(kinds, log.ignored_kinds)
        stranger = ~np.isin(names, machine)
        if stranger.any() and not log.ignore_unknown:
            there = np.unique(machine)
            missing = np.unique(names[stranger])
            raise DataError(
                f"{where}: the log names {len(missing)} machine(s) that {data} has no rows of: "
                f"{', '.join(missing[:5])} (first at {table.place(int(np.argmax(stranger)))}); the "
                f"data has {', '.join(there[:5])}{', …' if len(there) > 5 else ''}."
                f"{closest(str(missing[0]), there.tolist())} Mend the ids, or set "
                f"{key}.unknown_machines: ignore"
            )
        return Events(names[counts], time[counts], failure[counts])

    def _require_window(self, where: str, machine: Strings, life: Ints) -> None:
        """Refuse a window that is longer than every life of every machine."""
        if self.window is None:
            return
        lengths = pd.DataFrame({"machine": machine, "life": life}).value_counts()
        if lengths.iloc[0] < self.window:
            raise DataError(
                f"{where}: data.window={self.window} is longer than every machine's life; the "
                f"longest has {lengths.iloc[0]} rows (machine '{lengths.index[0][0]}'); lower "
                "data.window or bring a longer record"
            )

    def _note_failures(self, mapping: SiteMapping, rows: Rows) -> None:
        """Warn of a site without failures; refuse sites that all have none."""
        if rows.label is not None:
            seen, source = bool(rows.label.any()), f"column '{mapping.label}' holds no 1"
        else:
            log = mapping.failures.path if mapping.failures else ""
            seen = not bool(np.isnan(rows.time_to_failure).all())
            source = f"no failure in {log} ends a life that {mapping.path} shows"
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


def _labels(table: Table, column: str) -> Ints:
    """Return a label column as (R,) 0 or 1."""
    values = table.numbers(column)
    table.refuse(
        column, ~np.isin(values, (0.0, 1.0)), "holds {value}, which is not 0 or 1,",
        "a label is 1 where a failure is near or present, else 0",
    )  # fmt: skip
    return values.astype(np.int64)
