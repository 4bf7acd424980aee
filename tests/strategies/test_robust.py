"""Robust strategies: breakdown in closed form, limits, and that no order of sites matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp.exception import AggregationError
from numpy.typing import NDArray

from fedpdm.errors import ConfigError
from fedpdm.strategies.centred_clipping import CentredClipping
from fedpdm.strategies.checkpoint import capture, restore
from fedpdm.strategies.dnc import DnC, stretches
from fedpdm.strategies.fltrust import FLTrust
from fedpdm.strategies.norm_clipping import NormClipping
from fedpdm.strategies.outlier_detection import OutlierDetection, robust_z
from fedpdm.strategies.rfa import RFA, geometric_median
from fedpdm.strategies.robust import RobustStrategy, Updates
from fedpdm.testing.federated import federate, same
from fedpdm.wire.flower import become_server
from fedpdm.wire.records import ARRAYS, METRICS, from_record, metric_record, to_record
from tests.toys.two_models import TwoModels

FAR = 1e6
MAKERS = (
    RFA,
    NormClipping,
    CentredClipping,
    lambda: FLTrust(root="s2"),
    OutlierDetection,
    lambda: DnC(num_malicious=2),
)


def updates(deltas: Any, start: Any = None) -> Updates:
    points = np.asarray(deltas, dtype=np.float64)
    count, size = points.shape
    names = [f"s{n}" for n in range(count)]
    begun = np.zeros(size) if start is None else np.asarray(start, dtype=np.float64)
    return Updates(begun, points, np.full(count, 1 / count), names, names)


def honest(count: int = 9, size: int = 20, seed: int = 0) -> NDArray[np.float64]:
    """Return updates of length about 1 that point alike."""
    random = np.random.default_rng(seed)
    common = random.normal(size=size)
    found = common / np.linalg.norm(common) + 0.1 * random.normal(size=(count, size))
    return np.asarray(found)


@pytest.mark.parametrize("make", MAKERS)
def test_the_order_of_sites_does_not_matter(make: Any) -> None:
    asked = updates(np.vstack([honest(6), 30 * honest(1, seed=5), -honest(1)]))
    order = np.random.default_rng(3).permutation(8)
    turned = Updates(
        asked.start, asked.deltas[order], asked.weights, [asked.sites[k] for k in order],
        asked.everyone,
    )  # fmt: skip
    assert np.allclose(make().step(asked), make().step(turned), atol=1e-9)


@pytest.mark.parametrize(
    "make", [RFA, NormClipping, CentredClipping, OutlierDetection, lambda: DnC(num_malicious=3)]
)
def test_three_of_twelve_cannot_pull_the_model_away(make: Any) -> None:
    good = honest(9)
    for bad in (-FAR * good[:3], FAR * honest(3, seed=9), np.full((3, 20), FAR)):
        found = make().step(updates(np.vstack([good, bad])))
        assert np.linalg.norm(found) <= 1.3 * np.linalg.norm(good, axis=1).max()
        plain = np.vstack([good, bad]).mean(0)
        assert np.linalg.norm(plain) > 1e5, "the mean is pulled anywhere"


def test_the_geometric_median_of_points_on_a_line_is_their_median() -> None:
    direction = np.array([1.0, -2.0, 0.5])
    for places in ([-3.0, 0.0, 1.0, 7.0, 900.0], [4.0, 4.0, 4.0, -1e7, 1e7]):
        line = np.outer(places, direction)
        found, steps = geometric_median(line, np.full(5, 0.2), 1e-6, 1000)
        assert np.allclose(found, np.median(places) * direction, atol=1e-3)
        assert steps < 1000
    heavy, _ = geometric_median(
        np.array([[0.0], [1.0], [5.0]]), np.array([0.2, 0.2, 0.6]), 1e-6, 99
    )
    assert heavy == pytest.approx([5.0], abs=1e-3), "a weighted median"


def test_the_geometric_median_of_a_right_triangle_is_its_fermat_point() -> None:
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found, _ = geometric_median(corners, np.full(3, 1 / 3), 1e-9, 500)
    assert np.allclose(found, (3 - np.sqrt(3)) / 6, atol=1e-7)


def test_the_geometric_median_breaks_down_at_one_half() -> None:
    """Two of five far away leave it within 2·(n − f)/(n − 2f) spreads of the others, three not."""
    good, far = honest(5), np.full(20, FAR)
    spread = np.linalg.norm(good[:3] - good[:3].mean(0), axis=1).max()
    kept = RFA().step(updates([*good[:3], far, far]))
    assert np.linalg.norm(kept - good[:3].mean(0)) <= 6 * spread
    lost = RFA().step(updates([*good[:2], far, far, far]))
    assert np.linalg.norm(lost - far) < 1e-3 * np.linalg.norm(far)


def test_with_much_smoothing_it_is_the_mean() -> None:
    asked = updates(honest(7))
    assert np.allclose(RFA(smoothing=1e12).step(asked), asked.deltas.mean(0), atol=1e-12)


def test_a_clipped_update_moves_the_model_by_its_share_of_the_bound() -> None:
    good = honest(9)
    for scale in (2.0, FAR):
        bad = scale * honest(3, seed=4)
        with_bad = NormClipping(clip=0.7).step(updates(np.vstack([good, bad])))
        without = NormClipping(clip=0.7).step(updates(np.vstack([good, 0 * bad])))
        assert np.linalg.norm(with_bad - without) <= 0.7 * 3 / 12 + 1e-9
    short = updates(0.01 * good)
    assert np.allclose(NormClipping(clip=0.7).step(short), short.deltas.mean(0), atol=1e-12)


def test_the_median_length_is_the_bound_where_none_is_given() -> None:
    deltas = np.diag([1.0, 2.0, 3.0, 50.0, 60.0])
    assert np.allclose(NormClipping().step(updates(deltas)), np.array([1, 2, 3, 3, 3]) / 5)


def test_centred_clipping_moves_the_center_by_the_radius_at_most() -> None:
    center = np.full(20, 0.3)
    good, bad = honest(9), np.full((3, 20), FAR)
    parts = {}
    for name, sent in (("bad", bad), ("good", honest(3, seed=8))):
        strategy = CentredClipping(radius=0.5, iterations=1)
        strategy.center = center.copy()
        found = parts[name] = strategy.step(updates(np.vstack([good, sent])))
        assert np.linalg.norm(found - center) <= 0.5 + 1e-12
        assert np.array_equal(strategy.center, found), "it remembers its step"
    # f of n sites, whatever they send, make a difference of at most 2·τ·f/n.
    assert np.linalg.norm(parts["bad"] - parts["good"]) <= 2 * 0.5 * 3 / 12 + 1e-12


def test_with_an_infinite_radius_centred_clipping_is_the_mean_about_any_center() -> None:
    strategy, asked = CentredClipping(radius=1e17, iterations=1), updates(honest(5))
    strategy.center = np.arange(20.0)
    assert np.allclose(strategy.step(asked), asked.deltas.mean(0), atol=1e-12)


def test_the_center_is_in_the_history_and_comes_back_with_a_rollback(tmp_path: Path) -> None:
    run = federate(tmp_path, "centred_clipping", sites=4, rounds=1)
    first = run.history.strategy_state()
    tree = capture(run.loop.strategy)
    fresh = CentredClipping()
    restore(fresh, tree)
    assert np.array_equal(fresh.center, tree["center"]) and np.any(tree["center"])
    run.history.close()
    later = federate(tmp_path, "centred_clipping", sites=4, rounds=3)
    assert not np.array_equal(capture(later.loop.strategy)["center"], tree["center"])
    later.history.rollback(1, by="person", reason="a test")
    np.testing.assert_equal(later.history.strategy_state(), first)
    later.history.close()
    again = federate(tmp_path, "centred_clipping", sites=4, rounds=1)
    assert np.array_equal(capture(again.loop.strategy)["center"], tree["center"])


def test_fltrust_is_the_formula_of_the_paper() -> None:
    root, alike, against = [2.0, 0.0], [30.0, 40.0], [-5.0, 1.0]
    strategy = FLTrust(root="s0")
    found = strategy.step(updates([root, alike, against]))
    cosine = 0.6  # of (30, 40) with (2, 0); brought to the root's length 2 it is (1.2, 1.6)
    expected = (np.array([2.0, 0.0]) + cosine * np.array([1.2, 1.6])) / (1 + cosine)
    assert np.allclose(found, expected)
    alone = FLTrust(root="s0").step(updates([root, against, against, against]))
    assert np.allclose(alone, root), "it needs no honest majority"


def test_fltrust_says_whom_it_misses() -> None:
    two = updates([[1.0], [2.0]])
    gone = Updates(two.start, two.deltas, two.weights, ["s1", "s2"], ["s0", "s1", "s2"])
    with pytest.raises(AggregationError, match="s0"):
        FLTrust().step(gone)
    with pytest.raises(ConfigError, match=r"strategy\.root=nobody"):
        FLTrust(root="nobody").step(two)
    with pytest.raises(ConfigError, match="fraction_train"):
        FLTrust(fraction_train=0.5)


def test_a_z_score_cannot_fire_where_the_robust_one_does() -> None:
    lengths = np.array([1.0, 1.1, 0.9, 1.05, 1e9])
    plain = np.abs(lengths - lengths.mean()) / lengths.std()
    assert plain.max() <= 2.0 + 1e-12, "sqrt(n − 1)"
    assert robust_z(lengths, 0.1).argmax() == 4 and robust_z(lengths, 0.1).max() > 1e6


@pytest.mark.parametrize(("sites", "found"), [(4, ["s3"]), (9, ["s8"]), (3, [])])
@pytest.mark.parametrize("bad", ["long", "turned"])
def test_the_detector_names_one_of_four_and_none_of_three(
    sites: int, found: list[str], bad: str
) -> None:
    good = honest(sites - 1)
    odd = 50 * honest(1, seed=7) if bad == "long" else -good[:1]
    strategy = OutlierDetection()
    step = strategy.step(updates(np.vstack([good, odd])))
    assert list(strategy.suspected) == found
    if found:
        assert np.allclose(step, good.mean(0), atol=1e-12)


def test_the_detector_leaves_out_nobody_where_sites_agree() -> None:
    strategy = OutlierDetection()
    for asked in (np.zeros((5, 3)), np.ones((5, 3)), honest(12)):
        step = strategy.step(updates(asked))
        assert not strategy.suspected and np.allclose(step, asked.mean(0))


def test_dnc_leaves_out_who_lies_along_the_first_singular_vector() -> None:
    good = honest(9)
    vectors = np.vstack([good, good[:3] + 2 * honest(1, seed=6)])
    away = vectors - vectors.mean(0)
    along = away @ np.linalg.svd(away)[2][0]
    assert np.allclose(stretches(vectors), along**2)
    step = DnC(num_malicious=3).step(updates(vectors))
    assert np.allclose(step, good.mean(0), atol=1e-12), "attackers that agree"
    half = DnC(num_malicious=3, filtering=0.5)
    assert half.left_out == 2 and half.tolerated(12) == 2 and half.min_sites == 7
    with pytest.raises(ConfigError, match="num_malicious"):
        DnC(num_malicious=-1)


def test_who_is_left_out_is_an_event_of_the_round(tmp_path: Path) -> None:
    faults = {"poison": "p1@2"}
    run = federate(tmp_path, "outlier_detection", sites=5, rounds=3, faults=faults)
    events = [(e["kind"], e["round"], e["site"]) for e in run.screen.events]
    assert events == [("suspected", 2, "p1")]
    assert run.history.rounds()[2].metrics["left_out_sites"] == 1


@pytest.mark.parametrize(
    "named",
    [
        ["norm_clipping", "strategy.clip=1e9", "strategy.by_examples=true"],
        ["outlier_detection", "strategy.threshold=1e9", "strategy.by_examples=true"],
        ["dnc", "strategy.num_malicious=0", "strategy.by_examples=true"],
    ],
)
def test_without_a_bound_it_is_fedavg_to_the_bit(named: list[str], tmp_path: Path) -> None:
    average = federate(tmp_path / "a", "fedavg", sites=5)
    bounded = federate(tmp_path / "b", named[0], overrides=named[1:], sites=5)
    assert same(average.weights(), bounded.weights())
    alike = federate(tmp_path / "c", named[0], overrides=named[1:2], sites=5)
    assert not same(average.weights(), alike.weights()), "sites of unlike size count alike"


def test_by_examples_is_what_a_malicious_site_can_abuse() -> None:
    """A site that states a billion examples is the mean, unless sites count alike."""
    become_server()
    trained = {"a": (np.array([1.0, 1.0]), 10), "b": (np.array([1.1, 0.9]), 10),
               "liar": (np.array([-9.0, 9.0]), 10**9)}  # fmt: skip
    found = {}
    for by_examples in (True, False):
        strategy: RobustStrategy = RFA(by_examples=by_examples)
        strategy._round.sent = {"w": np.zeros(2)}
        replies = [
            Message(
                RecordDict({ARRAYS: to_record({"w": w}), METRICS: metric_record(n, {})}),
                reply_to=Message(RecordDict(), 1, "train"),
            )
            for w, n in trained.values()
        ]
        record, _ = strategy.aggregate_train(1, replies)
        assert record is not None
        found[by_examples] = from_record(record)["w"]
    assert np.allclose(found[True], [-9, 9], atol=1e-3)
    assert np.allclose(found[False], [1.0, 1.0], atol=0.2)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: RFA(smoothing=0.0), "smoothing"), (lambda: RFA(iterations=0), "iterations"),
        (lambda: NormClipping(clip=-1.0), "clip"), (lambda: CentredClipping(radius=0.0), "radius"),
        (lambda: CentredClipping(iterations=0), "iterations"),
        (lambda: OutlierDetection(threshold=0.0), "threshold"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(make: Any, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"strategy\.{key}"):
        make()


def test_a_round_of_two_models_clips_each_about_its_own(tmp_path: Path) -> None:
    bound = 0.05

    def models(rounds: int) -> Any:
        clip = [f"strategy.clip={bound}"]
        folder = tmp_path / str(rounds)
        run = federate(
            folder, "norm_clipping", overrides=clip, sites=4, rounds=rounds, server=TwoModels
        )
        return run.history.models()

    def apart(first: Any, second: Any) -> float:
        squares = (np.sum((first[n].astype(float) - second[n]) ** 2) for n in first)
        return float(np.sqrt(sum(squares)))

    before, after = models(3), models(4)
    assert apart(before["even"], before["odd"]) > bound, "they went their own ways"
    for name, arrays in after.items():
        assert 0 < apart(before[name], arrays) <= 1.001 * bound
