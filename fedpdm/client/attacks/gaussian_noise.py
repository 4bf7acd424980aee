"""Gaussian noise: malicious sites send the received model plus noise, instead of an update.

Blanchard, El Mhamdi, Guerraoui, Stainer 2017, Machine Learning with Adversaries (NeurIPS), whose
Byzantine workers send vectors of independent Gaussian values. Each value of what is sent is w_t +
σ·N(0, 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedpdm.client.attacks.base import Attack
from fedpdm.strategies.ranges import check_range
from fedpdm.wire.records import Arrays


class GaussianNoise(Attack):
    """Sends noise.

    Args:
        deviation: σ, of each value.
        **common: those of ``Attack``.
    """

    name = "gaussian_noise"

    def __init__(self, deviation: float = 0.5, **common: Any) -> None:
        check_range("deviation", deviation, block="attack")
        super().__init__(**common)
        self.deviation = deviation

    def update(self, received: Arrays, trained: Arrays, generator: np.random.Generator) -> Arrays:
        return {
            name: array + self.deviation * generator.standard_normal(array.shape)
            for name, array in received.items()
        }
