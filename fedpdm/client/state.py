"""What a site keeps from round to round, in its ``Context.state``.

    strategy.KEY.GROUP    what the client half of a strategy remembers, by group
    local.tensors         the tensors of the model that do not travel (``models.policy``)
    objective.memory      what the local objective keeps (``training.objective``)

One ArrayRecord each, beside whatever else is in the state. Engines on this machine keep it in
the history; a supernode keeps its own. A round that does not count is taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fedpdm.wire.records import Arrays, from_record, to_record

STRATEGY = "strategy."
LOCAL = "local.tensors"
OBJECTIVE = "objective.memory"
KEPT = (STRATEGY, LOCAL, OBJECTIVE)
"""How the names of records begin that are taken back with a round."""

UNDO = "undo-"
UNDO_ROUND = "undo-round"


def recall(state: RecordDict, key: str, groups: Sequence[str], like: Arrays) -> dict[str, Arrays]:
    """Return a site's groups of arrays: zeros of the shapes of ``like`` if it is new."""
    return {
        group: from_record(cast(ArrayRecord, state[name]))
        if (name := f"{STRATEGY}{key}.{group}") in state
        else {n: np.zeros_like(array) for n, array in like.items()}
        for group in groups
    }


def remember(state: RecordDict, key: str, groups: Mapping[str, Arrays]) -> None:
    """Put groups of arrays into a state. They must not change afterwards."""
    for group, arrays in groups.items():
        state[f"{STRATEGY}{key}.{group}"] = to_record(arrays)


def forget(state: RecordDict, before: RecordDict | None) -> None:
    """Take back what a site keeps, to what it was ``before``."""
    for name in [name for name in state if name.startswith(KEPT)]:
        del state[name]
    for name, record in () if before is None else before.items():
        if name.startswith(KEPT):
            state[name] = record


def undo_round(
    states: dict[str, RecordDict], before: Mapping[str, RecordDict], sites: Iterable[str]
) -> None:
    """Let sites forget a round.

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
    return RecordDict({n: record for n, record in state.items() if n.startswith(KEPT)})


def mark(state: RecordDict, server_round: int, before: RecordDict) -> None:
    """Keep what was remembered before a round, as long as that may be repeated."""
    for name in [name for name in state if name.startswith(UNDO)]:
        del state[name]
    if not any(name.startswith(KEPT) for name in state):
        return
    for name, record in before.items():
        state[f"undo-{name}"] = record
    state[UNDO_ROUND] = ConfigRecord({"round": server_round})
