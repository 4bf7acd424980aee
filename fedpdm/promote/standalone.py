"""Scores new rows with the model in this folder: ``python predict.py new.csv --out scores.csv``.

Needs Python, numpy, pandas and onnxruntime, and nothing of fedpdm or PyTorch. What it does is what
``python -m fedpdm.predict`` does: rows are read in the site's own columns, cut into windows,
scaled, missing readings filled with the last one known, scored, calibrated, and compared with the
threshold that validation data chose. ``card.json`` says how; ``manifest.json`` has the checksums.
R rows, N windows, T rows of a window, F features, S scores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SWITCHES = {"true": 1.0, "on": 1.0, "yes": 1.0, "false": 0.0, "off": 0.0, "no": 0.0}
MISSING = [
    "", "NA", "N/A", "n/a", "NaN", "nan", "NaT", "NULL", "null", "None", "none", "<NA>", "#N/A"
]  # fmt: skip
UNIX = {"unix": 1.0, "unix_ms": 1e-3, "unix_us": 1e-6, "unix_ns": 1e-9}
SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400, "weeks": 604_800}
CHUNK = 4096  # windows scored at once: bounds memory
Array = Any


class Mistake(Exception):
    """A file that cannot be scored, in one sentence."""


class Model:
    """The model of a folder, with all that stands between a file and its scores."""

    def __init__(self, folder: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise Mistake("onnxruntime is not installed: pip install onnxruntime") from None
        try:
            sums = dict(json.loads((folder / "manifest.json").read_text("utf-8"))["files"])
        except (ValueError, KeyError, TypeError):
            raise Mistake(f"{folder / 'manifest.json'} was changed: it cannot be read") from None
        for name, sum_ in sums.items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != sum_:
                raise Mistake(f"{folder / name} was changed: its checksum is not the manifest's")
        self.card: dict[str, Any] = json.loads((folder / "card.json").read_text("utf-8"))
        scaler = json.loads((folder / "scaler.json").read_text("utf-8"))
        self.mean, self.scale = np.array(scaler["mean"]), np.array(scaler["scale"])  # (K, F)
        if self.card["inputs"]["mode"] != "raw":
            self.compute = runpy.run_path(str(folder / "window_features.py"))["compute"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def read(self, path: Path) -> pd.DataFrame:
        """Read a CSV file; cells that hold no reading are NaN."""
        form = self.card["columns"]
        text = [form["machine"], *form["where"]]
        text += [f["column"] for f in form["features"] if f["values"]]
        if form["time_format"] not in (None, *UNIX):
            text.append(form["time"])
        missing = [*MISSING, *(word for word in form["missing"] if isinstance(word, str))]
        style: dict[str, Any] = {
            "sep": form["sep"] or ("\t" if path.suffix.lower() == ".tsv" else ","),
            "encoding": form["encoding"], "skiprows": form["skip_rows"], "skipinitialspace": True,
            "index_col": False,
        }  # fmt: skip
        try:
            first = pd.read_csv(path, nrows=1, header=None, dtype=str, **style).iloc[0]
            names = {str(n).strip(): n for n in pd.read_csv(path, nrows=0, **style).columns}
            frame: pd.DataFrame = pd.read_csv(
                path, decimal=form["decimal"], keep_default_na=False, low_memory=False,
                na_values={own: [""] if n in text else missing for n, own in names.items()},
                dtype={own: str for n, own in names.items() if n in text}, **style,
            ).dropna(how="all")  # fmt: skip
        except (OSError, ValueError) as error:
            raise Mistake(f"{path} cannot be read: {error}") from error
        frame.columns = [str(name).strip() for name in frame.columns]
        twice = first.dropna().str.strip().duplicated()
        if twice.any():
            raise Mistake(f"{path}: two columns are called '{first.dropna()[twice].iloc[0]}'")
        needed = [f["column"] for f in form["features"]]
        if self.card["window"] is not None:
            needed = [name for name in (form["machine"], form["time"]) if name] + needed
        needed += (self.card["operating"] or {}).get("columns", [])
        for name in needed:
            if name not in frame.columns:
                raise Mistake(
                    f"{path}: column '{name}' is missing; found: {', '.join(frame.columns)}"
                )
        for name, values in form["where"].items():
            if name in frame.columns:
                frame = frame[frame[name].str.strip().isin(values)]
        if not len(frame):
            raise Mistake(f"{path} has no row to score")
        return frame

    def score(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return a row for each scored one: machine, time, scores, padded, threshold, alarm."""
        card, form = self.card, self.card["columns"]
        machine, time, written = self._keys(frame)
        order = np.lexsort((time, machine))
        raw = np.concatenate([self._feature(frame, f) for f in form["features"]], axis=1)[order]
        condition = self._conditions(frame)[order]
        machine, time, written = machine[order], time[order], written[order]
        if card["window"] is not None and np.any(
            (machine[1:] == machine[:-1]) & (np.diff(time) == 0)
        ):
            raise Mistake(
                f"a machine has two rows at one time; column '{form['time']}' must differ"
            )
        start, ends, padded = self._windows(machine, time)
        values = self._filled(self._scaled(raw, condition, slice(0, raw.shape[1])), start)
        scores = self._scores(values, raw, start, ends)
        result = pd.DataFrame({"machine": machine[ends], "time": written[ends]})
        for name, column in zip(card["score_columns"], scores.T, strict=True):
            result[name] = column
        if card["interval"]:
            cap, factor = card["interval"]["cap"], card["interval"]["factor"]
            half = (np.inf if factor is None else factor) * (scores[:, 0] + cap / 5.0)
            result["low"] = np.clip(scores[:, 0] - half, 0.0, cap)
            result["high"] = np.clip(scores[:, 0] + half, 0.0, cap)
        result["padded"] = padded
        level = card["threshold"]
        result["threshold"] = np.nan if level is None else level
        alarm = pd.array([pd.NA] * len(result), dtype="boolean")
        if level is not None:
            sign = -1 if card["alarm_below"] else 1
            alarm = pd.array(sign * scores[:, 0] >= sign * level, dtype="boolean")
        result["alarm"] = alarm
        return result

    def _keys(self, frame: pd.DataFrame) -> tuple[Array, Array, Array]:
        """Return (R,) machines, times as numbers, and times as the file writes them."""
        form, count = self.card["columns"], len(frame)
        name = form["machine"]
        machine = np.full(count, form["site"] or "all rows")
        if name in frame.columns:
            machine = np.array([str(cell).strip() for cell in frame[name]], dtype=np.str_)
            if all(re.fullmatch(r"\d+\.0+", word) for word in np.unique(machine)):
                machine = np.array([word.partition(".")[0] for word in machine], dtype=np.str_)
            if frame[name].isna().any():
                raise Mistake(f"column '{name}' is empty in some rows")
        if form["time"] not in frame.columns:
            number = np.arange(1, count + 1)
            return machine, number.astype(float), number.astype(object)
        column = frame[form["time"]]
        if column.isna().any():
            raise Mistake(f"column '{form['time']}' has no time in some rows")
        second = SECONDS.get(self.card["time_unit"], SECONDS["days"])
        written, spelt = form["time_format"], column.to_numpy(dtype=object)
        if written in UNIX:
            return machine, column.to_numpy(float) * UNIX[written] / second, spelt
        if written is None and pd.api.types.is_numeric_dtype(column.dtype):
            if np.isinf(times := column.to_numpy(float)).any():
                raise Mistake(f"column '{form['time']}' holds an infinite value: no time")
            return machine, times, spelt
        dates = pd.to_datetime(
            column.astype(str).str.strip(), format=written or "ISO8601", utc=True, errors="coerce"
        )
        if dates.isna().any():
            raise Mistake(
                f"column '{form['time']}' holds {column[dates.isna()].iloc[0]!r}: no time"
            )
        micro = dates.dt.tz_localize(None).to_numpy(dtype="datetime64[us]").astype(np.int64)
        return machine, micro / (1e6 * second), spelt

    def _numbers(self, frame: pd.DataFrame, name: str) -> Array:
        """Return a column as (R,) float64; on is 1, off is 0."""
        form, column = self.card["columns"], frame[name]
        if pd.api.types.is_numeric_dtype(column.dtype):
            numbers = column.to_numpy(dtype=float, na_value=np.nan)
        else:
            text = column.astype(str).str.strip()
            lower, empty = text.str.lower(), column.isna()
            if lower[~empty].isin(SWITCHES).all():
                numbers = lower.map(SWITCHES).to_numpy(dtype=float)
            else:
                if form["thousands"]:
                    text = text.str.replace(form["thousands"], "", regex=False)
                text = text.str.replace(form["decimal"], ".", regex=False).where(~empty)
                numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype=float)
                if (wrong := np.isnan(numbers) & ~empty.to_numpy()).any():
                    raise Mistake(f"column '{name}' holds text: {column[wrong].iloc[0]!r}")
        absent = [word for word in form["missing"] if not isinstance(word, str)]
        numbers = np.where(np.isin(numbers, absent), np.nan, numbers)
        if np.isinf(numbers).any():
            raise Mistake(f"column '{name}' holds an infinite value")
        return numbers

    def _feature(self, frame: pd.DataFrame, form: dict[str, Any]) -> Array:
        """Return (R, 1) readings in the model's unit, or (R, K) of a category: one of K is 1."""
        if not form["values"]:
            return (self._numbers(frame, form["column"]) * form["factor"] + form["offset"])[:, None]
        cells = frame[form["column"]].str.strip()
        if (unknown := cells[cells.notna() & ~cells.isin(form["values"])]).any():
            raise Mistake(f"column '{form['column']}' holds {unknown.iloc[0]!r}: no category")
        codes = form["values"] if len(form["values"]) > 2 else form["values"][1:]
        columns = [np.where(cells.isna(), np.nan, cells == code) for code in codes]
        return np.stack(columns, axis=1).astype(float)

    def _conditions(self, frame: pd.DataFrame) -> Array:
        """Return (R,) operating conditions, by which readings are scaled."""
        operating = self.card["operating"]
        if not operating:
            return np.zeros(len(frame), dtype=int)
        settings = np.stack([self._numbers(frame, name) for name in operating["columns"]], axis=1)
        points = np.array(operating["points"])
        nearest = np.abs(settings[:, :1] - points[:, 0]).argmin(axis=1)
        if (np.abs(settings - points[nearest]) > np.array(operating["tolerance"])).any():
            raise Mistake("a row's settings belong to none of the known operating conditions")
        return nearest

    def _windows(self, machine: Array, time: Array) -> tuple[Array, Array, Array]:
        """Return (R,) where each row's segment starts, and (N,) ends and which are padded."""
        length, count = self.card["window"], len(machine)
        position = np.arange(count)
        steps = np.diff(time)[machine[1:] == machine[:-1]]
        gap = self.card["max_gap"] or np.inf
        if not self.card["max_gap"] and length is not None and len(steps):
            gap = max(length * np.median(steps), 3 * np.quantile(steps, 0.95))
        change = np.ones(count, dtype=bool)
        change[1:] = (machine[1:] != machine[:-1]) | (np.diff(time) > gap)
        first = np.flatnonzero(change)
        start = first[np.cumsum(change) - 1]
        if length is None:
            return start, position, np.zeros(count, dtype=bool)
        last = np.append(first[1:], count)[np.cumsum(change) - 1] - 1
        full = position - start + 1 >= length
        padded = ~full & (position == last)  # a short segment is scored once, at its end
        ends = np.flatnonzero(full | padded)
        return start, ends, padded[ends]

    def _scaled(self, values: Array, condition: Array, which: slice) -> Array:
        mean, scale = self.mean[condition, which], self.scale[condition, which]
        scaled = np.where(
            scale > 0, (values - mean) / np.where(scale > 0, scale, 1.0),
            np.where(np.isnan(values), np.nan, 0.0),
        )  # fmt: skip
        return scaled.astype(np.float32)

    def _filled(self, scaled: Array, start: Array) -> Array:
        """Fill gaps with the last reading of the segment, else with 0: the mean."""
        known = np.where(np.isnan(scaled), -1, np.arange(len(scaled))[:, None])
        latest = np.maximum.accumulate(known, axis=0)
        found = np.take_along_axis(scaled, np.maximum(latest, 0), axis=0)
        return np.where(latest >= start[:, None], found, np.float32(0.0))

    def _scores(self, values: Array, raw: Array, start: Array, ends: Array) -> Array:
        """Return (N, S) calibrated scores."""
        length, parts = self.card["window"], []
        for chunk in np.split(ends, range(CHUNK, len(ends), CHUNK)):
            if length is None:
                x = values[chunk]
            else:
                index = np.maximum(chunk[:, None] + np.arange(1 - length, 1), start[chunk][:, None])
                x = values[index]
                if self.card["inputs"]["mode"] != "raw":
                    x = self._joined(x, raw[index])
            parts.append(self.session.run(None, {"window": np.ascontiguousarray(x)})[0])
        scores = np.concatenate(parts)
        if not np.isfinite(scores).all():
            raise Mistake("the model gives scores that are no numbers")
        return self._calibrated(scores)

    def _joined(self, x: Array, raw: Array) -> Array:
        """Return windows with their statistics, or the statistics alone."""
        inputs = self.card["inputs"]
        found = self.compute(raw, self.card["features"], inputs["limits"])
        zero = np.zeros(len(found), dtype=int)
        own = np.nan_to_num(self._scaled(found, zero, slice(x.shape[2], None)), nan=0.0)
        own = np.clip(own, -inputs["farthest"], inputs["farthest"])
        if inputs["mode"] == "statistics":
            return own
        return np.concatenate([x, np.broadcast_to(own[:, None], (*x.shape[:2], own.shape[1]))], 2)

    def _calibrated(self, scores: Array) -> Array:
        said = self.card["calibration"]
        if not said:
            return scores
        low, high, blend, tiny = (said[key] for key in ("low", "high", "blend", "tiny"))
        with np.errstate(divide="ignore"):
            kept = np.clip(np.log(scores) - np.log1p(-scores), low, high)
        kept = (kept - low) / (high - low)
        if said["method"] == "temperature":
            inner = np.clip(scores, tiny, 1.0 - tiny)
            odds = (np.log(inner) - np.log1p(-inner)) / said["temperature"]
            risks = 1.0 / (1.0 + np.exp(-odds))
        else:
            columns = [np.stack([np.interp(s, c["said"], c["calibrated"])
                                 for c in said["corners"][: h + 1]]).max(axis=0)
                       for h, s in enumerate(scores.T)]  # fmt: skip
            risks = np.stack(columns, axis=1)
        return (1 - blend) * risks + blend * kept


def main(words: list[str] | None = None) -> int:
    """Run the command; return the exit code: 0, or 2 for mistakes."""
    parser = argparse.ArgumentParser(description="Score new rows with the model in this folder.")
    parser.add_argument("file", type=Path, help="CSV with new rows")
    parser.add_argument("--out", type=Path, help="where the scores go (default: FILE-scores.csv)")
    given = parser.parse_args(words)
    try:
        model = Model(Path(__file__).resolve().parent)
        scored = model.score(model.read(given.file))
        out = given.out or Path(f"{given.file.name.partition('.')[0]}-scores.csv")
        if out.exists() and out.samefile(given.file):
            raise Mistake(f"--out {out} is the file with the data; choose another name")
        scored.to_csv(out, index=False)
    except (Mistake, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = "1 scored row" if len(scored) == 1 else f"{len(scored)} scored rows"
    print(f"{rows}, {int(scored['alarm'].fillna(False).sum())} alarms: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
