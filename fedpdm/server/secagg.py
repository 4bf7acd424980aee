"""Secure aggregation: the server learns the sum of a round's updates, and none of them.

Bonawitz et al. 2017, Practical Secure Aggregation for Privacy-Preserving Machine Learning (CCS),
figure 4; with ``neighbours``, Bell et al. 2020, Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead (CCS, SecAgg+), its semi-honest protocol. Site i holds x_i, whole numbers
modulo R = 2^64, and sends

    y_i = x_i + PRG(b_i) + Σ_{j<i} PRG(s_ij) - Σ_{j>i} PRG(s_ij)    (mod R)

with b_i its own secret and s_ij = s_ji the key that it agreed on with site j. One y_i is uniform
noise; in the sum over all sites the pairs' masks cancel. A round has four stages:

    setup                   a site sends two public keys
    share_keys              gets its neighbours' keys, and sends each an encrypted share (Shamir) of
                            b_i and of the private key behind its s_ij
    collect_masked_vectors  gets the shares meant for it, trains, and sends y_i
    unmask                  gives up shares: of b_j of each neighbour whose y_j came, of the
                            private key of each that shared keys and then went away

From ``threshold`` shares the server restores these secrets and takes their masks off. So sites may
drop out at any stage. Where fewer are left, no sum is made: the model stays, and an event says so.
A site gives up one kind of share for each other, once, and none for a sum of fewer sites.

x_i is made of what the site would have sent without it, as differences d from what it got,
clipped to ±C (``clip``) and rounded at random to one of 2^B + 1 levels (``bits``), times its weight
n_i. The sum of these is exact, so what it decodes to differs from FedAvg's mean by rounding only:

    |mean of d, decoded - mean of d| < 2C / 2^B    for every value within ±C

1.5e-8 with the defaults, whatever the number and the weights of the sites. How many values were
clipped is in the sum as well, and is said. Where no site changes anything, the model stays as it
is, bit for bit. Keys, masks and shares come from the operating system and are different each time;
as they cancel exactly, the same seed gives the same model.

Use it where a server that follows the protocol must not see a single site's update. It costs three
short messages more per site and round, eight bytes a value on the way up instead of four, and two
to three milliseconds of processor time for each site and neighbour, which is why many sites want
``neighbours``. Nothing is remembered between rounds; a round that was begun is begun again with new
keys.

Keys, Shamir's shares, encryption and rounding are those of ``flwr.common.secure_aggregation``; its
own SecAgg+ is a workflow of Flower's old API. Deviations from it: masks are ChaCha20's keystream
with 32 bytes of key, where Flower's generator has 32 bits of seed, which can be tried out;
R is 2^64 and not 2^32, so that weights are exact factors and the error does not grow with
``max_weight``; a site that went away before it shared keys does not end the round; a restored key
is compared with its public half; sites refuse requests that would uncover one of them. Losses and
numbers of examples do not leave a site, and buffers of whole numbers stay as the server has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import numpy as np
from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedpdm.aggregation.screening import MOST_EXAMPLES
from fedpdm.aggregation.sums import AddsUp, Total, adds_up
from fedpdm.aggregation.update import Contribution
from fedpdm.errors import ConfigError
from fedpdm.seeding import numpy_generator
from fedpdm.server.base import Round
from fedpdm.server.clock import Clock
from fedpdm.server.secagg_protocol import Protocol, TooFew, Values
from fedpdm.server.synchronous import Synchronous
from fedpdm.strategies.ranges import check_range
from fedpdm.transforms.base import Chain, Stage, Transform
from fedpdm.transforms.masking import (
    COLLECT,
    MASKED,
    SECAGG,
    SECAGG_MESSAGE,
    Coding,
    ring,
    size_of,
)
from fedpdm.wire.flower import content_bytes, content_of
from fedpdm.wire.records import ARRAYS, BUFFERS, CONFIG, EXAMPLES, Arrays, arrays_in, to_record


class SecAgg(Synchronous):
    """Synchronous rounds of four stages, at whose end the server has a sum.

    Args:
        threshold: share of a site's neighbourhood, itself included, that must be left for a sum:
            above a half, up to 1.
        neighbours: with how many others a site shares masks and secrets, an even number; None
            for all.
        clip: bound of each value of an update, C.
        bits: of each value, B.
        validation: ``reported``: sites evaluate each round, and what each of them measured is seen;
            ``withheld``: they do not, and the last round is the result.

    Raises:
        ConfigError: a value is out of its range.
    """

    one_model = True
    least_sites = 2
    at_sites = True
    costs = ("up: 8 bytes a value in place of 4", "three further messages to each site in a round")

    def __init__(
        self,
        threshold: float = 0.6,
        neighbours: int | None = None,
        clip: float = 8.0,
        bits: int = 30,
        validation: Literal["reported", "withheld"] = "reported",
    ) -> None:
        super().__init__()
        if not 0.5 < threshold <= 1:
            raise ConfigError(
                f"server.threshold={threshold} must be above 0.5 and at most 1: with half of the "
                "shares, two halves of the sites could be asked for different secrets"
            )
        if neighbours is not None and (neighbours < 2 or neighbours % 2):
            raise ConfigError(
                f"server.neighbours={neighbours} must be an even number from 2 on, or null for all"
            )
        if not 2 <= bits <= 30:
            raise ConfigError(f"server.bits={bits} must be between 2 and 30")
        check_range("clip", clip, below=1e6, block="server")
        self.threshold, self.neighbours = threshold, neighbours
        self.coding = Coding(clip, bits)
        self.withholds_validation = validation == "withheld"

    # Before a run --------------------------------------------------------------------------

    def check(self, strategy: Strategy, transforms: Chain, clock: Clock, keep: int | None) -> None:
        adding, who = adds_up(strategy), type(strategy).__name__
        if adding is None:
            raise ConfigError(
                f"server=secagg shows the sum of updates only, and {who} needs every single one; "
                "choose strategy=fedavg, or server=synchronous"
            )
        if getattr(strategy, "needs_norms", False):
            raise ConfigError(
                f"server=secagg hides the lengths of updates, from which {who} makes its step; "
                "choose strategy=fedavg, or server=synchronous"
            )
        if weighs(adding) is None:
            raise ConfigError(
                f"server=secagg knows weights by examples and equal ones, and {who} weighs sites "
                "by what else they report, which does not leave them; choose strategy=fedavg"
            )
        for each in transforms.transforms:
            if (reason := obstacle(each)) is not None:
                raise ConfigError(
                    f"transforms.{each.name} {reason}, and server=secagg shows sums of masked "
                    "whole numbers only; leave one of the two out"
                )
        if clock.carrier() is not None:
            raise ConfigError(
                "clock=virtual reads from a reply how many examples a site worked on, which "
                "server=secagg hides; use clock=wall"
            )

    def uncovered(self, scaling: bool) -> str:
        """Say what leaves the sites beside masked updates."""
        sums = "sums of training rows for the shared scaler (not with scaling=plant)"
        measured = (
            "what each site measures on validation data (not with server.validation=withheld)"
        )
        seen = [*[sums] * scaling, *[measured] * (not self.withholds_validation), "test scores",
                "who takes part", "what the sum itself says"]  # fmt: skip
        return (
            "server=secagg hides each update from a server that follows the protocol; not "
            f"covered: {', '.join(seen)}; updates can be screened neither by value nor by norm"
        )

    # A round -------------------------------------------------------------------------------

    def submit(self, round: Round, sites: Sequence[str]) -> None:
        self.collector = self.collect(round)
        numbers = {site: n for n, site in enumerate(self.services.dispatcher.roster.sites)}
        self._sites = {numbers[site]: site for site in sites}
        self._protocol = self._begin(round)
        self._stages, self._heard = self._protocol.stages(), dict[int, Values]()
        self._over, self._config = False, ConfigRecord(dict(round.config.items()))
        self._go_on(round, None)

    def next_reply(self, round: Round) -> tuple[str, Message] | None:
        while not self._over:
            if (heard := super().next_reply(round)) is not None:
                return heard
            if not self._go_on(round, self._heard):
                break
        return None

    def apply(self, round: Round, site: str, reply: Message) -> None:
        collector = self.collector
        if reply.has_error():
            round.note("site-failed", f"{site} failed: {reply.error.reason}", site)
            return
        collector.answers += 1
        collector.bytes_up += content_bytes(reply.content)
        number = next(n for n, name in self._sites.items() if name == site)
        said: Values = {}
        try:
            if self._stage == COLLECT:
                self._protocol.masked(arrays_in(reply.content, MASKED)["vector"])
            else:
                said = dict(cast(ConfigRecord, reply.content[SECAGG]).items())
                self._protocol.check(number, said)
        except Exception as error:  # whatever a site sends, the others' round goes on
            what = f"its answer to {self._stage} cannot be read ({type(error).__name__}: {error})"
            round.note("refused", f"{site}: {what}", site)
        else:
            self._heard[number] = said

    def _go_on(self, round: Round, heard: dict[int, Values] | None) -> bool:
        """End a stage and submit the next one; return whether there is one."""
        try:
            stage, asked = next(self._stages) if heard is None else self._stages.send(heard)
        except (StopIteration, TooFew) as error:
            self._over = True
            if isinstance(error, TooFew):
                round.note("warning", f"round {round.number} has no sum: {error}")
            else:
                self._decode(round)
            return False
        self._stage, self._heard = stage, {}
        self.trains = stage == COLLECT
        nodes = self.services.dispatcher.roster.connected()
        by_node = {nodes[self._sites[n]]: a for n, a in asked.items() if self._sites[n] in nodes}
        contents = {
            node: ConfigRecord({"stage": stage, **values}) for node, values in by_node.items()
        }
        self._send(round, [self._sites[number] for number in asked], contents)
        return True

    def _send(
        self, round: Round, sites: Sequence[str], contents: Mapping[int, ConfigRecord]
    ) -> None:
        calls, model = self.services.calls, round.model
        parameters = to_record(model.arrays)

        def train(grid: Grid) -> list[Message]:
            messages = calls.configure_train(round.number, parameters, round.config, grid)
            found = [m for m in messages if m.metadata.dst_node_id in contents]
            for message in found:
                beside = {SECAGG: contents[message.metadata.dst_node_id]}
                message.content = content_of({**message.content, **beside})
            return found

        def ask(grid: Grid) -> list[Message]:
            return [
                Message(
                    content_of({CONFIG: self._config, SECAGG: contents[node]}), node, SECAGG_MESSAGE
                )
                for node in grid.get_node_ids()
                if node in contents  # not one that has come back under another number
            ]

        collects = self._stage == COLLECT
        buffers = model.buffers if collects else None
        self.send(round, sites, train if collects else ask, buffers)

    # The protocol ----------------------------------------------------------------------------

    def _begin(self, round: Round) -> Protocol:
        """Return a round of the protocol."""
        services, model, sites = self.services, round.model, self._sites
        generator = numpy_generator(services.seed, "secagg-ring", round.number, round.attempt)
        graph = ring(list(sites), self.neighbours, generator)
        size = size_of(model.arrays, model.buffers, self._records)
        coding = {"clip": self.coding.clip, "bits": self.coding.bits,
                  "by-examples": weighs(self._adding) == EXAMPLES}  # fmt: skip
        return Protocol(sites, graph, self.threshold, size, coding)

    @property
    def _adding(self) -> AddsUp:
        return cast(AddsUp, adds_up(self.services.strategy))  # ``check`` has looked

    @property
    def _records(self) -> list[str]:
        return [ARRAYS, *self._adding.replies]

    def _decode(self, round: Round) -> None:
        """Hand the sum over to the collector, as if it had added up updates."""
        model, total, came = round.model, self._protocol.total, self._protocol.came
        weight, examples = int(total[0]), int(total[1])
        most = min(self.coding.most - 1, int(MOST_EXAMPLES) * len(came))
        if not (0 < weight <= most and 0 < examples <= most):
            why = "what it says cannot be, so some site did not keep to the protocol"
            round.note("warning", f"round {round.number} has no sum: {why}")
            return
        records = self._records
        clipped, means = self.coding.decode(total, model.arrays, model.buffers, records)
        if clipped:
            round.note(
                "warning",
                f"{clipped} of {len(came) * (len(total) - 3)} values of the updates were beyond "
                f"server.clip={self.coding.clip:g} and were clipped to it",
            )
        weights = dict.fromkeys(records, weight) | ({BUFFERS: examples} if model.buffers else {})
        sent = {ARRAYS: model.arrays, BUFFERS: model.buffers}
        zeros = {name: np.zeros_like(array) for name, array in model.arrays.items()}
        totals = {
            record: summed(sent.get(record, zeros), means.get(record, {}), by)
            for record, by in weights.items()
        }
        updates = [Contribution(self._sites[n], {EXAMPLES: 1.0}, None) for n in came]
        self.collector.take_sums(totals, updates)


def summed(sent: Arrays, means: Arrays, weight: int) -> Total:
    """Return the sum of new values, from what was sent and the means of their differences."""
    values = {
        name: (a.astype(np.float64) + means.get(name, 0.0)) * weight for name, a in sent.items()
    }
    return Total(values, float(weight))


def weighs(adding: AddsUp) -> str | None:
    """Return what a strategy weighs sites by: ``num-examples``, ``alike``, or None: by others."""
    try:
        weight = adding.weight({EXAMPLES: 3.0})
    except Exception:  # it needs more than that
        return None
    return {3.0: EXAMPLES, 1.0: "alike"}.get(weight)


def obstacle(transform: Transform) -> str | None:
    """Return why masked updates cannot go through a transform, or None."""
    kind = type(transform)
    if transform.packs or transform.stage >= Stage.COMPRESS or getattr(transform, "down", False):
        return "compresses"
    if kind.decode is not Transform.decode or kind.before_sum is not Transform.before_sum:
        return "reads single updates at the server"
    return "needs more than sums" if transform.needs_values or transform.hides_values else None
