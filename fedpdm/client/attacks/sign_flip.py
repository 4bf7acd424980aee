"""Sign flip: malicious sites send the opposite of their update, enlarged.

Li, Xu, Chen, Giannakis, Ling 2019, RSA: Byzantine-Robust Stochastic Aggregation Methods (AAAI).
With the update Δ = w_k − w_t and the strength s, a malicious site sends w_t − s·Δ. Where f of n
sites attack, the mean of alike updates is (n − f − s·f)/n of an honest one: FedAvg learns nothing
at s = (n − f)/f, and beyond it climbs the loss.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedpdm.client.attacks.base import Attack, scaled
from fedpdm.strategies.ranges import check_range
from fedpdm.wire.records import Arrays


class SignFlip(Attack):
    """Sends the opposite update.

    Args:
        strength: s, how many times as long as the honest update it is.
        **common: those of ``Attack``.
    """

    name = "sign_flip"

    def __init__(self, strength: float = 4.0, **common: Any) -> None:
        check_range("strength", strength, block="attack")
        super().__init__(**common)
        self.strength = strength

    def update(self, received: Arrays, trained: Arrays, generator: np.random.Generator) -> Arrays:
        return scaled(received, trained, -self.strength)
