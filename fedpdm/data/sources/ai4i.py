"""AI4I 2020: 10,000 milling operations, each labelled as a failure or not.

Matzka, "Explainable Artificial Intelligence for Predictive Maintenance Applications",
AI4I 2020; UCI 601, CC BY 4.0. Synthetic. Rows have no time stamps and belong to no
trajectory, and the label depends on the row alone, so nothing can be said about horizons
or remaining life: only task=failure makes sense. Failures cluster along the file (154 of
339 in rows 4000–5999), so the cut by row number is a real shift between training and test.
Five stratified folds are the easier alternative that most papers use.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedpdm.data.partition import Partition, PartitionedSource
from fedpdm.data.rows import Bools, Floats, Ints, Rows, Split, Strings
from fedpdm.data.sources.base import require_choice
from fedpdm.data.sources.dialect import Dialect
from fedpdm.data.sources.published import AI4I, find, finite, read_known, require_rows, warn_altered
from fedpdm.data.sources.readers import one_line
from fedpdm.data.sources.tables import Table, require_columns
from fedpdm.errors import ConfigError, DataError
from fedpdm.seeding import numpy_generator

TYPES = ("L", "M", "H")  # product quality: low, medium, high
RAW = {
    "air": "Air temperature [K]",
    "process": "Process temperature [K]",
    "speed": "Rotational speed [rpm]",
    "torque": "Torque [Nm]",
    "wear": "Tool wear [min]",
}
LABEL = "Machine failure"
MODES = ("TWF", "HDF", "PWF", "OSF", "RNF")  # kinds of failure: they give the label away
# A convolution sees neighbouring columns only, so quantities that fail together stand side by
# side (temperature difference and speed; power, torque and wear). The order was chosen on
# validation data: docs/decisions/008-ai4i-training.md.
COLUMNS: dict[str, Callable[[dict[str, Floats]], Floats]] = {
    "temperature_difference_K": lambda raw: raw["process"] - raw["air"],
    "rotational_speed_rpm": lambda raw: raw["speed"],
    "air_temperature_K": lambda raw: raw["air"],
    "process_temperature_K": lambda raw: raw["process"],
    "power_W": lambda raw: raw["torque"] * raw["speed"] * 2 * np.pi / 60,
    "torque_Nm": lambda raw: raw["torque"],
    "tool_wear_min": lambda raw: raw["wear"],
    "torque_per_speed": lambda raw: raw["torque"] / raw["speed"],
    "type": lambda raw: raw["type"],
    "strain_minNm": lambda raw: raw["wear"] * raw["torque"],
}
FEATURES = {"source": tuple(COLUMNS)[:9], "physics": tuple(COLUMNS)}
# Of the numbers, so that line ends, headers and float styles of copies do not matter.
VALUES_SHA256 = "0938452aebeb9e71c4a3ef0267a28c5d16343a8b97d065ba692461c9273aed76"
AGAIN = "fetch the file again with python -m fedpdm.data fetch ai4i"
VALIDATION_FROM, TEST_FROM = 6000, 7500  # UDI
FOLDS = 5
VALIDATED = 8  # of the rows outside the test fold, one in so many is validated on


class Ai4iSource(PartitionedSource):
    """AI4I 2020, tabular, split by row number (UDI) or in stratified folds."""

    name = "ai4i"
    time_unit = "operations"
    window = None
    stride = 1
    categorical = ("type",)

    def __init__(
        self,
        *,
        sites: Mapping[str, object],
        partition: Partition,
        seed: int,
        reach: float = 0.0,
        path: str | None = None,
        features: str = "source",
        split: str = "forward",
        fold: int = 0,
        window: int | None = None,
    ) -> None:
        """Prepare; the file is read when a site is first asked for.

        Args:
            sites: sites to name; empty lets the partition name them.
            partition: which site owns which rows.
            seed: of the partition's draw.
            reach: must be 0, as labels here look at their own row only.
            path: the data folder; None means FEDPDM_DATA or ~/.cache/fedpdm.
            features: ``source`` (9) or ``physics`` (10, with wear × torque).
            split: ``forward`` (train on UDI below 6000, validate below 7500, test on the rest)
                or ``stratified`` (see ``stratified_split``).
            fold: which of the five folds is tested on, 0 to 4; for ``stratified`` only.
            window: must be None.

        Raises:
            ConfigError: an option that has no meaning for this data.
        """
        require_choice("data.features", features, FEATURES)
        require_choice("data.split", split, ("forward", "stratified"))
        if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < FOLDS:
            raise ConfigError(f"data.fold={fold} must be a whole number from 0 to {FOLDS - 1}")
        if split == "forward" and fold:
            raise ConfigError(
                f"data.fold={fold} says nothing with data.split=forward, which cuts by row "
                "number: add data.split=stratified"
            )
        if window is not None:
            raise ConfigError(
                f"data.window={window}: AI4I has single rows and no time series; "
                "leave data.window=null"
            )
        if reach > 0:
            raise ConfigError(
                "data=ai4i has labels but no times of failure, so a horizon or a remaining life "
                "has no meaning: use task=failure and leave task.horizon=null"
            )
        self.features = FEATURES[features]
        super().__init__(sites, partition, seed)
        self._path = path
        self._fold = fold if split == "stratified" else None

    def read(self) -> Rows:
        rows = read_ai4i(find(self._path, AI4I.path, self.name), self.features)
        if self._fold is None:
            return rows
        assert rows.label is not None
        split = stratified_split(rows.label, rows.groups["type"], self._fold)
        return replace(rows, split=split)

    def rules(self, rows: Rows) -> Bools:
        return physical_rules(rows)


def stratified_split(label: Ints, kind: Strings, fold: int) -> NDArray[np.int8]:
    """Return (R,) splits: one of five folds is tested on, an eighth of the rest validated on.

    Every fold, and its validation part, holds failures and product types in the shares of the
    whole file (each kind of row is dealt out in turn). The order is fixed and no run's seed
    changes it, so seeds differ in training only. Rows are drawn at random, which is sound only
    because labels look at their own row; temperatures are a slow walk along the file, so
    neighbours of a test row are trained on, and the forward cut is the harder test.
    """
    generator = numpy_generator(42, "ai4i", "folds")
    split = np.full(len(label), Split.TRAIN, dtype=np.int8)
    dealt = validated = 0
    for stratum in [(value, one) for value in (0, 1) for one in TYPES]:
        rows = np.flatnonzero((label == stratum[0]) & (kind == stratum[1]))
        rows = generator.permutation(rows)
        tested = (dealt + np.arange(len(rows))) % FOLDS == fold
        rest = rows[~tested]
        chosen = (validated + np.arange(len(rest))) % VALIDATED == 0
        split[rows[tested]] = Split.TEST
        split[rest[chosen]] = Split.VALIDATION
        # Carried on, so that the remainders of small strata do not all fall to the same fold.
        dealt, validated = dealt + len(rows), validated + len(rest)
    return split


def physical_rules(rows: Rows) -> Bools:
    """Return (R,) whether heat dissipation, power or overstrain alone imply a failure.

    Three of the rules that the data was generated by (Matzka 2020): on the whole file
    precision 1.00 and recall .847 without learning. Plain subtraction of the temperatures
    reproduces the published flags; a tolerance does not.
    """
    column = dict(zip(rows.features, rows.values.T, strict=True))
    heat = (column["temperature_difference_K"] < 8.6) & (column["rotational_speed_rpm"] < 1380)
    power = (column["power_W"] < 3500) | (column["power_W"] > 9000)
    limit = 11_000 + 1_000 * column["type"]
    overstrain = column["tool_wear_min"] * column["torque_Nm"] > limit
    return np.asarray(heat | power | overstrain)


def read_ai4i(path: Path, features: tuple[str, ...] = FEATURES["source"]) -> Rows:
    """Return the whole file, sorted by UDI, with ``groups["type"]`` and its splits.

    Raises:
        DataError: the file is cut off, lacks a column, or holds text where a number belongs.
    """
    table = _table(path)
    table.refuse(
        "Type", ~table.frame["Type"].isin(TYPES).to_numpy(), "holds {value}, not L, M or H,"
    )
    values = {name: finite(table, name) for name in ("UDI", *RAW.values(), LABEL)}
    table.refuse(LABEL, ~np.isin(values[LABEL], (0, 1)), "holds {value}, not 0 or 1,")
    for name in ("air", "process", "speed", "torque"):
        low = values[RAW[name]] <= 0
        table.refuse(RAW[name], low, "holds {value}, which is not greater than 0,")
    order = np.argsort(values["UDI"], kind="stable")
    values = {name: column[order] for name, column in values.items()}
    udi, label = values["UDI"], values[LABEL]
    if not np.array_equal(udi, np.arange(1, AI4I.rows + 1)):
        raise DataError(f"{path}: column 'UDI' must hold 1 to {AI4I.rows} once each; {AGAIN}")
    kind = table.frame["Type"].to_numpy(dtype=np.str_)[order]
    raw = {name: values[column] for name, column in RAW.items()}
    raw["type"] = np.argmax(kind[:, None] == np.array(TYPES), axis=1).astype(np.float64)
    content = np.column_stack([*(raw[name] for name in RAW), label, raw["type"]])
    if hashlib.sha256(np.ascontiguousarray(content).tobytes()).hexdigest() != VALUES_SHA256:
        warn_altered(path)
    split = np.digitize(udi, (VALIDATION_FROM, TEST_FROM)).astype(np.int8)
    zeros = np.zeros(len(udi), dtype=np.int64)
    return Rows(
        features=features,
        values=np.column_stack([COLUMNS[name](raw) for name in features]),
        machine=np.array([f"{int(number):05d}" for number in udi]),
        time=udi,
        life=zeros,
        time_to_failure=np.full(len(udi), np.nan),
        observed=np.zeros(len(udi)),
        split=split,
        condition=zeros,
        label=label.astype(np.int64),
        groups={"type": kind},
    )


def _table(path: Path) -> Table:
    """Return the needed columns as text, by their published names in any spelling."""
    text, _ = read_known(path, AI4I, encoding="utf-8-sig")
    try:
        frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, index_col=False)
    except pd.errors.ParserError as error:
        raise DataError(f"{path} is not a CSV file: {one_line(error)}; {AGAIN}") from None
    needed = ("UDI", "Type", *RAW.values(), LABEL)
    published = {_plain(name): name for name in needed}
    frame = frame.rename(columns=lambda name: published.get(_plain(name), name))
    purpose = dict.fromkeys(needed, "published in this file")
    require_columns(needed, list(frame.columns), str(path), purpose, AGAIN)
    require_rows(path, len(frame), AI4I)
    return Table(frame.fillna(""), str(path), AGAIN, lines=True, dialect=Dialect())


def _plain(name: str) -> str:
    """Return a column name without unit, case and punctuation: copies spell them freely."""
    return re.sub(r"[^a-z]", "", re.sub(r"\[.*?\]", "", name).casefold())
