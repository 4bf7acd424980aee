"""Two models in one commit: sites of even and odd places in the list train one each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flwr.app import Message

from fedpdm.aggregation.update import Base
from fedpdm.server.base import Result, Round
from fedpdm.server.synchronous import Synchronous
from fedpdm.wire.records import Arrays

NAMES = ("even", "odd")


class TwoModels(Synchronous):
    """The main model is the mean of the two, each counting half."""

    def group(self, site: str) -> str:
        return NAMES[self.services.dispatcher.roster.sites.index(site) % 2]

    def submit(self, round: Round, sites: Sequence[str]) -> None:
        main = round.model
        self.parts = {}
        for name in NAMES:
            stored = round.models.get(name, {**main.arrays, **main.buffers})
            round.model = Base(
                main.version,
                {n: stored[n] for n in main.arrays},
                {n: stored[n] for n in main.buffers},
            )
            super().submit(round, [site for site in sites if self.group(site) == name])
            self.parts[name] = (round.model, self.collector)
        round.model = main

    def apply(self, round: Round, site: str, reply: Message) -> None:
        self.parts[self.group(site)][1].take(site, reply)

    def result(self, round: Round) -> Result:
        models: dict[str, Arrays] = {}
        main, updates, size = round.model, [], 0
        for name in NAMES:
            round.model, self.collector = self.parts[name]
            found = super().result(round)
            models[name] = {**found.arrays, **found.buffers}
            updates += found.updates
            size += found.bytes_up
        mean = {
            n: ((models["even"][n] + models["odd"][n]) / 2).astype(a.dtype)
            for n, a in {**main.arrays, **main.buffers}.items()
        }
        arrays, buffers = ({n: mean[n] for n in part} for part in (main.arrays, main.buffers))
        return Result(arrays, buffers, updates, size, models)

    def evaluated(self, panel: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return {name: [site for site in panel if self.group(site) == name] for name in NAMES}
