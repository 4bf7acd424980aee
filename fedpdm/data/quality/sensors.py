"""Odd readings at one site: sentinels, and stuck, constant or dropped sensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from fedpdm.data.rows import (
    Bools,
    Floats,
    Ints,
    Rows,
    Split,
    Strings,
    machine_slices,
    within_horizon,
)
from fedpdm.data.sources.units import convert

DISTINCT = 10  # a column with fewer values is a state, not a measurement
REPEATS = 3  # a sentinel stands at least so often
FAR = 1.5  # and so many ranges of the other readings away from them
LONGEST_RUN = 20  # rows with one reading, below which a stuck sensor is not suspected
CASES = 10  # healthy and failing rows each, before one feature is said to separate them
SEPARATES = 0.999


@dataclass(frozen=True)
class Finding:
    """Something odd.

    Attributes:
        kind: ``label``, ``sentinel``, ``range``, ``stuck``, ``dropped`` or ``constant``.
        site: whose.
        feature: which.
        text: one sentence with site, file, column, numbers, and the key that settles it.
    """

    kind: str
    site: str
    feature: str
    text: str


@dataclass(frozen=True)
class Place:
    """Where a site's readings come from, for messages.

    Attributes:
        site: its name.
        files: its sensor files; empty for data without files of its own.
        columns: feature to column, where the file calls it otherwise.
        units: feature to its unit in the file and the one that it was converted into.
        states: features that are kinds, not quantities.
    """

    site: str
    files: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    states: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return f"{self.site}: {self.files}" if self.files else self.site

    def column(self, feature: str) -> str:
        """Return the column of a feature as messages name it."""
        column = self.columns.get(feature, feature)
        return f"column '{column}'" + (f" (feature '{feature}')" if column != feature else "")

    def written(self, feature: str, value: float) -> str:
        """Return a reading as it stands in the file."""
        if feature in self.units:
            unit, other = self.units[feature]
            value = float(convert(np.array([value]), other, unit)[0])
        return f"{value:.6g}"


def place_of(source: Any, site: str) -> Place:
    """Return where the rows of ``site`` come from; ``source`` may wrap the one with files."""
    mapping = getattr(getattr(source, "inner", source), "mappings", {}).get(site)
    states = frozenset(source.categorical)
    if mapping is None:
        return Place(site, states=states)
    files = ", ".join(mapping.paths[:2]) + (", …" if len(mapping.paths) > 2 else "")
    columns = {i: c for name, c in mapping.columns.items() for i in mapping.inputs_of(name)}
    into = mapping.target_units
    units = {name: (mapping.units[name], into[name]) for name in mapping.columns if name in into}
    return Place(site, files, columns, units, states)


def targets(rows: Rows, horizon: float) -> tuple[Bools, Bools]:
    """Return (R,) rows before a failure (or labelled 1), and (R,) rows of which that is known."""
    if rows.label is not None:
        return rows.label == 1, np.ones(len(rows), dtype=bool)
    return within_horizon(rows, horizon)


def look(place: Place, rows: Rows, horizon: float) -> list[Finding]:
    """Return what looks odd in the rows of one site, the worst first.

    Args:
        place: where they come from.
        rows: R rows.
        horizon: how long before a failure a row counts as positive.
    """
    positive, known = targets(rows, horizon)
    training = known & (rows.split == Split.TRAIN)
    found: list[tuple[str, str, str]] = []
    for number, name in enumerate(rows.features):
        values = rows.values[:, number]
        if (said := _separates(values[training], positive[training])) is not None:
            found.append(("label", name, said))
        if name in place.states:
            continue
        strange = sentinels(values, rows.machine)
        for value in strange:
            found.append(("sentinel", name, _sentinel(place, name, values, value, strange)))
        clean = without(values, strange)
        for kind, said in _stillness(place, name, clean, rows.machine):
            found.append((kind, name, said))
    order = ("label", "sentinel", "stuck", "dropped", "constant")
    return [
        Finding(kind, place.site, name, f"{place.name}: {place.column(name)} {said}")
        for kind, name, said in sorted(found, key=lambda one: order.index(one[0]))
    ]


def without(values: Floats, strange: list[float]) -> Floats:
    """Return (R,) readings with NaN in the place of sentinels."""
    return np.where(np.isin(values, strange), np.nan, values)


def sentinels(values: Floats, machine: Strings) -> list[float]:
    """Return the values that stand for something else than a reading: -9999, 999, 0.

    Such a value stands exactly alike several times, far from all others. Zero is also what a
    machine reads that stands still; it counts only if most zeros stand alone among readings.

    Args:
        values: (R,) readings, NaN where one is missing.
        machine: (R,) rows of a machine stand together, in order of time.
    """
    unique, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    size = len(unique)
    for low, high in sorted(product(range(3), range(3)), key=sum)[:0:-1]:
        core = unique[low : size - high]
        if len(core) < DISTINCT:
            continue
        strange = np.r_[unique[:low], unique[size - high :]]
        often = np.r_[counts[:low], counts[size - high :]]
        distance = np.maximum(core[0] - strange, strange - core[-1])
        spread = float(np.subtract(*np.quantile(core, (0.99, 0.01))))
        if (distance > FAR * spread).all() and (often >= REPEATS).all():
            alone = [v for v in strange.tolist() if v != 0 or _stand_alone(values == 0, machine)]
            return [float(value) for value in alone]
    return []


def _stand_alone(here: Bools, machine: Strings) -> bool:
    """Return whether most of the rows ``here`` have no neighbour in ``here``."""
    beside = here[1:] & here[:-1] & (machine[1:] == machine[:-1])
    return bool(2 * beside.sum() < here.sum())


def _sentinel(place: Place, name: str, values: Floats, value: float, strange: list[float]) -> str:
    rest = without(values, strange)
    written = place.written(name, value)
    low, high = (place.written(name, float(f(rest))) for f in (np.nanmin, np.nanmax))
    return (
        f"holds {written} in {int((values == value).sum()):,} of {len(values):,} rows, and {low} "
        f"to {high} elsewhere; if it stands for no reading, set missing: [{written}] in "
        f"sites.{place.site}"
    )


def _separates(values: Floats, positive: Bools) -> str | None:
    """Say that one feature tells failing from healthy training rows, or return None."""
    there = ~np.isnan(values)
    values, positive = values[there], positive[there]
    cases = int(positive.sum())
    if min(cases, len(positive) - cases) < CASES:
        return None
    from sklearn.metrics import roc_auc_score  # not needed by runs on other data

    area = float(roc_auc_score(positive, values))
    if SEPARATES > area > 1 - SEPARATES:
        return None
    equal = set(np.unique(values[positive])).isdisjoint(np.unique(values[~positive]).tolist())
    return (
        f"alone {'separates' if equal else 'almost separates'} the {cases:,} training rows before "
        f"a failure from the {len(positive) - cases:,} others (ROC AUC {area:.4f}); if it is "
        "known only after the failure, take it out of 'features'"
    )


def _stillness(
    place: Place, name: str, values: Floats, machine: Strings
) -> Iterator[tuple[str, str]]:
    """Say of one sensor that it is constant, stuck or dropped.

    Args:
        place: where it is, for messages.
        name: its feature.
        values: (R,) readings.
        machine: (R,) rows of a machine stand together, in order of time.
    """
    there = ~np.isnan(values)
    if not there.any():
        return
    if (values[there] == values[there][0]).all():
        value = place.written(name, float(values[there][0]))
        yield "constant", f"holds {value} in every row; a model learns nothing from it here"
        return
    if (run := stuck(values, machine)) is not None:
        first, length = run
        value = place.written(name, float(values[first]))
        yield (
            "stuck",
            f"holds {value} in {length:,} rows in a row of machine '{machine[first]}', and varies "
            "elsewhere; if the sensor was stuck, leave these readings empty",
        )
    missing = {m: float(1 - there[part].mean()) for m, part in machine_slices(machine).items()}
    gone = sorted((m for m in missing if missing[m] > 0.5), key=lambda m: -missing[m])
    if gone and len(gone) < len(missing):
        shown = ", ".join(f"'{m}' ({missing[m]:.0%})" for m in gone[:3])
        yield (
            "dropped",
            f"is mostly empty at {len(gone)} of {len(missing)} machines: {shown}"
            f"{', …' if len(gone) > 3 else ''}; leave them out, or take it out of 'features'",
        )


def stuck(values: Floats, machine: Strings) -> tuple[int, int] | None:
    """Return the first row and the length of a run of one value that chance does not explain.

    How long a run may be follows from how often neighbouring readings are alike outside of it. A
    value with several long runs is a level at which the machine rests.

    Args:
        values: (R,) readings, NaN where one is missing.
        machine: (R,) rows of a machine stand together, in order of time.
    """
    if len(np.unique(values[~np.isnan(values)])) < DISTINCT:
        return None
    change = (values[1:] != values[:-1]) | (machine[1:] != machine[:-1])
    starts: Ints = np.flatnonzero(np.r_[True, change])
    lengths = np.diff(np.r_[starts, len(values)])
    longest = int(lengths.argmax())
    others = np.delete(lengths, longest)
    alike = float((others - 1).sum() / max(others.sum(), 1))
    chance = np.log(len(values)) / -np.log(alike) if 0 < alike < 1 else 0.0
    if lengths[longest] <= max(LONGEST_RUN, 3 * chance):
        return None
    same = (values[starts] == values[starts[longest]]) & (lengths >= LONGEST_RUN / 2)
    return None if same.sum() > 1 else (int(starts[longest]), int(lengths[longest]))
