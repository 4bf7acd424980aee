"""Central privacy: bounds, sensitivity, noise, and the limit without any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from flwr.supercore.differential_privacy import compute_clip_model_update, compute_stdv
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.ray.grid import RayGrid
from fedpdm.engines.serial import SerialGrid
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.errors import TrainingStopped
from fedpdm.privacy.central import AdaptiveNoise, CentralNoise
from fedpdm.privacy.clipping import clipped, differences, length, withheld
from fedpdm.seeding import numpy_generator
from fedpdm.server.monitor import MonitorSettings
from fedpdm.server.poisson import Poisson
from fedpdm.strategies.base import ClientHalf, ServerHalf, client_half
from fedpdm.testing.federated import check_resume, distance, federate, same
from fedpdm.wire.records import ARRAYS, BUFFERS, EXAMPLES, Arrays
from tests.privacy.updates import apart, base_of, mean_of, update_of


@settings(max_examples=60)
@given(
    size=st.floats(0, 1e6), bound=st.floats(1e-9, 1e3), seed=st.integers(0, 9),
    scale=st.sampled_from([0.0, 1.0, 1e4]),
)  # fmt: skip
def test_no_update_is_longer_than_the_bound(
    size: float, bound: float, seed: int, scale: float
) -> None:
    """Also after rounding to float32 beside large weights, and with the strategy's records."""
    base = base_of(seed, scale)
    update = update_of(base, size, seed, records=["control"])
    before = {r: {n: a.copy() for n, a in arrays.items()} for r, arrays in update.records.items()}
    short = clipped(update, bound)
    assert length(short) <= bound
    if length(update) <= bound:
        assert short is update
    for record, arrays in before.items():  # nothing was changed in place
        assert all(np.array_equal(update.records[record][n], a) for n, a in arrays.items())


def test_clipping_keeps_the_direction() -> None:
    base = base_of()
    update = update_of(base, 4.0, 1)
    short = differences(clipped(update, 0.5))[ARRAYS]
    for name, d in differences(update)[ARRAYS].items():
        np.testing.assert_allclose(short[name], d / 8, rtol=1e-4, atol=1e-6)
    assert clipped(update, None) is update
    broken = {n: np.full_like(a, np.nan) for n, a in base.arrays.items()}
    nothing = clipped(type(update)("s", base, {ARRAYS: broken}, {}, 1.0), 1.0)
    assert all(np.array_equal(nothing.arrays[n], a) for n, a in base.arrays.items())


def test_numbers_and_buffers_stay_at_the_site() -> None:
    base = base_of()
    sent = withheld(update_of(base, 2.0, 5))
    assert dict(sent.metrics) == {EXAMPLES: 1.0} and sent.weight == 1.0
    assert np.array_equal(sent.buffers["mean"], base.buffers["mean"])


@settings(max_examples=30)
@given(sizes=st.lists(st.floats(0, 100), min_size=1, max_size=6), other=st.floats(0, 1e6))
def test_one_site_moves_the_mean_by_little(sizes: list[float], other: float) -> None:
    """Added or removed: C/m. Replaced by any other: 2C/m. m is fixed, whoever answers."""
    bound, expected, base = 0.7, 5.0, base_of()
    updates = [update_of(base, s, i, f"s{i}") for i, s in enumerate(sizes)]
    mean = mean_of(CentralNoise(bound, 0.0, expected), base, updates)
    more = mean_of(
        CentralNoise(bound, 0.0, expected), base, [*updates, update_of(base, other, 99, "new")]
    )
    replaced = mean_of(
        CentralNoise(bound, 0.0, expected), base, [update_of(base, other, 77, "s0"), *updates[1:]]
    )
    assert apart(mean, more) <= bound / expected * (1 + 1e-9)
    assert apart(mean, replaced) <= 2 * bound / expected * (1 + 1e-9)


def test_a_site_that_claims_many_examples_counts_once() -> None:
    base = base_of()
    honest, greedy = update_of(base, 0.1, 1), update_of(base, 9.0, 2, "greedy")

    class NotAtTheSite(CentralNoise):
        def encode(self, update, state, generator):  # type: ignore[no-untyped-def]
            return update  # its site does neither clip nor withhold

    mean = mean_of(NotAtTheSite(0.5, 0.0, 2.0), base, [honest, greedy])
    assert apart(mean, base.arrays) <= 0.5 * (1 + 1e-9)


def noise_of(transform: CentralNoise, key: int) -> np.ndarray:
    base = base_of()
    mean = mean_of(transform, base, [update_of(base, 0.0, 1)], key)
    return np.concatenate([(mean[n] - base.arrays[n]).ravel() for n in base.arrays])


def test_the_noise_is_gaussian_of_the_size_that_was_accounted_for() -> None:
    drawn = np.concatenate([noise_of(CentralNoise(0.5, 3.0, 4.0), key) for key in range(120)])
    deviation = float(compute_stdv(3.0, 0.5, 4))  # as Flower counts it: z·C/n
    assert deviation == 3.0 * 0.5 / 4
    assert kstest(drawn / deviation, "norm").pvalue > 0.01
    assert kstest(drawn / (1.15 * deviation), "norm").pvalue < 0.01  # it would be noticed


def test_the_same_round_draws_the_same_noise_only_for_the_same_sites() -> None:
    """A round that is begun again may get other answers."""
    base, noisy, plain = base_of(), CentralNoise(1.0, 1.0, 2.0), CentralNoise(1.0, 0.0, 2.0)

    def noise(*sites: str) -> Arrays:
        updates = [update_of(base, 0.1, len(site), site) for site in sites]
        mean = mean_of(noisy, base, updates)
        return {n: a - mean[n] for n, a in mean_of(plain, base, updates).items()}

    assert apart(noise("a", "bb"), noise("a", "bb")) == 0.0
    assert apart(noise("a", "bb"), noise("a", "ccc")) > 1.0


def test_flower_s_wrapper_clips_and_noises_by_the_same_formulas() -> None:
    """The same numbers to float32, not the same bytes: Flower clips and averages in float32 and
    draws NumPy's global generator layer by layer; ours sums in float64 and draws a keyed one.
    """
    base, updates = base_of(), [update_of(base_of(), s, i) for i, s in enumerate((0.1, 2.0, 5.0))]
    ours = mean_of(CentralNoise(0.5, 0.0, 3.0), base, updates)
    theirs = []
    for update in updates:
        arrays = [np.atleast_1d(a.copy()) for a in update.arrays.values()]  # changed in place
        compute_clip_model_update(arrays, [np.atleast_1d(a) for a in base.arrays.values()], 0.5)
        theirs.append(arrays)
    for name, parts in zip(base.arrays, zip(*theirs, strict=True), strict=True):
        mean = np.mean(parts, axis=0).reshape(ours[name].shape)
        np.testing.assert_allclose(ours[name], mean, atol=1e-6)
    wrapper = DifferentialPrivacyServerSideFixedClipping(FedAvg(), 2.0, 0.5, 3)
    assert compute_stdv(wrapper.noise_multiplier, 0.5, 3) == pytest.approx(2.0 * 0.5 / 3)


# In runs ------------------------------------------------------------------------------------


@client_half("uniform-test")
class _UniformClient(ClientHalf):
    pass


class Uniform(ServerHalf):
    """FedAvg in which every site counts once."""

    client = _UniformClient

    def weight(self, metrics):  # type: ignore[no-untyped-def]
        return 1.0

    def combine(self, server_round, sent, sums) -> Arrays:  # type: ignore[no-untyped-def]
        return sums.mean  # type: ignore[no-any-return]


def central(sites: int = 3, noise: float = 0.0, clip: float | None = None) -> CentralNoise:
    return CentralNoise(clip, noise, float(sites))


def test_without_noise_and_bound_it_is_the_plain_mean_bit_for_bit(tmp_path: Path) -> None:
    plain = federate(tmp_path / "plain", Uniform(), rounds=3)
    for server in (Poisson, LocalGrid):
        options = {} if server is LocalGrid else {"server": Poisson}
        private = federate(
            tmp_path / server.__name__, rounds=3, transforms={"privacy": central()}, **options
        )
        assert same(plain.weights(), private.weights())
    far = federate(tmp_path / "far", rounds=3, transforms={"privacy": central(clip=1e6)})
    assert same(plain.weights(), far.weights())


def on(folder: Path, engine: type[LocalGrid]) -> dict[str, np.ndarray]:
    run = federate(
        folder, rounds=2, server=Poisson, engine=engine,
        transforms={"privacy": central(noise=0.01, clip=0.5)},
    )  # fmt: skip
    run.grid.close()
    return run.weights()


def test_a_stack_of_sites_makes_the_same(tmp_path: Path) -> None:
    serial, stacked = on(tmp_path / "a", SerialGrid), on(tmp_path / "b", BatchedGrid)
    assert distance(serial, stacked) < 1e-3


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_other_processes_make_the_same(tmp_path: Path) -> None:
    assert same(on(tmp_path / "a", SerialGrid), on(tmp_path / "b", RayGrid))


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_a_stopped_run_goes_on_bit_for_bit(strategy: str, tmp_path: Path) -> None:
    check_resume(
        lambda name, rounds: federate(
            tmp_path / name, strategy, rounds=rounds, server=Poisson,
            transforms={"privacy": AdaptiveNoise(0.2, 0.1, 3.0, 0.5, 0.2, 1.0)},
        )
    )  # fmt: skip


def test_a_round_that_was_taken_back_draws_other_noise(tmp_path: Path) -> None:
    """And its bound: what the server remembers goes back with it."""
    noise, bounds = [], []

    class Seen(AdaptiveNoise):
        def after_sum(self, totals, contributions, generator):  # type: ignore[no-untyped-def]
            bounds.append(self.bound())
            found = super().after_sum(totals, contributions, generator)
            noise.append(found[ARRAYS].mean()["fc1.bias"])
            return found

    def run(name: str, rollback: bool):  # type: ignore[no-untyped-def]
        transform = Seen(0.2, 5.0, 2.0, 0.5, 0.2, 1.0)
        monitor = MonitorSettings(rollback=rollback, norm_factor=1.05, max_rollbacks=3)
        return federate(
            tmp_path / name, rounds=2, sites=2, transforms={"privacy": transform}, monitor=monitor
        )

    with pytest.raises(TrainingStopped):  # noise this large doubles any norm
        run("back", rollback=True)
    assert len(noise) == 3 and len(set(bounds)) == 1
    assert len({each.tobytes() for each in noise}) == 3


class Nobody(Poisson):
    def select(self, round):  # type: ignore[no-untyped-def]
        return []


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_a_round_without_any_site_releases_noise_all_the_same(
    strategy: str, tmp_path: Path
) -> None:
    run = federate(
        tmp_path, strategy, rounds=1, server=Nobody,
        transforms={"privacy": central(noise=2.0, clip=0.5)},
    )  # fmt: skip
    before, after = run.weights(0), run.weights(1)
    moved = np.concatenate([(after[n] - before[n]).ravel() for n in before])
    assert moved.std() == pytest.approx(2.0 * 0.5 / 3, rel=0.1)
    assert run.history.rounds()[1].sampled == ()


def test_poisson_draws_each_site_by_itself(tmp_path: Path) -> None:
    run = federate(
        tmp_path, rounds=12, sites=6, server=Poisson, overrides=["strategy.fraction_train=0.5"],
        evaluate_fraction=0.0,
    )  # fmt: skip
    cohorts = [record.sampled for record in run.history.rounds()[1:]]
    assert len({len(c) for c in cohorts}) > 1
    assert 20 < sum(map(len, cohorts)) < 52
    draws = numpy_generator(0, "poisson", 1, 0).random(6) < 0.5
    assert cohorts[0] == tuple(f"p{n}" for n in range(6) if draws[n])


def test_what_a_site_reported_is_not_in_the_history(tmp_path: Path) -> None:
    run = federate(
        tmp_path, rounds=1, transforms={"privacy": central(noise=0.1, clip=0.5)},
        evaluate_fraction=0.0,
    )  # fmt: skip
    record = run.history.rounds()[1]
    assert record.metrics["train_loss"] is None and record.metrics["validation_loss"] is None
    for site in record.sites.values():
        assert site["examples"] == 1 and site["train_loss"] is None
        assert site["update_norm"] <= 0.5 * (1 + 1e-6)


# The bound that adapts -----------------------------------------------------------------------


def test_the_bound_follows_the_paper_s_update() -> None:
    """Andrew et al. 2021, algorithm 1: C ← C·exp(−η·(b̄ − γ)), without noise."""
    base = base_of()
    transform = AdaptiveNoise(1.0, 0.0, 4.0, quantile=0.5, rate=0.2, count_noise=0.0)
    transform.state = {}
    expected = 1.0
    for sizes in ([0.1, 0.2, 0.3, 5.0], [5.0] * 4, [0.1] * 4, [0.1, 0.1, 9.0, 9.0]):
        share = np.mean([s <= expected for s in sizes])
        mean = mean_of(
            transform, base, [update_of(base, s, i, f"s{i}") for i, s in enumerate(sizes)]
        )
        assert apart(mean, base.arrays) <= expected * (1 + 1e-9)
        expected *= np.exp(-0.2 * (share - 0.5))
        assert transform.state["clip"] == pytest.approx(expected)


def test_the_bound_finds_the_quantile() -> None:
    base, sizes = base_of(), np.linspace(0.1, 2.0, 20)
    transform = AdaptiveNoise(0.01, 0.0, 20.0, quantile=0.75, rate=0.4, count_noise=0.5)
    transform.state = {}
    updates = [update_of(base, float(s), i, f"s{i}") for i, s in enumerate(sizes)]
    for key in range(60):
        mean_of(transform, base, updates, key)
    assert np.quantile(sizes, 0.6) < transform.state["clip"] < np.quantile(sizes, 0.9)


def test_buffers_are_those_that_were_sent() -> None:
    base = base_of()
    transform = CentralNoise(0.5, 1.0, 2.0)
    sent = transform.encode(update_of(base, 3.0, 1), {}, np.random.default_rng(0))
    assert np.array_equal(sent.records[BUFFERS]["mean"], base.buffers["mean"])
