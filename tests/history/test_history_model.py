"""Any order of what can be done to a history, compared with a few lines that do it in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedpdm.history import History
from tests.history.example_history import (
    SITES,
    assert_sound,
    commit,
    files,
    flip,
    line,
    record,
    state,
    undone,
    weights,
    without_syncing,
)

sites = st.sets(st.sampled_from(SITES))


class HistoryMachine(RuleBasedStateMachine):
    """``live`` is a list of attempts, ``attempts`` says under which a round is run next."""

    def __init__(self) -> None:
        super().__init__()
        self._place = tempfile.TemporaryDirectory()
        self._quiet = without_syncing()
        self._quiet.__enter__()
        self.folder = Path(self._place.name) / "run"
        self.live: list[int] = []
        self.gone: list[tuple[int, int]] = []
        self.raised = 0
        self.again: dict[int, int] = {}
        self.left_out: list[tuple[int, str]] = []

    def teardown(self) -> None:
        self._quiet.__exit__(None, None, None)
        self._place.cleanup()

    @property
    def attempt(self) -> int:
        return self.again.get(len(self.live), self.raised)

    @initialize()
    def begin(self) -> None:
        self.history = History.create(self.folder)
        self.finish_a_round()

    @rule()
    def finish_a_round(self) -> None:
        self.live.append(self.attempt)
        commit(self.history, len(self.live) - 1)

    @rule(data=st.data(), out=sites)
    def a_person_returns(self, data: st.DataObject, out: set[str]) -> None:
        to, head = data.draw(st.integers(0, len(self.live) - 1)), len(self.live) - 1
        self.history.rollback(to, by="person", reason="?", exclude=out)
        self.left_out = [e for e in self.left_out if e[0] <= to]
        self._go_back(to, head, out)

    @rule(out=sites)
    def the_monitor_refuses(self, out: set[str]) -> None:
        number, attempt = len(self.live), self.attempt
        bad = (record(number, attempt), weights(number, attempt), state(number, attempt), {})
        self.history.rollback(number - 1, by="monitor", reason="?", exclude=out, undone=bad)
        self.gone.append((number, attempt))
        self._go_back(number - 1, number, out)

    def _go_back(self, to: int, last: int, out: set[str]) -> None:
        self.raised += 1
        self._cut(to)
        self.again = {n: a for n, a in self.again.items() if n <= to}
        rounds = range(to + 1, max(last, to + 1) + 1)
        self.left_out += [(n, site) for n in rounds for site in out]

    def _cut(self, to: int) -> None:
        self.gone += [(n, self.live[n]) for n in range(to + 1, len(self.live))]
        del self.live[to + 1 :]

    @precondition(lambda self: len(self.live) > 1)
    @rule()
    def the_head_is_damaged(self) -> None:
        head = len(self.live) - 1
        flip(self.folder / "rounds" / f"{head:06d}.safetensors")
        assert len(self.history.recover()) == 1
        self.again[head] = self.live[head]
        self._cut(head - 1)

    @rule()
    def a_new_process_begins(self) -> None:
        self.history.close()
        self.history = History.open(self.folder)
        assert self.history.recover() == []

    @invariant()
    def both_tell_the_same(self) -> None:
        if not hasattr(self, "history"):
            return
        assert line(self.history) == list(enumerate(self.live))
        assert sorted(undone(self.history)) == sorted(self.gone)
        assert self.history.attempt == self.attempt
        for number in (len(self.live), len(self.live) + 1):
            expected = {site for n, site in self.left_out if n == number}
            assert self.history.excluded(number) == expected
        assert_live_sound(self.history)
        assert files(self.folder) == self.history._files.known()


def assert_live_sound(history: History) -> None:
    """As ``assert_sound``, but undone rounds may be damaged."""

    class Live:
        def __getattr__(self, name: str) -> Any:
            return getattr(history, name)

        def rounds(self, undone: bool = False) -> Any:
            return history.rounds()

    assert_sound(Live())  # type: ignore[arg-type]


TestHistory = HistoryMachine.TestCase
TestHistory.settings = settings(max_examples=25, stateful_step_count=15)
