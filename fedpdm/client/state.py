"""What a site remembers between rounds, in its ``Context.state``.

    strategy.KEY.GROUP    what the client half of a strategy remembers, by group
    local.tensors         the tensors of the model that do not travel (``models.policy``)
    objective.memory      what the local objective keeps (``training.objective``)

One ArrayRecord each, beside whatever else is in the state. Engines on this machine keep it in
the history; a supernode keeps its own. A round that does not count is taken back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from torch import nn

from fedpdm.models import ModelWrapper
from fedpdm.training.objective import LocalContext, Objective
from fedpdm.wire.records import Arrays, arrays_in, from_record, to_record, to_tensors

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


class PersonalModels:
    """Puts a site's own tensors into one resident model.

    Args:
        model: freshly built: a site that never trained has its local tensors.
        weights: the shared parameters and buffers of a round.
        local: names of the tensors that sites keep.
        states: ``Context.state`` by site, as of the same round.
        objective: whose predictions are wanted.
        device: where to compute.

    Raises:
        ModelError: the tensors are not the model's.
    """

    def __init__(
        self,
        model: ModelWrapper,
        weights: Arrays,
        local: Collection[str],
        states: Mapping[str, RecordDict],
        objective: Objective,
        device: torch.device,
    ) -> None:
        self._model, self._states, self._objective = model.to(device), states, objective
        self._device = device
        model.check_names({*weights, *local})
        self._shared = {**model.get_parameters(), **to_tensors(weights)}

    def __call__(self, site: str) -> nn.Module:
        """Return the module that predicts for a site; good until the next call."""
        state = self._states.get(site, RecordDict())
        local = to_tensors(arrays_in(state, LOCAL))
        self._model.set_parameters({**self._shared, **local})
        memory = to_tensors(arrays_in(state, OBJECTIVE), self._device)
        context = LocalContext(self._shared, memory)
        return self._objective.predictor(self._model.module, context)
