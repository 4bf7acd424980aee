"""``check_transform``: the toys pass, and every breach is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedpdm.aggregation.update import Update
from fedpdm.testing import check_transform
from fedpdm.transforms.base import Stage, Transform
from tests.toys.clip_and_noise import ClipAndNoise
from tests.toys.half_codec import HalfCodec


class Plain(Transform):
    stage = Stage.CLIP


class InPlace(Plain):
    def encode(self, update: Update, state: Any, generator: np.random.Generator) -> Update:
        update.arrays["weight"][0] = 0
        return update


class OwnRandom(Plain):
    def encode(self, update: Update, state: Any, generator: np.random.Generator) -> Update:
        noise = np.random.default_rng().normal()
        return update.with_delta({n: d + noise for n, d in update.delta().items()})


class Flattens(Plain):
    def encode(self, update: Update, state: Any, generator: np.random.Generator) -> Update:
        return update.with_delta({**update.delta(), "weight": np.zeros((1, 4, 3), np.float32)})


class Shrinks(Plain):
    def encode(self, update: Update, state: Any, generator: np.random.Generator) -> Update:
        return update.with_delta({n: d / 2 for n, d in update.delta().items()})


class Counts(Plain):
    """Remembers in an attribute, which the history does not keep."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = 0

    def after_sum(self, totals: Any, contributions: Any, generator: Any) -> Any:
        self.rounds += 1
        for total in totals.values():
            for value in total.values.values():
                value += self.rounds * 1e-3
        return totals


def test_the_toys_keep_the_contract() -> None:
    check_transform(Plain, tolerance=0.0)
    check_transform(HalfCodec, tolerance=1e-2)
    check_transform(lambda: ClipAndNoise(0.5, 1e-3))


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (InPlace, "in place"),
        (OwnRandom, "generator that it is given"),
        (Flattens, "other names or shapes"),
        (Shrinks, "away from the original"),
        (Counts, "after a stop and a restart"),
    ],
)
def test_every_breach_is_found(transform: type[Transform], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_transform(transform, tolerance=0.1)
