"""Boosted trees: a round is some trees, and each step of a tree is one stage of the round.

The server asks sites for sums (``training.boosting``), adds them up, finds the splits and asks
for the next ones. A site whose sums fail, stay away or cannot be right is left out of the rest of
the round, and the tree that is growing is begun again without it. With whole sums the trees are
those of pooled rows, bit for bit.

Use it where trees are ahead of networks, as with few rows and many columns. It costs several
messages a tree, of histograms whose length is columns times bins; sites remember nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from fedpdm.aggregation.screening import beyond
from fedpdm.aggregation.update import Contribution
from fedpdm.client.trees import REQUEST
from fedpdm.errors import ConfigError, SiteError
from fedpdm.server.base import Result, Round
from fedpdm.server.synchronous import Synchronous
from fedpdm.training.boosting import Changed, Growth, Request, Steps, Sums, boost, flaw_of, loss_of
from fedpdm.wire.flower import content_bytes, content_of
from fedpdm.wire.records import (
    ARRAYS,
    CONFIG,
    EXAMPLES,
    Arrays,
    arrays_in,
    metrics_in,
    to_record,
)

MESSAGE = "train.trees"
GROWING = ("value", "feature", "threshold", "left")
"""Tensors with one entry for each tree: of these, sites get the trees that there are."""


class Boosting(Synchronous):
    """Grows trees from the sums of the sampled sites, or of those that answer in time.

    Sums are whole numbers, so the order of the answers changes nothing.

    Args:
        config: ``model.config`` of ``model=gbdt``.

    Raises:
        ConfigError: it is the config of another model.
    """

    in_order = False

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        try:
            self._growth = Growth.of(config)
        except KeyError:
            raise ConfigError(
                "server=boosting grows trees: choose model=gbdt, which brings it"
            ) from None

    def submit(self, round: Round, sites: Sequence[str]) -> None:
        model = {**round.model.arrays, **round.model.buffers}
        self._loss = loss_of(self.services.task)
        self._trees: Arrays = {name: array.copy() for name, array in model.items()}
        self._steps: Steps = boost(self._trees, self._growth, self._loss, round.number)
        self._sites = list(sites)
        self._said: dict[str, dict[str, float]] = {}
        self._bytes_up = 0
        self._ask(round, next(self._steps))

    def next_reply(self, round: Round) -> tuple[str, Message] | None:
        while (heard := super().next_reply(round)) is None:
            if not self._go_on(round):
                return None
        return heard

    def apply(self, round: Round, site: str, reply: Message) -> None:
        if reply.has_error():
            round.note("site-failed", f"{site} failed: {reply.error.reason}", site)
            return
        self._bytes_up += content_bytes(reply.content)
        try:
            sums, said = arrays_in(reply.content, ARRAYS), metrics_in(reply.content)
            examples = said[EXAMPLES]
        except Exception as error:  # whatever a site sends, the others' round goes on
            flaw: str | None = f"they cannot be read ({type(error).__name__}: {error})"
        else:
            flaw = beyond(EXAMPLES, examples)
            if flaw is None and self._said.get(site, said)[EXAMPLES] != examples:
                flaw = f"it had {self._said[site][EXAMPLES]:g} examples and now has {examples:g}"
            flaw = flaw or flaw_of(sums, self._request, self._trees, self._loss, int(examples))
        if flaw is not None:
            message = f"{site}: its sums are refused, {flaw}; the round goes on without it"
            round.note("refused", message, site)
            return
        self._said[site] = {**self._said.get(site, {}), **said}
        self._heard.append(site)
        for name, array in sums.items():
            self._sums[name] = self._sums[name] + array if name in self._sums else array

    def result(self, round: Round) -> Result:
        if not self._sites:
            raise SiteError(f"round {round.number}: every site failed")
        updates = [Contribution(site, self._said[site], None) for site in self._sites]
        arrays, buffers = (
            {name: self._trees[name] for name in part}
            for part in (round.model.arrays, round.model.buffers)
        )
        return Result(arrays, buffers, updates, self._bytes_up)

    def _go_on(self, round: Round) -> bool:
        """End a stage and submit the next one; return whether there is one."""
        heard = set(self._heard)
        lost = len(heard) < len(self._sites)
        self._sites = [site for site in self._sites if site in heard]
        if not self._sites:
            return False
        try:
            request = self._steps.throw(Changed()) if lost else self._steps.send(self._sums)
        except StopIteration:
            return False
        self._ask(round, request)
        return True

    def _ask(self, round: Round, request: Request) -> None:
        """Submit a request to the sites that are left."""
        self._request, self._heard = request, list[str]()
        self._sums: Sums = {}
        grown = {
            name: array[: request.trees] if name in GROWING else array
            for name, array in self._trees.items()
        }
        content = content_of({
            ARRAYS: to_record({name: array.copy() for name, array in grown.items()}),
            REQUEST: to_record(request.arrays),
            CONFIG: ConfigRecord({**round.config, "kind": request.kind}),
        })  # fmt: skip

        def configure(grid: Grid) -> list[Message]:
            return [Message(content, node, MESSAGE) for node in grid.get_node_ids()]

        self.send(round, self._sites, configure)
