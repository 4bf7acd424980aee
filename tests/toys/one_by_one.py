"""An asynchronous server: every update makes a version, and its site goes on from that one."""

from collections.abc import Sequence
from typing import Any

from flwr.app import Message

from fedpdm.aggregation.collector import Collector
from fedpdm.aggregation.sums import MeanByExamples
from fedpdm.server.base import Result, Round, Server
from fedpdm.wire.records import config_record


class OneByOne(Server):
    """Adds each update to the newest version, the less the older its base is."""

    in_order = False

    def restore(self, state: dict[str, Any]) -> None:
        self.state = {"jobs": 0, "under_way": {}, **state}
        self.lost = list(self.state["under_way"])

    def select(self, round: Round) -> list[str]:
        self.collector: Collector | None = None
        sites = self.services.dispatcher.roster.sites
        return [site for site in sites if site not in self.state["under_way"]]

    def submit(self, round: Round, sites: Sequence[str]) -> None:
        for site in sites:
            job = {"version": round.model.version, "number": self.state["jobs"]}
            self.state["jobs"] += 1
            self.state["under_way"][site] = job
        for site in [*self.lost, *sites]:  # lost when the last process ended
            self.give(site, self.state["under_way"][site], round)
        self.lost = []

    def give(self, site: str, job: dict[str, int], round: Round) -> None:
        base, key = self.services.model(job["version"]), str(job["number"])
        config = config_record(server_round=base.version + 1, attempt=round.attempt, job=key)
        self.send_model(round, [site], base, config)

    def next_reply(self, round: Round) -> tuple[str, Message] | None:
        return None if self.collector else super().next_reply(round)

    def apply(self, round: Round, site: str, reply: Message) -> None:
        job = self.state["under_way"].pop(site)
        halves = self.services.transforms.on_server(round.number, round.attempt)
        self.base = self.services.model(job["version"])
        self.collector = Collector(self.base, round.note, MeanByExamples(), halves)
        self.collector.take(site, reply)

    def result(self, round: Round) -> Result:
        took, arrays = self.collector, round.model.arrays
        if took is None or (sums := took.sums()) is None:
            return Result(arrays, round.model.buffers, [], took.bytes_up if took else 0)
        rate = 0.6 / (1 + round.model.version - self.base.version)
        moved = {n: a + rate * (sums.mean[n] - self.base.arrays[n]) for n, a in arrays.items()}
        new = {n: moved[n].astype(a.dtype) for n, a in arrays.items()}
        return Result(new, took.buffers() or round.model.buffers, took.updates, took.bytes_up)
