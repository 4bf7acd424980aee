"""The predictor: scores a site's new rows with the model of a run.

N scored rows, H horizons, K operating conditions, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from fedpdm.data.features import RAW, WindowFeatures
from fedpdm.data.normalise import Scaler, fill_missing
from fedpdm.data.rows import Bools, Floats, Floats32, Ints, Rows, Split
from fedpdm.data.sources.base import OperatingConditions
from fedpdm.data.sources.mapping import SiteMapping
from fedpdm.data.sources.readings import in_file, prepared, read_site, values_of
from fedpdm.data.sources.tables import Table, require_columns
from fedpdm.data.sources.times import SECONDS
from fedpdm.data.windows import gather, longest_step, segment_starts, window_ends
from fedpdm.errors import ConfigError, DataError, ModelError
from fedpdm.evaluation.attribution import badness, inputs_of
from fedpdm.evaluation.calibration import Calibration
from fedpdm.evaluation.conformal import Interval
from fedpdm.evaluation.inspection import explain, now
from fedpdm.evaluation.locales import DEFAULT
from fedpdm.history.schemas import Manifest
from fedpdm.history.sealed import read_sealed
from fedpdm.models import ModelWrapper
from fedpdm.server.base import models_of
from fedpdm.storage import Arrays
from fedpdm.tasks import Task
from fedpdm.training.objective import Objective, Supervised, outputs
from fedpdm.training.personal import METHODS

if TYPE_CHECKING:
    from fedpdm.history import History

CHUNK = 4096  # windows gathered at once: bounds memory


@dataclass(frozen=True)
class Predictor:
    """A trained model with everything that stands between a site's file and its scores.

    Attributes:
        run: the run folder.
        round: whose weights the model has.
        mapping: which columns it reads; machine and time are "" where rows stand alone.
        scaler: (K, F) mean and deviation, of the features of windows too where there are any.
        window: rows in a model input, or None for single rows.
        threshold: alarm at this risk or above (for remaining life: at this or below).
        features: what the model sees of a window.
        operating: tells each row's operating condition; None where there is one only.
        calibration: makes risks mean what they say; None where the run has none.
        interval: of remaining life; None where the run has none.
        max_gap: the run's ``data.max_gap``.
        locale: how the run's report writes numbers and dates.
        notes: what a person should know about the choice of round or threshold.
    """

    run: Path
    round: int
    model: ModelWrapper
    task: Task
    mapping: SiteMapping
    scaler: Scaler
    window: int | None
    conditions: int
    time_unit: str
    threshold: float | None
    calibration: Calibration | None = None
    interval: Interval | None = None
    features: WindowFeatures = RAW
    operating: OperatingConditions | None = None
    max_gap: float | None = None
    locale: str = DEFAULT
    notes: tuple[str, ...] = ()

    def read(self, path: str | Path) -> Table:
        """Read the model's columns of a CSV or Parquet file.

        Raises:
            DataError: the file or a column of it is missing or cannot be read.
        """
        return read_site(
            self.mapping, [Path(path).expanduser()], self._columns(), where=str(path),
            hint=self._hint(), optional=self._optional(),
        )  # fmt: skip

    def score(self, frame: pd.DataFrame | Table) -> pd.DataFrame:
        """Return one row per scored row of ``frame``, by machine and time.

        A row is scored where its machine has a whole window of rows behind it. A machine
        with fewer rows is scored once, at its last row, its window filled up with its first
        row; ``padded`` tells.

        Args:
            frame: rows in the site's own columns, as the run's site yaml names them; or in
                columns ``machine``, ``time`` and the run's feature names.

        Returns:
            Columns ``machine``, ``time`` (as it was written), ``risk`` (or ``risk_7`` … for
            several horizons, or ``remaining_life`` with the ends ``low`` and ``high`` of its
            interval, if the run has one), ``padded``, ``threshold``, ``alarm`` (empty without
            a threshold).

        Raises:
            DataError: a column is missing, holds text or infinite values, or two rows of a
                machine have one time.
        """
        rows, written, ends, padded = self._ends(frame)
        scores = self._scores(rows, ends)
        result = pd.DataFrame({"machine": rows.machine[ends], "time": written[ends]})
        for name, column in zip(self.task.score_columns, scores.T, strict=True):
            result[name] = column
        if self.interval is not None:
            result["low"], result["high"] = self.interval(scores[:, 0])
        result["padded"] = padded
        result["threshold"] = np.nan if self.threshold is None else self.threshold
        alarm = pd.array([pd.NA] * len(result), dtype="boolean")
        if self.threshold is not None:
            sign = -1 if self.task.alarm_below else 1
            alarm = pd.array(sign * scores[:, 0] >= sign * self.threshold, dtype="boolean")
        result["alarm"] = alarm
        return result

    def explain(
        self, frame: pd.DataFrame | Table, scored: pd.DataFrame, most: int = 10
    ) -> dict[str, list[dict[str, Any]]]:
        """Return by machine the sensors that drive its last score, of the machines most at risk.

        Args:
            frame: as ``score`` took it.
            scored: what ``score`` returned.
            most: how many machines.

        Returns:
            By machine, the first sensor the strongest: ``sensor``, its ``share`` of what drives
            the score up, and ``reads`` (``higher`` or ``lower`` than in the machine's calm
            windows, ``fedpdm.evaluation.attribution``). Nothing without windows or risks.
        """
        if self.window is None or not (self.task.risks or self.task.lives):
            return {}
        rows, _, ends, _ = self._ends(frame)
        machine, inputs = rows.machine[ends], self._inputs(rows)
        scores = scored[list(self.task.score_columns)].to_numpy(dtype=np.float64)
        listed = now("", machine, rows.time[ends], scores, None, self.task)[:most]
        groups = inputs_of(
            self.features.sensors(rows.features), self.features.inputs(rows.features)
        )
        found = explain(
            np.array([one.position for one in listed]), lambda at: inputs(ends[at]), machine,
            badness(self.task, scores), self._raw, self.task, groups, seed=0,
        )  # fmt: skip
        return {one.machine: own for one, own in zip(listed, found, strict=True)}

    def silent(self, table: Table) -> list[str]:
        """Return the columns without any reading."""
        empty = np.isnan(values_of(table, self.mapping)).all(axis=0)
        silent = {self.mapping.inputs[number] for number in np.flatnonzero(empty)}
        columns = self.mapping.columns.items()
        return [column for name, column in columns if self.mapping.inputs_of(name)[0] in silent]

    def _ends(self, frame: pd.DataFrame | Table) -> tuple[Rows, np.ndarray[Any, Any], Ints, Bools]:
        """Return the rows, (R,) their times as written, (N,) ends of windows and their padding."""
        if isinstance(frame, pd.DataFrame):
            found = [str(name) for name in frame.columns]
            needed = in_file(self.mapping, self._columns())
            require_columns(needed, found, "the frame", needed, self._hint())
            if len(frame) == 0:
                raise DataError("the frame has no rows to score")
            table = Table(
                frame.reset_index(drop=True), "the frame", self._hint(), False, self.mapping.dialect
            )
            frame = prepared(table, self.mapping, self._columns())
        rows, written = self._rows(frame)
        if self.window is None:
            return rows, written, np.arange(len(rows)), np.zeros(len(rows), dtype=bool)
        return (
            rows, written,
            *window_ends(rows, self.window, 1, np.ones(len(rows), dtype=bool)),
        )  # fmt: skip

    def _inputs(self, rows: Rows) -> Callable[[Ints], Floats32]:
        """Return what gives the model's inputs of the windows that end at (N,) rows."""
        scaler = self.features.of_readings(self.scaler, len(rows.features))
        values = fill_missing(scaler.apply(rows.values, rows.condition), rows)
        start = segment_starts(rows)

        def inputs(ends: Ints) -> Floats32:
            if self.window is None:
                return values[ends]
            x = gather(values, ends, start[ends], self.window)
            if self.features.active:
                raw = gather(rows.values, ends, start[ends], self.window)
                computed = self.features.compute(raw, rows.features)
                x = self.features.join(x, computed, self.scaler)
            return np.ascontiguousarray(x)

        return inputs

    def _raw(self, x: Floats32) -> Floats:
        """Return (N, H) scores of windows, before calibration."""
        output = outputs(self.model.module, torch.from_numpy(np.ascontiguousarray(x)))
        return self.task.scores(output).reshape(len(x), -1)

    def _scores(self, rows: Rows, ends: Ints) -> Floats:
        """Return (N, 1) or (N, H) scores of the windows that end at ``ends`` (N,)."""
        inputs = self._inputs(rows)
        scores = np.concatenate([
            self._raw(inputs(ends[first : first + CHUNK])) for first in range(0, len(ends), CHUNK)
        ])  # fmt: skip
        if self.calibration is not None:
            scores = self.calibration(scores)
        if not np.isfinite(scores).all():
            raise ModelError(
                f"{self.run}: the weights of round {self.round} give scores that are no numbers; "
                "choose another round with --round"
            )
        return scores

    def _rows(self, table: Table) -> tuple[Rows, np.ndarray[Any, Any]]:
        """Return the table's rows in order, and (R,) their times as the file writes them."""
        mapping = self.mapping
        values = values_of(table, mapping)
        count = len(table)
        if mapping.machine in table:
            machine = table.names(mapping.machine)
        else:
            machine = np.full(count, "all rows")
        if mapping.time in table:
            unit = self.time_unit if self.time_unit in SECONDS else "days"  # only order counts
            time, _ = table.times(mapping.time, unit, machine)
            written = table.frame[mapping.time].to_numpy(dtype=object)
        else:
            time = np.arange(1.0, count + 1)
            written = np.arange(1, count + 1).astype(object)
        condition = self._conditions(table)
        if self.window is None:
            order = np.lexsort((time, machine))
        else:
            order = table.in_order(machine, time, mapping.time)
        machine, time = machine[order], time[order]
        rows = Rows(
            features=mapping.inputs,
            values=values[order],
            machine=machine,
            time=time,
            life=np.zeros(count, dtype=np.int64),
            time_to_failure=np.full(count, np.nan),
            observed=np.zeros(count),
            split=np.full(count, Split.TEST, dtype=np.int8),
            condition=condition[order],
            pad=True,
            max_gap=self.max_gap or longest_step(machine, time, self.window),
        )
        return self.features.with_columns(rows), written[order]

    def _conditions(self, table: Table) -> Ints:
        """Return (R,) operating conditions, by which the run's features are scaled."""
        if self.operating is None:
            return np.zeros(len(table), dtype=np.int64)
        settings = np.stack([table.numbers(name) for name in self.operating.columns], axis=1)
        return self.operating.of(settings, table.where)

    def _columns(self) -> dict[str, str]:
        """Return the columns that must be there, and what each is for."""
        mapping = self.mapping
        columns = {column: f"feature '{name}'" for name, column in mapping.columns.items()}
        if self.window is not None or mapping.site:
            machine = {mapping.machine: "the machine"} if mapping.machine else {}
            columns = machine | {mapping.time: "the time"} | columns
        if self.operating is not None:
            columns |= dict.fromkeys(self.operating.columns, "tells the operating condition")
        return columns

    def _optional(self) -> tuple[str, ...]:
        names = (self.mapping.machine, self.mapping.time)
        return names + (() if self.operating is None else self.operating.columns)

    def _hint(self) -> str:
        if self.mapping.site:
            return (
                f"these columns are those of sites.{self.mapping.site} in {self.run}/model.json; "
                "rename the file's, or choose another site with --site"
            )
        return (
            f"the model of {self.run} reads {', '.join(self._columns())}; rename the file's columns"
        )


def _engine(folder: Path) -> str | None:
    """Return the name of the engine that a run was on."""
    path = folder / "manifest.json"
    engine = Manifest.read(read_sealed(folder, path.name), path).get("engine") or {}
    return engine.get("name")


def personal_model(
    card: dict[str, Any],
    model: ModelWrapper,
    weights: Arrays,
    states: Mapping[str, bytes],
    site: str | None,
    objective: Objective | None,
    task: Task,
    folder: Path,
) -> ModelWrapper:
    """Return the model as a site of the run has it.

    Args:
        card: made by ``described``.
        model: the run's initial model.
        weights: of a round: what travelled.
        states: each site's packed state after that round.
        site: whose model; None where there is only one, or sites keep no tensors.
        objective: what was minimised; None for the loss of ``task``.
        task: the run's task.
        folder: the run folder.

    Raises:
        ConfigError: it is not said whose data this is, the site's tensors never left it, or
            the objective is missing.
    """
    from fedpdm.client.state import PersonalModels  # Flower, which few predictions need
    from fedpdm.wire.flower import unpack_state

    site = card["sites"][0] if site is None and len(card["sites"]) == 1 else site
    if card["objective"] is not None and objective is None:
        raise ConfigError(
            f"{folder} was trained with objective={card['objective'].get('_target_')}, which says "
            "what the model's outputs mean: score from Python, with "
            "fedpdm.predict.load_predictor(…, objective=…)"
        )
    method = card.get("method")
    own = ", ".join(card["tensors"][:3]) or (method and f"the model of personal={method}")
    if own and site is None:
        raise ConfigError(
            f"{folder}: each site has {own} of its own: say whose data this is with --site "
            f"({', '.join(card['sites'][:20])})"
        )
    if own and _engine(folder) == "flower":
        raise ConfigError(f"{folder} is a deployed run: {own} of {site} never left {site}")
    objective = objective or Supervised.of(task)
    if method is not None:
        if method not in METHODS:
            raise ConfigError(
                f"{folder}: personal={method} is not known here; there are {', '.join(METHODS)}, "
                "and one of your own needs --imports PACKAGE"
            )
        objective = METHODS[method]().around(objective)
    name = str(site)
    kept = {name: unpack_state(states[name])} if name in states else {}
    models = PersonalModels(model, weights, card["tensors"], kept, objective, torch.device("cpu"))
    return ModelWrapper(models(name), model.model_type, model.config)


def weights_for(
    history: History, chosen: int, card: dict[str, Any], site: str | None, folder: Path
) -> Arrays:
    """Return a round's weights as a site has them: those of its cluster, if it is in one.

    Raises:
        ConfigError: sites are in several clusters, and it is not said whose data this is.
    """
    models, members = models_of(history, chosen)
    if not models:
        return history.weights(chosen)
    if site is None and len(set(members.values())) > 1:
        raise ConfigError(
            f"{folder}: its sites are in {len(set(members.values()))} clusters, each with a model "
            f"of its own: say whose data this is with --site ({', '.join(list(members)[:20])})"
        )
    name = members.get(site or next(iter(members), ""))
    return history.weights(chosen) if name is None else models[name]
