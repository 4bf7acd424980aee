"""What the server lets in, and what it keeps of it."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict

from fedpdm.aggregation.collector import Collector
from fedpdm.aggregation.sums import MeanByExamples, Total
from fedpdm.aggregation.update import Base, Update
from fedpdm.wire.flower import become_server, wire_bytes
from fedpdm.wire.records import ARRAYS, BUFFERS, EXAMPLES, METRICS, Arrays, metric_record, to_record

SENT: Arrays = {"w": np.zeros(3, np.float32), "b": np.zeros(1, np.float32)}
STATISTICS: Arrays = {"mean": np.zeros(2, np.float32), "seen": np.array(0)}


def reply(arrays: Arrays, buffers: Arrays = STATISTICS, examples: int = 1) -> Message:
    become_server()
    content = RecordDict(
        {
            ARRAYS: to_record(arrays),
            BUFFERS: to_record(buffers),
            METRICS: metric_record(examples, {"train_loss": 0.5}),
        }
    )
    return Message(content, reply_to=Message(RecordDict(), 1, "train"))


def collector(streaming: bool = True) -> tuple[Collector, list[tuple[Any, ...]]]:
    events: list[tuple[Any, ...]] = []
    adding = MeanByExamples() if streaming else None
    base = Base(0, SENT, STATISTICS)
    return Collector(base, lambda *event: events.append(event), adding), events


def mean_of(took: Collector) -> Arrays | None:
    sums = took.sums()
    return None if sums is None else sums.mean


@pytest.mark.parametrize(
    ("arrays", "buffers", "words"),
    [
        ({**SENT, "w": np.array([0, np.nan, 1], np.float32)}, STATISTICS, "1 of 3 values of w"),
        ({**SENT, "b": np.array([np.inf], np.float32)}, STATISTICS, "1 of 1 values of b"),
        ({**SENT, "w": np.zeros(4, np.float32)}, STATISTICS, "w has shape"),
        ({"w": SENT["w"]}, STATISTICS, "not the model's: b"),
        (SENT, {**STATISTICS, "mean": np.array([np.nan, 0], np.float32)}, "values of mean"),
        ({**SENT, "w": np.zeros(3, complex)}, STATISTICS, "w holds complex128 and not float32"),
        ({**SENT, "w": np.array(["a", "b", "c"])}, STATISTICS, "w holds <U1"),
        (SENT, {"mean": STATISTICS["mean"]}, "not the model's: seen"),
        # Finite as they come, infinite once they are cast to the model's type or squared.
        ({**SENT, "w": np.array([0, 1e300, 1])}, STATISTICS, "w holds float64 and not float32"),
        ({**SENT, "w": np.zeros(3, np.float16)}, STATISTICS, "w holds float16"),
        (SENT, {**STATISTICS, "mean": np.array([1e300, 0])}, "mean holds float64"),
        (SENT, {**STATISTICS, "seen": np.array(2**63, np.uint64)}, "seen holds uint64"),
        ({**SENT, "w": np.full(3, 3e38, np.float32)}, STATISTICS, "away from the model"),
    ],
)
@pytest.mark.parametrize("streaming", [True, False])
def test_a_broken_update_is_refused_by_name(
    arrays: Arrays, buffers: Arrays, words: str, streaming: bool
) -> None:
    took, events = collector(streaming)
    took.take("gdansk", reply(arrays, buffers))
    assert [event[0] for event in events] == ["refused"] and events[0][2] == "gdansk"
    assert words in events[0][1] and "gdansk" in events[0][1]
    assert took.updates == [] and mean_of(took) is None and took.buffers() is None
    assert took.answers == 1


RUBBISH = ArrayRecord(
    {n: Array("float32", a.shape, "numpy.ndarray", b"?") for n, a in SENT.items()}
)


@pytest.mark.parametrize(
    ("key", "record", "words"),
    [
        (METRICS, MetricRecord({EXAMPLES: float("nan")}), "num-examples is nan"),
        (METRICS, MetricRecord({EXAMPLES: float("inf")}), "num-examples is inf"),
        (METRICS, MetricRecord({EXAMPLES: -3}), "num-examples is -3"),
        (METRICS, MetricRecord({EXAMPLES: 2**53}), "num-examples is 9.0072e+15, and only"),
        (METRICS, MetricRecord({"train_loss": 0.5}), "cannot be read (KeyError: 'num-examples')"),
        (METRICS, None, "cannot be read (KeyError: 'metrics')"),
        (ARRAYS, RUBBISH, "cannot be read (ValueError"),
        (ARRAYS, None, "not the model's: b, w"),
    ],
)
def test_whatever_a_site_sends_the_round_goes_on(
    key: str, record: ArrayRecord | MetricRecord | None, words: str
) -> None:
    took, events = collector()
    odd = reply(SENT)
    if record is None:
        del odd.content[key]
    else:
        odd.content[key] = record
    took.take("odd", odd)
    took.take("good", reply({n: a + 2.0 for n, a in SENT.items()}))
    assert [event[0] for event in events] == ["refused"] and words in events[0][1]
    assert [update.site for update in took.updates] == ["good"] and took.answers == 2
    mean = mean_of(took)
    assert mean is not None and mean["w"].tolist() == [2.0, 2.0, 2.0]


def test_updates_are_added_up_and_let_go() -> None:
    took, events = collector()
    watched = []
    for value, examples in ((1.0, 1), (4.0, 2)):
        update = reply({n: np.full_like(a, value) for n, a in SENT.items()}, examples=examples)
        watched.append(weakref.ref(update))
        took.take(f"p{value}", update)
        del update
    gc.collect()
    assert [ref() for ref in watched] == [None, None]
    mean = mean_of(took)
    assert mean is not None and mean["w"].tolist() == [3.0, 3.0, 3.0]
    assert [(u.site, u.examples, u.norm) for u in took.updates] == [
        ("p1.0", 1, 2.0),
        ("p4.0", 2, 8.0),
    ]
    assert took.messages() == [] and events == []


def test_replies_that_are_kept_may_be_taken_apart() -> None:
    took, _ = collector(streaming=False)
    original = reply(SENT)
    record = original.content[ARRAYS]
    took.take("a", original)
    kept = took.messages()[0].content
    assert set(kept) == {ARRAYS, METRICS}  # what a strategy of Flower expects to find
    kept.array_records[ARRAYS].pop("w")
    assert set(record) == {"w", "b"}


def test_bytes_and_failures_are_counted() -> None:
    took, events = collector()
    good = reply(SENT)
    took.take("a", good)
    failed = Message(Error(2, "no data"), reply_to=Message(RecordDict(), 1, "train"))
    took.take("b", failed)
    assert took.bytes_up == wire_bytes([good.content])
    assert took.answers == 1
    assert events == [("site-failed", "b failed: no data", "b")]


class Hiding:
    """The server's half of a transform that masks values."""

    hides_values = True

    def decode(self, update: Update) -> Update:
        return update

    before_sum = decode

    def after_sum(self, totals: dict[str, Total], _: Any) -> dict[str, Total]:
        return totals


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_hides_values_hides_no_infinity(value: float) -> None:
    events: list[tuple[Any, ...]] = []
    took = Collector(Base(0, SENT, STATISTICS), lambda *e: events.append(e), None, Hiding())
    took.take("odd", reply({**SENT, "w": np.array([value, 0, 0])}))
    took.take("text", reply({**SENT, "w": np.array(["a", "b", "c"])}))
    took.take("good", reply(SENT))
    assert [update.site for update in took.updates] == ["good"]
    assert [(event[0], event[2]) for event in events] == [("refused", "odd"), ("refused", "text")]
