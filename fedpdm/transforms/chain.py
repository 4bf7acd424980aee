"""The transforms of a run in their order, and which of them do not go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.serverapp.strategy import Strategy

from fedpdm.aggregation.accumulation import Total
from fedpdm.aggregation.sums import adds_up, weighs_by_examples
from fedpdm.aggregation.update import Contribution, Update
from fedpdm.errors import ConfigError
from fedpdm.seeding import numpy_generator
from fedpdm.transforms.base import Stage, Transform
from fedpdm.wire.records import Arrays

Memory = dict[str, dict[str, Arrays]]


class Chain:
    """Transforms, ordered by their stages.

    Args:
        transforms: by the names they have in the config.
        seed: the run's seed; what a transform draws is drawn from it.

    Raises:
        ConfigError: something in it is no transform.
    """

    def __init__(self, transforms: Mapping[str, Transform] | None = None, seed: int = 0) -> None:
        named = dict(transforms or {})
        for name, transform in named.items():
            if not isinstance(transform, Transform):
                raise ConfigError(
                    f"transforms.{name}: {type(transform).__name__} is no transform; derive it "
                    "from fedpdm.transforms.base.Transform"
                )
            transform.name, transform.state = name, {}
        self.transforms = tuple(sorted(named.values(), key=lambda each: each.stage))
        self.seed = seed

    def __len__(self) -> int:
        return len(self.transforms)

    def check(self, strategy: Strategy) -> None:
        """Refuse a chain that cannot work, with itself or with the strategy.

        Raises:
            ConfigError: names the transform and the way out.
        """
        adding, who = adds_up(strategy), type(strategy).__name__
        hiding = [each.name for each in self.transforms if each.hides_values]
        for each in self.transforms:
            key = f"transforms.{each.name}"
            others = [name for name in hiding if name != each.name]
            if others and (each.needs_values or each.hides_values):
                raise ConfigError(
                    f"{key} works on single updates, and transforms.{others[0]} hides them from "
                    "the server; leave one of the two out"
                )
            if adding is None and (each.needs_sums or each.hides_values):
                raise ConfigError(
                    f"{key} works on sums of updates only, and {who} needs every single update; "
                    "leave it out, or choose a strategy that needs sums (strategy=fedavg)"
                )
            if each.needs_examples and not (adding and weighs_by_examples(adding)):
                raise ConfigError(
                    f"{key} weighs updates by their examples, and {who} does not; leave it out, "
                    "or choose strategy=fedavg"
                )
            missed = set(adding.replies if adding else ()) - set(each.records or ())
            if each.records is not None and missed and each.stage != Stage.COMPRESS:
                raise ConfigError(
                    f"{key} changes {', '.join(each.records)} only, and {who} sends "
                    f"{', '.join(sorted(missed))} as well, which would leave the site as it is"
                )

    def encode(self, update: Update, memory: Memory, *key: str | int) -> Update:
        """Return an update as its site sends it.

        Args:
            update: what the site made of the round.
            memory: what the site remembers for each transform; changed in place.
            *key: names the site, the round and the attempt.
        """
        for each in self.transforms:
            generator = numpy_generator(self.seed, "transform", each.name, *key)
            update = each.encode(update, memory.setdefault(each.name, {}), generator)
        return update

    def on_server(self, *key: int) -> ServerChain | None:
        """Return the server's halves in the round that ``key`` names; None if there are none."""
        return ServerChain(self, key) if self.transforms else None

    @property
    def state(self) -> dict[str, Any]:
        """What the server halves remember, by transform."""
        return {each.name: each.state for each in self.transforms if each.state}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Let the server halves remember this, and nothing else."""
        for each in self.transforms:
            each.state = dict(state.get(each.name, {}))


@dataclass(frozen=True)
class ServerChain:
    """The server's halves of a chain in one round."""

    chain: Chain
    key: tuple[int, ...]

    @property
    def hides_values(self) -> bool:
        return any(each.hides_values for each in self.chain.transforms)

    def decode(self, update: Update) -> Update:
        for each in reversed(self.chain.transforms):
            update = each.decode(update)
        return update

    def before_sum(self, update: Update) -> Update:
        for each in self.chain.transforms:
            update = each.before_sum(update)
        return update

    def after_sum(
        self, totals: dict[str, Total], contributions: Sequence[Contribution]
    ) -> dict[str, Total]:
        for each in reversed(self.chain.transforms):
            generator = numpy_generator(self.chain.seed, "transform-sum", each.name, *self.key)
            totals = each.after_sum(totals, contributions, generator)
        return totals
