"""The interface of a transform: what may happen to an update between site and sum.

    class Clip(Transform):                        # in a package of your own
        stage = Stage.CLIP
        def encode(self, update, state, generator): ...

    transforms:                                   # in a yaml of your own
      clip: {_target_: mylab.Clip, bound: 1.0}

A transform sees an update whole: the weights, the buffers, and the records that the
strategy's client half sends beside them. Its client half works before the message is
written, so bytes are counted after it; its server half works around the sum.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, ClassVar, cast

import numpy as np
from flwr.serverapp.strategy import Strategy

from fedpdm.aggregation.sums import Total, adds_up, weighs_by_examples
from fedpdm.aggregation.update import Contribution, Update
from fedpdm.errors import ConfigError
from fedpdm.seeding import numpy_generator
from fedpdm.transforms.downlink import Codec, Downlink
from fedpdm.wire.records import Arrays


class Stage(IntEnum):
    """The order of the client halves, whatever order the config has."""

    CLIP = 1
    NOISE = 2
    COMPRESS = 3
    MASK = 4


class Transform:
    """Does nothing; subclasses override the halves they need.

    Attributes:
        stage: when the client half works.
        needs_sums: the server half works on sums, so the strategy must need nothing else.
        needs_values: the server half reads single updates.
        needs_examples: the client half multiplies by the number of examples (and its ``decode``
            returns the update as ``premultiplied``), so the strategy must weigh by it.
        packs: what ``encode`` returns only its ``decode`` can read: no client half comes after it.
        hides_values: the server cannot read single updates: they are not screened for NaN and
            outliers, and no norm of theirs is known.
        records: which records it changes; None for all that there are.
        name: the key in the config; set by the chain.
        state: what the server half remembers, a tree of plain values and arrays; the history
            keeps it. Empty at first.
    """

    stage: ClassVar[Stage]
    needs_sums: ClassVar[bool] = False
    needs_values: bool = False
    needs_examples: ClassVar[bool] = False
    packs: bool = False
    hides_values: ClassVar[bool] = False
    records: ClassVar[tuple[str, ...] | None] = None
    name: str
    state: dict[str, Any]

    def encode(
        self, update: Update, state: dict[str, Arrays], generator: np.random.Generator
    ) -> Update:
        """Return the update as the site sends it.

        Args:
            update: what the site made of the round, after the transforms before this one.
            state: what this site remembered, arrays by group; empty at first. Changes are
                remembered. Arrays in it must not be changed in place.
            generator: for this site, round and attempt.
        """
        return update

    def decode(self, update: Update) -> Update:
        """Return the update as the server screens it; undoes ``encode`` where that is possible."""
        return update

    def before_sum(self, update: Update) -> Update:
        """Return an accepted update as it is added up."""
        return update

    def after_sum(
        self,
        totals: dict[str, Total],
        contributions: Sequence[Contribution],
        generator: np.random.Generator,
    ) -> dict[str, Total]:
        """Return the sums of a round, by record, as the strategy gets them.

        Args:
            totals: the weighted sums in float64.
            contributions: whose updates they are made of.
            generator: for this round and attempt.
        """
        return totals


class Chain:
    """Transforms, ordered by their stages.

    Args:
        transforms: by the names they have in the config.
        seed: the run's seed; what a transform draws is drawn from it.
    """

    def __init__(self, transforms: Mapping[str, Transform] | None = None, seed: int = 0) -> None:
        named = dict(transforms or {})
        for name, transform in named.items():
            transform.name, transform.state = name, {}
        self.transforms = tuple(sorted(named.values(), key=lambda each: each.stage))
        self.seed = seed
        self.key: tuple[int, ...] = ()
        # Compressions of the model that sites get, of which there may be one (``check``).
        down = [each for each in self.transforms if getattr(each, "down", False)]
        self._down = [each.name for each in down]
        self.down = Downlink(cast(Codec, down[0])) if down else None

    def __len__(self) -> int:
        return len(self.transforms)

    def check(self, strategy: Strategy) -> None:
        """Refuse a chain that cannot work, with itself or with the strategy.

        Raises:
            ConfigError: names the transform and the way out.
        """
        adding, who = adds_up(strategy), type(strategy).__name__
        hiding = [each.name for each in self.transforms if each.hides_values]
        self._check_packing()
        if hiding and getattr(strategy, "needs_norms", False):
            raise ConfigError(
                f"transforms.{hiding[0]} hides the lengths of updates, from which {who} makes its "
                "step; leave one of the two out"
            )
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

    def _check_packing(self) -> None:
        packing = [each.name for each in self.transforms if each.packs]
        for names, way, other in ((packing, "up", "down"), (self._down, "down", "up")):
            if len(names) > 1:
                raise ConfigError(
                    f"transforms.{names[0]} and transforms.{names[1]} both compress on the way "
                    f"{way}; give one of them direction={other}, or leave it out"
                )
        names = [each.name for each in self.transforms if getattr(each, "up", True)]
        for later in names[names.index(packing[0]) + 1 :] if packing else ():
            raise ConfigError(
                f"transforms.{later} would work on what transforms.{packing[0]} has packed; leave "
                "one of the two out"
            )

    def publish(self, version: int, old: Arrays, new: Arrays, attempt: int) -> Arrays:
        """Return the model of a round as sites come to know it.

        Args:
            version: number of the round.
            old: the model of the round before.
            new: what the strategy made of it.
            attempt: how many rollbacks lie before it.
        """
        if self.down is None:
            return new
        key = self._down[0], version, attempt
        return self.down.publish(version, old, new, numpy_generator(self.seed, "down", *key))

    def on_server(self, *key: int) -> Chain | None:
        """Return the chain for the round that ``key`` names; None if there is nothing in it."""
        if not self.transforms:
            return None
        chain = copy.copy(self)
        chain.key = key
        return chain

    @property
    def hides_values(self) -> bool:
        """Whether the server can read sums only, and no update."""
        return any(each.hides_values for each in self.transforms)

    def decode(self, update: Update) -> Update:
        """Undo what a site did that must be undone before screening."""
        for each in reversed(self.transforms):
            update = each.decode(update)
        return update

    def before_sum(self, update: Update) -> Update:
        """Change an accepted update before it is added up."""
        for each in self.transforms:
            update = each.before_sum(update)
        return update

    def after_sum(
        self, totals: dict[str, Total], contributions: Sequence[Contribution]
    ) -> dict[str, Total]:
        """Change the sums of a round."""
        for each in reversed(self.transforms):
            generator = numpy_generator(self.seed, "transform-sum", each.name, *self.key)
            totals = each.after_sum(totals, contributions, generator)
        return totals

    @property
    def state(self) -> dict[str, Any]:
        """What the server halves remember, by transform."""
        return {each.name: each.state for each in self.transforms if each.state}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Let the server halves remember this, and nothing else."""
        for each in self.transforms:
            each.state = dict(state.get(each.name, {}))
