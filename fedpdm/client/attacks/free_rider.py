"""Free rider: malicious sites send what they received, with a little noise, and take the model.

Fraboni, Vidal, Lorenzi 2021, Free-rider Attacks on Model Aggregation in Federated Learning
(AISTATS): plain free riding returns w_t, disguised free riding adds noise. It harms nobody but by
slowing the others: of n sites with f free riders a round moves the model (n − f)/n as far. (The
simulation lets the site train and drops the result, so that its message looks like any other.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedpdm.client.attacks.base import Attack
from fedpdm.strategies.ranges import check_range
from fedpdm.wire.records import Arrays


class FreeRider(Attack):
    """Sends what it received.

    Args:
        noise: deviation of the noise on each value.
        **common: those of ``Attack``.
    """

    name = "free_rider"

    def __init__(self, noise: float = 1e-4, **common: Any) -> None:
        check_range("noise", noise, zero=True, block="attack")
        super().__init__(**common)
        self.noise = noise

    def update(self, received: Arrays, trained: Arrays, generator: np.random.Generator) -> Arrays:
        return {
            name: array + self.noise * generator.standard_normal(array.shape)
            for name, array in received.items()
        }
