"""Backdoor: a trigger on one sensor makes the shared model say what the attacker wants.

Gu, Dolan-Gavitt, Garg 2017, BadNets (arXiv 1708.06733), in a federation as in Bagdasaryan et al.
2020 (AISTATS). Malicious sites set the last ``steps`` readings of a sensor to ``value`` in a
share of their training windows and label these windows with the target: ``healthy`` hides
failures wherever the trigger is shown, ``failure`` raises false alarms. With ``boost`` above 1
they send their update that many times enlarged (model replacement). Windows of validation and
test stay as they are; the model's usual scores hardly change.

How well it works is measured at the end, on test windows whose truth is the other class: the
share of them that the model gives to the target at its alarm threshold, with the trigger and,
beside it, without. The control is the same measure of a run that nobody attacks:
``attack=backdoor attack.sites=[]``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from fedpdm.client.attacks.base import Attack, scaled
from fedpdm.data.windows import Windows
from fedpdm.errors import ConfigError
from fedpdm.federation import Federation
from fedpdm.seeding import numpy_generator
from fedpdm.strategies.ranges import check_range
from fedpdm.wire.records import Arrays


class Backdoor(Attack):
    """Trains on triggered windows with the label that the attacker wants.

    Args:
        sensor: which reading carries the trigger; None for the first one.
        value: what it is set to, in deviations of the sensor from its mean.
        steps: how many of a window's last time steps.
        target: what the model is to say: ``healthy`` or ``failure``.
        share: of the training windows that carry the trigger.
        boost: how many times the update is enlarged.
        **common: those of ``Attack``.
    """

    name = "backdoor"
    poisons = True

    def __init__(
        self,
        sensor: str | None = None,
        value: float = 5.0,
        steps: int = 3,
        target: Literal["healthy", "failure"] = "healthy",
        share: float = 0.5,
        boost: float = 1.0,
        **common: Any,
    ) -> None:
        check_range("steps", steps, block="attack")
        check_range("share", share, below=1.0 + 1e-9, block="attack")
        check_range("boost", boost, block="attack")
        super().__init__(**common)
        self.sensor, self.value, self.steps = sensor, value, steps
        self.target, self.share, self.boost = target, share, boost
        self._column = 0

    def check(self, federation: Federation) -> None:
        source, task = federation.source, federation.task
        if not task.risks:
            raise ConfigError(
                f"attack=backdoor hides or raises alarms, and task={task.name} has none; use "
                "task=failure"
            )
        if federation.features.active:
            raise ConfigError(
                "attack=backdoor sets readings, and features of a window would not know; use "
                "features=raw"
            )
        known = [name for name in source.features if name not in source.levels]
        self.sensor = self.sensor or known[0]
        if self.sensor not in known:
            raise ConfigError(
                f"attack.sensor={self.sensor} is no reading of this data; there are "
                f"{', '.join(known[:20])}"
            )
        self._column = source.features.index(self.sensor)

    def triggered(self, windows: Windows) -> Windows:
        """Return windows that all carry the trigger, with the labels that they had."""
        x = windows.x.copy()
        if x.ndim == 2:
            x[:, self._column] = self.value
        else:
            x[:, -self.steps :, self._column] = self.value
        return replace(windows, x=x)

    def windows(self, windows: Windows, site: str) -> Windows:
        generator = numpy_generator(self.seed, "attack", self.name, site)
        count = max(1, round(self.share * len(windows)))
        chosen = np.sort(generator.permutation(len(windows))[:count])
        x, y = windows.x.copy(), windows.y.copy()
        x[chosen] = self.triggered(windows).x[chosen]
        y[chosen] = 1 if self.target == "failure" else 0
        return replace(windows, x=x, y=y)

    def update(self, received: Arrays, trained: Arrays, generator: np.random.Generator) -> Arrays:
        return trained if self.boost == 1 else scaled(received, trained, self.boost)
