"""Windows of programs in the format of the source document (gcode-training-results).

A folder holds ``train_sequences.npz``, ``val_sequences.npz`` and ``test_sequences.npz``, each with
``continuous`` (N, T, C) float32, ``categorical`` (N, T, K) int64, ``tokens`` (N, L) int64,
``operation_type`` (N,) int64 and ``lengths`` (N,) int64, the rows of each window that are no
padding; and ``vocabulary.json``, the numbers of the tokens by their names. The published layout
is T = 64, C = 155, K = 4, L = 7. ``run`` (N,), which run a window is of, is ours: without it
nobody can tell whether windows of one run are in two files, and a warning says so.

Nothing in a file is unpickled.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.data import programs
from fedpdm.data.normalise import fill_missing
from fedpdm.data.partition import Partition, PartitionedSource
from fedpdm.data.programs import LENGTH
from fedpdm.data.rows import Ints, Rows, Split, Strings
from fedpdm.data.sources.base import Source
from fedpdm.data.sources.milling import truth
from fedpdm.data.sources.readers import one_line
from fedpdm.data.windows import gather, segment_starts, window_ends
from fedpdm.errors import ConfigError, DataError
from fedpdm.storage import write_bytes, write_json

FILES = {
    Split.TRAIN: "train_sequences.npz",
    Split.VALIDATION: "val_sequences.npz",
    Split.TEST: "test_sequences.npz",
}
VOCABULARY = "vocabulary.json"
KEYS = {
    "continuous": (3, np.float32), "categorical": (3, np.int64), "tokens": (2, np.int64),
    "operation_type": (1, np.int64), "lengths": (1, np.int64),
}  # fmt: skip
"""The arrays of a file: dimensions and type."""
FORMAT = "data=npz reads the layout that docs/decisions/031-programs-from-sensors.md describes"
MOST_BYTES = 4 * 1024**3
"""Largest size of a file's arrays."""

Sequences = dict[str, NDArray[Any]]


class NpzSource(PartitionedSource):
    """Windows from files: each is a life of its run, with the program line that it was cut from.

    Groups of a row: ``operation`` (its number) and ``program``.
    """

    name = "npz"
    time_unit = "steps"

    def __init__(
        self,
        *,
        sites: Mapping[str, object],
        partition: Partition,
        seed: int,
        reach: float = 0.0,
        path: str | None = None,
    ) -> None:
        """Read the files' shapes and the vocabulary.

        Args:
            sites: sites to name; empty lets the partition name them.
            partition: which site owns which runs.
            seed: of the partition's draw.
            reach: must be 0, as nothing is foretold.
            path: the folder.

        Raises:
            ConfigError: no folder, or a task that foretells failures.
            DataError: a file is missing or not of this format.
        """
        if path is None:
            raise ConfigError("data=npz needs data.path, the folder with the three .npz files")
        if reach > 0:
            raise ConfigError(
                "data=npz has no failures to foretell: use task=operation or task=program"
            )
        super().__init__(sites, partition, seed)
        self.folder = Path(path).expanduser()
        self._files = {split: read_npz(self.folder / name) for split, name in FILES.items()}
        _require_alike(self.folder, self._files)
        first = self._files[Split.TRAIN]
        self.window = int(first["continuous"].shape[1])
        self.stride = self.evaluation_stride = self.window
        count = int(first["continuous"].shape[2])
        kinds = [part["categorical"] for part in self._files.values()]
        levels = [int(max(kind[:, :, k].max() for kind in kinds)) + 1
                  for k in range(kinds[0].shape[2])]  # fmt: skip
        self.levels = {f"categorical_{k + 1}": level for k, level in enumerate(levels)}
        self.categorical = tuple(self.levels)
        self.features = (*(f"continuous_{k}" for k in range(1, count + 1)), *self.levels)
        self.warnings = () if "run" in first else (
            "the files do not say which run a window is of (run), so windows of one run may be in "
            "training and in test, and scores may be too good",
        )  # fmt: skip

    def read(self) -> Rows:
        vocabulary = read_vocabulary(self.folder / VOCABULARY)
        parts = []
        for split, part in self._files.items():
            lines = lines_of(part["tokens"], vocabulary, self.folder / FILES[split])
            parts.append(_rows(part, lines, split, self.features))
        return Rows.concatenate(parts)


def read_npz(path: Path) -> Sequences:
    """Return the checked arrays of a file, ``run`` among them where it has it.

    Raises:
        DataError: it is missing, not of this format, or holds what would have to be unpickled.
    """
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            names = [*KEYS, *({"run"} & set(file.files))]
            if missing := sorted(set(KEYS) - set(file.files)):
                raise DataError(f"{path} lacks {', '.join(missing)}; {FORMAT}")
            if sum(info.file_size for info in file.zip.infolist()) > MOST_BYTES:
                raise DataError(f"{path} unpacks to over {MOST_BYTES / 1024**3:.0f} GB; split it")
            found = {name: file[name] for name in names}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; {FORMAT}") from None
    except DataError:
        raise
    except Exception as error:  # NumPy lets through whatever the parsers that it uses raise
        raise DataError(f"{path} cannot be read as .npz ({one_line(error)}); {FORMAT}") from None
    for name, (dimensions, kind) in KEYS.items():
        array = found[name]
        if array.ndim != dimensions or array.dtype != kind:
            raise DataError(
                f"{path}: {name} is {array.dtype} with {array.ndim} dimensions, not "
                f"{np.dtype(kind)} with {dimensions}; {FORMAT}"
            )
    _require_sizes(path, found)
    return found


def _require_sizes(path: Path, found: Sequences) -> None:
    counts = {name: len(array) for name, array in found.items()}
    steps = found["continuous"].shape[1]
    lengths = found["lengths"]
    for breach, what in (
        (len(set(counts.values())) > 1, f"its arrays have {counts} windows"),
        (counts["continuous"] == 0 or steps == 0 or found["continuous"].shape[2] == 0,
         "it has no windows, steps or channels"),
        (found["categorical"].shape[1] != steps, "continuous and categorical differ in steps"),
        (found["tokens"].shape[1] != LENGTH, f"tokens must have {LENGTH} columns"),
        (not np.isfinite(found["continuous"]).all(), "continuous holds NaN or infinity"),
        (found["categorical"].size and not 0 <= found["categorical"].min()
         <= found["categorical"].max() < 10_000, "categorical must be codes from 0 to 9,999"),
        (lengths.size and not 1 <= lengths.min() <= lengths.max() <= steps,
         f"lengths must be 1 to {steps}"),
        (found["operation_type"].size and found["operation_type"].min() < 0,
         "operation_type must not be negative"),
        ("run" in found and (found["run"].ndim != 1 or found["run"].dtype.kind not in "iU"),
         "run must be one whole number or text for each window"),
    ):  # fmt: skip
        if breach:
            raise DataError(f"{path}: {what}; {FORMAT}")


def _require_alike(folder: Path, files: Mapping[Split, Sequences]) -> None:
    """Refuse files of other shapes, and a run that is in two of them."""
    shapes = {part["continuous"].shape[1:] + part["categorical"].shape[2:]
              for part in files.values()}  # fmt: skip
    if len(shapes) > 1 or len({"run" in part for part in files.values()}) > 1:
        raise DataError(f"{folder}: its files differ in steps, channels or keys; {FORMAT}")
    seen: dict[str, str] = {}
    for split, part in files.items():
        for run in np.unique(part.get("run", np.zeros(0, dtype=np.int64))).astype(str).tolist():
            if run in seen:
                raise DataError(
                    f"{folder}: run {run} is in {seen[run]} and in {FILES[split]}, so windows "
                    "that overlap would be trained and tested on; split whole runs"
                )
            seen[run] = FILES[split]


def read_vocabulary(path: Path) -> dict[int, str]:
    """Return the names of tokens by number.

    Raises:
        DataError: the file is missing, or no object of whole numbers by name, each once.
    """
    try:
        if path.stat().st_size > 64 * 1024**2:
            raise DataError(f"{path} is too large for a vocabulary")
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); {FORMAT}") from None
    if isinstance(found, dict) and isinstance(found.get("vocab"), dict):
        found = found["vocab"]
    sound = isinstance(found, dict) and all(type(value) is int for value in found.values())
    if not sound or len(set(found.values())) < len(found):
        raise DataError(f"{path} must give each token's name a whole number of its own; {FORMAT}")
    return {number: str(name) for name, number in found.items()}


def lines_of(tokens: Ints, vocabulary: Mapping[int, str], path: Path) -> Strings:
    """Return (N,) program lines of (N, L) token numbers.

    Raises:
        DataError: a number is unknown, or tokens are no line of the language.
    """
    unique, index = np.unique(tokens, axis=0, return_inverse=True)
    lines = []
    for row in unique.tolist():
        if unknown := [number for number in row if number not in vocabulary]:
            raise DataError(f"{path}: token {unknown[0]} is not in {VOCABULARY}")
        try:
            lines.append(programs.line_of([vocabulary[number] for number in row]))
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    return np.array(lines)[index.reshape(-1)]


def _rows(part: Sequences, lines: Strings, split: Split, features: tuple[str, ...]) -> Rows:
    """Return a file's windows as rows: a machine is a run, a life a window."""
    count, steps = part["continuous"].shape[:2]
    word = split.name.lower()
    own = part.get("run", np.arange(count))
    runs = np.array([f"run-{int(n):05d}" if own.dtype.kind == "i" else str(n) for n in own])
    if "run" not in part:
        runs = np.array([f"{word}-{number:05d}" for number in range(count)])
    order = np.argsort(runs, kind="stable")
    runs = runs[order]
    starts = np.r_[True, runs[1:] != runs[:-1]]
    life = np.arange(count) - np.maximum.accumulate(np.where(starts, np.arange(count), 0))
    # Padding stands at a window's end.
    keep = np.arange(steps) < part["lengths"][order][:, None]
    each, step = np.nonzero(keep)
    values = np.concatenate(
        [part["continuous"].astype(np.float64), part["categorical"].astype(np.float64)], axis=2
    )[order][each, step]
    operation = part["operation_type"][order].astype(str)
    zeros = np.zeros(len(each))
    return Rows(
        features=features,
        values=values,
        machine=runs[each],
        time=(life[each] * steps + step).astype(np.float64),
        life=life[each].astype(np.int64),
        time_to_failure=np.full(len(each), np.nan),
        observed=zeros,
        split=np.full(len(each), split, dtype=np.int8),
        condition=zeros.astype(np.int64),
        pad=True,
        groups=truth(operation[each], lines[order][each]),
    )


def write_npz(source: Source, folder: Path, operations: tuple[str, ...]) -> None:
    """Write the windows of all sites of a source as files that ``data=npz`` reads.

    Readings are written in raw units; missing ones take the last known one of their segment.

    Args:
        source: its rows name ``operation`` and ``program``.
        folder: made where it does not exist.
        operations: all kinds; their places are the numbers in the files.

    Raises:
        DataError: the source has no windows, programs or operations, or a split has no window.
    """
    if source.window is None:
        raise DataError(f"data={source.name} has no windows to write")
    codes = [k for k, name in enumerate(source.features) if name in source.levels]
    numbers = [k for k, name in enumerate(source.features) if name not in source.levels]
    parts: dict[Split, list[Sequences]] = {split: [] for split in FILES}
    names: dict[Split, list[list[str]]] = {split: [] for split in FILES}
    for site in source.sites:
        rows = source.rows(site)
        if not {"operation", "program"} <= set(rows.groups):
            raise DataError(f"{site}: rows of data={source.name} name no operation and program")
        values, start = fill_missing(rows.values.astype(np.float32), rows), segment_starts(rows)
        tokens = programs.encode(rows.groups["program"])
        for split, own in parts.items():
            stride = source.stride if split == Split.TRAIN else source.evaluation_stride
            ends, _ = window_ends(rows, source.window, stride, rows.split == split)
            x = gather(values, ends, start[ends], source.window)
            kinds = np.array([operations.index(kind) for kind in rows.groups["operation"][ends]])
            own.append({
                "continuous": x[:, :, numbers],
                "categorical": x[:, :, codes].astype(np.int64),
                "operation_type": kinds.astype(np.int64),
                "lengths": np.full(len(ends), source.window, dtype=np.int64),
                "run": rows.machine[ends],
            })  # fmt: skip
            names[split] += [programs.names_of(line) for line in tokens[ends]]
    if empty := [FILES[split] for split, own in names.items() if not own]:
        raise DataError(f"data={source.name} has no window for {empty[0]}")
    vocabulary = vocabulary_of([line for own in names.values() for line in own])
    folder.mkdir(parents=True, exist_ok=True)
    for split, own in parts.items():
        arrays: dict[str, Any] = {
            name: np.concatenate([part[name] for part in own]) for name in own[0]
        }
        arrays["tokens"] = np.array(
            [[vocabulary[name] for name in line] for line in names[split]], dtype=np.int64
        )
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_bytes(folder / FILES[split], buffer.getvalue())
    write_json(folder / VOCABULARY, vocabulary)


def vocabulary_of(lines: list[list[str]]) -> dict[str, int]:
    """Return the numbers of tokens by name: special ones, commands, parameters, then numbers."""
    fixed = [programs.PAD, programs.UNKNOWN, programs.START, programs.END,
             *programs.COMMANDS[1:], *programs.PARAMETERS[1:]]  # fmt: skip
    found = sorted({name for line in lines for name in line} - set(fixed))
    return {name: number for number, name in enumerate([*fixed, *found])}
