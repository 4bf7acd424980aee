"""Scaling (model replacement): malicious sites send their update many times enlarged.

Bagdasaryan, Veit, Hua, Estrin, Shmatikov 2020, How To Backdoor Federated Learning (AISTATS). A
malicious site sends w_t + γ·(w_k − w_t); with γ near n the mean is what that site wants. Without
poisoned data it is a site whose step is γ times too long. The backdoor has the factor as
``boost``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedpdm.client.attacks.base import Attack, scaled
from fedpdm.strategies.ranges import check_range
from fedpdm.wire.records import Arrays


class Scaling(Attack):
    """Sends an enlarged update.

    Args:
        factor: γ.
        **common: those of ``Attack``.
    """

    name = "scaling"

    def __init__(self, factor: float = 20.0, **common: Any) -> None:
        check_range("factor", factor, block="attack")
        super().__init__(**common)
        self.factor = factor

    def update(self, received: Arrays, trained: Arrays, generator: np.random.Generator) -> Arrays:
        return scaled(received, trained, self.factor)
