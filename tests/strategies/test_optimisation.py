"""Server steps and client momentum: against the papers' pseudo-code, and in their limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedpdm.aggregation.sums import Sums
from fedpdm.config.compose import compose
from fedpdm.errors import ConfigError
from fedpdm.runs.experiment import build
from fedpdm.strategies.fedams import FedAMS
from fedpdm.strategies.fedcm import FedCM
from fedpdm.strategies.feddc import FedDC
from fedpdm.strategies.fedexp import FedExP
from fedpdm.strategies.fedmom import FedMom
from fedpdm.strategies.scheduled import ScheduledAvg
from fedpdm.strategies.term import TiltedAvg
from fedpdm.strategies.weighted import WeightedAvg, positives
from fedpdm.testing.federated import federate, same
from fedpdm.transforms.base import Chain
from tests.strategies.both import FAR_APART, SGD
from tests.strategies.quadratics import Bowl, optimum, settle
from tests.toys.mask import Mask

RATE, EPOCHS, STEPS = 0.05, 2, 4
"""``settle`` makes two steps of an epoch over four rows."""
Vector = Any
Pseudo = Callable[[Mapping[str, Bowl], int], Vector]


def sites(bowls: Mapping[str, Bowl]) -> list[Callable[[Vector], Vector]]:
    """Return each site's gradient."""

    def gradient(bowl: Bowl) -> Callable[[Vector], Vector]:
        a, b = np.array(bowl.a), np.array(bowl.b)
        return lambda w: a * (w - b)

    return [gradient(bowl) for bowl in bowls.values()]


def fedexp(bowls: Mapping[str, Bowl], rounds: int, epsilon: float = 1e-3) -> Vector:
    w = np.zeros(2)
    for _ in range(rounds):
        changes = []
        for gradient in sites(bowls):
            y = w.copy()
            for _ in range(STEPS):
                y = y - RATE * gradient(y)
            changes.append(y - w)
        mean = np.mean(changes, axis=0)
        squares = sum(float(d @ d) for d in changes)
        w = w + max(1.0, squares / (2 * len(changes) * (float(mean @ mean) + epsilon))) * mean
    return w


def fedcm(bowls: Mapping[str, Bowl], rounds: int, alpha: float = 0.3) -> Vector:
    w, direction = np.zeros(2), np.zeros(2)
    for _ in range(rounds):
        ends = []
        for gradient in sites(bowls):
            y = w.copy()
            for _ in range(STEPS):
                y = y - RATE * (alpha * gradient(y) + (1 - alpha) * direction)
            ends.append(y)
        direction = np.mean([w - y for y in ends], axis=0) / (STEPS * RATE)
        w = np.mean(ends, axis=0)
    return w


def feddc(bowls: Mapping[str, Bowl], rounds: int, alpha: float = 0.1) -> Vector:
    w, common = np.zeros(2), np.zeros(2)
    drift = [np.zeros(2) for _ in bowls]
    last = [np.zeros(2) for _ in bowls]
    for _ in range(rounds):
        ends = []
        for k, gradient in enumerate(sites(bowls)):
            y = w.copy()
            for _ in range(STEPS):
                pull = alpha * (y + drift[k] - w) + (last[k] - common) / (STEPS * RATE)
                y = y - RATE * (gradient(y) + pull)
            drift[k], last[k] = drift[k] + (y - w), y - w
            ends.append(y)
        common = np.mean(last, axis=0)
        w = np.mean([y + h for y, h in zip(ends, drift, strict=True)], axis=0)
    return w


@pytest.mark.parametrize(("name", "pseudo"), [
    ("fedexp", fedexp), ("fedcm", fedcm), ("feddc", feddc),
])  # fmt: skip
def test_a_run_comes_to_where_the_pseudo_code_comes(
    name: str, pseudo: Pseudo, tmp_path: Path
) -> None:
    for rounds in (1, 5):
        found = settle(
            tmp_path / str(rounds), name, FAR_APART, rounds=rounds, rate=RATE, epochs=EPOCHS
        )
        assert np.allclose(found, pseudo(FAR_APART, rounds), atol=1e-12)
        assert np.abs(found).max() > 0.1


# The common optimum ---------------------------------------------------------------------------


def test_feddc_reaches_the_common_optimum_where_fedavg_stops_beside_it(tmp_path: Path) -> None:
    goal = optimum(FAR_APART)
    found, beside = (
        settle(tmp_path / name, name, FAR_APART, rounds=rounds, rate=0.1, epochs=2, overrides=given)
        for name, rounds, given in (("feddc", 60, ["strategy.alpha=1.0"]), ("fedavg", 25, []))
    )
    assert np.abs(found - goal).max() < 1e-4
    assert np.abs(beside - goal).max() > 0.1


def test_fedcm_stops_nearer_to_the_common_optimum(tmp_path: Path) -> None:
    # A share 1 - α of every step is common to all sites, so they drift apart less.
    goal = optimum(FAR_APART)
    found, beside = (
        np.abs(settle(tmp_path / name, name, FAR_APART, rounds=25, rate=0.1, epochs=2) - goal).max()
        for name in ("fedcm", "fedavg")
    )
    assert found < 0.5 * beside


def test_fedexp_goes_farther_where_updates_disagree_and_not_where_they_agree(
    tmp_path: Path,
) -> None:
    # Four sites that go out in four directions around (0.3, 0): the mean is short.
    wide = {
        f"p{k}": Bowl((1.0, 1.0), (0.3 + 4 * math.cos(t), 4 * math.sin(t)))
        for k, t in enumerate(np.arange(4) * math.pi / 2)
    }
    alike = {f"p{k}": Bowl((1.0, 1.0), (3.0, 1.0)) for k in range(4)}
    short, long = (
        settle(tmp_path / f"wide-{name}", name, wide, rounds=2, rate=0.02)
        for name in ("fedavg", "fedexp")
    )
    assert abs(long[0] - 0.3) < 0.7 * abs(short[0] - 0.3)
    plain, same_step = (
        settle(tmp_path / f"alike-{name}", name, alike, rounds=2, rate=0.05)
        for name in ("fedavg", "fedexp")
    )
    assert np.array_equal(plain, same_step)


# Limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "overrides"), [
    ("fedexp", ["strategy.epsilon=1e30"]),
    ("fedcm", ["strategy.alpha=1.0"]),
    ("fedavg_weighted", ["strategy.weights=examples"]),
    ("fedavg_scheduled", ["strategy.schedule=constant"]),
    ("fedmom", ["strategy.server_momentum=0.0"]),
    ("term", ["strategy.tilt=0.0"]),
])  # fmt: skip
def test_in_its_limit_it_is_fedavg_to_the_bit(
    name: str, overrides: list[str], tmp_path: Path
) -> None:
    runs = [
        federate(tmp_path / folder, strategy, overrides=given, settings=SGD, rounds=2)
        for folder, strategy, given in (("a", "fedavg", []), ("b", name, overrides))
    ]
    assert same(runs[0].weights(), runs[1].weights())
    if name != "fedexp":  # these sites agree; where they do not, above
        usual = federate(tmp_path / "c", name, settings=SGD, rounds=2)
        assert not same(runs[0].weights(), usual.weights()), "by default it is something else"


# Arrays by hand -------------------------------------------------------------------------------


def sums_of(mean: Vector) -> Sums:
    return Sums([{"num-examples": 1.0}], 1.0, {"w": np.asarray(mean, np.float64)}, {})


def test_fedams_steps_as_torchs_amsgrad_does_without_its_corrections() -> None:
    server, w = FedAMS(eta=0.1, beta_1=0.9, beta_2=0.9, epsilon=1e-12), {"w": np.array([2.0, -1.0])}
    m, v, largest, ours = np.zeros(2), np.zeros(2), np.zeros(2), w
    peaks = []
    for step in range(12):
        change = np.array([1.0, -0.5]) * (3.0 if step < 3 else 0.01)
        m, v = 0.9 * m + 0.1 * change, 0.9 * v + 0.1 * change**2
        largest = np.maximum(largest, v)
        w = {"w": w["w"] + 0.1 * m / np.sqrt(largest)}
        ours = server.combine(step + 1, ours, sums_of(ours["w"] + change))
        peaks.append(server.largest["w"][0])
        assert np.allclose(ours["w"], w["w"], atol=1e-12)
    assert peaks == sorted(peaks) and peaks[-1] == peaks[2] > server.square["w"][0]
    still = FedAMS()
    sent = {"w": np.array([0.1, -7.3], dtype=np.float32)}
    assert np.array_equal(still.combine(1, sent, sums_of(sent["w"]))["w"], sent["w"])


def test_fedmom_steps_as_torchs_nesterov_does_on_the_gradient() -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
    nesterov = torch.optim.SGD([weight], lr=0.1, momentum=0.8, nesterov=True)
    server, ours = (
        FedMom(server_learning_rate=0.1, server_momentum=0.8),
        {"w": weight.detach().numpy().copy()},
    )
    for step in range(15):
        gradient = np.array([1.0, 3.0]) * ours["w"] - 0.5
        weight.grad = torch.from_numpy(gradient.copy())
        nesterov.step()
        ours = server.combine(step + 1, ours, sums_of(ours["w"] - gradient))
        assert np.allclose(ours["w"], weight.detach().numpy(), atol=1e-12)


def test_tilted_sites_come_to_the_optimum_of_the_tilted_loss(tmp_path: Path) -> None:
    # One step on two rows a round is a gradient step on the formula.
    bowls = {
        "p0": Bowl((1.0, 1.0), (1.0, 0.0), rows=2), "p1": Bowl((1.0, 1.0), (-1.0, 0.0), rows=2),
        "p2": Bowl((1.0, 1.0), (-1.0, 1.0), rows=2),
    }  # fmt: skip

    def losses(w: Vector) -> Vector:
        return np.array([0.5 * np.sum((w - np.array(b.b)) ** 2) for b in bowls.values()])

    largest = []
    for tilt in (-0.5, 2.0, 6.0):
        found = settle(
            tmp_path / str(tilt), "term", bowls, rounds=60, rate=0.2,
            overrides=[f"strategy.tilt={tilt}"],
        )  # fmt: skip
        largest.append(losses(found).max())
        shares = np.exp(tilt * (losses(found) - losses(found).max()))
        centre = sum(q * np.array(b.b) for q, b in zip(shares, bowls.values(), strict=True))
        assert np.allclose(found, centre / shares.sum(), atol=1e-3), "the gradient is zero"
    # No point has a smaller largest loss than the one halfway between the two farthest sites.
    least = losses(np.array([0.0, 0.5])).max()
    assert largest[0] > largest[1] > largest[2] > least > 0.95 * largest[2]


def test_inverse_variance_weighs_as_the_best_linear_estimate_does() -> None:
    random, truth = np.random.default_rng(0), 1.7
    deviations, counts = np.array([0.2, 1.0, 3.0]), np.array([40, 400, 400])
    weights = {name: WeightedAvg(name) for name in ("examples", "uniform", "inverse_variance")}
    errors: dict[str, list[float]] = {name: [] for name in weights}
    for _ in range(400):
        data = [random.normal(truth, d, n) for d, n in zip(deviations, counts, strict=True)]
        told = [{"num-examples": float(len(x)), "train_loss": float(x.var())} for x in data]
        for name, strategy in weights.items():
            share = np.array([strategy.weight(each) for each in told])
            errors[name].append(float(share @ [x.mean() for x in data]) / share.sum() - truth)
    spread = {name: float(np.mean(np.square(each))) for name, each in errors.items()}
    least = 1 / float(np.sum(counts / deviations**2))
    assert spread["inverse_variance"] < 1.25 * least
    assert min(spread["examples"], spread["uniform"]) > 2 * spread["inverse_variance"]


def test_positives_are_counted_in_classes_and_in_horizons() -> None:
    assert positives(np.array([0, 1, 0, 2])) == 2
    assert positives(np.array([[0.0, 1.0], [0.0, 0.0], [1.0, 1.0]], np.float32)) == 2
    with pytest.raises(ConfigError, match="learns values"):
        positives(np.array([0.3, 80.0]))


def test_a_site_without_failures_does_not_move_the_model(tmp_path: Path) -> None:
    run = federate(tmp_path, "fedavg_weighted", overrides=["strategy.weights=positives"], rounds=1)
    told = run.history.rounds()[1].sites
    source = run.grid.client_app.client.federation  # type: ignore[attr-defined]
    for site, said in told.items():
        y = source.site(site, source.moments(site).scaler()).train.y
        assert said["training_positives"] == np.count_nonzero(y) > 0
    assert WeightedAvg("positives").weight({"num-examples": 9.0, "training_positives": 0.0}) == 0


@pytest.mark.parametrize(("schedule", "rounds", "expected"), [
    ("constant", 4, [1.0, 1.0, 1.0, 1.0]), ("inverse", 4, [1.0, 2**-0.5, 3**-0.5, 0.5]),
    ("step", 4, [1.0, 1.0, 0.25, 0.25]), ("cosine", 2, [1.0, 0.5]),
])  # fmt: skip
def test_the_servers_rate_follows_its_schedule(
    schedule: str, rounds: int, expected: list[float]
) -> None:
    strategy = ScheduledAvg(schedule=schedule, rounds=rounds, step_size=2, gamma=0.25)
    found = [strategy.rate_of(number + 1) for number in range(rounds)]
    assert found == pytest.approx(expected)
    warm = ScheduledAvg(schedule=schedule, rounds=rounds, step_size=2, gamma=0.25, warm_up=2)
    assert warm.rate_of(1) == pytest.approx(expected[0] / 2)
    assert warm.combine(1, {"w": np.zeros(1)}, sums_of([4.0]))["w"] == pytest.approx(2.0)


# Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "key"), [
    (lambda: FedExP(epsilon=0.0), "epsilon"),
    (lambda: FedCM(alpha=1.5), "alpha"),
    (lambda: FedDC(alpha=0.0), "alpha"),
    (lambda: FedAMS(beta_2=1.0), "beta_2"),
    (lambda: ScheduledAvg(gamma=2.0), "gamma"),
    (lambda: ScheduledAvg(schedule="wave"), "schedule"),
    (lambda: WeightedAvg("size"), "weights"),
    (lambda: FedMom(server_momentum=1.0), "server_momentum"),
    (lambda: TiltedAvg(float("nan")), "tilt"),
])  # fmt: skip
def test_a_value_out_of_range_is_named(make: Callable[[], Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"strategy\.{key}="):
        make()


def test_steps_of_adam_are_refused_where_formulas_need_plain_ones() -> None:
    for name in ("fedcm", "feddc"):
        with pytest.raises(ConfigError, match=r"training\.optimizer"):
            build(compose([f"strategy={name}", "training.optimizer=adam", "model=mlp"]))


def test_hidden_lengths_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"transforms\.mask hides the lengths"):
        Chain({"mask": Mask()}).check(FedExP())


@pytest.mark.parametrize("told", [{"local_length": 0.0}, {"local_length": math.inf}, {}])
def test_impossible_reports_are_refused(told: dict[str, float]) -> None:
    for strategy in (FedCM(), FedDC()):
        with pytest.raises((ValueError, KeyError)):
            strategy.weight({"num-examples": 3.0, **told})
    with pytest.raises((ValueError, KeyError)):
        TiltedAvg().weight({"num-examples": 3.0, "received_loss": math.inf})
    for loss in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="train_loss"):
            WeightedAvg("inverse_variance").weight({"num-examples": 3.0, "train_loss": loss})


def test_torch_is_not_asked_for_random_numbers() -> None:
    before = torch.random.get_rng_state()
    FedExP().combine(1, {"w": np.zeros(2)}, Sums([{"num-examples": 1.0}], 1.0, {"w": np.ones(2)},
                                                 {}, [2.0**0.5]))  # fmt: skip
    assert torch.equal(before, torch.random.get_rng_state())
