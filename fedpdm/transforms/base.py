"""What may happen to an update on its way from a site to the sum.

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

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np

from fedpdm.aggregation.accumulation import Total
from fedpdm.aggregation.update import Contribution, Update
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
        hides_values: the server cannot read single updates: they are not screened for NaN and
            outliers, and no norm of theirs is known.
        records: which records it changes; None for all that there are.
        name: the key in the config; set by the chain.
        state: what the server half remembers, a tree of plain values and arrays; the history
            keeps it. Empty at first.
    """

    stage: ClassVar[Stage]
    needs_sums: ClassVar[bool] = False
    needs_values: ClassVar[bool] = False
    needs_examples: ClassVar[bool] = False
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
