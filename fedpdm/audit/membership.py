"""Membership inference: was a window in the training data? A threshold on the model's loss.

Yeom et al. 2018, Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting (CSF),
section 3: a model's loss is lower on what it was trained on, so whoever knows a window and its
target says "member" where the loss is below a threshold.

- AUC: the probability that a member has a lower loss than a window that was never used; 0.5 is
  guessing.
- Advantage: true positive rate minus false positive rate. The threshold is chosen on one half of
  the machines and applied to the other, and the other way round: chosen and measured on the same
  windows, a useless attack would seem to work.

Intervals draw whole machines with replacement, members and others apart: windows of a machine
are alike. Under (ε, δ) no attack on one unit has an advantage above (e^ε − 1 + 2δ)/(e^ε + 1), the
corner of the region of Kairouz, Oh and Viswanath 2015 (The Composition Theorem for Differential
Privacy, ICML).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.errors import DataError
from fedpdm.seeding import numpy_generator

Floats = NDArray[np.float64]

LEAST = 20
"""Members, and windows never used, below which nothing is measured."""


@dataclass(frozen=True)
class Losses:
    """Losses of windows, and whose they are.

    Attributes:
        loss: (N,) of each.
        machine: (N,) names or numbers; none is in both of two groups that are compared.
    """

    loss: Floats
    machine: NDArray[Any]

    def __len__(self) -> int:
        return len(self.loss)

    @classmethod
    def joined(cls, parts: Sequence[Losses]) -> Losses:
        """Return the windows of several sites."""
        return cls(
            np.concatenate([part.loss for part in parts]),
            np.concatenate([part.machine for part in parts]),
        )

    def numbered(self) -> Losses:
        """Return the same with numbers for machines: names take far longer to compare."""
        return Losses(self.loss, np.unique(self.machine, return_inverse=True)[1])


def auc(members: Floats, others: Floats) -> float:
    """Return the probability that a member has the lower loss; equal ones count half.

    Args:
        members: (N,) losses.
        others: (M,) losses.
    """
    ordered = np.sort(members)
    below = np.searchsorted(ordered, others, "left")
    equal = np.searchsorted(ordered, others, "right") - below
    return float((below + equal / 2).sum() / (len(members) * len(others)))


def threshold(members: Floats, others: Floats) -> float:
    """Return the loss up to which "member" is right most often, both groups counting alike."""
    places = np.unique(np.concatenate([members, others]))
    caught = np.searchsorted(np.sort(members), places, "right") / len(members)
    wrong = np.searchsorted(np.sort(others), places, "right") / len(others)
    return float(places[np.argmax(caught - wrong)])


def advantage(members: Losses, others: Losses, halves: tuple[Any, Any]) -> float:
    """Return the true minus the false positive rate of thresholds chosen on the other half.

    Args:
        members: of the training data.
        others: never used.
        halves: for each of the two, the machines of the first half.
    """
    found = []
    for first in (True, False):
        parts = []
        for group, half in zip((members, others), halves, strict=True):
            inside = np.isin(group.machine, half)
            parts.append((group.loss[inside == first], group.loss[inside != first]))
        (m_choose, m_judge), (o_choose, o_judge) = parts
        if min(map(len, (m_choose, m_judge, o_choose, o_judge))) == 0:
            raise DataError("the audit needs two machines in training and two that were never used")
        at = threshold(m_choose, o_choose)
        found.append(float(np.mean(m_judge <= at) - np.mean(o_judge <= at)))
    return float(np.mean(found))


def attacked(members: Losses, others: Losses, seed: int, resamples: int = 200) -> dict[str, Any]:
    """Return the attack's AUC and advantage with 95 % intervals over machines.

    Args:
        members: losses of the training windows.
        others: losses of windows that were never used, of other machines.
        seed: draws halves and resamples.
        resamples: of machines, for the intervals.

    Raises:
        DataError: there are too few windows or machines.
    """
    if min(len(members), len(others)) < LEAST:
        raise DataError(
            f"the audit needs {LEAST} training windows and {LEAST} of machines that were never "
            f"used, and there are {len(members)} and {len(others)}; take a run with more machines"
        )
    members, others = members.numbered(), others.numbered()
    values = np.array([_measured(members, others, seed, 0)])
    rows = []
    for draw in range(1, resamples + 1):
        first, second = _resampled(members, seed, 0, draw), _resampled(others, seed, 1, draw)
        rows.append(_measured(first, second, seed, draw))
    drawn = np.array(rows)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return {
        name: {"value": float(values[0, i]), "low": float(low[i]), "high": float(high[i])}
        for i, name in enumerate(("auc", "advantage"))
    } | {
        "members": len(members), "others": len(others),
        "machines": [len(np.unique(members.machine)), len(np.unique(others.machine))],
    }  # fmt: skip


def _measured(members: Losses, others: Losses, seed: int, draw: int) -> tuple[float, float]:
    halves = tuple(
        _half(np.unique(group.machine), seed, name, draw)
        for name, group in (("members", members), ("others", others))
    )
    return auc(members.loss, others.loss), advantage(members, others, (halves[0], halves[1]))


def _half(machines: NDArray[Any], seed: int, name: str, draw: int) -> NDArray[Any]:
    order = numpy_generator(seed, "audit-half", name, draw).permutation(len(machines))
    return machines[order[: len(machines) // 2]]


def _resampled(losses: Losses, seed: int, group: int, draw: int) -> Losses:
    """Return the windows of machines drawn with replacement; one drawn twice counts twice."""
    names, place = np.unique(losses.machine, return_inverse=True)
    generator = numpy_generator(seed, "audit-machines", group, draw)
    times = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
    while np.count_nonzero(times) < 2:  # two halves are needed
        times = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
    index = np.repeat(np.arange(len(losses)), times[place])
    return Losses(losses.loss[index], losses.machine[index])


def bound(epsilon: float | None, delta: float) -> float:
    """Return the largest advantage that (ε, δ) allows against one unit; 1 without a bound."""
    if epsilon is None:
        return 1.0
    return float(min(1.0, (math.expm1(epsilon) + 2 * delta) / (math.exp(epsilon) + 1)))
