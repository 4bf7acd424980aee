"""Shapley values: the four axioms, closed forms, and sampling within its bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from fedpdm.evaluation.shapley import Game, exact, leave_one_out, sampled, shapley


def table(n: int, seed: int) -> Callable[[tuple[int, ...]], float]:
    """Return a game whose 2^n values are drawn."""
    values = np.random.default_rng(seed).normal(size=2**n)
    return lambda coalition: float(values[sum(1 << i for i in coalition)])


def by_orders(game: Game) -> np.ndarray:
    """Return the Shapley values by their other definition: the mean over all n! orders."""
    total = np.zeros(game.players)
    for order in permutations(range(game.players)):
        for place, player in enumerate(order):
            total[player] += game(order[: place + 1]) - game(order[:place])
    return total / math.factorial(game.players)


@given(st.integers(1, 6), st.integers(0, 1000))
def test_both_definitions_agree_and_values_add_up(n: int, seed: int) -> None:
    game = Game(n, table(n, seed))
    values = exact(game).values
    assert values.sum() == pytest.approx(game(game.all) - game(()), abs=1e-12)
    if n <= 5:
        np.testing.assert_allclose(values, by_orders(game), atol=1e-12)


@given(st.integers(2, 5), st.integers(0, 1000))
def test_players_that_bring_the_same_get_the_same_and_one_without_effect_gets_nothing(
    n: int, seed: int
) -> None:
    inner = table(n, seed)
    # Players n - 1 and n count as one (either is as good as both); n + 1 is never looked at.
    game = Game(n + 2, lambda c: inner(tuple(sorted({min(i, n - 1) for i in c if i <= n}))))
    values = exact(game).values
    assert values[n - 1] == pytest.approx(values[n], abs=1e-12)
    assert values[n + 1] == 0.0
    left = leave_one_out(game).values
    assert left[n - 1] == left[n] == left[n + 1] == 0.0  # neither of two is missed


@given(st.integers(1, 5), st.integers(0, 1000), st.floats(-3, 3))
def test_values_are_linear_in_the_game(n: int, seed: int, factor: float) -> None:
    first, second = table(n, seed), table(n, seed + 1)
    both = exact(Game(n, lambda c: first(c) + factor * second(c))).values
    apart = exact(Game(n, first)).values + factor * exact(Game(n, second)).values
    np.testing.assert_allclose(both, apart, atol=1e-12)


def test_closed_forms() -> None:
    """The glove game; an additive one; an airport (Littlechild and Owen 1973)."""
    left, right = {0}, {1, 2}
    gloves = Game(3, lambda c: float(min(len(left & {*c}), len(right & {*c}))))
    np.testing.assert_allclose(exact(gloves).values, [2 / 3, 1 / 6, 1 / 6])
    worth = [0.5, -0.25, 2.0, 0.0]
    additive = Game(4, lambda c: sum(worth[i] for i in c))
    np.testing.assert_allclose(exact(additive).values, worth, atol=1e-15)
    np.testing.assert_allclose(leave_one_out(additive).values, worth, atol=1e-15)
    cost = [1.0, 3.0, 6.0]
    airport = Game(3, lambda c: max((cost[i] for i in c), default=0.0))
    np.testing.assert_allclose(exact(airport).values, [1 / 3, 1 / 3 + 1, 1 / 3 + 1 + 3])


@pytest.mark.parametrize("n", [2, 4, 6])
def test_sampling_stays_within_its_bound(n: int) -> None:
    """95 % of the errors are below the bound: of 200 draws, not far below that."""
    game, orders = Game(n, table(n, 7)), 30
    truth, quantile = exact(game).values, student.ppf(0.975, orders - 1)
    inside = []
    for seed in range(200):
        found = sampled(game, orders, 0.0, np.random.default_rng(seed))
        assert found.values.sum() == pytest.approx(game(game.all) - game(()), abs=1e-12)
        inside.append(np.abs(found.values - truth) <= quantile * found.errors + 1e-12)
    assert np.mean(inside) > 0.92


def test_an_order_that_is_cut_short_still_adds_up_and_saves_coalitions() -> None:
    def saturating(coalition: Sequence[int]) -> float:
        return 1.0 - 0.1 ** len(coalition)

    whole, short = Game(10, saturating), Game(10, saturating)
    full = sampled(whole, 20, 0.0, np.random.default_rng(0))
    cut = sampled(short, 20, 0.001, np.random.default_rng(0))
    for found in (full, cut):
        assert found.values.sum() == pytest.approx(saturating(range(10)), abs=1e-12)
    # Equal players: each gets a tenth, within what chance and the tolerance allow.
    assert np.abs(cut.values - full.values).max() < 0.001
    assert len(short.known) < len(whole.known) / 2
    nothing = Game(10, lambda c: 0.3)  # between rounds: nothing gained, nobody is asked
    assert not sampled(nothing, 20, 0.001, np.random.default_rng(0)).values.any()
    assert len(nothing.known) == 2


def test_few_players_are_computed_and_many_sampled() -> None:
    for n, sampling in ((2, False), (6, False), (8, True)):
        game = Game(n, table(n, 1))
        found = shapley(game, 20, 0.0, np.random.default_rng(0))
        assert bool(found.errors.any()) is sampling
        assert len(game.known) <= 20 * (n - 1) + 2
