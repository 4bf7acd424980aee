"""Runs with compression: engines, the wire, who gets what on the way down, and odd sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.ray.grid import RayGrid
from fedpdm.engines.serial import SerialGrid
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.server.monitor import MonitorSettings
from fedpdm.testing.federated import Federated, distance, federate, same, states
from fedpdm.transforms.base import Transform
from fedpdm.transforms.downlink import DIFFERENCE, HELD, SUM
from fedpdm.transforms.powersgd import PowerSGD
from fedpdm.transforms.quantise import Quantise
from fedpdm.transforms.sign import Sign
from fedpdm.transforms.topk import TopK
from fedpdm.wire.flower import content_bytes, pack_state, unpack_state
from fedpdm.wire.records import ARRAYS, SCALER, arrays_in, config_in, to_record
from tests.toys.clip_and_noise import ClipAndNoise


def topk() -> dict[str, Transform]:
    return {"topk": TopK(0.1)}


def mixed() -> dict[str, Transform]:
    return {"noise": ClipAndNoise(0.5, 1e-4), "up": PowerSGD(1, "up"), "down": Sign("down")}


class WireGrid(SerialGrid):
    """Every message and every state goes through bytes, as between machines."""

    def stream(
        self, messages: Iterable[Message], timeout: float | None = None
    ) -> Iterator[Message]:
        sent = list(messages)
        for message in sent:
            message.content = self._there(message)
        for reply in super().stream(sent, timeout):
            if reply.has_content():
                reply.content = self._there(reply)
            self.states = {s: unpack_state(pack_state(state)) for s, state in self.states.items()}
            yield reply

    @staticmethod
    def _there(message: Message) -> Any:
        data = pack_state(message.content)
        assert len(data) == content_bytes(message.content)  # what is counted is what travels
        return unpack_state(data)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("make", "engines"), [(topk, [WireGrid, BatchedGrid]), (mixed, [WireGrid, RayGrid])]
)
def test_engines_and_the_wire_give_the_same(
    make: Callable[[], dict[str, Transform]], engines: list[type[LocalGrid]], tmp_path: Path
) -> None:
    serial = federate(tmp_path / "serial", "scaffold", rounds=2, model="cnn", transforms=make())
    assert not serial.screen.events
    for engine in engines:
        other = federate(
            tmp_path / engine.__name__, "scaffold", rounds=2, model="cnn", transforms=make(),
            engine=engine,
        )  # fmt: skip
        other.grid.close()
        assert not other.screen.events
        assert bytes_of(other) == bytes_of(serial)
        if engine is BatchedGrid:
            # Rounding decides which of nearly equal differences travel.
            assert distance(serial.weights(), other.weights()) < 0.05
        else:
            assert same(serial.weights(), other.weights()) and states(serial) == states(other)


def bytes_of(run: Federated) -> list[tuple[int, int]]:
    return [(record.bytes_up, record.bytes_down) for record in run.history.rounds()]


class Heard(SerialGrid):
    """Remembers of each message its round, kind, site, and how much of the model came."""

    heard: list[tuple[int, str, str, str]]

    def stream(
        self, messages: Iterable[Message], timeout: float | None = None
    ) -> Iterator[Message]:
        self.heard = getattr(self, "heard", [])
        sent = list(messages)
        for message in sent:
            content, kind = message.content, message.metadata.message_type
            if kind in ("train", "evaluate"):
                much = "change" if DIFFERENCE in content else "nothing" if SUM in content else "all"
                assert (much == "all") == (SCALER in content) == (ARRAYS in content)
                number = config_in(content)["server-round"]
                site = self.sites[message.metadata.dst_node_id]
                self.heard.append((number, kind, site, much))
        yield from super().stream(sent, timeout)


def test_who_holds_the_last_model_gets_what_changed(tmp_path: Path) -> None:
    def go(rounds: int) -> Federated:
        return federate(
            tmp_path / "run", rounds=rounds, transforms=topk(), engine=Heard,
            faults={"nan": "p1@2"},
        )  # fmt: skip

    first = go(2)
    whole = [(n, kind, site) for n, kind, site, much in first.grid.heard if much == "all"]  # type: ignore[attr-defined]
    # New sites are sent all of it once; so is p1 whose update of round 2 does not count.
    assert whole == [(1, "train", s) for s in ("p0", "p1", "p2")] + [(2, "evaluate", "p1")]
    first.history.close()
    again = go(4)
    heard = again.grid.heard  # type: ignore[attr-defined]
    assert [(n, kind, site) for n, kind, site, much in heard if much == "all"] == [
        (3, "train", "p1")
    ]
    # What changed travels once: to be evaluated. From then on the site holds it.
    assert all((much == "change") == (kind == "evaluate") for _, kind, _, much in heard[2:])
    kinds = {event["kind"] for event in again.screen.events}
    assert not kinds, again.screen.events
    for site in ("p0", "p1", "p2"):
        held = arrays_in(again.grid.states[site], HELD + ARRAYS)
        assert same(held, {n: again.weights()[n] for n in held})


def test_sites_that_are_not_sampled_get_the_whole_model_when_they_are(tmp_path: Path) -> None:
    run = federate(
        tmp_path, rounds=5, sites=4, transforms=topk(), engine=Heard,
        overrides=["strategy.fraction_train=0.5"],
    )  # fmt: skip
    assert not run.screen.events
    sampled = {record.round: set(record.sampled) for record in run.history.rounds()}
    for number, kind, site, much in run.grid.heard:  # type: ignore[attr-defined]
        last = number if kind == "evaluate" else number - 1
        assert (much == "all") == (last == 0 or site not in sampled[last])


def test_sites_that_do_not_evaluate_get_what_changed_when_they_train(tmp_path: Path) -> None:
    run = federate(tmp_path, rounds=3, transforms=topk(), engine=Heard, evaluate_fraction=0.4)
    assert not run.screen.events
    (asked,) = {site for _, kind, site, _ in run.grid.heard if kind == "evaluate"}  # type: ignore[attr-defined]
    for number, kind, site, much in run.grid.heard:  # type: ignore[attr-defined]
        if kind == "train" and number > 1:
            assert much == ("nothing" if site == asked else "change")


def test_a_site_that_only_evaluates_keeps_nothing(tmp_path: Path) -> None:
    run = federate(
        tmp_path, rounds=2, sites=4, transforms=topk(), overrides=["strategy.fraction_train=0.3"]
    )
    sampled = {site for record in run.history.rounds() for site in record.sampled}
    assert set(run.grid.states) == sampled and len(sampled) < 4


def test_a_site_with_another_model_is_named_and_gets_the_whole_one_next(tmp_path: Path) -> None:
    class Forgetful(SerialGrid):
        """Site p0 holds something else when round 3 begins."""

        def stream(
            self, messages: Iterable[Message], timeout: float | None = None
        ) -> Iterator[Message]:
            sent = list(messages)
            now = [config_in(m.content).get("server-round") for m in sent]
            if now[0] == 3 and sent[0].metadata.message_type == "train":
                state = self.states["p0"]
                held = arrays_in(state, HELD + ARRAYS)
                state[HELD + ARRAYS] = to_record({n: a + 1 for n, a in held.items()})
            yield from super().stream(sent, timeout)

    run = federate(tmp_path, rounds=4, transforms=topk(), engine=Forgetful)
    assert [(e["round"], e["site"]) for e in run.screen.events] == [(3, "p0")]
    assert "site holds" in run.screen.events[0]["message"]
    assert "examples" in run.history.rounds()[4].sites["p0"]


def hostile(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    def mod(message: Message, context: Context, call: ClientAppCallable) -> Message:
        reply = call(message, context)
        if context.node_config["site"] == "p1":
            packed = change(arrays_in(reply.content, ARRAYS))
            reply.content[ARRAYS] = to_record(packed)
        return reply

    return mod


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p | {"gaps": np.full_like(p["gaps"], np.iinfo(p["gaps"].dtype).max)},
        lambda p: p | {"values": np.full_like(p["values"], np.nan)},
        lambda p: {},
    ],
)
def test_a_hostile_record_is_refused_naming_the_site(change: Any, tmp_path: Path) -> None:
    run = federate(tmp_path, rounds=1, transforms=topk(), mods=[hostile(change)])
    assert [(e["kind"], e["site"]) for e in run.screen.events] == [("refused", "p1")]
    assert "p1" not in {s for s, v in run.history.rounds()[1].sites.items() if "examples" in v}


@pytest.mark.parametrize("name", ["fedadam", "fedmedian", "krum", "feddyn", "fednova", "qfedavg"])
def test_strategies_of_every_kind_go_with_it(name: str, tmp_path: Path) -> None:
    plain = federate(tmp_path / "plain", name, rounds=3)
    run = federate(tmp_path / "short", name, rounds=3, transforms={"c": Quantise(8)})
    assert not run.screen.events
    assert 0 < distance(plain.weights(), run.weights()) < 0.05


def test_a_rollback_brings_back_rests_at_both_ends(tmp_path: Path) -> None:
    def go(name: str, rounds: int) -> Federated:
        return federate(tmp_path / name, rounds=rounds, transforms=topk(), sites=2)

    straight = go("straight", 2)
    kept = states(straight), straight.loop.transforms.state
    straight.history.close()
    longer = go("straight", 4)
    longer.history.rollback(2, by="person", reason="test")
    longer.history.close()
    back = go("straight", 2)  # nothing is left to do
    back.loop._return_to_head()
    assert states(back) == kept[0]
    np.testing.assert_equal(back.loop.transforms.state, kept[1])
    back.history.close()
    on = go("straight", 3)
    assert not on.screen.events


def test_the_monitor_takes_back_a_poisoned_round(tmp_path: Path) -> None:
    class Poisoned(TopK):
        def encode(self, update: Any, state: Any, generator: Any) -> Any:
            sent = super().encode(update, state, generator)
            if update.site == "p1" and update.base.config["server-round"] == 3:
                if update.base.config["attempt"] == 0:
                    values = sent.records[ARRAYS]["values"]
                    sent.records[ARRAYS]["values"] = values * 1e4
            return sent

    run = federate(
        tmp_path, rounds=4, transforms={"topk": Poisoned(0.1)}, monitor=MonitorSettings(True)
    )
    assert run.history.attempt == 1 and run.history.head().round == 4  # type: ignore[union-attr]
    assert not [e for e in run.screen.events if e["kind"] in ("site-failed", "refused")]


@pytest.mark.parametrize(("method", "factor"), [(TopK(0.01), 50), (Quantise(4), 7), (Sign(), 25)])
def test_bytes_both_ways_as_they_are_counted(
    method: Transform, factor: float, tmp_path: Path
) -> None:
    plain = federate(tmp_path / "plain", rounds=2, sites=2, model="lstm").history.rounds()[2]
    run = federate(tmp_path / "short", rounds=2, sites=2, model="lstm", transforms={"c": method})
    short = run.history.rounds()[2]
    assert plain.bytes_up / short.bytes_up > 0.9 * factor
    assert plain.bytes_down / short.bytes_down > 1.6 * factor  # what changed travels once
