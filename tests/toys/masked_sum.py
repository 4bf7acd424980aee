"""A sum that hides its parts, in two stages of one round: sites publish a number each, then train
and mask their updates with all numbers (``tests.toys.mask``)."""

from collections.abc import Sequence

from flwr.app import Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from fedpdm.server.base import Round
from fedpdm.server.synchronous import Synchronous
from fedpdm.strategies.local_terms import asks_nothing
from fedpdm.wire.records import CONFIG, config_in, config_record, metric_record, metrics_in
from tests.toys.mask import number_of

asks_nothing("publish", "numbers")


class Masked(Synchronous):
    """Begins with a stage in which nobody trains."""

    def submit(self, round: Round, sites: Sequence[str]) -> None:
        self.numbers: list[int] = []
        content = RecordDict({CONFIG: config_record(server_round=round.number, publish=True)})
        self.send(
            round, sites, lambda grid: [Message(content, n, "train") for n in grid.get_node_ids()]
        )

    def apply(self, round: Round, site: str, reply: Message) -> None:
        if "numbers" in round.config:
            return super().apply(round, site, reply)
        self.numbers.append(int(metrics_in(reply.content)["number"]))
        if len(self.numbers) == len(round.sampled):
            round.config["numbers"] = self.numbers
            super().submit(round, round.sampled)


def publish(message: Message, context: Context, call: ClientAppCallable) -> Message:
    """The sites' part of the first stage: a client mod."""
    if not config_in(message.content).get("publish"):
        return call(message, context)
    number = metric_record(0, {"number": number_of(str(context.node_config["site"]))})
    return Message(RecordDict({"metrics": number}), reply_to=message)
