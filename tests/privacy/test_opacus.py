"""DP-SGD beside Opacus: the same Rényi account, and the same gradients of single windows.

For development only: Opacus is installed in an environment of its own (python -m venv, pip
install opacus pytest, then this file with PYTHONPATH=. there).
"""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from fedpdm.privacy.accounting import Mechanism
from fedpdm.privacy.per_example import per_example_gradients
from fedpdm.training.objective import LocalContext
from tests.privacy.test_per_example import example, plain

opacus = pytest.importorskip("opacus")
pytest.importorskip("opacus.accountants")


def test_both_account_alike() -> None:
    theirs = opacus.accountants.RDPAccountant()
    for _ in range(400):
        theirs.step(noise_multiplier=1.1, sample_rate=0.05)
    alphas = [1 + x / 10.0 for x in range(1, 400)]
    # Another conversion of the same Rényi divergences (Balle et al. 2020 there and here).
    ours = Mechanism(1.1, "poisson", drawn=0.05).epsilon(400, 1e-5)
    assert ours == pytest.approx(theirs.get_epsilon(1e-5, alphas=alphas), abs=1e-3)


def test_gradients_of_single_windows_are_the_same() -> None:
    module, x, y = example()
    expected, _ = per_example_gradients(plain(), module, x, y, LocalContext())
    wrapped = opacus.GradSampleModule(module)
    nn.functional.cross_entropy(wrapped(x), y, reduction="mean").backward()
    weights = {n: p.grad_sample for n, p in wrapped._module.named_parameters()}
    for name, theirs_each in weights.items():  # Opacus' are of the mean: times 1
        np.testing.assert_allclose(theirs_each, expected[name], rtol=1e-4, atol=1e-6)
