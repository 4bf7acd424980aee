"""Asynchronous servers on a virtual clock: their formulas, limits, and a stop in mid-flight."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedpdm.aggregation.sums import Sums
from fedpdm.aggregation.update import Base
from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.ray.grid import RayGrid
from fedpdm.engines.serial import SerialGrid
from fedpdm.errors import ConfigError, SiteError
from fedpdm.history import History
from fedpdm.models.policy import POLICIES
from fedpdm.server.asynchronous import Group
from fedpdm.server.base import Server
from fedpdm.server.deadline import Deadline
from fedpdm.server.fedasync import FedAsync
from fedpdm.server.fedbuff import FedBuff
from fedpdm.server.monitor import MonitorSettings
from fedpdm.server.staleness import Staleness
from fedpdm.server.synchronous import Synchronous
from fedpdm.server.virtual_clock import VirtualClock
from fedpdm.testing.federated import Federated, federate, same, states
from fedpdm.training.loop import batch_sizes
from tests.toys.one_by_one import OneByOne

SITES = 5
STILL = {"step_seconds": 0.0, "bandwidth": None, "latency": 0.0}
"""A network in which nothing takes any time."""
ROUGH = {
    "dropout": 0.3, "late": 0.3, "duplicate": 0.3, "delay": 40.0, "spread": 0.5,
    "slow_share": 0.2, "straggle_share": 0.1, "heartbeat_interval": 5.0, "heartbeat_timeout": 12.0,
}  # fmt: skip
COUNTS = ("sent", "received", "timed_out", "under_way", "late", "dropped", "overdue", "duplicate")


def clocked(count: int = SITES, timeout: float | None = None, **settings: Any) -> VirtualClock:
    clock = VirtualClock(**settings)
    names = [f"p{n}" for n in range(count)]
    clock.prepare(names, 0, lambda examples: len(batch_sizes(examples, 16)), timeout)
    return clock


def run(
    folder: Path,
    server: Callable[[], Server],
    rounds: int = 4,
    timeout: float | None = None,
    count: int = SITES,
    network: dict[str, Any] | None = None,
    **options: Any,
) -> Federated:
    clock = clocked(count, timeout, **(STILL if network is None else network))
    return federate(
        folder, sites=count, rounds=rounds, clock=clock, round_timeout=timeout, server=server,
        **options,
    )  # fmt: skip


def column(found: Federated, name: str) -> list[float]:
    return [record.metrics[name] for record in found.history.rounds()[1:]]


# Formulas -------------------------------------------------------------------------------------


def test_staleness_weights_in_closed_form() -> None:
    polynomial, hinge = Staleness("polynomial", 0.5, 0.0), Staleness("hinge", 10.0, 4.0)
    assert [polynomial(t) for t in (0, 3, 8)] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert [hinge(t) for t in (0, 4, 5, 6)] == [1.0, 1.0, 1 / 11, 1 / 21]
    assert [Staleness("constant", 0.5, 0.0)(t) for t in (0, 99)] == [1.0, 1.0]


def group(version: int, start: float, mean: float, weight: float, stale: float) -> Group:
    base = Base(version, {"w": np.array([start], np.float32)}, {})
    return Group(base, Sums([], weight, {"w": np.array([mean])}, {}), None, stale)


def test_fedbuff_adds_differences_from_each_base() -> None:
    newest, model = group(7, 1.0, 3.0, 10.0, 1.0), Base(7, {"w": np.array([1.0], np.float32)}, {})
    old = group(4, -1.0, 3.0, 30.0, 0.5)
    found = FedBuff(rate=0.8).merge(model, [old, newest])
    assert found["w"] == pytest.approx(1.0 + 0.8 * (10 * 2.0 * 1.0 + 30 * 4.0 * 0.5) / 40)


def test_fedasync_mixes_the_model_in() -> None:
    model = Base(7, {"w": np.array([1.0], np.float32)}, {})
    found = FedAsync(alpha=0.6).merge(model, [group(4, 9.0, 3.0, 10.0, 0.5)])
    assert found["w"] == pytest.approx(0.7 * 1.0 + 0.3 * 3.0)


# Limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "server",
    [Synchronous, lambda: FedBuff(buffer=SITES), lambda: Deadline(seconds=1.0),
     lambda: Deadline(seconds=1.0, late="take")],
)  # fmt: skip
def test_at_equal_speeds_it_is_fedavg_to_the_bit(
    server: Callable[[], Server], tmp_path: Path
) -> None:
    plain = federate(tmp_path / "plain", sites=SITES, rounds=2, model="cnn")
    found = run(tmp_path / "found", server, 2, model="cnn")
    for number in range(3):
        assert same(plain.weights(number), found.weights(number)), number
    for mine, theirs in zip(plain.history.rounds(), found.history.rounds(), strict=True):
        assert mine.metrics == {n: v for n, v in theirs.metrics.items() if n in mine.metrics}
        assert (mine.sampled, mine.bytes_up, mine.bytes_down) == (
            theirs.sampled, theirs.bytes_up, theirs.bytes_down
        )  # fmt: skip


def test_a_share_of_the_sites_is_the_share_of_synchronous_rounds(tmp_path: Path) -> None:
    share = {"strategy": "fedprox", "overrides": ["strategy.fraction_train=0.6"], "rounds": 3}
    plain = federate(tmp_path / "plain", sites=SITES, **share)  # type: ignore[arg-type]
    found = run(tmp_path / "found", lambda: FedBuff(buffer=3), **share)  # type: ignore[arg-type]
    assert [r.sampled for r in plain.history.rounds()] == [
        r.sampled for r in found.history.rounds()
    ]
    assert same(plain.weights(), found.weights())


def test_fedasync_with_one_site_and_alpha_one_is_fedavg(tmp_path: Path) -> None:
    plain = federate(tmp_path / "plain", sites=1, rounds=3)
    found = run(tmp_path / "found", lambda: FedAsync(alpha=1.0), 3, count=1)
    assert same(plain.weights(), found.weights())


def test_a_site_that_fails_is_one_event_and_all_of_them_the_end(tmp_path: Path) -> None:
    found = federate(
        tmp_path / "one", sites=3, rounds=2, server=lambda: FedBuff(buffer=2), broken=["p1"],
        federated_scaling=False, clock=clocked(3),
    )  # fmt: skip
    told = [e for e in found.history.events() if "evaluate" not in e["message"]]
    assert [(e["kind"], e["site"], e["round"]) for e in told] == [
        ("site-failed", "p1", 1), ("site-failed", "p1", 2)
    ]  # fmt: skip
    with pytest.raises(SiteError, match="every site failed"):
        federate(
            tmp_path / "all", sites=2, rounds=2, server=FedBuff, broken=["p0", "p1"],
            federated_scaling=False, clock=clocked(2),
        )  # fmt: skip


def test_a_wall_clock_serves_too(tmp_path: Path) -> None:
    found = federate(tmp_path, sites=SITES, rounds=3, server=lambda: FedBuff(buffer=2))
    assert (
        len(found.history.rounds()) == 4
        and "simulated_seconds" not in found.history.rounds()[-1].metrics
    )


# Stops, engines, rollbacks --------------------------------------------------------------------

SERVERS: list[Callable[[], Server]] = [
    lambda: FedBuff(buffer=2), FedAsync, lambda: Deadline(seconds=20.0, late="take"),
    lambda: Deadline(seconds=20.0, extra=0.5), Synchronous,
]  # fmt: skip


def equal(first: Federated, second: Federated) -> None:
    for mine, theirs in zip(first.history.rounds(), second.history.rounds(), strict=True):
        assert mine.metrics == theirs.metrics and mine.sites == theirs.sites
        assert (mine.sampled, mine.bytes_up, mine.bytes_down) == (
            theirs.sampled, theirs.bytes_up, theirs.bytes_down
        )  # fmt: skip
        assert same(first.weights(mine.round), second.weights(mine.round)), mine.round
    np.testing.assert_equal(first.history.strategy_state(), second.history.strategy_state())
    assert states(first) == states(second)


@pytest.mark.parametrize("server", SERVERS)
def test_a_stop_in_mid_flight_changes_no_bit(server: Callable[[], Server], tmp_path: Path) -> None:
    options: dict[str, Any] = {"network": ROUGH, "timeout": 90.0}
    whole = run(tmp_path / "whole", server, 6, **options)

    def power_cut(message: Message, context: Context, call: ClientAppCallable) -> Message:
        seen.append(1)
        if len(seen) == 9:
            raise KeyboardInterrupt
        return call(message, context)

    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", server, 6, mods=[power_cut], **options)
    with History.open(tmp_path / "part") as left:
        assert 0 < len(left.rounds()) < 7
    equal(whole, run(tmp_path / "part", server, 6, **options))


def test_a_server_from_elsewhere_works_in_simulated_time(tmp_path: Path) -> None:
    def power_cut(message: Message, context: Context, call: ClientAppCallable) -> Message:
        seen.append(1)
        if len(seen) == 9:
            raise KeyboardInterrupt
        return call(message, context)

    seen: list[int] = []
    whole = run(tmp_path / "whole", OneByOne, 6, network=ROUGH)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", OneByOne, 6, network=ROUGH, mods=[power_cut])
    part = run(tmp_path / "part", OneByOne, 6, network=ROUGH)
    for record in whole.history.rounds():
        assert same(whole.weights(record.round), part.weights(record.round))
    assert column(whole, "simulated_seconds") == column(part, "simulated_seconds")
    assert column(whole, "messages_sent") == column(part, "messages_sent")


def test_a_round_in_which_everybody_drops_out_is_no_end(tmp_path: Path) -> None:
    found = run(tmp_path, Synchronous, 4, count=2, network={**ROUGH, "dropout": 0.6})
    idle = [r.round for r in found.history.rounds() if r.round and "train_loss" not in str(r.sites)]
    assert idle and len(found.history.rounds()) == 5
    assert same(found.weights(idle[0]), found.weights(idle[0] - 1))


@pytest.mark.parametrize("name", ["body", "no_norm"])
def test_what_sites_remember_is_part_of_the_flight(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"network": ROUGH, "policy": POLICIES[name](), "model": "cnn"}

    def power_cut(message: Message, context: Context, call: ClientAppCallable) -> Message:
        seen.append(1)
        if len(seen) == 8:
            raise KeyboardInterrupt
        return call(message, context)

    seen: list[int] = []
    whole = run(tmp_path / "whole", lambda: FedBuff(buffer=2), 4, **options)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", lambda: FedBuff(buffer=2), 4, mods=[power_cut], **options)
    assert states(whole)
    equal(whole, run(tmp_path / "part", lambda: FedBuff(buffer=2), 4, **options))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_serial_and_ray_are_equal_to_the_byte(tmp_path: Path) -> None:
    def ray(app: Any, names: Any) -> LocalGrid:
        return RayGrid(app, names, workers=2)

    made = []
    for name, engine in {"serial": SerialGrid, "ray": ray}.items():
        found = run(
            tmp_path / name, lambda: FedBuff(buffer=2), 3, network=ROUGH,
            engine=engine,
        )  # fmt: skip
        found.grid.close()
        made.append(found)
    equal(*made)


def test_a_rollback_takes_the_clock_back(tmp_path: Path) -> None:
    watch = MonitorSettings(rollback=True, loss_factor=1e9, norm_factor=1.5)
    found = run(
        tmp_path, lambda: FedBuff(buffer=2), 4, network={"spread": 0.5}, monitor=watch,
        faults={"poison": "p1@1"},
    )  # fmt: skip
    history = found.history
    back = [event for event in history.events() if event["kind"] == "rollback"]
    assert back and not any(record.undone for record in history.rounds())
    undone = [record for record in history.rounds(undone=True) if record.undone]
    for bad in undone:  # the repeated round starts from the same time, and counts from there
        good = next(r for r in history.rounds() if r.round == bad.round)
        before = next(r for r in history.rounds() if r.round == bad.round - 1)
        begun = before.metrics.get("simulated_seconds", 0.0)
        assert good.metrics["simulated_seconds"] > begun
        assert good.metrics["messages_sent"] <= bad.metrics["messages_sent"] + 2
    assert all(np.diff(column(found, "simulated_seconds")) >= 0)
    again = run(
        tmp_path / "again", lambda: FedBuff(buffer=2), 4, network={"spread": 0.5}, monitor=watch,
        faults={"poison": "p1@1"},
    )  # fmt: skip
    equal(found, again)


# Messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
def test_every_message_has_one_fate(server: Callable[[], Server], tmp_path: Path) -> None:
    worked: list[str] = []
    taken: list[str] = []

    def watch(message: Message, context: Context, call: ClientAppCallable) -> Message:
        worked.append(str(context.node_config["site"]))
        return call(message, context)

    def watched() -> Server:
        made = server()
        apply = made.apply

        def listen(round: Any, site: str, reply: Message) -> None:
            if not reply.has_error():
                taken.append(site)
            apply(round, site, reply)

        made.apply = listen  # type: ignore[method-assign]
        return made

    found = run(tmp_path, watched, 12, timeout=60.0, network=ROUGH, mods=[watch])
    lines = [
        {name: record.metrics[f"messages_{name}"] for name in COUNTS}
        for record in found.history.rounds()[1:]
    ]
    for line in lines:
        assert line["sent"] == line["received"] + line["timed_out"] + line["under_way"]
        assert line["timed_out"] == line["late"] + line["dropped"] + line["overdue"]
    for before, after in pairwise(lines):
        assert all(after[n] >= before[n] for n in COUNTS if n not in ("under_way", "overdue"))
    last = lines[-1]
    assert last["sent"] == len(worked) and last["received"] == len(taken)
    assert all(last[name] > 0 for name in ("received", "dropped", "duplicate"))
    assert last["duplicate"] <= last["received"] + last["late"]


def test_a_round_lasts_as_long_as_its_slowest_site_or_its_timeout(tmp_path: Path) -> None:
    fast = {"step_seconds": 1.0, "bandwidth": None, "latency": 2.0}
    slow = {**fast, "sites": {"p1": {"speed": 0.01}}}
    one = run(tmp_path / "one", Synchronous, 2, network=slow, count=2)
    steps = one.source and len(batch_sizes(_examples(one, "p1"), 16))
    assert column(one, "simulated_seconds") == [4.0 + 100.0 * steps, 2 * (4.0 + 100.0 * steps)]
    two = run(tmp_path / "two", Synchronous, 2, timeout=50.0, network=slow, count=2)
    assert column(two, "simulated_seconds") == [50.0, 100.0]
    assert column(two, "messages_timed_out") == [1.0, 2.0]


def _examples(found: Federated, site: str) -> int:
    return int(found.history.rounds()[1].sites[site]["examples"])


def test_bytes_take_the_time_that_the_bandwidth_gives_them(tmp_path: Path) -> None:
    network = {"step_seconds": 0.0, "bandwidth": 10.0, "latency": 0.0}
    found = run(
        tmp_path, Synchronous, 1, network=network, count=1, federated_scaling=False,
        evaluate_fraction=0.0,
    )  # fmt: skip
    record = found.history.rounds()[1]
    assert record.metrics["simulated_seconds"] == (record.bytes_up + record.bytes_down) / 10.0


def test_slow_sites_do_not_hold_fedbuff_up(tmp_path: Path) -> None:
    slow = {"sites": {"p1": {"speed": 0.1}}}
    waits = run(tmp_path / "waits", Synchronous, 4, network=slow)
    goes_on = run(tmp_path / "goes", lambda: FedBuff(buffer=SITES), 4, network=slow)
    assert column(goes_on, "simulated_seconds")[-1] < column(waits, "simulated_seconds")[-1] / 2
    assert max(column(goes_on, "staleness")) > 0.0


# Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: FedBuff(buffer=0), "server.buffer"), (lambda: FedBuff(rate=0.0), "server.rate"),
        (lambda: FedAsync(alpha=1.5), "server.alpha"),
        (lambda: FedAsync(staleness="no"), "server.staleness"),
        (lambda: Deadline(seconds=0.0), "server.seconds"),
        (lambda: Deadline(late="no"), "server.late"), (lambda: FedBuff(a=-1.0), "server.a"),
        (lambda: clocked(dropout=1.0), "clock.dropout"),
        (lambda: clocked(bandwidth=0.0), "clock.bandwidth"),
        (lambda: clocked(sites={"p9": {"speed": 1.0}}), "clock.sites.p9"),
        (lambda: clocked(sites={"p1": {"colour": 1.0}}), "clock.sites.p1.colour"),
        (lambda: clocked(heartbeat_interval=60.0), "clock.heartbeat_interval"),
        (lambda: clocked(heartbeat_interval=None, dropout=0.1), "round_timeout"),
        (lambda: clocked(availability="no.csv"), "clock.availability"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(make: Callable[[], Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        make()
