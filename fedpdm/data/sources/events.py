"""Reads a site's logs of failures and maintenance as events of its machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedpdm.data.rows import Bools, Events, Floats, Strings, machine_slices
from fedpdm.data.sources.keys import closest
from fedpdm.data.sources.mapping import EventLog, SiteMapping
from fedpdm.data.sources.readings import picked
from fedpdm.data.sources.tables import Table, read_table
from fedpdm.errors import DataError


@dataclass(frozen=True)
class SiteEvents:
    """What a site's logs say.

    Attributes:
        events: E events.
        end: (E,) when the machine ran again, NaN where it is not said.
    """

    events: Events
    end: Floats

    def standing(self, machine: Strings, time: Floats) -> Bools:
        """Return (R,) rows between an event and the end of its repair: the machine stood still.

        Args:
            machine: (R,) rows of a machine stand together.
            time: (R,) in any order.
        """
        still = np.zeros(len(time), dtype=bool)
        own = machine_slices(machine)
        for k in np.flatnonzero(~np.isnan(self.end)):
            part = own.get(str(self.events.machine[k]))
            if part is not None:
                now = time[part]
                still[part] |= (now > self.events.time[k]) & (now < self.end[k])
        return still


def read_events(
    mapping: SiteMapping, rows: Table, machine: Strings, unit: str, place: Callable[[str], Path]
) -> SiteEvents:
    """Read a site's logs; a site with a label has no events.

    Args:
        mapping: the site's yaml.
        rows: the sensor rows: the logs must write times as they do.
        machine: (R,) machine ids of the sensor rows: the logs must name no others.
        unit: of times.
        place: where a path of the yaml leads.
    """
    parts = [
        _log(log, mapping, rows, machine, unit, [place(path) for path in log.paths])
        for log in mapping.logs
    ]
    parts.append(_nothing())
    return SiteEvents(
        Events(
            np.concatenate([part.events.machine for part in parts]),
            np.concatenate([part.events.time for part in parts]),
            np.concatenate([part.events.failure for part in parts]),
        ),
        np.concatenate([part.end for part in parts]),
    )


def _nothing() -> SiteEvents:
    none = Events(np.zeros(0, np.str_), np.zeros(0), np.zeros(0, dtype=bool))
    return SiteEvents(none, np.zeros(0))


def _log(
    log: EventLog, mapping: SiteMapping, rows: Table, machine: Strings, unit: str,
    paths: Sequence[Path],
) -> SiteEvents:  # fmt: skip
    """Read one log."""
    where = f"{mapping.site}: {', '.join(map(str, paths))}"
    kind = log.kind or "kind"
    columns = {log.machine: "the machine"} if log.machine else {}
    columns |= {log.time: "the time"}
    columns |= {log.end: "the end of the repair"} if log.end is not None else {}
    columns |= {kind: "the kind of event"} if log.kind is not None else {}
    columns |= dict.fromkeys(log.where, "picks the site's events")
    text = (log.machine, kind, *log.where, *log.shared)
    dates = (log.time, *(() if log.end is None else (log.end,)))
    table = read_table(
        paths, columns, where=where, hint=f"correct the file, or map the column in {log.key}",
        dialect=log.dialect, optional=(*log.shared, *(() if log.kind else ("kind",))),
        text=(*text, *(dates if log.dialect.times_are_text else ())), may_be_empty=True,
    )  # fmt: skip
    table = picked(table, log.where or log.shared)
    if len(table) == 0:
        return _nothing()
    names = _machines(log, table, machine)
    _require_same_times(log, table, mapping, rows)
    time, _ = table.times(log.time, unit, names)
    end = _ends(log, table, names, time, unit)
    counts = np.ones(len(table), dtype=bool)
    failure = np.full(len(table), log.failure)
    if kind in table:
        kinds = np.char.lower(table.names(kind))
        known = (*log.failure_kinds, *log.repair_kinds, *log.ignored_kinds)
        table.refuse(
            kind, ~np.isin(kinds, known), "holds {value}, which is no known kind of event,",
            f"list it in {log.key}.failure_kinds, repair_kinds or ignored_kinds "
            f"(known: {', '.join(known)})",
        )  # fmt: skip
        failure = np.isin(kinds, log.failure_kinds)
        counts = ~np.isin(kinds, log.ignored_kinds)
    _require_known(log, table, names, rows.where, machine)
    return SiteEvents(Events(names[counts], time[counts], failure[counts]), end[counts])


def _machines(log: EventLog, table: Table, machine: Strings) -> Strings:
    """Return (E,) the machine of each event."""
    if log.machine:
        return table.names(log.machine)
    there = np.unique(machine)
    if len(there) > 1:
        raise DataError(
            f"{table.where}: the log does not say which of {len(there)} machines "
            f"({', '.join(there[:5])}) an event is of; name its column in {log.key}.machine"
        )
    return np.full(len(table), there[0])


def _require_same_times(log: EventLog, table: Table, mapping: SiteMapping, rows: Table) -> None:
    """Refuse a log whose times could be shifted against the rows' unnoticed."""
    own, others = table.zoned(log.time), rows.zoned(mapping.time)
    if (own is None) != (others is None):
        spelled = {True: "numbers", False: "dates"}
        raise DataError(
            f"{table.where}: column '{log.time}' holds {spelled[own is None]}, but the times in "
            f"{rows.where} are {spelled[others is None]}; write both in the same way"
        )
    if own is None:
        return
    own = own or log.dialect.time_zone is not None
    others = others or mapping.dialect.time_zone is not None
    if own != others:
        silent = f"sites.{mapping.site}" if own else log.key
        raise DataError(
            f"{table.where}: the times in column '{log.time}' have "
            f"{'a' if own else 'no'} time zone, those of {rows.where} have "
            f"{'one' if others else 'none'}; set {silent}.time_zone, for example Europe/Warsaw "
            "or UTC"
        )


def _ends(log: EventLog, table: Table, names: Strings, time: Floats, unit: str) -> Floats:
    """Return (E,) when machines ran again; NaN where the log does not say."""
    end = np.full(len(table), np.nan)
    if log.end is None:
        return end
    said = ~table.empty(log.end)
    if said.any():
        end[said] = table.take(said).times(log.end, unit, names[said])[0]
    table.refuse(
        log.end, end < time, "holds {value}, which is before the event,", "correct the file"
    )
    return end


def _require_known(
    log: EventLog, table: Table, names: Strings, data: str, machine: Strings
) -> None:
    """Refuse events of machines without rows, and ids that seem unknown only by their spelling."""
    stranger = ~np.isin(names, machine)
    if not stranger.any():
        return
    there = np.unique(machine).tolist()
    missing = np.unique(names[stranger]).tolist()
    plain = {_plain(name): name for name in there}
    alike = [(name, plain[_plain(name)]) for name in missing if _plain(name) in plain]
    if alike:
        raise DataError(
            f"{table.where}: machine ids are written differently: '{alike[0][0]}' in the log and "
            f"'{alike[0][1]}' in {data} ({len(alike)} machine(s)); write them in the same way"
        )
    if log.ignore_unknown:
        return
    raise DataError(
        f"{table.where}: the log names {len(missing)} machine(s) that {data} has no rows of: "
        f"{', '.join(missing[:5])} (first at {table.place(int(np.argmax(stranger)))}); the "
        f"data has {', '.join(there[:5])}{', …' if len(there) > 5 else ''}."
        f"{closest(missing[0], there)} Correct the ids, or set {log.key}.unknown_machines: ignore"
    )


def _plain(name: str) -> str:
    """Return an id without what tables write differently: case, blanks, zeros, .0, marks."""
    text = name.casefold().removesuffix(".0")
    return "".join(c for c in text if c.isalnum()).lstrip("0") or "0"
