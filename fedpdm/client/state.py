"""What a site remembers between rounds, in its ``Context.state``.

    strategy.KEY.GROUP    what the client half of a strategy remembers, by group
    local.tensors         the tensors of the model that do not travel (``models.policy``)
    objective.memory      what the local objective keeps (``training.objective``)
    round.NAME            what it needs in a later stage of the same round, and nobody else may know

One ArrayRecord each, beside whatever else is in the state. Engines on this machine keep it in
the history; a supernode keeps its own (``deployment.site_memory``). A round that does not count is
taken back. What is under ``round.`` is never written anywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from flwr.app import ArrayRecord, RecordDict
from torch import Tensor, nn

from fedpdm.models import ModelWrapper
from fedpdm.training.objective import LocalContext, Objective
from fedpdm.wire.flower import RecordType
from fedpdm.wire.records import Arrays, arrays_in, from_record, to_record, to_tensors

STRATEGY = "strategy."
LOCAL = "local.tensors"
OBJECTIVE = "objective.memory"
KEPT = (STRATEGY, LOCAL, OBJECTIVE)
"""How the names of records begin that are taken back with a round."""
PASSING = "round."
"""How the names of records begin that do not outlast their round."""


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


def passing(state: RecordDict) -> dict[str, RecordType]:
    """Return what of a state does not outlast its round."""
    return {name: record for name, record in state.items() if name.startswith(PASSING)}


def end_round(states: dict[str, RecordDict]) -> None:
    """Let sites forget what they needed inside a round.

    Args:
        states: by site; changed in place. A state that was nothing else is taken out.
    """
    for site, state in list(states.items()):
        names = list(passing(state))
        for name in names:
            del state[name]
        if names and not len(state):
            del states[site]


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


class PersonalModels:
    """Puts a site's own tensors into one resident model.

    Args:
        model: freshly built: a site that never trained has its local tensors.
        weights: the shared parameters and buffers of a round.
        local: names of the tensors that sites keep.
        states: ``Context.state`` by site, as of the same round.
        objective: whose predictions are wanted.
        device: where to compute.
        models: further models of the round, by name.
        members: which of those a site has; the others have ``weights``.

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
        models: Mapping[str, Arrays] | None = None,
        members: Mapping[str, str] | None = None,
    ) -> None:
        self._model, self._states, self._objective = model.to(device), states, objective
        self._device = device
        initial, self._members = model.get_parameters(), members or {}
        self._of: dict[str, dict[str, Tensor]] = {}
        for name, arrays in {"": weights, **(models or {})}.items():
            model.check_names({*arrays, *local})
            self._of[name] = {**initial, **to_tensors(arrays)}

    def __call__(self, site: str) -> nn.Module:
        """Return the module that predicts for a site; good until the next call."""
        state, shared = self._states.get(site, RecordDict()), self._of[self._members.get(site, "")]
        local = to_tensors(arrays_in(state, LOCAL))
        self._model.set_parameters({**shared, **local})
        memory = to_tensors(arrays_in(state, OBJECTIVE), self._device)
        context = LocalContext(shared, memory)
        return self._objective.predictor(self._model.module, context)
