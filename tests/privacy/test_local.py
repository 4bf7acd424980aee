"""Local privacy: what a site sends is bounded and noised before it leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kstest

from fedpdm.privacy.clipping import differences, length
from fedpdm.privacy.local import LocalNoise
from fedpdm.testing.federated import check_resume, distance, federate, same
from fedpdm.wire.records import EXAMPLES
from tests.privacy.updates import base_of, update_of


def test_noise_is_on_every_record_and_of_the_size_that_was_accounted_for() -> None:
    base, transform, drawn = base_of(), LocalNoise(0.5, 3.0), []
    for key in range(100):
        update = update_of(base, 0.0, key, records=["control"])
        sent = transform.encode(update, {}, np.random.default_rng(key))
        assert dict(sent.metrics) == {EXAMPLES: 1.0}
        for record in differences(sent).values():
            drawn += [d.ravel() / 1.5 for d in record.values()]
    values = np.concatenate(drawn)
    assert kstest(values, "norm").pvalue > 0.01
    assert kstest(values / 1.2, "norm").pvalue < 0.01


def test_what_is_sent_differs_by_noise_alone_from_a_bounded_update() -> None:
    base = base_of()
    one, other = update_of(base, 100.0, 1), update_of(base, 0.0, 2)
    generator = np.random.default_rng
    quiet, loud = LocalNoise(0.5, 0.0), LocalNoise(0.5, 2.0)
    assert length(quiet.encode(one, {}, generator(0))) <= 0.5
    gap = {
        name: loud.encode(one, {}, generator(5)).arrays[name]
        - loud.encode(other, {}, generator(5)).arrays[name]
        for name in base.arrays
    }
    assert np.sqrt(sum(float(np.sum(g**2)) for g in gap.values())) <= 0.5 * 1.00001


def test_an_update_that_is_not_finite_is_noise_alone() -> None:
    base = base_of()
    update = update_of(base, float("nan"), 1)
    sent = LocalNoise(0.5, 1.0).encode(update, {}, np.random.default_rng(0))
    assert all(np.isfinite(a).all() for a in sent.arrays.values())


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_a_stopped_run_goes_on_bit_for_bit(strategy: str, tmp_path: Path) -> None:
    check_resume(
        lambda name, rounds: federate(
            tmp_path / name, strategy, rounds=rounds, transforms={"privacy": LocalNoise(0.5, 0.01)}
        )
    )


def test_sites_and_rounds_draw_noise_of_their_own(tmp_path: Path) -> None:
    def run(noise: float):  # type: ignore[no-untyped-def]
        transforms = {"privacy": LocalNoise(0.5, noise)}
        return federate(tmp_path / str(noise), rounds=2, transforms=transforms)

    quiet, loud = run(0.0), run(1.0)
    first = [run.weights(1)["fc1.bias"] for run in (quiet, loud)]
    assert not np.allclose(*first)
    assert distance(quiet.weights(), loud.weights()) > 0.1
    assert same(run(1.0).weights(), loud.weights())
