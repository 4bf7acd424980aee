"""Label flip: malicious sites train on wrong labels.

Fang, Cao, Jia, Gong 2020, Local Model Poisoning Attacks to Byzantine-Robust Federated Learning
(USENIX Security): of C classes, label y becomes C − 1 − y. So a failure within the horizon
becomes health, and health a failure; a remaining life becomes the cap minus it. Labels of
training windows alone change; validation and test stay true.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedpdm.client.attacks.base import Attack
from fedpdm.data.windows import Windows
from fedpdm.errors import ConfigError
from fedpdm.federation import Federation


class LabelFlip(Attack):
    """Trains on opposite labels."""

    name = "label_flip"
    poisons = True
    _classes = 2

    def check(self, federation: Federation) -> None:
        task = federation.task
        if not task.learns_labels or not (task.risks or task.lives or task.per_class):
            raise ConfigError(
                f"attack=label_flip turns labels around, and task={task.name} has none that can be "
                "turned; choose another attack, for example attack=sign_flip"
            )
        self._classes = task.classes

    def windows(self, windows: Windows, site: str) -> Windows:
        return replace(windows, y=flipped(windows.y, self._classes))


def flipped(target: NDArray[np.generic], classes: int) -> NDArray[np.generic]:
    """Return opposite targets: of classes, of shares, or of lives as parts of the cap."""
    most = classes - 1 if target.dtype.kind == "i" else 1
    return np.asarray(most - target, target.dtype)
