"""Runs the client halves of strategies at a site: what they receive, remember and send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict
from numpy.typing import NDArray
from torch import Tensor

from fedpdm.aggregation.screening import not_finite
from fedpdm.client.state import recall, remember
from fedpdm.errors import ConfigError
from fedpdm.strategies.base import ClientHalf, Outcome, Work
from fedpdm.strategies.local_terms import gradient_terms
from fedpdm.training.loop import GradientTerm, Memory, SiteTerm, TrainingSettings
from fedpdm.wire.records import ARRAYS, Arrays, arrays_in, config_in, to_tensors

Terms = list[GradientTerm | SiteTerm]


class StrategyRuntime:
    """The client halves that messages ask for. One serves all sites of a process.

    Args:
        settings: local training.
        names: the parameters that travel and have a gradient, in the order of ``training.fit``.
        device: where sites train.
    """

    def __init__(
        self, settings: TrainingSettings, names: Sequence[str], device: torch.device
    ) -> None:
        self._settings, self._names, self._device = settings, names, device
        self._sent: dict[str, tuple[Any, list[Tensor]]] = {}

    def terms(self, content: RecordDict) -> Terms:
        """Return what a message wants added to the gradient of whoever got it.

        Raises:
            ConfigError: the strategy's formulas do not describe these settings.
        """
        terms = gradient_terms(config_in(content))
        for half in halves_of(terms):
            half.check(self._settings)
            half.sent = {name: self._tensors(name, content) for name in half.reads}
        return terms

    def memory(
        self, halves: Sequence[ClientHalf], content: RecordDict, state: RecordDict
    ) -> dict[str, Memory]:
        """Return what a site remembers for each client half, on the device."""
        like = arrays_in(content, ARRAYS)
        return {
            half.key: {
                group: self._ordered(arrays)
                for group, arrays in recall(state, half.key, half.groups, like).items()
            }
            for half in halves
        }

    def bound(
        self, terms: Terms, received: dict[str, Tensor], content: RecordDict, state: RecordDict
    ) -> list[GradientTerm]:
        """Return the terms as they are for the site with this state."""
        if not terms:
            return []
        memory = self.memory(halves_of(terms), content, state)
        tensors = [received[name] for name in self._names]
        made = [
            term.term(tensors, memory[term.key]) if isinstance(term, SiteTerm) else term
            for term in terms
        ]
        return [term for term in made if term is not None]

    def finish(
        self,
        half: ClientHalf,
        trained: Arrays,
        rates: Sequence[float],
        content: RecordDict,
        state: RecordDict,
        targets: NDArray[Any],
    ) -> Outcome:
        """Return what a half makes of a round, and put what it wants remembered into the state.

        Args:
            half: one of ``terms``.
            trained: the parameters that the site came to.
            rates: the learning rate of each step that it made.
            content: what it was sent.
            state: its ``Context.state``.
            targets: (N, …) of its training windows.

        Raises:
            ConfigError: the half returns memory or records that its class does not name.
        """
        received = arrays_in(content, ARRAYS)
        work = Work(
            received=received,
            trained=trained,
            memory=recall(state, half.key, half.groups, received),
            sent={name: arrays_in(content, name) for name in half.reads},
            rates=rates,
            targets=targets,
        )
        with np.errstate(all="ignore"):  # weights may have diverged; the server says so
            outcome = half.finish(work)
        for what, found, known in (
            ("memory", outcome.memory, half.groups), ("replies", outcome.records, half.replies),
        ):  # fmt: skip
            if strange := sorted(set(found) - set(known)):
                raise ConfigError(
                    f"{type(half).__name__}.finish returns {what} {strange[0]!r}, which would be "
                    f"lost: its class names {', '.join(known) or 'none'}"
                )
        # The server refuses such an update; remembered, it would spoil every later one.
        if all(not_finite(arrays) is None for arrays in (trained, *outcome.memory.values())):
            remember(state, half.key, outcome.memory)
        return outcome

    def _tensors(self, name: str, content: RecordDict) -> list[Tensor]:
        """Return a record that came beside the parameters, decoded once for all sites."""
        record = content[name]
        if name not in self._sent or self._sent[name][0] is not record:
            self._sent[name] = (record, self._ordered(arrays_in(content, name)))
        return self._sent[name][1]

    def _ordered(self, arrays: Arrays) -> list[Tensor]:
        return list(to_tensors({n: arrays[n] for n in self._names}, self._device).values())


def halves_of(terms: Terms) -> list[ClientHalf]:
    """Return those of the terms that are the client half of a strategy."""
    return [term for term in terms if isinstance(term, ClientHalf)]
