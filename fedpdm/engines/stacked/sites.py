"""Sites of one process that train as stacks, in place of one by one.

The engine hands over the messages of several sites; each site's app then asks for what was
found for it, and answers as if it had trained by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from fedpdm.client.app import SiteApp
from fedpdm.client.site_client import SiteClient
from fedpdm.client.strategy_runtime import halves_of
from fedpdm.data.rows import Split
from fedpdm.engines.stacked.trainer import SiteData, StackedTrainer
from fedpdm.errors import ConfigError
from fedpdm.transforms.masking import SECAGG
from fedpdm.wire.records import CONFIG, Arrays, config_in


@dataclass(frozen=True)
class Work:
    """What a site was sent, and the state it has."""

    site: str
    message: Message
    state: RecordDict


class StackedSites:
    """Trains sites in stacks for the client of this process.

    Args:
        client_app: fedpdm's own; another app's training cannot be looked into.
        **options: of ``StackedTrainer``: chunk, compile, cuda_graphs.

    Raises:
        ConfigError: another app, or a model that has no stack.
    """

    def __init__(self, client_app: ClientApp, **options: Any) -> None:
        if not isinstance(client_app, SiteApp):
            raise ConfigError(
                "engine=batched trains with fedpdm's own client app only; use engine=serial"
            )
        self._client = client_app.client
        self._trainer = stacked_trainer(self._client, **options)
        self.device = self._client.device
        self._done: dict[str, tuple[Arrays, float]] = {}
        self._checked = False
        self._client.trainer = self

    def train(self, works: Sequence[Work]) -> None:
        """Train sites and keep what was found; nothing is kept of those before."""
        self._done.clear()
        for same in alike(self._opened(works)):
            self._train(same)

    def trained(self, site: str) -> tuple[Arrays, float] | None:
        """Return what the stack found for a site; asked by the site's own app."""
        return self._done.pop(site, None)

    def forget(self) -> None:
        """Keep nothing of what was found."""
        self._done.clear()

    def _opened(self, works: Sequence[Work]) -> list[Work]:
        """Return messages with whole models; whose cannot be read, its own answer says why."""
        found = []
        for work in works:
            with contextlib.suppress(Exception):
                opened = self._client.opened(work.message, work.state)
                found.append(replace(work, message=opened))
        return found

    def _train(self, works: Sequence[Work]) -> None:
        """Train sites that were all sent the same."""
        client, members = self._client, []
        first = works[0].message
        config, order = client.order(first)
        halves = halves_of(order["terms"])
        for work in works:
            try:
                site = client.site(work.message, work.site)
                x, y = client.tensors(site, Split.TRAIN)
            except Exception:
                continue  # its own answer will say what is wrong with it
            content, state = work.message.content, work.state
            memory = client.runtime.memory(halves, content, state) if halves else {}
            local = client.local(state) if state else {}
            members.append(SiteData(work.site, client.key(work.site, config), x, y, memory, local))
        if not members:
            return
        received = {**client.initial, **client.received(first)}
        for result in self._trainer.train(received, members, **order):
            self._done[result.name] = (result.weights, result.train_loss)
        if order["terms"] and len(members) > 1 and not self._checked:
            self._checked = True
            self._check_terms(
                received, members[0], {**order, "terms": client.runtime.terms(first.content)}
            )

    def _check_terms(
        self, received: Mapping[str, Tensor], member: SiteData, order: Mapping[str, Any]
    ) -> None:
        """Make sure, once, that a strategy's terms leave a site what it learns by itself.

        Raises:
            ConfigError: a term looks across the sites of a stack.
        """
        for alone in self._trainer.train(received, [member], **order):
            together = self._done[alone.name][0]
            for name, mine in alone.weights.items():
                moved = np.abs(mine - received[name].cpu().numpy()).max(initial=0.0)
                if not np.allclose(together[name], mine, rtol=1e-5, atol=0.01 * moved):
                    raise ConfigError(
                        f"engine=batched: a term of the strategy gives site {alone.name} another "
                        f"{name} in a stack than alone, so it looks across sites: use "
                        "engine=serial, or let it work on each site of the first dimension"
                    )


def obstacle(client: SiteClient, x: Tensor, y: Tensor) -> str | None:
    """Return why a site's model cannot be stacked, or None: one step with a few of its rows."""
    few = [SiteData(name, (name,), x[:rows], y[:rows]) for name, rows in (("a", 5), ("b", 3))]
    try:
        trainer = stacked_trainer(replace(client, device=torch.device("cpu")))
        received = client.build_model().get_parameters()
        list(trainer.train(received, few, epochs=1))
    except ConfigError as error:
        return str(error).removeprefix("engine=batched ").removesuffix(": use engine=serial")
    return None


def stacked_trainer(client: SiteClient, **options: Any) -> StackedTrainer:
    """Return the trainer of stacks of such sites."""
    return StackedTrainer(
        client.build_model().module, client.minimised, client.settings,
        shared=client.parts.shared, seed=client.seed, device=client.device, **options,
    )  # fmt: skip


def alike(works: Sequence[Work]) -> list[list[Work]]:
    """Return work in groups of equal records and config; a strategy may send several.

    What secure aggregation tells each site comes after its training.
    """
    groups: dict[tuple[object, ...], list[Work]] = {}
    keys: dict[int, tuple[object, ...]] = {}
    for work in works:
        content = work.message.content
        if id(content) not in keys:  # most strategies send one content to all
            config = repr(sorted(config_in(content).items()))
            records = sorted((k, id(r)) for k, r in content.items() if k not in (CONFIG, SECAGG))
            keys[id(content)] = *records, config
        groups.setdefault(keys[id(content)], []).append(work)
    return list(groups.values())
