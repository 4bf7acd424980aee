"""Focal loss, class weights and label smoothing against their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedpdm.errors import ConfigError
from fedpdm.tasks import Failure, Horizons, RemainingLife
from fedpdm.training.losses import Focal
from fedpdm.training.objective import Supervised

OUTPUT = torch.tensor([[0.3, -0.2], [1.5, 0.4], [-2.0, 1.0]])
TARGET = torch.tensor([1, 0, 1])


def losses(focal: Focal, task: Failure | Horizons, output: torch.Tensor, target: torch.Tensor):
    made = focal.for_task(task)
    assert isinstance(made, Supervised)
    assert made.row_losses is not None
    return made.row_losses(output, target)


def test_without_focus_it_is_the_tasks_own_loss() -> None:
    task = Failure(7)
    found = losses(Focal(gamma=0), task, OUTPUT, TARGET)
    torch.testing.assert_close(found, task.row_losses(OUTPUT, TARGET))
    horizons = Horizons([3, 7, 14])
    output = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 1, 1]])
    found = losses(Focal(gamma=0), horizons, output, target)
    torch.testing.assert_close(found, horizons.row_losses(output, target))


def test_focal_loss_is_its_formula() -> None:
    found = losses(Focal(gamma=2, alpha=0.75), Failure(7), OUTPUT, TARGET)
    p = torch.softmax(OUTPUT.double(), dim=1).numpy()[np.arange(3), TARGET]
    weight = np.where(TARGET == 1, 0.75, 0.25)
    np.testing.assert_allclose(found, -weight * (1 - p) ** 2 * np.log(p), rtol=1e-5)


def test_alpha_above_a_half_helps_the_rare_class() -> None:
    """The source system weighed failures by their own rare rate, and so hid them."""
    even = torch.zeros(2, 2)
    rare, common = losses(Focal(gamma=0, alpha=0.9), Failure(7), even, torch.tensor([1, 0]))
    assert rare == pytest.approx(9 * common)


def test_smoothing_is_torch_s() -> None:
    found = losses(Focal(gamma=0, label_smoothing=0.1), Failure(7), OUTPUT, TARGET)
    torch.testing.assert_close(
        found,
        torch.nn.functional.cross_entropy(OUTPUT, TARGET, label_smoothing=0.1, reduction="none"),
    )


def test_a_sure_case_has_a_finite_gradient() -> None:
    output = torch.tensor([[-80.0, 80.0]], requires_grad=True)
    losses(Focal(gamma=0.5), Failure(7), output, torch.tensor([1])).sum().backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()
    assert losses(Focal(gamma=2), Failure(7), torch.zeros(1, 2), torch.tensor([1])).item() == (
        pytest.approx(0.25 * math.log(2))
    )


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="rul"):
        Focal().for_task(RemainingLife(30))
    with pytest.raises(ConfigError, match="3 class weights"):
        Focal(class_weights=[1, 2, 3]).for_task(Failure(7))
    for bad in (
        {"gamma": -1},
        {"gamma": math.nan},
        {"alpha": 1.0},
        {"label_smoothing": 1.0},
        {"class_weights": [0.0, 1.0]},
        {"alpha": 0.5, "class_weights": [1, 1]},
    ):
        with pytest.raises(ConfigError):
            Focal(**bad)
