"""A sum that hides its parts, in two stages of one round: numbers are published, and masks that
cancel are made of each two of them. Not secure: what is published is the secret itself."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from fedpdm.aggregation.sums import Total
from fedpdm.aggregation.update import Update
from fedpdm.seeding import key_seed, numpy_generator
from fedpdm.server.base import Round
from fedpdm.server.synchronous import Synchronous
from fedpdm.strategies.registry import asks_nothing
from fedpdm.transforms.base import Stage, Transform
from fedpdm.wire.records import CONFIG, config_in, config_record, metric_record, metrics_in

RING, STEP = 2**44, 2.0**-20
asks_nothing("publish", "published", "publishers")


class Masked(Synchronous):
    def submit(self, round: Round, sites: Sequence[str]) -> None:
        self.published: dict[str, float] = {}
        content = RecordDict({CONFIG: config_record(server_round=round.number, publish=True)})
        self.send(
            round, sites, lambda grid: [Message(content, n, "train") for n in grid.get_node_ids()]
        )

    def apply(self, round: Round, site: str, reply: Message) -> None:
        if len(self.published) == len(round.sampled):
            return super().apply(round, site, reply)
        self.published[site] = metrics_in(reply.content)["published"]
        if len(self.published) == len(round.sampled):
            round.config["publishers"] = list(self.published)
            round.config["published"] = [int(number) for number in self.published.values()]
            super().submit(round, round.sampled)


def publish(message: Message, context: Context, call: ClientAppCallable) -> Message:
    if not config_in(message.content).get("publish"):
        return call(message, context)
    drawn = {"published": key_seed(5, str(context.node_config["site"])) % 2**30}
    return Message(RecordDict({"metrics": metric_record(0, drawn)}), reply_to=message)


class Mask(Transform):
    stage, hides_values, needs_sums, needs_examples = Stage.MASK, True, True, True

    def encode(self, update: Update, state: Any, generator: Any) -> Update:
        config, records = update.base.config, {}
        others = dict(zip(config["publishers"], config["published"], strict=True))
        for record, arrays in update.records.items():
            records[record] = {n: np.round(a * update.weight / STEP) for n, a in arrays.items()}
            for other in sorted(set(others) - {update.site}):
                shared = numpy_generator(others[other] ^ others[update.site], record)
                for n, a in records[record].items():
                    mask = shared.integers(RING, size=a.shape).astype(float)
                    records[record][n] = (a + (mask if update.site < other else -mask)) % RING
        return replace(update, records=records)

    def decode(self, update: Update) -> Update:
        return replace(update, premultiplied=True)

    def after_sum(self, totals: dict[str, Total], contributions: Any, generator: Any) -> Any:
        def clear(values: Any) -> Any:
            return ((values + RING / 2) % RING - RING / 2) * STEP

        return {
            r: replace(t, values={n: clear(v) for n, v in t.values.items()})
            for r, t in totals.items()
        }
