"""Secure aggregation: the server gets the exact sum, sites may go away, and nothing else shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable
from scipy import stats

from fedpdm.aggregation.update import Base, Update
from fedpdm.client.app import SiteApp
from fedpdm.config.compose import compose
from fedpdm.engines.serial import SerialGrid
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.engines.stacked.trainer import StackedTrainer
from fedpdm.errors import ConfigError, TrainingStopped
from fedpdm.history import History
from fedpdm.runs.experiment import build
from fedpdm.seeding import seeded_globals
from fedpdm.server.base import Server
from fedpdm.server.clock import Clock
from fedpdm.server.monitor import MonitorSettings
from fedpdm.server.secagg import SecAgg
from fedpdm.server.synchronous import Synchronous
from fedpdm.testing.federated import Federated, check_resume, distance, federate, named, same
from fedpdm.transforms.base import Chain, Stage, Transform
from fedpdm.transforms.masking import (
    COLLECT,
    MASKED,
    SECAGG,
    SETUP,
    SHARE_KEYS,
    UNMASK,
    Coding,
    ring,
)
from fedpdm.transforms.topk import TopK
from fedpdm.wire.flower import content_bytes
from fedpdm.wire.records import ARRAYS, BUFFERS, EXAMPLES, arrays_in, config_in, metrics_in
from tests.toys.clip_and_noise import ClipAndNoise
from tests.toys.half_codec import HalfCodec

SITES = 6


def run(folder: Path, server: Callable[[], Server] = SecAgg, **options: Any) -> Federated:
    return federate(folder, **{"sites": SITES, "rounds": 1, "server": server, **options})


def stage_of(message: Message) -> str:
    record = message.content.config_records.get(SECAGG)
    return COLLECT if record is None else str(record["stage"])


class Leaving(SerialGrid):
    """From a stage of round 1 on, some sites are silent; all traffic is counted."""

    gone: Mapping[str, Sequence[str]] = {}

    def __init__(self, app: SiteApp, sites: Sequence[str]) -> None:
        super().__init__(app, sites)
        self.away: set[str] = set()
        self.down = self.up = 0

    def stream(
        self, messages: Iterable[Message], timeout: float | None = None
    ) -> Iterator[Message]:
        asked = list(messages)
        working = asked and asked[0].metadata.message_type.startswith("train")
        first = working and config_in(asked[0].content)["server-round"] == 1
        if first:
            self.away |= set(self.gone.get(stage_of(asked[0]), ()))
        self.down += sum(content_bytes(m.content) for m in asked)
        for reply in super().stream(asked, timeout):
            if not first or self.sites[reply.metadata.src_node_id] not in self.away:
                self.up += content_bytes(reply.content)
                yield reply


def leaving(gone: Mapping[str, Sequence[str]]) -> Callable[[SiteApp, Sequence[str]], Leaving]:
    return type("Leaves", (Leaving,), {"gone": gone})


class Watched(SecAgg):
    """Keeps what the server sees."""

    def submit(self, round: Any, sites: Sequence[str]) -> None:
        self.vectors: dict[str, Any] = {}
        super().submit(round, sites)

    def apply(self, round: Any, site: str, reply: Message) -> None:
        if not reply.has_error() and MASKED in reply.content:
            self.vectors[site] = arrays_in(reply.content, MASKED)["vector"].copy()
            assert set(reply.content) == {MASKED}
        super().apply(round, site, reply)

    @property
    def total(self) -> Any:
        return self._protocol.total


def watched(folder: Path, **options: Any) -> tuple[Any, dict[str, Any], Federated]:
    """Return the server after one round, the plain vectors of its sites, and the run."""
    plain: dict[str, Any] = {}

    def spy(message: Message, context: Context, call: ClientAppCallable) -> Message:
        reply = call(message, context)
        site, config = str(context.node_config["site"]), config_in(message.content)
        sent = {name: arrays_in(message.content, name) for name in (ARRAYS, BUFFERS)}
        records = {name: arrays_in(reply.content, name) for name in (ARRAYS, BUFFERS)}
        base = Base(0, sent[ARRAYS], sent[BUFFERS])
        update = Update(site, base, records, metrics_in(reply.content), 1.0)
        key = site, int(config["server-round"]), int(config["attempt"])
        with seeded_globals(0, "secagg", *key):
            plain[site] = Watched().coding.encode(update, by_examples=True)
        return reply

    found = run(folder, Watched, mods=[spy], **options)
    return found.loop.server, plain, found


def test_the_sum_is_exactly_that_of_the_plain_vectors(tmp_path: Path) -> None:
    server, plain, _ = watched(tmp_path, model="cnn")
    assert len(plain) == SITES
    np.testing.assert_array_equal(server.total, np.sum(list(plain.values()), axis=0, dtype="u8"))
    weights = [int(vector[0]) for vector in plain.values()]
    assert len(set(weights)) > 1 and int(server.total[0]) == sum(weights)


def test_a_masked_vector_is_uniform_and_a_plain_one_is_not(tmp_path: Path) -> None:
    """Fails by chance once in 10^6 runs or less: masks are different each time."""
    server, plain, _ = watched(tmp_path)
    for site, vector in server.vectors.items():
        assert uniformity(vector) > 1e-8, site
        assert uniformity(plain[site]) < 1e-100, site
    # The sum of all but one is no better: it takes every site to cancel the masks.
    assert uniformity(np.sum(list(server.vectors.values())[1:], axis=0, dtype="u8")) > 1e-8
    again, _, _ = watched(tmp_path / "again")
    assert all(np.any(again.vectors[site] != server.vectors[site]) for site in plain)
    np.testing.assert_array_equal(again.total, server.total)


def uniformity(vector: Any) -> float:
    """Return the smaller p-value of two tests: of all bytes, and of the numbers."""
    counts = np.bincount(vector.view(np.uint8), minlength=256)
    numbers = stats.kstest(vector / 2.0**64, "uniform").pvalue
    return float(min(stats.chisquare(counts).pvalue, numbers))


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_the_model_is_that_without_it_up_to_the_bound(
    tmp_path: Path, strategy: str, model: str
) -> None:
    """Rounding moves a value by less than a step, and the cast to float32 by half a last digit."""
    plain = run(tmp_path / "plain", Synchronous, strategy=strategy, model=model)
    found = run(tmp_path / "secagg", strategy=strategy, model=model)
    before, without, masked = plain.weights(0), plain.weights(1), found.weights(1)
    step = SecAgg().coding.step
    assert step == 16 / 2**30 and not found.screen.events
    for name, array in masked.items():
        if array.dtype.kind == "f":
            room = step + 2 * np.spacing(np.abs(without[name]))
            assert (np.abs(array - without[name].astype(float)) <= room).all(), name
            assert (array != before[name]).any()
        else:
            assert (array == before[name]).all()  # counters stay as the server has them
    sites = found.history.rounds()[1].sites
    assert {s["examples"] for s in sites.values()} == {1}
    assert {s["train_loss"] for s in sites.values()} == {s["update_norm"] for s in sites.values()}
    assert sites["p0"]["update_norm"] is None


@pytest.mark.parametrize("bits", [2, 6, 10])
def test_coarse_values_stay_within_the_bound_and_are_right_in_the_mean(bits: int) -> None:
    coding, rng = Coding(0.5, bits), np.random.default_rng(0)
    sent = {"w": rng.normal(size=400).astype(np.float32)}
    total, exact, examples = np.zeros(403, np.uint64), np.zeros(400), [1, 40, 9]
    with seeded_globals(0, "test"):
        for n in examples:
            new = {"w": (sent["w"] + rng.uniform(-0.5, 0.5, 400)).astype(np.float32)}
            exact += n * (new["w"].astype(float) - sent["w"]) / sum(examples)
            update = Update("a", Base(0, sent, {}), {ARRAYS: new}, {EXAMPLES: float(n)}, 1.0)
            total += coding.encode(update, by_examples=True)
    clipped, means = coding.decode(total, sent, {}, [ARRAYS])
    error = means[ARRAYS]["w"] - exact
    assert np.abs(error).max() < coding.step + 1e-7
    assert np.abs(error).max() > coding.step / 4  # the bound is no more than four times too wide
    assert abs(error.mean()) < 4 * coding.step / np.sqrt(400) and clipped <= 3


def test_values_beyond_the_bound_are_clipped_counted_and_said(tmp_path: Path) -> None:
    _, plain, found = watched(tmp_path)
    tight = run(tmp_path / "tight", lambda: SecAgg(clip=2**-10))
    (event,) = tight.screen.events
    assert "server.clip" in event["message"] and not found.screen.events
    moved = [np.abs(tight.weights(1)[n] - a).max() for n, a in tight.weights(0).items()]
    assert max(moved) == pytest.approx(2**-10, rel=1e-3)
    sent = found.weights(0)
    deltas = [Coding(8, 30).decode(v, sent, {}, [ARRAYS])[1][ARRAYS] for v in plain.values()]
    beyond = sum(int(np.sum(np.abs(d) > 2**-10)) for delta in deltas for d in delta.values())
    assert abs(int(event["message"].split()[0]) - beyond) <= 5  # rounding may move one over


def test_sites_that_return_what_they_got_leave_the_model_as_it_is(tmp_path: Path) -> None:
    def idle(message: Message, context: Context, call: ClientAppCallable) -> Message:
        reply = call(message, context)
        for name in (ARRAYS, BUFFERS):
            reply.content[name] = message.content[name]
        return reply

    found = run(tmp_path, mods=[idle], model="cnn", rounds=2)
    assert same(found.weights(2), found.weights(0)) and not found.screen.events


# Sites that go away -------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [SETUP, SHARE_KEYS, COLLECT])
@pytest.mark.parametrize("neighbours", [None, pytest.param(4, marks=pytest.mark.long)])
def test_two_of_six_that_go_away_are_left_out_of_the_sum(
    tmp_path: Path, stage: str, neighbours: int | None
) -> None:
    """At the last of these stages the others' vectors have masks with those that went."""
    gone = leaving({stage: ["p1", "p4"]})
    server = lambda: SecAgg(neighbours=neighbours)  # noqa: E731
    if neighbours:
        server = lambda: SecAgg(threshold=0.51, neighbours=4)  # noqa: E731
    options: dict[str, Any] = {"federated_scaling": False, "strategy": "scaffold", "rounds": 2}
    found = run(tmp_path / "secagg", server, engine=gone, **options)
    without = run(tmp_path / "plain", Synchronous, engine=leaving({COLLECT: ["p1", "p4"]}),
                  **options)  # fmt: skip
    assert [e["site"] for e in found.screen.events] == ["p1", "p4"]
    assert trained(found)[1] == {"p0", "p2", "p3", "p5"} and len(trained(found)[2]) == SITES
    assert distance(found.weights(1), without.weights(1)) < 1e-7
    # What the two would remember of the round is taken back, so the next is the same, too.
    assert distance(found.weights(2), without.weights(2)) < 1e-6


def test_two_of_six_that_go_away_after_they_sent_are_in_the_sum(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    found = run(tmp_path / "left", engine=leaving({UNMASK: ["p0", "p5"]}))
    assert same(found.weights(), whole.weights()) and len(trained(found)[1]) == SITES


def test_some_may_go_away_at_every_stage(tmp_path: Path) -> None:
    gone = {SHARE_KEYS: ["p0"], COLLECT: ["p1"], UNMASK: ["p2"]}
    options: dict[str, Any] = {"sites": 8, "federated_scaling": False}
    found = run(tmp_path / "secagg", engine=leaving(gone), **options)
    without = run(tmp_path / "plain", Synchronous, engine=leaving({COLLECT: ["p0", "p1"]}),
                  **options)  # fmt: skip
    assert "p2" in trained(found)[1] and distance(found.weights(), without.weights()) < 1e-7


@pytest.mark.parametrize("stage", [SETUP, SHARE_KEYS, COLLECT, UNMASK])
def test_five_of_six_that_go_away_are_refused_and_nothing_is_lost(
    tmp_path: Path, stage: str
) -> None:
    away = [f"p{n}" for n in range(1, SITES)]
    found = run(tmp_path, engine=leaving({stage: away}), rounds=2, strategy="scaffold")
    assert same(found.weights(1), found.weights(0)) and trained(found)[1] == set()
    whole = run(tmp_path / "whole", strategy="scaffold")
    (why,) = [e["message"] for e in found.screen.events if "no sum" in e["message"]]
    assert "4" in why and "1" in why
    assert len(trained(found)[2]) == SITES and not same(found.weights(2), found.weights(1))
    assert whole.history.rounds()[1].events == ()


def trained(found: Federated) -> list[set[str]]:
    rounds = found.history.rounds()
    return [{s for s, said in r.sites.items() if "examples" in said} for r in rounds]


def test_a_site_that_is_not_finite_keeps_its_update(tmp_path: Path) -> None:
    found = run(tmp_path, faults={"nan": "p2@1"})
    (event,) = found.screen.events
    assert (event["kind"], event["site"]) == ("site-failed", "p2") and "NaN" in event["message"]
    assert trained(found)[1] == {f"p{n}" for n in range(SITES)} - {"p2"}
    assert all(np.isfinite(array).all() for array in found.weights().values())


@pytest.mark.parametrize("how", ["key", "shares", "vector", "total"])
def test_what_a_site_sends_wrong_ends_no_run(tmp_path: Path, how: str) -> None:
    class Odd(SerialGrid):
        def answer(self, message: Message) -> Message:
            reply = super().answer(message)
            stage, third = stage_of(message), message.metadata.dst_node_id == 3
            if not third or not message.metadata.message_type.startswith("train"):
                return reply
            record = reply.content.get(SECAGG)
            if how == "key" and stage == SETUP:
                del reply.content[SECAGG]
            elif how == "shares" and stage == SHARE_KEYS:
                reply.content[SECAGG] = ConfigRecord({**record, "peers": [0, 1]})  # type: ignore
            elif how == "vector" and stage == COLLECT:
                del reply.content[MASKED]
            elif how == "total" and stage == UNMASK:
                shares = [b"x" * len(share) for share in record["shares"]]  # type: ignore
                reply.content[SECAGG] = ConfigRecord({**record, "shares": shares})  # type: ignore
            return reply

    found = run(tmp_path, engine=Odd)
    if how == "total":  # a wrong share is found out; whose it was cannot be known
        assert trained(found)[1] == set() and same(found.weights(1), found.weights(0))
    else:
        assert [(e["kind"], e["site"]) for e in found.screen.events] == [("refused", "p2")]
        assert trained(found)[1] == {f"p{n}" for n in range(SITES)} - {"p2"}


# What a site does not do --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        (SHARE_KEYS, lambda asked: {"threshold": 2}),
        (SHARE_KEYS, lambda asked: {"pk1": asked["pk1"][:1] * len(asked["pk1"])}),
        (COLLECT, lambda asked: {"sources": asked["sources"][:2], "ciphertexts": []}),
        (UNMASK, lambda asked: {"gone": asked["there"][:1]}),
        (UNMASK, lambda asked: {"there": asked["there"][:1]}),
    ],
)
def test_a_site_refuses_what_would_uncover_it(
    tmp_path: Path, stage: str, change: Callable[[Any], Any]
) -> None:
    class Curious(SerialGrid):
        def answer(self, message: Message) -> Message:
            record = message.content.config_records.get(SECAGG)
            if record is not None and record["stage"] == stage:
                other = ConfigRecord({**record, **change(dict(record))})
                message.content[SECAGG] = other
            return super().answer(message)

    found = run(tmp_path, engine=Curious)
    refused = [e["site"] for e in found.screen.events if e["kind"] == "site-failed"]
    assert len(refused) == SITES and same(found.weights(1), found.weights(0))


def test_a_site_gives_up_its_shares_once(tmp_path: Path) -> None:
    answers: list[bool] = []

    class Twice(SerialGrid):
        def answer(self, message: Message) -> Message:
            reply = super().answer(message)
            record = message.content.config_records.get(SECAGG)
            if record is not None and record["stage"] == UNMASK:
                answers.append("next stage" in str(super().answer(message).error.reason))
            return reply

    run(tmp_path, engine=Twice)
    assert answers == [True] * SITES


# Engines, restarts, bytes -------------------------------------------------------------------


def test_a_stopped_run_goes_on_bit_for_bit_and_no_secret_is_kept(tmp_path: Path) -> None:
    def go(folder: str, rounds: int) -> Federated:
        found = run(tmp_path / folder, rounds=rounds, strategy="scaffold", sites=4)
        states = found.history.client_states()
        assert len(states) == 4 and all(b"round." not in state for state in states.values())
        return found

    check_resume(go)


@pytest.mark.parametrize("after", [9, 14])
def test_a_run_that_was_killed_inside_a_round_begins_it_again(tmp_path: Path, after: int) -> None:
    class Killed(SerialGrid):
        def answer(self, message: Message) -> Message:
            seen.append(1)
            if len(seen) == after:
                raise KeyboardInterrupt
            return super().answer(message)

    seen: list[int] = []
    whole = run(tmp_path / "whole", sites=3, rounds=2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", sites=3, rounds=2, engine=Killed, federated_scaling=False)
    whole = run(tmp_path / "w", sites=3, rounds=2, federated_scaling=False)
    again = run(tmp_path / "part", sites=3, rounds=2, federated_scaling=False)
    assert same(again.weights(), whole.weights())


def test_a_rollback_is_followed_by_the_same_rounds(tmp_path: Path) -> None:
    found = run(tmp_path, rounds=3, strategy="scaffold", sites=4)
    expected = found.weights(1)
    found.history.rollback(1, by="person", reason="a test")
    found.history.close()
    again = run(tmp_path, rounds=3, strategy="scaffold", sites=4)
    assert same(again.weights(1), expected)
    assert again.history.attempt == 1


def test_the_monitor_takes_a_round_back_and_cannot_know_whose_fault_it_was(tmp_path: Path) -> None:
    monitor = MonitorSettings(rollback=True, max_rollbacks=2)
    with pytest.raises(TrainingStopped, match="2 rollbacks"):
        run(tmp_path, rounds=2, sites=3, faults={"poison": "p1@2"}, monitor=monitor)
    with History.open(tmp_path) as history:
        assert len(history.rounds()) == 2 and not history.excluded(2)
        assert history.client_states() == {}


def test_batched_trains_all_sites_in_one_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks: list[int] = []
    inner = StackedTrainer.train

    def counted(self: Any, received: Any, members: Any, **order: Any) -> Any:
        stacks.append(len(members))
        return inner(self, received, members, **order)

    monkeypatch.setattr(StackedTrainer, "train", counted)
    serial = run(tmp_path / "serial", rounds=2)
    batched = run(tmp_path / "batched", rounds=2, engine=BatchedGrid)
    assert stacks == [SITES, SITES]
    assert distance(serial.weights(), batched.weights()) < 1e-6


def test_the_bytes_of_all_stages_are_counted(tmp_path: Path) -> None:
    found = run(tmp_path, engine=leaving({}), rounds=2)
    rounds, grid = found.history.rounds(), found.grid
    assert isinstance(grid, Leaving)
    assert sum(r.bytes_down for r in rounds) == grid.down
    assert sum(r.bytes_up for r in rounds) == grid.up
    again = run(tmp_path / "again", rounds=2)  # with other keys
    assert [r.bytes_up for r in again.history.rounds()] == [r.bytes_up for r in rounds]


def test_neighbours_stand_in_one_circle() -> None:
    graph = ring(range(50), 6, np.random.default_rng(0))
    assert {len(others) for others in graph.values()} == {6}
    assert all(site in graph[other] for site, others in graph.items() for other in others)
    reached, fresh = {0}, {0}
    while fresh:
        fresh = {other for site in fresh for other in graph[site]} - reached
        reached |= fresh
    assert len(reached) == 50
    assert ring(range(4), 6, np.random.default_rng(0)) == {n: {*range(4)} - {n} for n in range(4)}


# What does not go with it -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("strategy=krum", "single"),
        ("transforms=topk", "compresses"),
        ("clock=virtual", "virtual"),
        ("privacy=local", "SecAgg"),
        ("site=houston", "2 sites"),
        ("server.threshold=0.5", "threshold"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(override: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        build(compose(["server=secagg", "model=mlp", "site=[detroit,houston,leeds]", override]))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        *((name, "single") for name in ("fedmedian", "fltrust", "outlier_detection",
                                        "norm_clipping", "fedadam")),
        ("fedexp", "lengths"), ("fednova", "weighs"), ("term", "weighs"),
    ],
)  # fmt: skip
def test_strategies_that_need_more_than_a_sum_are_refused(name: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        SecAgg().check(named([f"strategy={name}"]), Chain(), Clock(), None)


@pytest.mark.parametrize("setting", [{"threshold": 1.1}, {"neighbours": 3}, {"bits": 31},
                                     {"clip": 0.0}])  # fmt: skip
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"server.{next(iter(setting))}"):
        SecAgg(**setting)


def test_transforms_of_sites_alone_go_with_it(tmp_path: Path) -> None:
    """Clipping at the site, and noise on the sum; what reads or packs an update does not."""
    options: dict[str, Any] = {"transforms": {"both": ClipAndNoise(0.1, 1e-3)}, "rounds": 2}
    plain = run(tmp_path / "plain", Synchronous, **options)
    found = run(tmp_path / "secagg", **options)
    assert distance(plain.weights(), found.weights()) < 1e-6
    for odd in (HalfCodec(), Peeks(), TopK()):
        with pytest.raises(ConfigError, match="odd"):
            SecAgg().check(named([]), Chain({"odd": odd}), Clock(), None)


class Peeks(Transform):
    stage = Stage.CLIP

    def before_sum(self, update: Update) -> Update:
        return update


def test_it_says_what_is_not_covered() -> None:
    said = SecAgg().uncovered(scaling=True)
    assert all(word in said for word in ("scaler", "validation", "norm"))
    assert "scaler" not in SecAgg().uncovered(scaling=False)
    assert "validation" not in SecAgg(validation="withheld").uncovered(scaling=False)
