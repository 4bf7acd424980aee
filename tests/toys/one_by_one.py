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
        self.state = {"jobs": 0, "under_way": [], **state}
        self.lost = list(self.state["under_way"])

    def select(self, round: Round) -> list[str]:
        busy = {job["site"] for job in self.state["under_way"]}
        self.collector: Collector | None = None
        return [site for site in self.services.dispatcher.roster.sites if site not in busy]

    def submit(self, round: Round, sites: Sequence[str]) -> None:
        for job in self.lost:  # what was under way when the last process ended
            self.give(job, round)
        self.lost = []
        for site in sites:
            job = {"site": site, "version": round.model.version, "job": self.state["jobs"]}
            self.state = {**self.state, "jobs": job["job"] + 1}
            self.state["under_way"] = [*self.state["under_way"], job]
            self.give(job, round)

    def give(self, job: dict[str, Any], round: Round) -> None:
        base = self.services.model(job["version"])
        number, job_id = base.version + 1, str(job["job"])
        config = config_record(server_round=number, attempt=round.attempt, job=job_id)
        self.send_model(round, [job["site"]], base, config)

    def next_reply(self, round: Round) -> tuple[str, Message] | None:
        return None if self.collector else super().next_reply(round)

    def apply(self, round: Round, site: str, reply: Message) -> None:
        (job,) = (job for job in self.state["under_way"] if job["site"] == site)
        self.state["under_way"] = [j for j in self.state["under_way"] if j is not job]
        halves = self.services.transforms.on_server(round.number, round.attempt)
        self.base = self.services.model(job["version"])
        self.collector = Collector(self.base, round.note, MeanByExamples(), halves)
        self.collector.take(site, reply)

    def result(self, round: Round) -> Result:
        took, arrays = self.collector, round.model.arrays
        if took is None or (sums := took.sums()) is None:
            return Result(arrays, round.model.buffers, [], took.bytes_up if took else 0)
        rate = 0.6 / (1 + round.model.version - self.base.version)
        new = {
            n: (a + rate * (sums.mean[n] - self.base.arrays[n])).astype(a.dtype)
            for n, a in arrays.items()
        }
        return Result(new, took.buffers() or round.model.buffers, took.updates, took.bytes_up)
