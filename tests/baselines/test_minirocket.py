"""MiniRocket: kernels that answer a constant with 0, shares between 0 and 1, nothing from test."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedpdm.baselines.minirocket import (
    KERNELS,
    LENGTH,
    MiniRocket,
    convolve,
    dilations,
    kernels,
    low_discrepancy,
    subsets,
)


def windows(count: int = 40, length: int = 30, sensors: int = 3, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(count, length, sensors)).astype(np.float32)


def test_there_are_84_kernels_with_three_weights_2_and_six_weights_minus_1() -> None:
    weight = kernels([np.array([0])] * 84, 1)
    assert len(KERNELS) == 84 and weight.shape == (84, 1, LENGTH)
    assert len(np.unique(weight.numpy(), axis=0)) == 84
    assert ((weight == 2).sum(2) == 3).all() and ((weight == -1).sum(2) == 6).all()
    assert torch.equal(weight.sum(2), torch.zeros(84, 1))


def test_a_convolution_is_the_sum_of_weighted_steps() -> None:
    x = windows(1, 12, 2)
    weight = kernels([np.array([0, 1])] * 84, 2)
    answer = convolve(torch.from_numpy(x), weight, 1)[0, 7].numpy()
    padded = np.pad(x[0], ((4, 4), (0, 0)))
    expected = [float(np.sum(padded[t : t + 9].T * weight[7].numpy())) for t in range(12)]
    assert answer == pytest.approx(expected, abs=1e-4)


def test_the_level_of_a_sensor_does_not_matter_where_no_padding_reaches() -> None:
    x = torch.from_numpy(windows(2, 30, 1))
    weight = kernels([np.array([0])] * 84, 1)
    low, high = (convolve(x + level, weight, 2)[:, :, 8:-8] for level in (0.0, 5.0))
    assert torch.allclose(low, high, atol=1e-4)


@pytest.mark.parametrize("length", [9, 12, 30, 90, 500])
@pytest.mark.parametrize("features", [1, 24, 119])
def test_dilations_fit_into_the_window_and_use_every_feature(length: int, features: int) -> None:
    steps, counts = dilations(length, features)
    assert counts.sum() == features and (counts >= 0).all()
    assert steps[0] == 1 and (LENGTH - 1) * steps[-1] <= length - 1
    assert (np.diff(steps) > 0).all()


@pytest.mark.parametrize(("asked", "made"), [(9996, 9996), (10_000, 9996), (1, 84), (500, 420)])
def test_features_are_a_multiple_of_the_kernels(asked: int, made: int) -> None:
    transform = MiniRocket(windows(length=90, sensors=1), asked, seed=0)
    assert transform.features == made == transform(windows(2, 90, 1)).shape[1]


@pytest.mark.parametrize("length", [9, 12, 30])
@pytest.mark.parametrize("sensors", [1, 3, 14])
def test_features_are_shares(length: int, sensors: int) -> None:
    x = windows(20, length, sensors)
    found = MiniRocket(x, 840, seed=1)(x)
    assert found.shape == (20, 840) and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1 and 0.3 < found.mean() < 0.7
    steps = np.unique(np.round(found * length * (length - 8), 3))
    assert len(steps) > 5


def test_shares_count_the_steps_above_a_bias() -> None:
    x = windows(5, 12, 2)
    transform = MiniRocket(x, 84 * 5, seed=0)
    (part,) = transform.dilations
    answers = convolve(torch.from_numpy(x), part.weight, 1)
    found = transform(x).reshape(5, 84, 5)
    whole, inner = answers[3, 2], answers[3, 3, 4:-4]  # every second kernel leaves out its ends
    assert found[3, 2, 1] == pytest.approx(float((whole > part.bias[2, 1]).float().mean()))
    assert found[3, 3, 1] == pytest.approx(float((inner > part.bias[3, 1]).float().mean()))


def test_the_same_seed_gives_the_same_features_and_another_seed_others() -> None:
    x = windows()
    first, again, other = (MiniRocket(x, 168, seed=seed)(x) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_biases_come_from_training_windows_alone_and_one_window_does_not_move_another() -> None:
    train, test = windows(seed=1), windows(seed=2)
    transform = MiniRocket(train, 840, seed=0)
    before = [part.bias.clone() for part in transform.dilations]
    alone = transform(test)
    together = transform(np.concatenate([1000 * train, test]))[len(train) :]
    assert np.array_equal(alone, together)
    assert all(torch.equal(a, b.bias) for a, b in zip(before, transform.dilations, strict=True))
    answers = convolve(torch.from_numpy(train), transform.dilations[0].weight, 1)
    bias = transform.dilations[0].bias
    assert (bias <= answers.amax((0, 2))[:, None]).all()
    assert (bias >= answers.amin((0, 2))[:, None]).all()


def test_kernels_look_at_one_to_nine_sensors() -> None:
    found = subsets(2000, 14, np.random.default_rng(0))
    sizes = np.array([len(chosen) for chosen in found])
    assert sizes.min() == 1 and sizes.max() == 9 and (sizes <= 2).mean() > 0.4
    assert all(len(set(chosen.tolist())) == len(chosen) for chosen in found)
    assert {len(chosen) for chosen in subsets(50, 1, np.random.default_rng(0))} == {1}


def test_quantiles_fill_the_unit_interval_evenly() -> None:
    counts = np.histogram(low_discrepancy(1000), bins=10, range=(0, 1))[0]
    assert counts.min() >= 98 and counts.max() <= 102


@pytest.mark.parametrize("shape", [(5, 8, 2), (0, 20, 2), (5, 20)])
def test_what_cannot_be_transformed_is_said(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="windows of at least 9 time steps"):
        MiniRocket(np.zeros(shape, dtype=np.float32), seed=0)


def test_no_windows_have_no_features() -> None:
    assert MiniRocket(windows(), 84, seed=0)(windows(0)).shape == (0, 84)
