"""A round's model as each site has it: what all share, and the site's own tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from flwr.app import RecordDict
from torch import nn

from fedpdm.client.state import LOCAL, OBJECTIVE
from fedpdm.models import ModelWrapper
from fedpdm.training.objective import LocalContext, Objective
from fedpdm.wire.records import Arrays, arrays_in, to_tensors


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
        memory = to_tensors(arrays_in(state, OBJECTIVE))
        context = LocalContext(
            self._shared, {name: tensor.to(self._device) for name, tensor in memory.items()}
        )
        return self._objective.predictor(self._model.module, context)
