"""The few places where fedpdm uses what Flower keeps internal.

A Grid outside Flower's runtimes must give the process a task identity before a strategy
can create a Message, and each message an id. ``tests/engines/test_serial.py`` tells when
a new Flower moves these.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, cast

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.app.metadata import Metadata
from flwr.common.serde import (
    array_record_to_proto,
    config_record_to_proto,
    metric_record_to_proto,
    recorddict_from_proto,
    recorddict_to_proto,
)
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedpdm.errors import HistoryError

RecordType = ArrayRecord | MetricRecord | ConfigRecord

RUN_ID = 1
SERVER_NODE_ID = 1


def become_server() -> None:
    """Give this process the identity of a run's server."""
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = RUN_ID
    TaskIdentity.node_id = SERVER_NODE_ID


def has_identity() -> bool:
    """Return whether this process has one: Flower sets it under a SuperLink."""
    return TaskIdentity._run_id is not None


def set_message_id(message: Message, message_id: str) -> None:
    """Number a message, as a SuperLink would."""
    message.metadata.__dict__["_message_id"] = message_id


def local_run() -> Run:
    """Return the Run that a Grid must be able to show."""
    return Run.create_empty(RUN_ID)


def array_record(arrays: Mapping[str, Array]) -> ArrayRecord:
    """Return a record of these arrays themselves.

    Its constructor would turn each into bytes. In this and the next two, checking again what
    our own code has just made would take as long as a small site's training step.
    """
    record = ArrayRecord()
    record.__dict__["_data"].update(arrays)
    return record


def metric_record_of(values: Mapping[str, int | float]) -> MetricRecord:
    """Return a record of these numbers, unchecked."""
    record = MetricRecord()
    record.__dict__["_data"].update(values)
    return record


def content_of(records: Mapping[str, RecordType]) -> RecordDict:
    """Return a message's content of these records, unchecked."""
    content = RecordDict()
    content.__dict__["_data"].update(records)
    return content


def rebuilt(content: RecordDict | Error, metadata: Metadata) -> Message:
    """Return a message of given metadata, as Flower itself makes one that came over a wire."""
    return cast(Message, cast(Any, Message)(content, metadata=metadata))


def wire_bytes(records: Iterable[RecordDict]) -> int:
    """Return the bytes of records as Flower serialises them (protocol buffers).

    A record that several messages share is counted for each. Arrays are serialised once per
    combination of names, types and shapes: their values do not change the size.
    """
    sizes: dict[int, int] = {}
    total = 0
    for record in records:
        if id(record) not in sizes:
            sizes[id(record)] = content_bytes(record)
        total += sizes[id(record)]
    return total


def content_bytes(content: RecordDict) -> int:
    """Return the bytes of one message's records."""
    return sum([_item_size(key, value) for key, value in content.items()])


def _item_size(key: str, value: RecordType) -> int:
    """Return the size of one entry of a RecordDict: tag, length, then key and value."""
    if isinstance(value, ArrayRecord):
        # Lists are built faster than generators run, and this is done for every site.
        shapes = tuple([(name, a.dtype, tuple(a.shape), a.stype) for name, a in value.items()])
        size = _SIZES.get(shapes)
        if size is None:
            size = array_record_to_proto(value).ByteSize()
            if all(array.stype == "numpy.ndarray" for array in value.values()):
                _SIZES[shapes] = size  # else a client mod packed them
    elif isinstance(value, MetricRecord):
        # A float takes eight bytes whatever it is, a whole number takes what it needs.
        kinds = tuple([(k, v if isinstance(v, int) else type(v)) for k, v in value.items()])
        size = _SIZES.get(kinds)
        if size is None:
            size = metric_record_to_proto(value).ByteSize()
            if not any(isinstance(v, list) for v in value.values()):
                _SIZES[kinds] = size
    else:
        size = config_record_to_proto(value).ByteSize()
    return _field(_field(len(key.encode())) + _field(size))


def _field(length: int) -> int:
    """Return the size of a length-delimited field whose tag is one byte."""
    return 1 + max(1, (length.bit_length() + 6) // 7) + length


_SIZES: dict[tuple[tuple[Any, ...], ...], int] = {}


def pack_state(state: RecordDict) -> bytes:
    """Return a site's ``Context.state`` as bytes, equal for equal states."""
    return bytes(recorddict_to_proto(state).SerializeToString(deterministic=True))


def unpack_state(data: bytes) -> RecordDict:
    """Return the state behind ``pack_state``.

    Raises:
        HistoryError: the bytes are not a RecordDict.
    """
    try:
        return recorddict_from_proto(ProtoRecordDict.FromString(data))
    except Exception as error:
        raise HistoryError(f"a stored client state is damaged: {error}") from error


def quiet() -> None:
    """Keep Flower's own log lines off the screen; our events say what matters."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
