"""Compressions: their formulas in closed form, and what they refuse to read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpdm.aggregation.update import Base, Update
from fedpdm.config.compose import compose
from fedpdm.errors import ConfigError
from fedpdm.runs.update_pipeline import build_transforms
from fedpdm.seeding import numpy_generator
from fedpdm.strategies.scaffold import CONTROL
from fedpdm.testing import check_transform
from fedpdm.testing.federated import named
from fedpdm.transforms.base import Chain, Transform
from fedpdm.transforms.compression import Compression
from fedpdm.transforms.powersgd import PowerSGD
from fedpdm.transforms.quantise import Quantise
from fedpdm.transforms.randomk import RandomK, places, scattered
from fedpdm.transforms.sign import Sign
from fedpdm.transforms.topk import TopK, largest
from fedpdm.wire.records import ARRAYS, BUFFERS, EXAMPLES, Arrays
from tests.strategies.quadratics import Bowl, optimum, settle
from tests.toys.mask import Mask

Make = Callable[[], Compression]
FEEDBACK: dict[str, Make] = {
    "topk": lambda: TopK(share=0.2),
    "randomk": lambda: RandomK(share=0.3, error_feedback=True),
    "quantise": lambda: Quantise(4, bucket=8, error_feedback=True),
    "sign": Sign,
    "powersgd": lambda: PowerSGD(1),
}
ALL: dict[str, Make] = FEEDBACK | {
    "randomk-unbiased": lambda: RandomK(share=0.3),
    "quantise8": lambda: Quantise(8),
    "quantise4": lambda: Quantise(4, bucket=7),
}
ODD = {"w": (5, 3), "b": (4,), "c": (2, 3, 2)}


def drawn(seed: int, kind: Any = np.float32) -> Arrays:
    random = np.random.default_rng(seed)
    return {name: random.normal(size=shape).astype(kind) for name, shape in ODD.items()}


def squared(arrays: Arrays) -> float:
    return sum(float(np.sum(a.astype(float) ** 2)) for a in arrays.values())


def apart(first: Arrays, second: Arrays) -> Arrays:
    return {name: first[name] - second[name] for name in first}


def once(method: Compression, change: Arrays, seed: int = 0) -> Arrays:
    return method.unpack(method.pack(change, {}, np.random.default_rng(seed)), change)


class Same:
    """A generator whose every draw is the same."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self, size: int) -> np.ndarray:
        return np.full(size, self.value)


def test_random_k_is_right_in_the_mean_over_all_choices() -> None:
    x, k = np.array([3.0, -1.0, 0.5, 8.0, -2.0]), 2
    choices = [np.array(c) for c in itertools.combinations(range(5), k)]
    found = [scattered(x[c], c, 5, as_they_are=False) for c in choices]
    np.testing.assert_allclose(np.mean(found, axis=0), x, rtol=1e-12)
    error = np.mean([np.sum((y - x) ** 2) for y in found])
    assert error == pytest.approx((5 / k - 1) * np.sum(x**2))
    plain = [scattered(x[c], c, 5, as_they_are=True) for c in choices]
    assert np.mean([np.sum((y - x) ** 2) for y in plain]) == pytest.approx(
        (1 - k / 5) * np.sum(x**2)
    )
    seeds = [np.array([seed], np.uint64) for seed in range(3000)]
    counts = np.bincount(np.concatenate([places(seed, 2, 6) for seed in seeds]), minlength=6)
    assert np.abs(counts - 1000).max() < 130  # five deviations


@pytest.mark.parametrize("bits", [4, 8])
def test_quantisation_is_right_in_the_mean_over_all_draws(bits: int) -> None:
    levels, parts = 2 ** (bits - 1) - 1, 4
    steps = np.array([levels * parts, 1, -2, 3, 0, -levels * parts + 1, 5])
    x = {"x": steps / parts}  # in units of a level, the largest is the last of them
    method = Quantise(bits, bucket=7)
    draws = [(n + 0.5) / parts for n in range(parts)]
    found = [method.unpack(method.pack(x, {}, Same(u)), x)["x"] for u in draws]  # type: ignore[arg-type]
    np.testing.assert_allclose(np.mean(found, axis=0), x["x"], atol=1e-12)
    assert all(np.abs(y - x["x"]).max() < 1 for y in found)


def test_top_k_sends_the_largest_and_of_equal_ones_the_first() -> None:
    x = np.array([1.0, -5.0, 2.0, 2.0, -2.0, 0.0])
    assert [largest(x, k).tolist() for k in (1, 2, 3, 6)] == [
        [1], [1, 2], [1, 2, 3], list(range(6)),
    ]  # fmt: skip
    for share, kind in itertools.product((0.01, 0.2, 0.5, 1.0), (np.float32, np.float64)):
        change = drawn(3, kind)
        size = sum(a.size for a in change.values())
        k = max(1, math.ceil(share * size))
        left = squared(apart(change, once(TopK(share), change)))
        assert left <= (1 - k / size) * squared(change)
    even = {"w": np.ones(10)}  # the bound is met
    assert squared(apart(even, once(TopK(0.3), even))) == pytest.approx(0.7 * 10)


def test_the_error_of_signs_is_that_of_the_paper() -> None:
    change = drawn(4, np.float64) | {"zero": np.zeros(5), "some": np.array([0.0, 3.0, 0.0])}
    sent = once(Sign(), change)
    for name, x in change.items():
        expected = np.sum(x**2) - np.sum(np.abs(x)) ** 2 / x.size
        assert np.sum((sent[name] - x) ** 2) == pytest.approx(expected)


def test_power_iterations_come_to_the_best_rank_and_low_ranks_are_exact() -> None:
    random = np.random.default_rng(0)
    thin = {"m": random.normal(size=(9, 2)) @ random.normal(size=(2, 8))}
    np.testing.assert_allclose(once(PowerSGD(2), thin)["m"], thin["m"], atol=1e-12)
    left, _, right = np.linalg.svd(random.normal(size=(9, 8)), full_matrices=False)
    sizes = 2.0 ** -np.arange(8)
    change, own, method = {"m": left * sizes @ right}, dict[str, Any](), PowerSGD(2)
    for _ in range(30):
        sent = method.unpack(method.pack(change, own, random), change)
    assert squared(apart(change, sent)) == pytest.approx(np.sum(sizes[2:] ** 2))
    nothing = {"m": np.zeros((9, 8))}
    own = {}
    for _ in range(2):  # factors of nothing are no dead end
        assert squared(method.unpack(method.pack(nothing, own, random), nothing)) == 0
    assert squared(method.unpack(method.pack(change, own, random), change)) > 0.5


@pytest.mark.parametrize("name", FEEDBACK)
@pytest.mark.parametrize(("kind", "close"), [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_what_was_sent_and_the_rest_are_the_sum_of_all(name: str, kind: Any, close: float) -> None:
    method, memory = FEEDBACK[name](), dict[str, Arrays]()
    whole, sent = ({n: np.zeros(s) for n, s in ODD.items()} for _ in range(2))
    for step in range(25):
        change = drawn(step, kind)
        _, got = method.step(change, memory, "arrays", np.random.default_rng(step))
        assert all(got[n].dtype == kind for n in got)
        whole, sent = ({n: t[n] + c[n] for n in t} for t, c in ((whole, change), (sent, got)))
    rest = memory["arrays.rest"]
    assert squared(rest) > 0
    for n in whole:
        np.testing.assert_allclose(sent[n] + rest[n], whole[n], atol=close * 25)


def test_the_sum_is_exact_where_no_digit_is_rounded() -> None:
    memory: dict[str, Arrays] = {}
    total = np.zeros(12)
    for step in range(40):
        change = {"w": np.random.default_rng(step).integers(-9, 9, 12).astype(np.float32)}
        _, got = TopK(0.25).step(change, memory, "arrays", np.random.default_rng(0))
        total += got["w"] - change["w"]
    assert np.array_equal(total + memory["arrays.rest"]["w"], np.zeros(12))


@pytest.mark.parametrize("method", [TopK(1.0), RandomK(1.0), PowerSGD(1024)])
def test_all_of_it_is_no_compression(method: Compression) -> None:
    change = drawn(1)
    sent = once(method, change)
    assert all(sent[n].tobytes() == change[n].tobytes() for n in change)


SIZE = sum(math.prod(shape) for shape in ODD.values())
K = math.ceil(0.2 * SIZE)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (TopK(0.2), K * (1 + 4)),
        (RandomK(0.2), 8 + K * 4),
        (Quantise(8, bucket=8), SIZE + 4 * math.ceil(SIZE / 8)),
        (Quantise(4, bucket=8), math.ceil(SIZE / 2) + 4 * math.ceil(SIZE / 8)),
        (Sign(), math.ceil(SIZE / 8) + 4 * len(ODD)),
        (PowerSGD(1), 4 * ((5 + 3) + 4 + (2 + 6))),
    ],
)
def test_bytes_in_closed_form(method: Compression, expected: int) -> None:
    packed = method.pack(drawn(2), {}, np.random.default_rng(0))
    assert sum(a.nbytes for a in packed.values()) == expected


def test_gaps_take_the_bytes_that_they_need() -> None:
    kinds = [np.uint8, np.uint16, np.uint32]
    for far, kind in zip((200, 60_000, 70_000), kinds, strict=True):
        x = {"w": np.zeros(70_001, np.float32)}
        x["w"][[0, far]] = 1.0
        packed = TopK(2 / 70_001).pack(x, {}, np.random.default_rng(0))
        assert packed["gaps"].dtype == kind
        assert np.array_equal(TopK(2 / 70_001).unpack(packed, x)["w"], x["w"])


@pytest.mark.parametrize("name", ALL)
def test_who_sends_back_what_came_moves_nothing(name: str) -> None:
    arrays = drawn(0)
    update = Update("a", Base(0, arrays, {}), {ARRAYS: arrays, BUFFERS: {}}, {EXAMPLES: 1.0}, 1.0)
    method = ALL[name]()
    sent = method.encode(update, {}, numpy_generator(0, "test"))
    back = method.decode(sent)
    assert all(back.arrays[n].tobytes() == arrays[n].tobytes() for n in arrays)


def test_every_record_but_buffers_is_compressed_with_a_rest_of_its_own() -> None:
    buffers = {"mean": np.ones(3, np.float32), "count": np.array(3)}
    records = {ARRAYS: drawn(1), CONTROL: drawn(2), BUFFERS: buffers}
    update = Update("a", Base(0, drawn(0), buffers), records, {EXAMPLES: 1.0}, 1.0)
    state: dict[str, Arrays] = {}
    method = TopK(0.2)
    sent = method.encode(update, state, numpy_generator(0, "test"))
    assert sent.buffers is buffers and state.keys() == {"arrays.rest", f"{CONTROL}.rest"}
    assert all(sent.records[r].keys() == {"gaps", "values"} for r in (ARRAYS, CONTROL))
    back = method.decode(sent)
    for n, rest in state[f"{CONTROL}.rest"].items():
        assert np.array_equal(back.records[CONTROL][n] + rest, records[CONTROL][n])


def test_an_update_that_is_not_finite_is_refused_and_leaves_no_rest() -> None:
    for make in ALL.values():
        arrays = drawn(1)
        arrays["w"][0, 0] = np.nan
        state: dict[str, Arrays] = {}
        records = {ARRAYS: arrays}
        update = Update("a", Base(0, drawn(0), {}), records, {EXAMPLES: 1.0}, 1.0)
        sent = make().encode(update, state, numpy_generator(0, "test"))
        assert not state
        try:
            found = make().decode(sent).arrays
        except ValueError as error:
            assert "NaN" in str(error)
        else:  # random-k may not have drawn it
            assert isinstance(make(), RandomK) and np.isfinite(found["w"]).all()


def without(packed: Arrays, name: str) -> Arrays:
    return {n: a for n, a in packed.items() if n != name}


NAN = np.array([np.nan], np.float32)
HOSTILE: list[tuple[Make, Callable[[Arrays], Arrays]]] = [
    (lambda: TopK(0.2), lambda p: p | {"values": p["values"][:-1]}),
    (lambda: TopK(0.2), lambda p: p | {"values": np.resize(p["values"], 10**6)}),
    (lambda: TopK(0.2), lambda p: p | {"values": p["values"].astype(np.float64)}),
    (lambda: TopK(0.2), lambda p: p | {"values": np.resize(NAN, p["values"].shape)}),
    (lambda: TopK(0.2), lambda p: p | {"gaps": np.full_like(p["gaps"], 255)}),
    (lambda: TopK(0.2), lambda p: p | {"gaps": p["gaps"].astype(np.int64) - 9}),
    (lambda: TopK(0.2), lambda p: p | {"gaps": np.full(K, 2**32 - 1, np.uint32)}),
    (lambda: TopK(0.2), lambda p: without(p, "gaps")),
    (lambda: TopK(0.2), lambda p: p | {"more": p["gaps"]}),
    (lambda: RandomK(0.2), lambda p: p | {"seed": np.zeros(2, np.uint64)}),
    (lambda: RandomK(0.2), lambda p: p | {"seed": np.array([-1])}),
    (lambda: RandomK(0.2), lambda p: p | {"values": np.resize(NAN, p["values"].shape)}),
    (lambda: Quantise(8), lambda p: p | {"codes": np.full_like(p["codes"], 255)}),
    (lambda: Quantise(4), lambda p: p | {"codes": np.full_like(p["codes"], 255)}),
    (lambda: Quantise(8), lambda p: p | {"codes": p["codes"][:-1]}),
    (lambda: Quantise(8), lambda p: p | {"scales": NAN}),
    (lambda: Quantise(8), lambda p: p | {"scales": -np.ones(1, np.float32)}),
    (lambda: Quantise(8), lambda p: p | {"scales": np.array(["x"])}),
    (Sign, lambda p: p | {"sizes": np.resize(NAN, 3)}),
    (Sign, lambda p: p | {"sizes": -np.ones(3, np.float32)}),
    (Sign, lambda p: p | {"bits": np.zeros(1, np.uint8)}),
    (lambda: PowerSGD(1), lambda p: p | {"factors": p["factors"][1:]}),
    (lambda: PowerSGD(1), lambda p: p | {"factors": np.resize(NAN, p["factors"].shape)}),
    (lambda: PowerSGD(1), lambda p: {}),
]


@pytest.mark.parametrize(("make", "change"), HOSTILE)
def test_what_pack_could_not_have_made_is_refused(
    make: Make, change: Callable[[Arrays], Arrays]
) -> None:
    like = drawn(0)
    packed = make().pack(like, {}, np.random.default_rng(0))
    make().unpack(packed, like)
    with pytest.raises(ValueError):
        make().unpack(change(packed), like)


@pytest.mark.parametrize("name", FEEDBACK)
def test_the_contract_of_a_transform(name: str) -> None:
    """The run in it goes both ways, and is stopped and continued bit for bit."""
    check_transform(ALL[name])


AGREED = {"a": Bowl((1.0, 1.0), (10.0, 1.0)), "b": Bowl((1.0, 1.0), (-10.0, 1.0))}
"""Each site's largest difference is the first one; only the second leads to the optimum."""
FEW = {
    "a": Bowl((1.0, 1.0), (1.0, -9.0)), "b": Bowl((1.0, 1.0), (1.0, 9.0)),
    "c": Bowl((1.0, 1.0), (-8.0, 0.0)),
}  # fmt: skip
"""Most signs of the first difference lead away from the optimum."""


@pytest.mark.parametrize(
    ("sites", "make", "within"),
    [(AGREED, TopK, 0.05), (FEW, Sign, 0.5)],
)
def test_quadratics_reach_the_optimum_with_error_feedback_only(
    sites: dict[str, Bowl], make: type[Compression], within: float, tmp_path: Path
) -> None:
    share = {"share": 0.5} if make is TopK else {}

    def gap(direction: str, error_feedback: bool) -> float:
        found = settle(
            tmp_path / f"{direction}{error_feedback}", "fedavg", sites, rounds=60, rate=0.05,
            transforms=lambda: {"c": make(**share, direction=direction,
                                          error_feedback=error_feedback)},
        )  # fmt: skip
        return float(np.linalg.norm(found - optimum(sites)))

    assert gap("up", False) > 0.999
    assert gap("up", True) < within and gap("both", True) < within


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["transforms=topk", "transforms.topk.share=0"], "share=0"),
        (["transforms=topk", "transforms.topk.share=1.5"], "share=1.5"),
        (["transforms=topk", "transforms.topk.direction=sideways"], "direction=sideways"),
        (["transforms=quantise", "transforms.quantise.bits=5"], "bits=5"),
        (["transforms=quantise", "transforms.quantise.bucket=0"], "bucket=0"),
        (["transforms=powersgd", "transforms.powersgd.rank=0"], "rank=0"),
        (["transforms=[topk,sign]"], "both compress on the way up"),
        (
            ["transforms=[topk,sign]", "transforms.topk.direction=up"],
            "both compress on the way up",
        ),
        (
            ["transforms=[topk,sign]", "transforms.topk.direction=down"],
            "both compress on the way down",
        ),
        (["transforms=topk", "server={_target_: tests.toys.one_by_one.OneByOne}"], "direction=up"),
    ],
)
def test_what_cannot_work_is_refused(words: list[str], problem: str) -> None:
    cfg = compose(words)
    with pytest.raises(ConfigError, match=problem):
        build_transforms(cfg, 0, named(["strategy=fedavg"]))


def test_one_method_for_each_way_and_others_beside_it() -> None:
    cfg = compose(
        [
            "transforms=[quantise,sign]", "transforms.quantise.direction=up",
            "transforms.sign.direction=down",
            "+transforms.privacy={_target_: tests.toys.clip_and_noise.ClipAndNoise, bound: 1.0, "
            "deviation: 0.1}",
        ]
    )  # fmt: skip
    chain = build_transforms(cfg, 0, named(["strategy=fedavg"]))
    assert [each.name for each in chain.transforms] == ["privacy", "quantise", "sign"]
    assert chain.down is not None and not chain.transforms[2].packs
    assert (
        build_transforms(compose(["transforms=null"]), 0, named(["strategy=fedavg"])).down is None
    )


def test_ones_own_is_an_option_beside_ours(tmp_path: Path) -> None:
    (tmp_path / "transforms").mkdir()
    own = "half:\n  _target_: tests.toys.half_codec.HalfCodec\n"
    (tmp_path / "transforms" / "half.yaml").write_text(own)
    words = ["transforms=[half,topk]", "transforms.topk.direction=down"]
    chain = build_transforms(compose(words, tmp_path), 0, named(["strategy=fedavg"]))
    assert {each.name for each in chain.transforms} == {"half", "topk"}


def test_nothing_works_on_what_is_packed() -> None:
    mask: Transform = Mask()
    with pytest.raises(ConfigError, match=r"leave one of the two out"):
        Chain({"mask": mask, "topk": TopK(direction="up")}).check(named(["strategy=fedavg"]))
    Chain({"mask": mask, "topk": TopK(direction="down")}).check(named(["strategy=fedavg"]))
