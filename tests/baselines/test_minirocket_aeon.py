"""MiniRocket beside aeon's: the same kernels and biases give the same features.

For development only: aeon asks for an older NumPy, so it lives in an environment of its own
(python -m venv, pip install aeon torch pytest, then this file with PYTHONPATH=. there).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedpdm.baselines.minirocket import KERNELS, Dilation, MiniRocket, dilations, kernels

aeon = pytest.importorskip("aeon.transformations.collection.convolution_based")


def toy(sensors: int, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (300, length, sensors) noise, in half of them with a bump, and which half."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(300, length, sensors)).astype(np.float32)
    y = random.integers(0, 2, 300)
    bump = 1.5 * np.sin(np.arange(12) / 12 * 2 * np.pi)
    for row in np.flatnonzero(y):
        at = random.integers(length - 12)
        x[row, at : at + 12, random.integers(min(sensors, 2))] += bump
    return x, y


@pytest.mark.parametrize(("sensors", "length"), [(1, 90), (8, 64), (3, 12)])
def test_equal_kernels_and_biases_give_equal_features(sensors: int, length: int) -> None:
    x, _ = toy(sensors, length, 0) if length > 12 else (toy(sensors, 30, 0)[0][:, :12], None)
    theirs = aeon.MiniRocket(n_kernels=2016, random_state=0)
    expected = np.asarray(theirs.fit_transform(x.transpose(0, 2, 1).copy()))
    sizes, sensors_of, steps, counts, bias = theirs.parameters
    own_steps, own_counts = dilations(length, 24)
    assert steps.tolist() == own_steps.tolist() and counts.tolist() == own_counts.tolist()
    ours = MiniRocket(x, 2016, seed=0)
    looks_at = np.split(sensors_of, np.cumsum(sizes)[:-1])
    if sensors == 1:
        looks_at = [np.array([0])] * len(looks_at)
    ours.dilations, used = [], 0
    for position, (step, count) in enumerate(zip(steps, counts, strict=True)):
        part = bias[used : used + 84 * count].reshape(84, count)
        used += part.size
        weight = kernels(looks_at[84 * position : 84 * position + 84], sensors)
        padded = (np.arange(len(KERNELS)) + position) % 2 == 0
        ours.dilations.append(Dilation(int(step), weight, torch.from_numpy(part.copy()), padded))
    # Sums in another order: an answer on the very bias may fall to the other side.
    different = np.abs(ours(x) - expected) > 1e-6
    assert different.mean() < 1e-3
    assert np.abs(ours(x) - expected).max() <= 2 / (length - 8 * int(steps[-1])) + 1e-6


@pytest.mark.parametrize(("sensors", "length"), [(1, 90), (8, 64)])
def test_both_classify_equally_well(sensors: int, length: int) -> None:
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    accuracy = []
    for seed in range(3):
        x, y = toy(sensors, length, seed)
        train, test = slice(0, 150), slice(150, None)
        ours = MiniRocket(x[train], 9996, seed=seed)
        theirs = aeon.MiniRocket(n_kernels=9996, random_state=seed)
        theirs.fit(x[train].transpose(0, 2, 1).copy())
        pair = []
        for table in (ours(x), np.asarray(theirs.transform(x.transpose(0, 2, 1).copy()))):
            model = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-3, 3, 10)))
            pair.append(model.fit(table[train], y[train]).score(table[test], y[test]))
        accuracy.append(pair)
    print(f"{sensors} x {length}, ours and aeon's: {accuracy}")
    ours_mean, theirs_mean = np.mean(accuracy, axis=0)
    assert abs(ours_mean - theirs_mean) < 0.05 and min(ours_mean, theirs_mean) > 0.6
