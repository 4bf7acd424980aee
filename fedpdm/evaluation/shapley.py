"""What each of n players brings to a game: leave-one-out and Shapley values, exact and sampled.

A game gives every coalition S of the players a number v(S). Shapley 1953 (A Value for n-Person
Games), as Ghorbani and Zou 2019 (Data Shapley, ICML, equation 1) use it for data:

    phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! · (v(S + i) - v(S))

It is the only value that adds up to v(all) - v(none) (efficiency), is the same for players that
bring the same (symmetry), 0 for one that never changes anything (null player), and linear in v.
Equally phi_i is the mean, over all orders of the players, of what i adds to those before it. So a
random order gives an unbiased estimate, and m orders a standard error s / sqrt(m), where s is the
deviation over orders (Castro, Gómez and Tejada 2009). With many orders the error is below
t(m - 1) · s / sqrt(m) in 95 % of cases; with few orders and long tails that is no guarantee.

An order may be cut short once v(all) - v(S) is within a tolerance (Ghorbani and Zou's truncation;
GTG-Shapley, Liu et al. 2022, ACM TIST, algorithm 1: within a round, and with an empty S between
rounds). The papers give the rest 0. Here the rest share the difference equally, so that the values
still add up; a null player may then get up to tolerance / n. Where all coalitions cost no more than
the orders would, they are computed and nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Value = Callable[[tuple[int, ...]], float]
"""The value of a coalition: players' numbers in rising order."""


@dataclass
class Game:
    """A game that computes no coalition twice.

    Attributes:
        players: how many there are.
        value: of a coalition.
        known: by coalition, what was computed or known before.
    """

    players: int
    value: Value
    known: dict[tuple[int, ...], float] = field(default_factory=dict)

    def __call__(self, coalition: Sequence[int]) -> float:
        key = tuple(sorted(coalition))
        if key not in self.known:
            self.known[key] = self.value(key)
        return self.known[key]

    @property
    def all(self) -> tuple[int, ...]:
        """The coalition of everybody."""
        return tuple(range(self.players))


@dataclass(frozen=True)
class Values:
    """What each player brings.

    Attributes:
        values: (n,) estimates.
        errors: (n,) standard errors; 0 where nothing was sampled.
    """

    values: Floats
    errors: Floats


def leave_one_out(game: Game) -> Values:
    """Return v(all) - v(all but i) for each player.

    These do not add up: of two players who bring the same, neither is missed.
    """
    players = game.all
    values = [game(players) - game([j for j in players if j != i]) for i in players]
    return Values(np.array(values, dtype=np.float64), np.zeros(len(values)))


def exact(game: Game) -> Values:
    """Return the Shapley values from all 2^n coalitions."""
    n = game.players
    values = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for size in range(n):
            weight = 1.0 / (n * comb(n - 1, size))
            for coalition in combinations(others, size):
                values[i] += weight * (game((*coalition, i)) - game(coalition))
    return Values(values, np.zeros(n))


def sampled(game: Game, orders: int, tolerance: float, generator: np.random.Generator) -> Values:
    """Return estimates of the Shapley values from random orders of the players.

    Args:
        game: the players and what coalitions are worth.
        orders: how many are drawn, at least 2.
        tolerance: an order ends when its players come so close to v(all); 0: never early.
        generator: draws the orders.
    """
    n, most = game.players, game(game.all)
    added = np.zeros((orders, n))
    for row in added:
        before, order = game(()), generator.permutation(n)
        for place in range(n):
            if tolerance > 0 and abs(most - before) <= tolerance:
                row[order[place:]] = (most - before) / (n - place)
                break
            now = game(order[: place + 1].tolist())
            row[order[place]] = now - before
            before = now
    return Values(added.mean(0), added.std(0, ddof=1) / np.sqrt(orders))


def shapley(game: Game, orders: int, tolerance: float, generator: np.random.Generator) -> Values:
    """Return the Shapley values: exact where that needs no more coalitions than sampling."""
    n = game.players
    if 2**n - 2 <= orders * (n - 1):
        return exact(game)
    return sampled(game, orders, tolerance, generator)
