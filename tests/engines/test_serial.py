"""The serial engine as a Flower Grid, and what of Flower's insides it relies on."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedpdm.engines.grid_view import SampledGrid
from fedpdm.engines.serial import SerialGrid
from fedpdm.errors import HistoryError
from fedpdm.testing import check_engine
from fedpdm.wire.flower import pack_state, unpack_state, wire_bytes
from fedpdm.wire.records import from_record, to_record


def counting_app() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if context.node_config["site"] == "broken":
            raise ValueError("no data")
        seen = context.state.metric_records.get("memory", MetricRecord({"calls": 0}))
        context.state["memory"] = MetricRecord({"calls": int(seen["calls"]) + 1})  # type: ignore[arg-type]
        content = RecordDict({"metrics": MetricRecord({"node": context.node_id})})
        return Message(content, reply_to=message)

    return app


def ask(grid: SerialGrid, nodes: list[int]) -> list[Message]:
    messages = [Message(RecordDict(), node, "train") for node in nodes]
    return list(grid.send_and_receive(messages))


def test_replies_come_in_site_order_and_refer_to_their_message() -> None:
    grid = SerialGrid(counting_app(), ["a", "b", "c"])
    assert isinstance(grid, Grid)
    assert list(grid.get_node_ids()) == [1, 2, 3]
    replies = ask(grid, [3, 1, 2])
    assert [r.metadata.src_node_id for r in replies] == [1, 2, 3]
    assert len({r.metadata.reply_to_message_id for r in replies}) == 3
    assert all(r.metadata.reply_to_message_id.startswith("message-") for r in replies)


def test_a_crash_becomes_an_error_reply_of_that_site_only() -> None:
    replies = ask(SerialGrid(counting_app(), ["a", "broken", "c"]), [1, 2, 3])
    assert [r.has_error() for r in replies] == [False, True, False]
    assert "ValueError: no data" in replies[1].error.reason


def test_context_state_stays_with_its_site_and_can_be_put_back() -> None:
    grid = SerialGrid(counting_app(), ["a", "b"])
    ask(grid, [1, 2])
    ask(grid, [1])
    packed = {site: pack_state(state) for site, state in grid.states.items()}
    other = SerialGrid(counting_app(), ["a", "b"])
    other.load_states({site: unpack_state(data) for site, data in packed.items()})
    ask(other, [1])
    calls = {s: int(state.metric_records["memory"]["calls"]) for s, state in other.states.items()}  # type: ignore[arg-type]
    assert calls == {"a": 3, "b": 1}
    assert pack_state(unpack_state(packed["a"])) == packed["a"]


def test_a_damaged_state_is_reported() -> None:
    with pytest.raises(HistoryError, match="client state is damaged"):
        unpack_state(b"\xff\xfe not a record")


def test_flower_strategies_can_create_messages_on_a_grid_of_our_own() -> None:
    # Tells when a new Flower moves TaskIdentity or the message id.
    grid = SampledGrid(SerialGrid(counting_app(), ["a", "b", "c"]), [2, 3])
    strategy = FedAvg(min_train_nodes=1, min_available_nodes=1)
    arrays = to_record({"w": np.ones(3, dtype=np.float32)})
    messages = list(strategy.configure_train(1, arrays, ConfigRecord(), grid))
    assert sorted(m.metadata.dst_node_id for m in messages) == [2, 3]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "float16"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_arrays_keep_shape_and_type_through_a_record(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype=dtype)
    back = from_record(to_record({"x": array}))["x"]
    assert back.shape == shape and back.dtype == array.dtype and np.array_equal(back, array)


def test_wire_bytes_count_every_message() -> None:
    record = RecordDict({"arrays": to_record({"w": np.zeros(1000, dtype=np.float32)})})
    once = wire_bytes([record])
    assert 4000 < once < 4400
    assert wire_bytes([record, record, record]) == 3 * once


def test_an_unknown_array_record_is_not_invented() -> None:
    assert from_record(ArrayRecord()) == {}


NEEDLESS = {
    "fedpdm.engines.stacked.trainer": ["flwr", "hydra", "omegaconf", "ray"],
    "fedpdm.client.app, fedpdm.federation": ["hydra", "omegaconf", "pandas", "pyarrow", "ray"],
    "fedpdm.runs.run, fedpdm.engines.serial": [
        "ray",
        "flwr.cli",
        "pandas",
        "sklearn",
        "scipy",
        "matplotlib",
        "jinja2",
    ],
}
"""What modules, imported in this order, do without."""


def test_what_is_not_needed_is_not_imported() -> None:
    """Each worker process pays for what the client imports: 70 MB and a second, once."""
    code = "import sys\n" + "".join(
        f"import {modules}\nprint([name for name in {absent} if name in sys.modules])\n"
        for modules, absent in NEEDLESS.items()
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n") == ["[]", "[]", "[]", ""]


def test_it_keeps_the_contract_of_engines() -> None:
    check_engine(SerialGrid)
