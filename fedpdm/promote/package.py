"""The promoted folder: model, card, scaler, ``predict.py``, and the checksums of all files."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedpdm.data import features as statistics
from fedpdm.data.sources.mapping import SiteMapping
from fedpdm.data.sources.units import convert
from fedpdm.errors import ModelError
from fedpdm.evaluation import calibration
from fedpdm.promote import standalone
from fedpdm.promote.export import Exported
from fedpdm.runs.predictor import Predictor
from fedpdm.storage import cleaned

SCHEMA = 1
COMPUTE = '''

def compute(windows, sensors, limits):
    """Return (N, K) features of (N, T, F) windows of raw readings, NaN where all are missing."""
    x = fill_inside(windows)
    silent = np.isnan(x).any(axis=1)
    x = np.where(silent[:, None], 0.0, x)
    found, columns = statistics(x), []
    found[silent] = np.nan
    for place, sensor in enumerate(sensors):
        columns.append(found[:, place])
        if sensor in limits:
            lower, upper = (np.array([value]) for value in limits[sensor])
            part = range_features(x[:, :, place : place + 1], lower, upper)[:, 0]
            part[silent[:, place]] = np.nan
            columns.append(part)
    return np.concatenate(columns, axis=1)
'''
FUNCTIONS = (
    "fill_inside", "statistics", "range_features", "_distribution", "_trend", "_change",
    "_quantile", "_ratio", "_numbers",
)  # fmt: skip
CONSTANTS = ("ROLLING", "HALF", "STEPS", "TINY")


def require_readable(predictor: Predictor) -> None:
    """Refuse files that ``predict.py`` would not read as training did.

    Raises:
        ModelError: names what of the site's yaml it is.
    """
    mapping = predictor.mapping
    if predictor.features.mode == "history":
        raise ModelError(
            "the promoted predict.py does not compute features=history; promote a run with "
            "features=raw, statistics or both"
        )
    odd = {
        "variable and value (a reading a row)": mapping.long is not None,
        "time_zone": mapping.dialect.time_zone is not None,
    }
    if any(odd.values()):
        key = next(name for name, there in odd.items() if there)
        raise ModelError(
            f"sites.{mapping.site}: the promoted predict.py does not read files with {key}; write "
            "the readings as a table with a column a sensor and times in UTC, and run again"
        )


def contents(
    predictor: Predictor, exported: Exported, about: Mapping[str, Any]
) -> dict[str, bytes]:
    """Return the folder's files by name, still without decision record and manifest.

    Args:
        predictor: the model with all that stands before it.
        exported: its file.
        about: what the card says beside: name, version, run, model.
    """
    scaler = predictor.scaler
    files = {
        exported.name: exported.content,
        "card.json": as_json(card(predictor, exported, about)),
        "scaler.json": as_json({"mean": scaler.mean.tolist(), "scale": scaler.scale.tolist()}),
    }
    if exported.format == "onnx":
        files["predict.py"] = Path(standalone.__file__).read_bytes()
        if predictor.features.active:
            files["window_features.py"] = window_features().encode()
    return files


def manifest(files: Mapping[str, bytes], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``manifest.json``: what was promoted, from what, and checksums of all files."""
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    return {"schema": SCHEMA, **about, "files": sums}


def card(predictor: Predictor, exported: Exported, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``predict.py`` needs to know."""
    task, operating = predictor.task, predictor.operating
    scale = predictor.calibration
    return {
        "schema": SCHEMA,
        **about,
        "format": exported.format,
        "reason": exported.reason,
        "scores": exported.scorer,
        "task": task.name,
        "score_columns": list(task.score_columns),
        "alarm_below": task.alarm_below,
        "threshold": predictor.threshold,
        "calibration": None if scale is None else scale.described() | {
            "low": calibration.ODDS[0], "high": calibration.ODDS[1],
            "blend": calibration.BLEND, "tiny": calibration.TINY,
        },
        "interval": None if predictor.interval is None else dict(vars(predictor.interval)),
        "window": predictor.window,
        "time_unit": predictor.time_unit,
        "max_gap": predictor.max_gap,
        "features": list(predictor.mapping.inputs),
        "inputs": {
            "mode": predictor.features.mode,
            "limits": {name: list(pair) for name, pair in predictor.features.limits.items()},
            "farthest": statistics.FARTHEST,
        },
        "operating": None if operating is None else dict(vars(operating)),
        "columns": columns(predictor.mapping),
    }  # fmt: skip


def columns(mapping: SiteMapping) -> dict[str, Any]:
    """Return how a site's file is read: its columns, words and units."""
    dialect = mapping.dialect
    features = []
    for name, column in mapping.columns.items():
        factor, offset = 1.0, 0.0
        if name in mapping.target_units:  # units are a straight line apart: two points tell it
            ends = convert(np.array([0.0, 1.0]), mapping.units[name], mapping.target_units[name])
            offset, factor = float(ends[0]), float(ends[1] - ends[0])
        cells = list(mapping.values.get(name, {}).values())
        features.append({"column": column, "values": cells, "factor": factor, "offset": offset})
    return {
        "site": mapping.site,
        "machine": mapping.machine,
        "time": mapping.time,
        "where": {column: list(values) for column, values in mapping.where.items()},
        "features": features,
        **{
            key: getattr(dialect, key)
            for key in ("sep", "decimal", "thousands", "encoding", "skip_rows", "time_format")
        },
        "missing": list(dialect.missing),
    }


def window_features() -> str:
    """Return the source of the statistics of windows, as it is in fedpdm, without its imports."""
    constants = [f"{name} = {getattr(statistics, name)!r}" for name in CONSTANTS]
    functions = [inspect.getsource(getattr(statistics, name)) for name in FUNCTIONS]
    head = '"""Statistics of windows, as in fedpdm."""\n\nfrom __future__ import annotations'
    return "\n\n".join([head, "import numpy as np", "\n".join(constants), *functions, COMPUTE])


def as_json(value: Any) -> bytes:
    """Return plain values as the content of a JSON file."""
    return (
        json.dumps(cleaned(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    ).encode()
