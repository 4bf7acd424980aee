"""The records that server and sites exchange, and how arrays go in and out of them.

    train      down  arrays  buffers?  scaler?  config{server-round, attempt, …}
               up    arrays  buffers?  metrics{num-examples, train_loss, …}
    evaluate   down  the same
               up    metrics{num-examples, loss, one number per metric, NaN for none}
               where config has on-training: metrics{num-examples, loss} of training windows
    query      up    moments{count, total, squares, spread}

Messages ``train.trees`` are in ``fedpdm.client.trees``.

``arrays`` holds the trainable float parameters, and nothing else: that is all a strategy
sees. ``buffers`` (BatchNorm's running statistics) and ``scaler`` travel beside it.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray
from torch import Tensor

from fedpdm.data.normalise import Moments, Scaler
from fedpdm.wire.flower import array_record, metric_record_of

Arrays = dict[str, NDArray[Any]]

ARRAYS, BUFFERS, SCALER, CONFIG, METRICS, MOMENTS = (
    "arrays", "buffers", "scaler", "config", "metrics", "moments",
)  # fmt: skip
EXAMPLES = "num-examples"
MOMENTS_QUERY = "query.moments"
ON_TRAINING = "on-training"


@functools.cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return Flower's name of a type; NumPy builds it at every call."""
    return str(dtype)


class LiveArray(Array):
    """Flower's Array around an ndarray, turned into bytes only on request.

    Between sites and server in one process nobody does, and writing and reading NumPy's
    format would cost more than the arithmetic of a small site. On a wire it is the same
    as any other Array. The ndarray must not change while the record lives.
    """

    ndarray: NDArray[Any]

    def __init__(self, ndarray: NDArray[Any]) -> None:
        # Flower's __setattr__ forgets what it derived from an old value; here is none yet.
        self.__dict__.update(
            ndarray=ndarray,
            dtype=dtype_name(ndarray.dtype),
            shape=ndarray.shape,
            stype="numpy.ndarray",
        )

    @property
    def data(self) -> bytes:  # type: ignore[override]
        buffer = io.BytesIO()
        np.save(buffer, self.ndarray, allow_pickle=False)
        return buffer.getvalue()

    def numpy(self) -> NDArray[Any]:
        """Return a copy, which the caller may change, as Flower's Array does."""
        return self.ndarray.copy()

    def __reduce__(self) -> tuple[Callable[[NDArray[Any]], LiveArray], tuple[NDArray[Any]]]:
        return live, (self.ndarray,)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return NotImplemented
        mine, theirs = (self.dtype, self.shape, self.data), (other.dtype, other.shape, other.data)
        return mine == theirs

    __hash__ = None  # type: ignore[assignment]


def live(ndarray: NDArray[Any]) -> LiveArray:
    """Return an Array around an ndarray; by this name another process makes it again."""
    return LiveArray(ndarray)


# Flower names the kind of an object on the wire by its class; the receiver knows only Array.
LiveArray.__qualname__ = Array.__qualname__


def to_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Return named arrays as a record. They are shared, not copied."""
    return array_record({name: LiveArray(np.asarray(a, order="C")) for name, a in arrays.items()})


def from_record(record: ArrayRecord) -> Arrays:
    """Return a record's arrays by name, to be read and not changed."""
    return {
        name: array.ndarray if isinstance(array, LiveArray) else array.numpy()
        for name, array in record.items()
    }


def arrays_in(content: RecordDict, key: str) -> Arrays:
    """Return the arrays under ``key``, or none if the message does not carry it."""
    return from_record(cast(ArrayRecord, content[key])) if key in content else {}


def config_in(content: RecordDict) -> dict[str, Any]:
    """Return the config of a message as a dict."""
    # By its items: Flower's records check every key that is looked up.
    return dict(cast(ConfigRecord, content[CONFIG]).items()) if CONFIG in content else {}


def metrics_in(content: RecordDict) -> dict[str, float]:
    """Return the metrics of a reply as floats."""
    record = cast(MetricRecord, content[METRICS])
    return {name: float(cast(float, value)) for name, value in record.items()}


def metric_record(examples: int, values: Mapping[str, float | None]) -> MetricRecord:
    """Return metrics as a record; a metric that cannot be computed travels as NaN."""
    record = {name: float("nan") if v is None else float(v) for name, v in values.items()}
    return metric_record_of({EXAMPLES: int(examples), **record})


def to_tensors(
    arrays: Mapping[str, NDArray[Any]], device: torch.device = torch.device("cpu")
) -> dict[str, Tensor]:
    """Return arrays as tensors of their own memory on a device."""
    return {n: torch.from_numpy(np.array(a, copy=True)).to(device) for n, a in arrays.items()}


def scaler_record(scaler: Scaler) -> ArrayRecord:
    """Return a scaler as a record of ``mean`` and ``scale``."""
    return to_record({"mean": scaler.mean, "scale": scaler.scale})


def scaler_in(content: RecordDict) -> Scaler | None:
    """Return the scaler that a message carries, if it does."""
    arrays = arrays_in(content, SCALER)
    return Scaler(arrays["mean"], arrays["scale"]) if arrays else None


def moments_record(moments: Moments) -> ArrayRecord:
    """Return moments as a record: sums, never rows."""
    return to_record(dict(vars(moments)))


def moments_in(content: RecordDict) -> Moments:
    """Return the moments that a reply carries."""
    arrays = arrays_in(content, MOMENTS)
    return Moments(**{field.name: arrays[field.name] for field in fields(Moments)})


def config_record(**values: str | int | float | bool) -> ConfigRecord:
    """Return a config record; underscores in names become hyphens, as Flower writes them."""
    return ConfigRecord({name.replace("_", "-"): value for name, value in values.items()})
