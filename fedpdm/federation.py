"""The sites of a federation, their machines and their windows.

A site is read or generated when it is first asked for, and the least recently used
ones are dropped, so a federation of thousands costs what its sampled sites cost.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from fedpdm.data.features import RAW, WindowFeatures
from fedpdm.data.leakage.label_shuffle import LabelShuffle
from fedpdm.data.normalise import Moments, Scaler, fill_missing, moments
from fedpdm.data.resampling import Resampler
from fedpdm.data.rows import Bools, Floats, Ints, Rows, Split
from fedpdm.data.sources.base import Source
from fedpdm.data.windows import Windows, gather, segment_starts, window_ends
from fedpdm.errors import ConfigError, DataError
from fedpdm.tasks import Task

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, eq=False)
class Site:
    """One site, ready to train: windows per split, scaled."""

    name: str
    windows: dict[Split, Windows]

    @property
    def train(self) -> Windows:
        return self.windows[Split.TRAIN]

    @property
    def validation(self) -> Windows:
        return self.windows[Split.VALIDATION]

    @property
    def test(self) -> Windows:
        return self.windows[Split.TEST]

    @property
    def heldout(self) -> Windows:
        return self.windows[Split.HELDOUT]


BUDGET = 512 * 1024**2


class Shelf(Generic[K, V]):
    """What was asked for last, up to a size in bytes, and always the last one.

    Args:
        budget: bytes to keep.
        size: the size of one value in bytes.
    """

    def __init__(self, budget: int, size: Callable[[V], int]) -> None:
        self._budget, self._size = budget, size
        self._total = 0
        self._values: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Return what is kept under ``key``, or make it and keep it."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = make()
        self._total += self._size(value)
        while self._total > self._budget and len(self._values) > 1:
            _, dropped = self._values.popitem(last=False)
            self._total -= self._size(dropped)
        return value


def rows_size(rows: Rows) -> int:
    """Return the bytes of a site's rows."""
    return sum(v.nbytes for v in vars(rows).values() if isinstance(v, np.ndarray))


def windows_size(site: Site) -> int:
    """Return the bytes of a site's windows."""
    parts = (vars(part) for part in site.windows.values())
    return sum(v.nbytes for part in parts for v in part.values() if isinstance(v, np.ndarray))


class Federation:
    """The sites of one run.

    Args:
        source: the data set.
        task: gives each row its target.
        budget: bytes of rows and windows that stay in memory; beyond them the sites that
            were not asked for longest are dropped, and read or generated again when asked.
        features: what a model sees of a window.
        resampler: makes up for rare failures in training windows; None leaves them as they are.
        shuffle: gives labels to the wrong windows, to look for leaks; None leaves them.
        without: sites of the source that take no part; their rows can be asked for all the same.
    """

    def __init__(
        self,
        source: Source,
        task: Task,
        budget: int = BUDGET,
        features: WindowFeatures = RAW,
        resampler: Resampler | None = None,
        shuffle: LabelShuffle | None = None,
        without: Collection[str] = (),
    ) -> None:
        features.check(source)  # before anything is read
        self.source = source
        self.task = task
        self.sites = tuple(name for name in source.sites if name not in without)
        self._without = tuple(without)
        if not self.sites:
            raise ConfigError(
                "no site to run: name some with site=detroit,houston, or let the partition "
                "make them, for example partition=machine partition.sites=10"
            )
        self._budget = budget
        self.features = features
        self.resampler = resampler
        self.shuffle = shuffle
        self._scaler: tuple[Scaler | None, str] = (None, "")
        self._rows: Shelf[str, Rows] = Shelf(budget // 2, rows_size)
        self._built: Shelf[tuple[str, str], Site] = Shelf(budget // 2, windows_size)
        self._computed: Shelf[str, dict[Split, Floats]] = Shelf(
            budget // 2, lambda parts: sum(part.nbytes for part in parts.values())
        )

    def __reduce__(self) -> tuple[type[Federation], tuple[Any, ...]]:
        """Go to another process without the rows; it reads those of its own sites."""
        return type(self), (
            self.source, self.task, self._budget, self.features, self.resampler, self.shuffle,
            self._without,
        )  # fmt: skip

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what a model sees at each time step, or of a row."""
        return self.features.inputs(self.source.features)

    @property
    def input_length(self) -> int | None:
        """Time steps of a model's input, None for rows."""
        return self.features.length(self.source.window)

    def rows(self, name: str) -> Rows:
        """Return the rows of a site in raw units. They never leave it."""
        return self._rows.get(name, lambda: self.source.rows(name))

    def moments(self, name: str) -> Moments:
        """Return the moments of a site's training rows: sums, never rows.

        Where windows have features, those of its training windows stand beside the readings'.
        Codes (``Source.levels``) get those of mean 0 and deviation 1, so scaling leaves them.
        """
        readings = moments(self.rows(name), self.source.conditions)
        codes = [k for k, name in enumerate(self.source.features) if name in self.source.levels]
        if codes:
            for sums, value in zip(vars(readings).values(), (1.0, 0.0, 1.0, 1.0), strict=True):
                sums[:, codes] = value
        if not self.features.active:
            return readings
        return self.features.add_moments(readings, self._features(name)[Split.TRAIN])

    def _features(self, name: str) -> dict[Split, Floats]:
        """Return (N, K) features of a site's windows in raw units, by split."""

        def compute() -> dict[Split, Floats]:
            rows, length = self.rows(name), self.source.window
            assert length is not None  # the features' check says so
            start = segment_starts(rows)
            return {
                split: self.features.compute(
                    gather(rows.values, ends, start[ends], length), self.source.features
                )
                for split, (ends, _) in self._ends(rows).items()
            }

        return self._computed.get(name, compute)

    def site(self, name: str, scaler: Scaler) -> Site:
        """Return a site's scaled windows."""
        if self._scaler[0] is not scaler:
            digest = hashlib.sha256(scaler.mean.tobytes() + scaler.scale.tobytes()).hexdigest()
            self._scaler = (scaler, digest)
        key = (name, self._scaler[1])
        return self._built.get(key, lambda: Site(name, self._windows(name, scaler)))

    def with_source(self, source: Source) -> Federation:
        """Return the same sites with windows as ``source`` cuts them, none of them resampled.

        Args:
            source: this federation's, with the same rows, which are not read again.
        """
        other = Federation(
            source, self.task, self._budget, self.features, None, self.shuffle, self._without
        )
        other._rows = self._rows
        return other

    def ends(self, name: str) -> dict[Split, Ints]:
        """Return by split the positions of the rows at which a site's windows end."""
        return {split: ends for split, (ends, _) in self._ends(self.rows(name)).items()}

    def _ends(self, rows: Rows) -> dict[Split, tuple[Ints, Bools]]:
        """Return by split where windows end, and which are padded."""
        source, task = self.source, self.task
        known = task.targets(rows)[2]
        result = {}
        for split in (Split.TRAIN, Split.VALIDATION, Split.TEST, Split.HELDOUT):
            usable = known & (rows.split == split)
            if source.window is None:
                ends = np.flatnonzero(usable)
                result[split] = ends, np.zeros(len(ends), dtype=bool)
                continue
            stride = source.stride if split == Split.TRAIN else source.evaluation_stride
            pad_all = source.pad_training and split == Split.TRAIN
            ends, padded = window_ends(rows, source.window, stride, usable, pad_all)
            if split == Split.TEST and rows.test_last_only and task.tested_at_the_end:
                chosen = machine_ends(rows)[ends]
                ends, padded = ends[chosen], padded[chosen]
            result[split] = ends, padded
        return result

    def _windows(self, name: str, scaler: Scaler) -> dict[Split, Windows]:
        rows, source = self.rows(name), self.source
        target, truth, _ = self.task.targets(rows)
        readings = self.features.of_readings(scaler, len(source.features))
        values = fill_missing(readings.apply(rows.values, rows.condition), rows)
        start, last = segment_starts(rows), machine_ends(rows)
        result = {}
        for split, (ends, padded) in self._ends(rows).items():
            x = values[ends]
            if source.window is not None:
                x = gather(values, ends, start[ends], source.window)
            if self.features.active:
                x = self.features.join(x, self._features(name)[split], scaler)
            result[split] = Windows(
                x=np.ascontiguousarray(x),
                y=target[ends],
                truth=truth[ends],
                machine=rows.machine[ends],
                time=rows.time[ends],
                padded=padded,
                last=last[ends],
            )
        if self.shuffle is not None:
            result = self.shuffle(result, name)
        if self.resampler is not None:
            result[Split.TRAIN] = self.resampler(result[Split.TRAIN], name, self.inputs)
        return result

    def shape(self, site: Site) -> dict[str, Any]:
        """Return what the report says about a site's data: counts and shares, no rows."""
        rows = self.rows(site.name)
        real = {split: part.real() for split, part in site.windows.items()}
        return {
            "site": site.name,
            "rows": len(rows),
            "machines": len(np.unique(rows.machine)),
            "heldout_machines": len(np.unique(rows.machine[rows.split == Split.HELDOUT])),
            "failures": int(_failures(rows)),
            "missing": float(np.isnan(rows.values).mean()) if rows.values.size else 0.0,
            "windows": {split.name.lower(): len(part) for split, part in real.items()},
            "resampled": len(site.train) - len(real[Split.TRAIN]),
            "prevalence": {
                split.name.lower(): float(np.mean(part.truth)) if len(part) else None
                for split, part in real.items()
            }
            if site.train.y.dtype.kind == "i" and self.task.risks
            else None,
            "sha256": rows.sha256(),
        }

    def check(self, sites: list[Site]) -> list[str]:
        """Refuse sites and federations that cannot train; return warnings for the rest.

        Raises:
            DataError: a site without training windows, or no failure anywhere.
        """
        flaws: dict[str, list[str]] = {}
        for site in sites:
            if len(site.train) < 2:
                raise DataError(self._no_windows(site))
            for split in (Split.VALIDATION, Split.TEST):
                part, word = site.windows[split], split.name.lower()
                if len(part) == 0:
                    flaws.setdefault(f"no {word} window, scores are empty", []).append(site.name)
                elif self.task.risks and part.y.dtype.kind == "i" and len(np.unique(part.y)) < 2:
                    flaw = f"the {word} part has one class only, average precision is empty"
                    flaws.setdefault(flaw, []).append(site.name)
        warnings = [f"{some(names)}: {flaw}" for flaw, names in flaws.items()]
        classes = [np.unique(site.train.y) for site in sites if site.train.y.dtype.kind == "i"]
        if self.task.learns_labels and classes and len(np.unique(np.concatenate(classes))) < 2:
            if not self.task.risks:
                raise DataError(
                    "the training data of all sites is of one class only: nothing can be "
                    "learned; bring other machines or a longer record, or check task.column"
                )
            kind = "failure" if 1 not in np.concatenate(classes) else "healthy row"
            raise DataError(
                f"no {kind} in the training data of any site "
                f"({', '.join(s.name for s in sites)}): nothing can be learned; bring a longer "
                "record, raise task.horizon, or check the failure log"
            )
        return warnings

    def _no_windows(self, site: Site) -> str:
        rows, window = self.rows(site.name), self.source.window
        lives = np.unique(np.stack([np.unique(rows.machine, return_inverse=True)[1], rows.life]),
                          axis=1, return_counts=True)[1]  # fmt: skip
        if window is not None and (len(lives) == 0 or lives.max() < window):
            made = self.source.generated
            more = "raise data.days or the site's service_days" if made else "bring more rows"
            return (
                f"{site.name}: data.window={window} is longer than every machine's life (longest: "
                f"{lives.max() if len(lives) else 0} rows); lower data.window, or {more}"
            )
        return (
            f"{site.name}: {len(rows)} rows give {len(site.train)} training windows, at least 2 "
            "are needed; bring a longer record, or lower data.window or what task looks ahead"
        )


def some(names: list[str]) -> str:
    """Return up to three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def machine_ends(rows: Rows) -> Bools:
    """Return (R,) which rows are the last of their machine."""
    last = np.ones(len(rows), dtype=bool)
    last[:-1] = rows.machine[1:] != rows.machine[:-1]
    return last


def _failures(rows: Rows) -> int:
    if rows.label is not None:
        return int(rows.label.sum())
    ends = machine_ends(rows)
    ends[:-1] |= rows.life[1:] != rows.life[:-1]
    return int(np.sum(~np.isnan(rows.time_to_failure[ends])))
