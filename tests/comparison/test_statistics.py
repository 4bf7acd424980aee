"""The statistics of a comparison: closed forms, brute force, and what they claim by chance."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.comparison import measure
from fedpdm.comparison.statistics import (
    DRAWS,
    cliques,
    critical_difference,
    effect,
    hedges,
    holm,
    paired_test,
    ranking,
    ranks,
    sign_flip,
    skewness_corrected,
    smallest_p,
)

# The permutation test ---------------------------------------------------------------------


def brute_force(differences: list[int]) -> float:
    """The definition in whole numbers: every choice of signs, ties counted."""
    observed = abs(sum(differences))
    flips = list(product((1, -1), repeat=len(differences)))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in flips]
    return sum(total >= observed for total in sums) / len(flips)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8), st.sampled_from([1.0, 0.1, 1e-9]))
def test_the_p_value_is_that_of_counting_every_flip_ties_included(
    differences: list[int], unit: float
) -> None:
    # In tenths the sums are not exact in binary: ties must be found all the same.
    assert sign_flip(np.array(differences) * unit) == pytest.approx(brute_force(differences))


def test_it_agrees_with_scipys_permutation_test() -> None:
    d = np.random.default_rng(3).normal(0.4, 1.0, 9)
    other = stats.permutation_test(
        (d,), lambda x, axis: x.sum(axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=np.inf,
    )  # fmt: skip
    assert sign_flip(d) == pytest.approx(other.pvalue)


@pytest.mark.parametrize("pairs", [1, 2, 5, 6, 10, 20])
def test_a_difference_that_never_changes_sign_has_the_smallest_p_value(pairs: int) -> None:
    assert sign_flip(np.linspace(1, 2, pairs)) == min(1.0, 2 / 2**pairs) == smallest_p(pairs)
    assert (smallest_p(pairs) <= 0.05) == (pairs >= 6)


def test_no_difference_at_all_gives_one() -> None:
    assert sign_flip(np.zeros(7)) == 1.0
    assert sign_flip(np.zeros(30)) == 1.0


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_sign_order_and_scale_do_not_matter(differences: list[float]) -> None:
    d = np.array(differences)
    p = sign_flip(d)
    assert sign_flip(-d) == pytest.approx(p) and sign_flip(d[::-1]) == pytest.approx(p)
    assert 2 / 2 ** len(d) <= p + 1e-12 and p <= 1


def test_rows_are_tests_of_their_own() -> None:
    d = np.random.default_rng(1).normal(size=(4, 5, 8))
    together = sign_flip(d)
    assert together.shape == (4, 5)
    assert together[2, 3] == sign_flip(d[2, 3])


def test_many_pairs_are_drawn_with_a_seed_and_come_close_to_the_exact_value() -> None:
    d = np.random.default_rng(5).normal(0.3, 1.0, 22)
    drawn = sign_flip(d, seed=1)
    assert drawn == sign_flip(d, seed=1) and drawn != sign_flip(d, seed=2)
    sums = np.array([0.0])
    for value in d:
        sums = np.concatenate([sums + value, sums - value])
    exact = np.mean(np.abs(sums) >= abs(d.sum()) * (1 - 1e-12))
    assert drawn == pytest.approx(exact, abs=5 * math.sqrt(exact / DRAWS))
    assert sign_flip(np.ones(30)) == smallest_p(30) == 1 / (DRAWS + 1), "never zero"


@pytest.mark.parametrize("bad", [np.array([]), np.array([1.0, np.nan]), np.array([np.inf])])
def test_nothing_and_nan_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError):
        sign_flip(bad)


def test_it_claims_few_differences_that_are_not_there_and_finds_those_that_are() -> None:
    found = measure()
    assert found["alike"]["claimed"] <= 0.065
    assert found["planted"]["found"] >= 0.80
    assert found["met"] is True
    other = measure(seed=7)
    assert other["alike"]["claimed"] <= 0.065 and other["planted"]["found"] >= 0.80
    assert other["alike"] != found["alike"]


# Correction and effect --------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04: times 4, 3, 2, 1 = .02 .03 .06 .04, and never below the last.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, None, 0.6]) == pytest.approx([1.0, None, 1.0])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_raw_value_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    corrected = [value for value in holm(p) if value is not None]
    for raw, value in zip(p, corrected, strict=True):
        assert raw <= value <= min(1.0, raw * len(p)) + 1e-12 or value <= 1.0
    order = sorted(range(len(p)), key=lambda i: p[i])
    assert [corrected[i] for i in order] == sorted(corrected)
    assert min(corrected) == pytest.approx(min(1.0, min(p) * len(p)))


def test_the_effect_in_closed_form() -> None:
    d = np.array([1.0, 2.0, 3.0, 4.0])
    found = effect(d)
    deviation = math.sqrt(5 / 3)
    assert (found.pairs, found.mean) == (4, 2.5)
    assert found.deviation == pytest.approx(deviation)
    half = 3.182446 * deviation / 2  # t of .975 with 3 degrees of freedom
    assert (found.low, found.high) == (
        pytest.approx(2.5 - half, abs=1e-5), pytest.approx(2.5 + half, abs=1e-5),
    )  # fmt: skip
    # J(3) = Γ(1.5) / (√1.5 Γ(1)) = .7236
    assert found.size == pytest.approx(0.7236 * 2.5 / deviation, abs=1e-4)


def test_hedges_correction_takes_the_bias_away() -> None:
    d = np.random.default_rng(0).normal(0.8, 1.0, size=(20_000, 5))
    sizes = np.array([hedges(row) for row in d])
    assert sizes.mean() == pytest.approx(0.8, abs=0.02)
    assert (d.mean(axis=1) / d.std(axis=1, ddof=1)).mean() > 0.95, "without it: too large"


def test_too_few_pairs_have_no_effect_size() -> None:
    assert hedges(np.array([1.0, 2.0])) is None
    assert hedges(np.array([0.2, 0.2, 0.2])) is None
    alone = effect(np.array([0.1]))
    assert (alone.deviation, alone.low, alone.size) == (None, None, None)


# Ranks ------------------------------------------------------------------------------------


def test_friedman_agrees_with_scipy_and_imans_correction() -> None:
    table = np.random.default_rng(2).normal(size=(9, 4)) + np.array([0, 0.2, 0.4, 1.0])
    found = ranking(table)
    chi2 = stats.friedmanchisquare(*table.T).statistic
    f = 8 * chi2 / (9 * 3 - chi2)
    assert found.p_value == pytest.approx(stats.f.sf(f, 3, 24))
    assert found.mean == pytest.approx(tuple(ranks(table).mean(axis=0)))
    assert sum(found.mean) == pytest.approx(4 * 5 / 2)


def test_friedman_with_ties_agrees_with_scipy() -> None:
    table = np.round(np.random.default_rng(4).normal(size=(8, 3)), 0)
    chi2 = stats.friedmanchisquare(*table.T).statistic
    assert ranking(table).p_value == pytest.approx(stats.f.sf(7 * chi2 / (8 * 2 - chi2), 2, 14))


@pytest.mark.parametrize(("settings", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_of_demsars_table(settings: int, q: float) -> None:
    assert critical_difference(settings, 12) == pytest.approx(
        q * math.sqrt(settings * (settings + 1) / 72), rel=1e-3
    )


def test_lower_is_better_turns_ranks_round() -> None:
    table = np.array([[1.0, 2.0, 3.0]] * 6)
    assert ranking(table, higher_is_better=False).mean == (1.0, 2.0, 3.0)
    found = ranking(table)
    assert found.mean == (3.0, 2.0, 1.0) and found.p_value == 0.0


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (np.zeros((0, 3)), "no seed"),
        (np.ones((9, 2)), "three settings"),
        (np.arange(15.0).reshape(5, 3), "6 blocks"),
        (np.ones((8, 3)), "same in every block"),
    ],
)
def test_it_says_when_ranks_cannot_be_tested(table: np.ndarray, why: str) -> None:
    found = ranking(table)
    assert found.critical is None and found.p_value is None
    assert found.undefined is not None and why in found.undefined


def test_groups_that_cannot_be_told_apart() -> None:
    assert cliques([1.0, 2.5, 1.8, 4.0], 1.0) == [(0, 2), (2, 1)]
    assert cliques([1.0, 1.1, 1.2], 5.0) == [(0, 1, 2)]
    assert cliques([1.0, 3.0], 1.0) == []
    assert cliques([1.0, 2.0], 1.0) == [], "exactly the critical difference is enough"


def test_without_skewness_the_correction_is_the_t_test() -> None:
    d = np.array([[1.0, 2.0, 3.0, 4.0, 5.0], [-1.0, 0.5, 2.0, 3.5, 5.0]])
    assert skewness_corrected(d) == pytest.approx(stats.ttest_1samp(d, 0, axis=1).pvalue, abs=1e-6)
    assert skewness_corrected(np.full((1, 4), 2.0)) == 0 and skewness_corrected(np.zeros(4)) == 1


def test_of_skewed_differences_few_equal_settings_are_called_different() -> None:
    d = np.random.default_rng(1).exponential(size=(4000, 10)) - 1
    assert np.mean(sign_flip(d) <= 0.05) > 0.08
    assert np.mean(paired_test(d) <= 0.05) < 0.065
    assert (paired_test(d) >= sign_flip(d)).all()
