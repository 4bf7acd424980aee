"""A transform: each two sites add masks that cancel in the sum, made of numbers that all publish.
Not secure: what is published is the secret itself."""

from dataclasses import replace
from typing import Any

import numpy as np

from fedpdm.aggregation.update import Update
from fedpdm.seeding import key_seed, numpy_generator
from fedpdm.transforms.base import Stage, Transform

RING, STEP = 2**44, 2.0**-20


def number_of(site: str) -> int:
    return key_seed(5, site) % 2**30


class Mask(Transform):
    """The train config brings the ``numbers`` of all sites; values are whole steps in a ring."""

    stage, hides_values, needs_sums, needs_examples = Stage.MASK, True, True, True

    def encode(self, update: Update, state: Any, generator: Any) -> Update:
        own, masked = number_of(update.site), {}
        for record, arrays in update.records.items():
            whole = {n: np.round(a * update.weight / STEP) for n, a in arrays.items()}
            for other in set(update.base.config["numbers"]) - {own}:
                shared = numpy_generator(own ^ other, record)
                for n, a in arrays.items():
                    mask = shared.integers(RING, size=a.shape)
                    whole[n] = (whole[n] + (mask if own < other else -mask)) % RING
            masked[record] = whole
        return replace(update, records=masked)

    def decode(self, update: Update) -> Update:
        return replace(update, premultiplied=True)

    def after_sum(self, totals: Any, contributions: Any, generator: Any) -> Any:
        for total in totals.values():
            for n, value in total.values.items():
                total.values[n] = (value - RING * np.round(value / RING)) * STEP
        return totals
