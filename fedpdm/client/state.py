"""What a site remembers for a strategy, in its ``Context.state``.

One ArrayRecord per group, named ``strategy.KEY.GROUP``, beside whatever else is in the
state. Engines in one box keep it in the history; a supernode keeps its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fedpdm.wire.records import Arrays, from_record, to_record

PREFIX = "strategy."
UNDO = "undo-strategy."
UNDO_ROUND = "undo-round"


def recall(state: RecordDict, key: str, groups: Sequence[str], like: Arrays) -> dict[str, Arrays]:
    """Return a site's groups of arrays: zeros of the shapes of ``like`` if it is new."""
    return {
        group: from_record(cast(ArrayRecord, state[name]))
        if (name := f"{PREFIX}{key}.{group}") in state
        else {n: np.zeros_like(array) for n, array in like.items()}
        for group in groups
    }


def remember(state: RecordDict, key: str, groups: Mapping[str, Arrays]) -> None:
    """Put groups of arrays into a state. They must not change afterwards."""
    for group, arrays in groups.items():
        state[f"{PREFIX}{key}.{group}"] = to_record(arrays)


def forget(state: RecordDict, before: RecordDict | None) -> None:
    """Take back what a state remembers for a strategy, to what it was ``before``."""
    for name in [name for name in state if name.startswith(PREFIX)]:
        del state[name]
    for name, record in () if before is None else before.items():
        if name.startswith(PREFIX):
            state[name] = record


def undo_round(
    states: dict[str, RecordDict], before: Mapping[str, RecordDict], sites: Iterable[str]
) -> None:
    """Let sites forget what a strategy made of a round.

    Args:
        states: by site; changed in place. A state that was nothing else is taken out.
        before: the same before the round.
        sites: whose update did not count.
    """
    for site in sites:
        state = states.get(site)
        if state is None or state is before.get(site):
            continue
        forget(state, before.get(site))
        if not len(state) and site not in before:
            del states[site]


# Sites whose state nobody else can take back ---------------------------------------------


def rewind(state: RecordDict, server_round: int) -> RecordDict:
    """Take back the last round if it is to be repeated; return what is remembered now.

    The monitor at the server takes back rounds; a supernode learns of it only when it is
    asked for the same round again.
    """
    if UNDO_ROUND in state and server_round <= cast(
        int, cast(ConfigRecord, state[UNDO_ROUND])["round"]
    ):
        undone = {n.removeprefix("undo-"): r for n, r in state.items() if n.startswith(UNDO)}
        forget(state, RecordDict(undone))
    return RecordDict({n: record for n, record in state.items() if n.startswith(PREFIX)})


def mark(state: RecordDict, server_round: int, before: RecordDict) -> None:
    """Keep what was remembered before a round, as long as that may be repeated."""
    for name in [name for name in state if name.startswith(UNDO)]:
        del state[name]
    if not any(name.startswith(PREFIX) for name in state):
        return
    for name, record in before.items():
        state[f"undo-{name}"] = record
    state[UNDO_ROUND] = ConfigRecord({"round": server_round})
