"""C-MAPSS: simulated turbofan engines that run to failure, in cycles.

Saxena, Goebel, Simon, Eklund, "Damage Propagation Modeling for Aircraft Engine
Run-to-Failure Simulation", PHM 2008. FD001 and FD003 fly in one operating condition, FD002
and FD004 in six; FD001 and FD002 fail in one way, FD003 and FD004 in two. Training engines
are seen until they fail, the official test engines stop some cycles earlier and a third
file gives what life was left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from fedpdm.data.partition import Partition, PartitionedSource
from fedpdm.data.rows import Floats, Ints, Rows, Split, Strings
from fedpdm.data.sources.base import (
    OperatingConditions,
    require_choice,
    require_fraction,
    require_positive,
)
from fedpdm.data.sources.dialect import Dialect
from fedpdm.data.sources.published import (
    CMAPSS,
    find,
    finite,
    read_known,
    require_rows,
    warn_altered,
)
from fedpdm.data.sources.tables import Table
from fedpdm.errors import ConfigError, DataError

COLUMNS = (
    "unit", "cycle", "setting_1", "setting_2", "setting_3",
    *(f"sensor_{number:02d}" for number in range(1, 22)),
)  # fmt: skip
# The sensors that move in FD001: T24 T30 T50 P30 Nf Nc Ps30 phi NRf NRc BPR htBleed W31 W32.
INFORMATIVE = (2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21)
FEATURES = {
    "informative": tuple(f"sensor_{number:02d}" for number in INFORMATIVE),
    "aged": ("cycle", *(f"sensor_{number:02d}" for number in INFORMATIVE)),
    "all": COLUMNS[2:],
    "benchmark": COLUMNS[1:],
}
AGAIN = "fetch it again with python -m fedpdm.data fetch cmapss"
CONDITIONS = {"FD001": 1, "FD002": 6, "FD003": 1, "FD004": 6}
# Altitude in 1,000 ft, Mach number, throttle resolver angle. Altitude tells them apart.
SET_POINTS = np.array(
    [(0, 0, 100), (10, 0.25, 100), (20, 0.7, 100), (25, 0.62, 60), (35, 0.84, 100), (42, 0.84, 100)]
)
OPERATING = OperatingConditions(
    COLUMNS[2:5], tuple(map(tuple, SET_POINTS.tolist())), tolerance=(0.5, 0.05, 0.5)
)


class CmapssSource(PartitionedSource):
    """Subsets of C-MAPSS: training engines and official test engines, dealt to sites.

    Groups for a partition: ``subset``, and ``number``, which a training and a test engine
    have in common that stand under one number in their files (they are different engines).
    """

    name = "cmapss"
    time_unit = "cycles"
    test_truncated = True

    def __init__(
        self,
        *,
        sites: Mapping[str, object],
        partition: Partition,
        seed: int,
        reach: float = 0.0,
        path: str | None = None,
        subset: str | Sequence[str] = "FD001",
        features: str = "informative",
        window: int = 30,
        stride: int = 1,
        pad: str = "short",
        conditions: bool = True,
        validation_fraction: float = 0.2,
        verify: bool = True,
    ) -> None:
        """Prepare; the files are read when a site is first asked for.

        Args:
            sites: sites to name; empty lets the partition name them.
            partition: which site owns which engines.
            seed: of the draws of sites and of validation engines.
            reach: not needed, as training and validation never share an engine.
            path: the data folder; None means FEDPDM_DATA or ~/.cache/fedpdm.
            subset: FD001, FD002, FD003 or FD004, or several of them.
            features: ``informative`` (14 sensors), ``aged`` (those and the cycle: an engine's age),
                ``all`` (3 settings and 21 sensors) or ``benchmark`` (those and the cycle: the
                inputs of FedCMAPSS).
            window: cycles in a model input.
            stride: cycles between two training windows.
            pad: ``short``: an engine shorter than the window gives one window, padded with
                its first row. ``all``: moreover every early row of a training engine ends a
                padded window, so that a model has seen what short test engines look like.
            conditions: whether scaling tells the operating conditions of FD002 and FD004 apart.
            validation_fraction: share of each site's training engines to validate on.
            verify: refuse files that have not the published number of rows.

        Raises:
            ConfigError: an option out of its range.
        """
        self.subsets = subset_names(subset)
        require_choice("data.features", features, FEATURES)
        require_choice("data.pad", pad, ("short", "all"))
        self.window = require_positive("data.window", window)
        self.stride = require_positive("data.stride", stride)
        self.pad_training = pad == "all"
        self.features = FEATURES[features]
        self.tells_age = "cycle" in self.features
        # Six conditions have the same numbers in every subset; FD001 and FD003 fly in the first.
        self.conditions = max(CONDITIONS[name] for name in self.subsets) if conditions else 1
        self.operating = OPERATING if self.conditions > 1 else None
        super().__init__(sites, partition, seed)
        self._path, self._verify = path, verify
        self._validation_fraction = require_fraction(
            "data.validation_fraction", validation_fraction
        )

    def rows(self, site: str) -> Rows:
        rows = super().rows(site)
        if self.conditions == 1:  # only now: partition=condition deals by them all the same
            rows = replace(rows, condition=np.zeros_like(rows.condition))
        return self.hold_back(rows, site, self._validation_fraction)

    def read(self) -> Rows:
        return Rows.concatenate([self._read(subset) for subset in self.subsets])

    def _read(self, subset: str) -> Rows:
        test, train, life_left = (
            find(self._path, f"cmapss/{kind}_{subset}.txt", self.name)
            for kind in ("test", "train", "RUL")
        )
        prefix = f"{subset}-" if len(self.subsets) > 1 else ""
        return read_subset(
            train, test, life_left, self.features, CONDITIONS[subset], self._verify, prefix
        )


def subset_names(subset: str | Sequence[str]) -> tuple[str, ...]:
    """Return the subsets that ``data.subset`` names, by name: their order changes nothing.

    Raises:
        ConfigError: an unknown one, one named twice, or none.
    """
    chosen = [subset] if isinstance(subset, str) else [str(name) for name in subset]
    for name in chosen:
        require_choice("data.subset", name, CONDITIONS)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ConfigError(
            f"data.subset={subset} must name each subset once; choose one or several of "
            f"{', '.join(CONDITIONS)}"
        )
    return tuple(sorted(chosen))


def read_subset(
    train: Path,
    test: Path,
    life_left: Path,
    features: tuple[str, ...] = FEATURES["informative"],
    conditions: int = 1,
    verify: bool = True,
    prefix: str = "",
) -> Rows:
    """Return all engines of a subset: ``test-001`` … as TEST, ``train-001`` … as TRAIN.

    ``prefix`` goes before the ids, to tell the engines of several subsets apart.

    Every engine's end is known, so ``time_to_failure`` is set on every row: 0 on the last
    row of a training engine, the given remaining life on the last row of a test engine.

    Raises:
        DataError: a file is cut off, altered, or not in this format.
    """
    tested, trained = read_table(test, verify), read_table(train, verify)
    left = read_life_left(life_left, test, int(tested[-1, 0]), verify)
    subset, parts = train.stem.removeprefix("train_"), []
    for name, table, split in (("test", tested, Split.TEST), ("train", trained, Split.TRAIN)):
        unit, cycle = table[:, 0].astype(np.int64), table[:, 1]
        to_failure = last_cycle(unit, cycle) - cycle
        if split == Split.TEST:
            to_failure += left[unit - 1]
        condition = np.zeros(len(table), dtype=np.int64)
        if conditions > 1:
            place = str(train.parent)
            condition = OPERATING.of(table[:, 2:5], place, "; is data.subset right?")
        parts.append(
            Rows(
                features=features,
                values=table[:, [COLUMNS.index(name) for name in features]],
                machine=names(f"{prefix}{name}", unit),
                time=cycle,
                life=np.zeros(len(table), dtype=np.int64),
                time_to_failure=to_failure,
                observed=to_failure,
                split=np.full(len(table), split, dtype=np.int8),
                condition=condition,
                pad=True,
                test_last_only=True,
                groups={"subset": np.full(len(table), subset), "number": names(subset, unit)},
            )
        )
    return Rows.concatenate(parts)


def names(prefix: str, unit: Ints) -> Strings:
    """Return (R,) engine ids, for example ``train-001``."""
    known = np.array([f"{prefix}-{number:03d}" for number in range(unit.max() + 1)])
    return np.asarray(known[unit])


def last_cycle(unit: Ints, cycle: Floats) -> Floats:
    """Return (R,) the last cycle of each row's engine."""
    _, index, count = np.unique(unit, return_inverse=True, return_counts=True)
    return np.asarray(cycle[np.cumsum(count) - 1][index])


def read_table(path: Path, verify: bool = True) -> Floats:
    """Return (R, 26) float64 of a train or test file, engines and cycles contiguous from 1.

    Raises:
        DataError: the file is cut off, altered, or not in this format.
    """
    table = _read_numbers(path, COLUMNS, verify)
    unit, cycle = table[:, 0], table[:, 1]
    starts = np.r_[True, unit[1:] != unit[:-1]]
    row = np.arange(len(table))
    expected = row - np.maximum.accumulate(np.where(starts, row, 0)) + 1
    wrong = (unit != np.cumsum(starts)) | (cycle != expected)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise DataError(
            f"{path}, line {first + 1}: unit {unit[first]:g}, cycle {cycle[first]:g} does not "
            f"continue the lines before (units and cycles count up from 1); {AGAIN}"
        )
    return table


def read_life_left(path: Path, test: Path, engines: int, verify: bool = True) -> Floats:
    """Return (E,) cycles left after the last row of each test engine.

    Raises:
        DataError: not one number >= 0 for each engine of ``test``.
    """
    values = _read_numbers(path, ("RUL",), verify)[:, 0]
    if len(values) != engines or values.min() < 0:
        raise DataError(
            f"{path} must give one remaining life of at least 0 for each of the {engines} engines "
            f"of {test.name}, but holds {len(values)} numbers from {values.min():g}; {AGAIN}"
        )
    return values


def _read_numbers(path: Path, columns: Sequence[str], verify: bool) -> Floats:
    """Return (R, C) finite float64: C numbers in each line, apart by spaces."""
    known = next(known for known in CMAPSS if known.name == path.name)
    text, original = read_known(path, known)
    lines = text.splitlines()
    try:
        table = np.loadtxt(lines, dtype=np.float64, ndmin=2, comments=None)
    except ValueError:
        table = np.empty((0, 0))
    if table.shape != (len(lines), len(columns)) or not np.isfinite(table).all():
        _refuse_line(path, columns, [line.split() for line in lines])
    if verify:
        require_rows(path, len(table), known)
        if not original:
            warn_altered(path)
    return table


def _refuse_line(path: Path, columns: Sequence[str], cells: list[list[str]]) -> NoReturn:
    """Raise DataError for a line that has not one finite number for each column."""
    for number, line in enumerate(cells, start=1):
        if len(line) != len(columns):
            raise DataError(
                f"{path}, line {number}: {len(line)} columns where there must be {len(columns)}: "
                f"the file is cut off or altered; {AGAIN}"
            )
    # ``Table`` counts lines below a header; here is none.
    frame = pd.DataFrame(cells, columns=list(columns), index=range(-1, len(cells) - 1))
    table = Table(frame, str(path), AGAIN, lines=True, dialect=Dialect())
    for column in columns:
        finite(table, column)
    raise AssertionError("every line is valid")
