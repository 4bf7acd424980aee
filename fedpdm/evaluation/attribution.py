"""Which sensors drive a score: Shapley values of sensors, against a machine's own calm windows.

After Štrumbelj and Kononenko, "Explaining prediction models and individual predictions with feature
contributions", Knowledge and Information Systems 41 (2014), Algorithm 1: of a window x and a
reference r, v(A) is the score of the window whose sensors in A read as in x and all others as in r,
and the value of sensor j is the mean over orders of v(those before it and j) - v(those before it).
Each order is taken backwards, too. The values of a window add up to v(all) - v(none), in any order.

The score is the log-odds of the nearest risk, or a remaining life with its sign turned: higher is
worse. The reference is the mean of the machine's own earlier windows whose score lies in its better
half, so that a value says what has changed at this machine and not how it differs from others;
without three such windows it is the mean of all training data, 0 in scaled readings. Everything
that a model sees of a sensor, its statistics and its history too, counts as that sensor.

Shapes: N windows, C inputs of a model, G groups of inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fedpdm.data.rows import Floats, Floats32, Ints, Strings
from fedpdm.seeding import numpy_generator
from fedpdm.tasks import Task

ORDERS = 8
"""Orders that are drawn, each of which is taken forwards and backwards."""
ENOUGH = 3
"""Calm windows that make a reference."""
MOST = 500
"""Calm windows that are taken, the newest."""
TINY = 1e-7
"""Risks end so near to 0 and 1: log-odds need an end."""


def badness(task: Task, scores: Floats) -> Floats:
    """Return (N,) how bad (N,) or (N, H) scores are: log-odds of a risk, or minus a life."""
    columns = np.asarray(scores, dtype=np.float64).reshape(len(scores), -1)
    if not task.risks:
        return -columns[:, 0]
    risk = np.clip(columns[:, task.risks[0].column or 0], TINY, 1 - TINY)
    return np.asarray(np.log(risk) - np.log1p(-risk))


def inputs_of(sensors: Sequence[str], inputs: Sequence[str]) -> dict[str, Ints]:
    """Return by sensor the positions of a model's inputs that are made from it.

    Args:
        sensors: names of the readings.
        inputs: (C,) names of the model's inputs; one made from a sensor is called after it,
            ``vibration: mean``. One that belongs to no sensor is a group of its own.
    """
    found: dict[str, list[int]] = {}
    for position, name in enumerate(inputs):
        owners = [s for s in sensors if name == s or name.startswith(f"{s}: ")]
        found.setdefault(max(owners, key=len, default=name), []).append(position)
    return {name: np.array(positions) for name, positions in found.items()}


def reference(
    windows: Callable[[Ints], Floats32], machine: Strings, bad: Floats, at: Ints
) -> Floats32:
    """Return (M, …, C) what each of M windows is compared with.

    Args:
        windows: gives the windows at some of N positions; those of a machine are in the order of
            time.
        machine: (N,) their machines.
        bad: (N,) how bad each is.
        at: (M,) positions of the windows that are explained.
    """
    found = np.zeros_like(windows(at))
    for number, position in enumerate(at):
        before = np.flatnonzero(machine[:position] == machine[position])
        calm = before[bad[before] <= np.median(bad[before])][-MOST:] if len(before) else before
        if len(calm) >= ENOUGH:
            found[number] = windows(calm).mean(axis=0)
    return found


def shapley(
    score: Callable[[Floats32], Floats],
    x: Floats32,
    against: Floats32,
    groups: Mapping[str, Ints],
    seed: int,
    orders: int = ORDERS,
) -> Floats:
    """Return (N, G) the value of each group of inputs.

    Args:
        score: gives (N,) scores of (N, …, C) windows, higher is worse.
        x: (N, …, C) windows.
        against: (N, …, C) their references.
        groups: positions of inputs by name.
        seed: of the orders.
        orders: how many are drawn.
    """
    positions, generator = list(groups.values()), numpy_generator(seed, "attribution")
    found = np.zeros((len(x), len(positions)))
    for _ in range(orders):
        order = generator.permutation(len(positions))
        for taken in (order, order[::-1]):
            mixed = np.repeat(
                against[None], len(positions) + 1, axis=0
            )  # one sensor more each time
            for place, group in enumerate(taken, start=1):
                mixed[place:, ..., positions[group]] = x[..., positions[group]]
            scores = score(mixed.reshape(-1, *x.shape[1:])).reshape(len(mixed), len(x))
            found[:, taken] += np.diff(scores, axis=0).T
    return found / (2 * orders)
