"""The records that server and plants exchange, and how arrays go in and out of them.

    train      down  arrays  buffers?  scaler?  config{server-round, attempt, …}
               up    arrays  buffers?  metrics{num-examples, train_loss, …}
    evaluate   down  the same
               up    metrics{num-examples, loss, one number per metric, NaN for none}
    query      up    moments{count, total, squares}

``arrays`` holds the trainable float parameters, and nothing else: that is all a strategy
sees. ``buffers`` (BatchNorm's running statistics) and ``scaler`` travel beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray
from torch import Tensor

from fedpdm.data.normalise import Moments, Scaler

Arrays = dict[str, NDArray[Any]]

ARRAYS, BUFFERS, SCALER, CONFIG, METRICS, MOMENTS = (
    "arrays", "buffers", "scaler", "config", "metrics", "moments",
)  # fmt: skip
EXAMPLES = "num-examples"
MOMENTS_QUERY = "query.moments"


def to_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Return named arrays as a record."""
    return ArrayRecord(
        {name: Array(np.array(a, order="C", copy=None)) for name, a in arrays.items()}
    )


def from_record(record: ArrayRecord) -> Arrays:
    """Return a record's arrays by name."""
    return {name: array.numpy() for name, array in record.items()}


def arrays_in(content: RecordDict, key: str) -> Arrays:
    """Return the arrays under ``key``, or none if the message does not carry it."""
    return from_record(content.array_records[key]) if key in content.array_records else {}


def config_in(content: RecordDict) -> dict[str, Any]:
    """Return the config of a message as a dict."""
    return dict(content.config_records[CONFIG]) if CONFIG in content.config_records else {}


def metrics_in(content: RecordDict) -> dict[str, float]:
    """Return the metrics of a reply as floats."""
    return {name: float(cast(float, v)) for name, v in content.metric_records[METRICS].items()}


def metric_record(examples: int, values: Mapping[str, float | None]) -> MetricRecord:
    """Return metrics as a record; a metric that cannot be computed travels as NaN."""
    record = {name: float("nan") if v is None else float(v) for name, v in values.items()}
    return MetricRecord({EXAMPLES: examples, **record})


def to_tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Return arrays as tensors of their own memory."""
    return {name: torch.from_numpy(np.array(a, copy=True)) for name, a in arrays.items()}


def scaler_record(scaler: Scaler) -> ArrayRecord:
    """Return a scaler as a record of ``mean`` and ``scale``."""
    return to_record({"mean": scaler.mean, "scale": scaler.scale})


def scaler_in(content: RecordDict) -> Scaler | None:
    """Return the scaler that a message carries, if it does."""
    arrays = arrays_in(content, SCALER)
    return Scaler(arrays["mean"], arrays["scale"]) if arrays else None


def moments_record(moments: Moments) -> ArrayRecord:
    """Return moments as a record: sums, never rows."""
    return to_record({"count": moments.count, "total": moments.total, "squares": moments.squares})


def moments_in(content: RecordDict) -> Moments:
    """Return the moments that a reply carries."""
    arrays = arrays_in(content, MOMENTS)
    return Moments(arrays["count"], arrays["total"], arrays["squares"])


def config_record(**values: str | int | float | bool) -> ConfigRecord:
    """Return a config record; underscores in names become hyphens, as Flower writes them."""
    return ConfigRecord({name.replace("_", "-"): value for name, value in values.items()})
