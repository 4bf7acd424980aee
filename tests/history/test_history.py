"""The history as its users see it: commit, read, roll back, recover, keep."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fedpdm.errors import HistoryError
from fedpdm.history import History
from tests.history.example_history import (
    assert_sound,
    clients,
    commit,
    files,
    filled,
    flip,
    line,
    record,
    same,
    state,
    undone,
    weights,
    without_syncing,
)


@pytest.fixture(autouse=True)
def fast_disk():
    with without_syncing():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


# Commit and read ----------------------------------------------------------------------


def test_what_was_committed_is_there_after_a_new_start(folder):
    filled(folder, 4).close()
    with History.open(folder) as history:
        assert history.head() == record(4)
        assert history.rounds() == [record(n) for n in range(5)]
        assert_sound(history)
        assert same(history.weights(), weights(4)), "without a number: the head"
        assert history.attempt == 0


def test_before_the_first_round_there_is_no_head(folder):
    with History.create(folder) as history:
        assert history.head() is None
        assert history.attempt == 0
        assert history.rounds() == history.events() == history.recover() == []
        with pytest.raises(HistoryError, match="no finished round yet"):
            history.weights()


def test_rounds_follow_each_other(folder):
    history = History.create(folder)
    with pytest.raises(HistoryError, match="round 1 cannot be committed, round 0 is next"):
        history.commit(record(1), weights(1))
    commit(history, 0)
    for wrong in (0, 2):
        with pytest.raises(HistoryError, match=f"round {wrong} cannot be committed, round 1"):
            history.commit(record(wrong), weights(wrong))
    assert line(history) == [(0, 0)]


def test_an_unknown_round_is_answered_with_those_there_are(folder):
    history = filled(folder, 3)
    for read in (history.weights, history.strategy_state, history.client_states, history.protect):
        with pytest.raises(HistoryError, match="no finished round 9; there are: 0–3"):
            read(9)


def test_a_record_holds_what_json_can_hold(folder):
    history = filled(folder, 0)
    metrics = {"loss": math.nan, "norm": math.inf, "auc": np.float32(0.5), "n": np.int64(3)}
    event = {"kind": "warning", "value": -math.inf, "message": "ä"}
    history.commit(record(1, metrics=metrics, events=(event,)), weights(1))
    found = History.open(folder).head()
    assert found is not None
    assert found.metrics == {"loss": None, "norm": None, "auc": 0.5, "n": 3}
    assert found.events == ({"kind": "warning", "value": None, "message": "ä"},)
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_round_without_states_has_none(folder):
    with History.create(folder) as history:
        history.commit(record(0), weights(0))
        assert history.strategy_state() is None
        assert history.client_states() == {}
        assert files(folder) == {"rounds/000000.safetensors"}


def test_a_state_of_plain_values_needs_no_file(folder):
    with History.create(folder) as history:
        history.commit(record(0), weights(0), {"eta": 0.1, "inf": math.inf, "t": ()})
        assert history.strategy_state() == {"eta": 0.1, "inf": math.inf, "t": ()}
        assert files(folder) == {"rounds/000000.safetensors"}


def test_a_commit_may_hold_several_models(folder):
    with History.create(folder) as history:
        history.commit(record(0), weights(0), {"eta": 0.1})
        both = {"north": weights(1), "south": weights(2)}
        history.commit(record(1), weights(3), {"eta": 0.2}, None, both)
        history.rollback(0, by="person", reason="a look back")
    with History.open(folder) as again:
        assert again.models() == {} and again.strategy_state() == {"eta": 0.1}
        assert again.strategy_state(1, attempt=0) == {"eta": 0.2}
        assert same(again.weights(1, attempt=0), weights(3))
        found = again.models(1, attempt=0)
        assert list(found) == list(both)
        assert all(same(found[name], model) for name, model in both.items())


def test_a_sites_state_is_stored_once_while_unchanged(folder):
    history = filled(folder, 9)
    stored = [name for name in files(folder) if name.startswith("clients/")]
    assert len(stored) == 1 + 5, "houston's and seattle's are one; detroit had five"
    assert history.client_states(0) == clients(0)
    assert history.client_states(9) == clients(9)


def test_a_site_may_lose_its_state_and_get_it_again(folder):
    history = History.create(folder)
    for number, found in enumerate([{"a": b"1"}, {}, {"a": b"1"}, {"a": b"2", "b": b"1"}]):
        history.commit(record(number), weights(number), None, found)
    assert [history.client_states(n) for n in range(4)] == [
        {"a": b"1"}, {}, {"a": b"1"}, {"a": b"2", "b": b"1"}
    ]  # fmt: skip


def test_events_come_in_order_from_rounds_and_notes(folder):
    history = filled(folder, 0)
    history.commit(record(1, events=({"kind": "refused"}, {"kind": "timeout"})), weights(1))
    history.note({"kind": "stopped", "message": "enough"})
    history.commit(record(2, events=({"kind": "warning"},)), weights(2))
    kinds = [event["kind"] for event in History.open(folder).events()]
    assert kinds == ["refused", "timeout", "stopped", "warning"]


def test_a_run_has_one_history(folder):
    filled(folder, 1).close()
    with pytest.raises(HistoryError, match="already holds the history of a run"):
        History.create(folder)
    assert_sound(History.open(folder))


@pytest.mark.parametrize("keep", [0, -3])
def test_nothing_cannot_be_kept(folder, keep):
    with pytest.raises(HistoryError, match=f"history.keep={keep} must be all, or"):
        History.create(folder, keep)
    assert not folder.exists()


# Roll back ----------------------------------------------------------------------------


def test_a_person_returns_to_a_round(folder):
    history = filled(folder, 5)
    history.rollback(2, by="person", reason="it drifts", exclude=["houston"])
    assert line(history) == [(0, 0), (1, 0), (2, 0)]
    assert undone(history) == [(3, 0), (4, 0), (5, 0)]
    assert history.attempt == 1
    assert_sound(history)
    assert history.client_states() == clients(2)
    assert [history.excluded(n) for n in (2, 3, 5, 6)] == [set(), {"houston"}, {"houston"}, set()]
    (event,) = history.events()
    assert event == {
        "kind": "rollback", "round": 5, "attempt": 0, "site": "houston", "by": "person",
        "message": "it drifts; back to round 2, repeated without houston",
        "exclude": ["houston"], "to": 2,
    }  # fmt: skip
    commit(history, 3)
    assert line(history)[-1] == (3, 1)
    history.close()
    again = History.open(folder)
    assert again.attempt == 1
    assert_sound(again)
    for number in (3, 4, 5):
        assert same(again.weights(number, attempt=0), weights(number, 0))
        assert repr(again.strategy_state(number, attempt=0)) == repr(state(number, 0))
        assert again.client_states(number, attempt=0) == clients(number)
    assert same(again.weights(3), weights(3, 1))


def test_one_can_return_again_and_again(folder):
    history = filled(folder, 3)
    for attempt in range(1, 4):
        history.rollback(1, by="person", reason="once more")
        assert history.attempt == attempt
        commit(history, 2)
        commit(history, 3)
    assert line(history) == [(0, 0), (1, 0), (2, 3), (3, 3)]
    assert undone(history) == [(2, 0), (3, 0), (2, 1), (3, 1), (2, 2), (3, 2)]
    assert_sound(history)


def test_returning_to_the_head_repeats_the_next_round_differently(folder):
    history = filled(folder, 3)
    history.rollback(3, by="person", reason="houston is broken", exclude=["houston"])
    assert history.attempt == 1
    assert undone(history) == []
    assert history.excluded(4) == {"houston"}
    assert history.client_states() == clients(3)


def test_the_monitor_keeps_the_bad_round_that_it_refuses(folder):
    history = filled(folder, 3)
    bad = record(4, 0, events=({"kind": "warning", "message": "looks bad"},))
    history.rollback(
        3, by="monitor", reason="loss is NaN", exclude=["seattle", "houston"],
        undone=(bad, weights(4, 0), state(4, 0), {}),
    )  # fmt: skip
    assert line(history)[-1] == (3, 0)
    assert undone(history) == [(4, 0)]
    assert history.excluded(4) == {"seattle", "houston"}
    assert [event["kind"] for event in history.events()] == ["warning", "rollback"]
    assert history.events()[-1]["by"] == "monitor"
    assert history.events()[-1]["round"] == 4
    assert len(history._index._all("SELECT * FROM client_state")) == 4, "no site's state changed"
    commit(history, 4)
    assert same(history.weights(4, attempt=0), weights(4, 0))
    assert repr(history.strategy_state(4, attempt=0)) == repr(state(4, 0))
    assert_sound(history)
    with pytest.raises(HistoryError, match="round 9 cannot be kept as undone, round 5 is next"):
        history.rollback(4, by="monitor", reason="?", undone=(record(9), weights(9), None, {}))


def test_the_monitor_adds_exclusions_and_a_person_replaces_them(folder):
    history = filled(folder, 3)
    for site in ("houston", "detroit"):
        bad = (record(4, history.attempt), weights(4, history.attempt), None, {})
        history.rollback(3, by="monitor", reason="NaN", exclude=[site], undone=bad)
    assert history.excluded(4) == {"houston", "detroit"}
    history.rollback(3, by="person", reason="seattle it is", exclude=["seattle"])
    assert history.excluded(4) == {"seattle"}


def test_rollbacks_in_a_row_are_counted_until_a_round_is_accepted(folder):
    history = filled(folder, 3)

    def refuse(number: int) -> None:
        attempt = history.attempt
        bad = (record(number, attempt), weights(number, attempt), None, {})
        history.rollback(number - 1, by="monitor", reason="NaN", undone=bad)

    refuse(4)
    refuse(4)
    assert history.consecutive_rollbacks() == 2
    assert History.open(folder).consecutive_rollbacks() == 2, "a new start does not forget"
    commit(history, 4)
    assert history.consecutive_rollbacks() == 0
    refuse(5)
    history.rollback(3, by="monitor", reason="round 4 was no good either")
    assert history.consecutive_rollbacks() == 2
    commit(history, 4)
    assert history.consecutive_rollbacks() == 2, "not yet past the round that was refused"
    commit(history, 5)
    assert history.consecutive_rollbacks() == 0
    refuse(6)
    history.rollback(4, by="person", reason="let me try")
    assert history.consecutive_rollbacks() == 0


@pytest.mark.parametrize("to", [4, 7, -1])
def test_one_cannot_return_to_a_round_that_was_not(folder, to):
    history = filled(folder, 3)
    with pytest.raises(HistoryError, match=f"no finished round {to}; there are: 0–3"):
        history.rollback(to, by="person", reason="?")
    assert history.attempt == 0
    assert history.events() == []


def test_one_cannot_return_to_a_damaged_round(folder):
    history = filled(folder, 3)
    (folder / "rounds" / "000002.safetensors").write_bytes(b"")
    with pytest.raises(HistoryError, match=r"round 2 cannot be returned to.*000002.*damaged"):
        history.rollback(2, by="person", reason="?")
    assert line(history)[-1] == (3, 0)


# Recover ------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def vanish(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [truncate, flip, vanish])
@pytest.mark.parametrize("ending", [".safetensors", ".state.safetensors"])
def test_a_damaged_head_is_named_and_the_last_good_round_is_used(folder, harm, ending):
    filled(folder, 4).close()
    harm(folder / "rounds" / f"000004{ending}")
    harm(folder / "rounds" / "000003.safetensors")
    with History.open(folder) as history:
        events = history.recover()
        assert [(e["kind"], e["round"]) for e in events] == [
            ("damaged-round", 3), ("damaged-round", 4)
        ]  # fmt: skip
        assert f"rounds/000004{ending}" in events[1]["message"]
        assert events == history.events()
        assert line(history) == [(0, 0), (1, 0), (2, 0)]
        assert undone(history) == [(3, 0), (4, 0)]
        assert history.client_states() == clients(2)
        assert history.attempt == 0
        assert history.recover() == []
        for number in (3, 4):
            commit(history, number)
        assert line(history) == [(n, 0) for n in range(5)]
        assert_sound(history)


def test_damage_to_a_sites_state_goes_back_before_it(folder):
    filled(folder, 5).close()
    (blob,) = [p for p in (folder / "clients").iterdir() if p.read_bytes() == b"detroit 2"]
    flip(blob)  # of rounds 4 and 5
    history = History.open(folder)
    assert blob.name in history.recover()[0]["message"]
    assert line(history)[-1] == (3, 0)
    commit(history, 4)
    assert_sound(history)


def test_what_is_lost_is_repeated_under_the_attempt_it_had(folder):
    """Otherwise the repeat would draw other numbers than the undamaged run did."""
    history = filled(folder, 3)
    bad = (record(4, 0), weights(4, 0), None, {})
    history.rollback(3, by="monitor", reason="NaN", exclude=["houston"], undone=bad)
    for number in (4, 5):
        commit(history, number)
    history.protect(3)
    flip(folder / "rounds" / "000005.safetensors")
    flip(folder / "rounds" / "000003.safetensors")  # protected, so it has to be made again
    history.recover()
    assert line(history)[-1] == (2, 0)
    assert history.attempt == 0
    assert history.excluded(4) == {"houston"}
    for number, attempt in ((3, 0), (4, 1), (5, 1), (6, 1)):
        assert history.attempt == attempt
        commit(history, number)
    assert_sound(history)
    history.rollback(2, by="person", reason="new")
    assert history.attempt == 2


def test_after_a_return_lost_rounds_have_the_attempts_they_had(folder):
    history = filled(folder, 5)
    history.rollback(3, by="person", reason="drift")
    flip(folder / "rounds" / "000003.safetensors")
    history.recover()
    attempts = []
    for number in (3, 4):
        attempts.append(history.attempt)
        commit(history, number)
    assert attempts == [0, 1], "round 3 as it was; round 4 is the person's new attempt"


def test_damage_that_nobody_needs_is_noted_once(folder):
    history = filled(folder, 4)
    flip(folder / "rounds" / "000001.safetensors")
    (event,) = history.recover()
    assert event["round"] == 1
    assert "back to" not in event["message"]
    assert line(history)[-1] == (4, 0)
    assert history.recover() == []
    with pytest.raises(HistoryError, match=r"000001.safetensors is damaged.*history rollback.* 0"):
        history.weights(1)
    with pytest.raises(HistoryError, match="no finished round 7 of attempt 2"):
        history.weights(7, attempt=2)


def test_without_any_good_round_there_is_no_way_on(folder):
    history = filled(folder, 2)
    for number in range(3):
        truncate(folder / "rounds" / f"{number:06d}.safetensors")
    with pytest.raises(HistoryError, match=r"no round is whole.*000002.*start a new run"):
        history.recover()
    assert line(history)[-1] == (2, 0)


def test_the_same_round_can_be_damaged_twice(folder):
    history = filled(folder, 3)
    for _ in range(2):
        flip(folder / "rounds" / "000003.safetensors")
        history.recover()
        commit(history, 3)
    assert_sound(history)
    assert undone(history) == [(3, 0), (3, 0)]
    assert len([name for name in files(folder) if name.startswith("rounds/undone/000003.0")]) == 4


# Keep ---------------------------------------------------------------------------------


def stored(folder: Path) -> set[int]:
    return {int(Path(n).name[:6]) for n in files(folder) if n.startswith("rounds/0")}


def test_only_the_last_rounds_and_the_best_keep_their_weights(folder):
    history = History.create(folder, keep=2)
    for number in range(8):
        commit(history, number)
        if number in (1, 3):
            history.protect(number)
    assert stored(folder) == {3, 6, 7}
    assert history.protected() == 3
    assert len(history.rounds()) == 8, "records stay"
    for number in (3, 6, 7):
        assert same(history.weights(number), weights(number))
        assert history.client_states(number) == clients(number)
    with pytest.raises(HistoryError, match=r"round 2 were not kept \(history.keep=2\).*: 3, 6–7"):
        history.weights(2)
    with pytest.raises(HistoryError, match="not kept"):
        history.rollback(2, by="person", reason="?")
    contents = {path.read_bytes() for path in (folder / "clients").iterdir()}
    assert contents == {b"houston", b"detroit 1", b"detroit 3"}


def test_the_best_of_any_round_that_can_be_returned_to_is_kept(folder):
    history = History.create(folder, keep=3)
    for number in range(7):
        commit(history, number)
        if number in (1, 2, 5):
            history.protect(number)
    assert stored(folder) == {2, 4, 5, 6}
    history.rollback(4, by="person", reason="?")
    assert history.protected() == 2
    assert same(history.weights(2), weights(2))


def test_with_one_kept_a_damaged_head_falls_back_on_the_best(folder):
    history = History.create(folder, keep=1)
    for number in range(6):
        commit(history, number)
        if number == 2:
            history.protect(number)
    assert stored(folder) == {2, 5}
    flip(folder / "rounds" / "000005.safetensors")
    history.recover()
    assert line(history)[-1] == (2, 0)
    assert history.client_states() == clients(2)
    for number in range(3, 6):
        commit(history, number)
    assert line(history) == [(n, 0) for n in range(6)]
    assert history.client_states() == clients(5)


def test_undone_rounds_are_kept(folder):
    history = filled(folder, 4, keep=3)
    history.rollback(2, by="person", reason="?")
    for number in range(3, 9):
        commit(history, number)
    assert same(history.weights(4, attempt=0), weights(4, 0))
    assert history.client_states(4, attempt=0) == clients(4)
