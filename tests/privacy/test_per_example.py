"""DP-SGD: gradients of single windows, their bound, noise, and batches of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn

from fedpdm.models import ModelFactory
from fedpdm.privacy.per_example import (
    PerExample,
    Withhold,
    clipped_sums,
    per_example_gradients,
    steps_of,
)
from fedpdm.seeding import torch_generator, torch_seeded
from fedpdm.tasks import Failure
from fedpdm.testing.federated import check_resume, federate, same
from fedpdm.training.loop import TrainingSettings, fit
from fedpdm.training.objective import LocalContext, Supervised

SGD = TrainingSettings(local_epochs=1, batch_size=8, learning_rate=0.1, optimizer="sgd")


def example(model: str = "mlp", count: int = 7) -> tuple[nn.Module, Tensor, Tensor]:
    with torch_seeded(0, "model"):
        module = ModelFactory.create_model(model, 3, 2, sequence_length=4).module
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 4, 3, generator=generator)
    return module.train(), x, torch.randint(0, 2, (count,), generator=generator)


def plain() -> Supervised:
    return Supervised.of(Failure(horizon=4.0))


def looped(module: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    found: dict[str, list[Tensor]] = {name: [] for name, _ in module.named_parameters()}
    for row in range(len(x)):
        module.zero_grad()
        plain().backward(module, x[row : row + 1], y[row : row + 1], LocalContext())
        for name, parameter in module.named_parameters():
            found[name].append(parameter.grad.clone())
    module.zero_grad()
    return {name: torch.stack(parts) for name, parts in found.items()}


@pytest.mark.parametrize("model", ["mlp", "lstm", "trend"])
def test_gradients_of_single_windows_are_those_of_a_loop(model: str) -> None:
    module, x, y = example(model)
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    found, losses = per_example_gradients(plain(), module, x, y, LocalContext())
    for name, expected in looped(module, x, y).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-6)
    assert losses.shape == (7,)


@pytest.mark.parametrize("bound", [1e-3, 0.1, 3.0])
def test_no_window_moves_the_sum_by_more_than_the_bound(bound: float) -> None:
    module, x, y = example()
    gradients = looped(module, 30 * x, y)
    for row in range(len(x)):
        alone = clipped_sums({n: g[row : row + 1] for n, g in gradients.items()}, bound)
        size = float(torch.sqrt(sum(g.square().sum() for g in alone.values())))
        whole = float(torch.sqrt(sum(g[row].square().sum() for g in gradients.values())))
        assert size == pytest.approx(min(bound, whole), rel=1e-5)
    broken = {n: torch.full_like(g, torch.nan) for n, g in gradients.items()}
    assert all(not g.any() for g in clipped_sums(broken, bound).values())


def test_all_windows_without_bound_and_noise_are_a_plain_step() -> None:
    """With q = 1, and plain gradient steps: the mean of all windows."""
    private, x, y = example()
    public, _, _ = example()
    settings = TrainingSettings(local_epochs=1, batch_size=7, learning_rate=0.1, optimizer="sgd")
    for module, objective in (
        (private, PerExample(plain(), None, 0.0, 1.0)), (public, plain()),
    ):  # fmt: skip
        fit(module, x, y, objective, settings, seed=0, key=("train", "a", 1, 0), epochs=3)
    for one, other in zip(private.parameters(), public.parameters(), strict=True):
        np.testing.assert_allclose(one.detach(), other.detach(), rtol=1e-4, atol=1e-6)


def test_batches_are_poisson_and_may_be_empty() -> None:
    objective = PerExample(plain(), 1.0, 0.0, 0.02)
    assert objective.batches is not None
    sizes = [
        len(index)
        for epoch in range(20)
        for index in objective.batches(60, 32, torch_generator(0, "batches", epoch))
    ]
    assert len(sizes) == 20 * steps_of(0.02) == 1000
    assert min(sizes) == 0 and np.mean(sizes) == pytest.approx(1.2, rel=0.1)
    assert np.var(sizes) == pytest.approx(1.2 * 0.98, rel=0.15)


def test_an_empty_batch_is_noise_alone_and_the_noise_has_its_size() -> None:
    module, x, y = example()
    objective = PerExample(plain(), 0.5, 3.0, 0.25)
    next(iter(objective.batches(40, 8, torch_generator(0))))  # type: ignore[misc]
    drawn = []
    context = LocalContext(generator=torch_generator(0, "objective"))
    for _ in range(3):
        loss = objective.backward(module, x[:0], y[:0], context)
        drawn += [p.grad.flatten() * 10 / 1.5 for p in module.parameters()]  # q·n = 10
    assert float(loss) == 0.0
    values = torch.cat(drawn).numpy()
    assert kstest(values, "norm").pvalue > 0.01
    assert kstest(values / 1.05, "norm").pvalue < 0.01


@pytest.mark.parametrize(("rate", "steps"), [(1.0, 1), (0.5, 2), (0.3, 4), (0.1, 10), (1e-3, 1000)])
def test_an_epoch_shows_a_window_once_on_average(rate: float, steps: int) -> None:
    assert steps_of(rate) == steps


def private_run(folder: Path, rounds: int, **options: object):  # type: ignore[no-untyped-def]
    objective = PerExample(plain(), 1.0, 0.5, 0.25)
    transforms = {"privacy": Withhold()}
    return federate(
        folder, rounds=rounds, objective=objective, transforms=transforms, settings=SGD, **options
    )


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    check_resume(lambda name, rounds: private_run(tmp_path / name, rounds))


def test_sites_send_no_numbers_of_their_own(tmp_path: Path) -> None:
    run = private_run(tmp_path / "a", 1, evaluate_fraction=0.0)
    for site in run.history.rounds()[1].sites.values():
        assert site["examples"] == 1 and site["train_loss"] is None
    assert same(run.weights(), private_run(tmp_path / "b", 1, evaluate_fraction=0.0).weights())


def test_it_learns_where_there_is_little_noise(tmp_path: Path) -> None:
    run = private_run(tmp_path, 6)
    records = run.history.rounds()
    assert records[-1].metrics["validation_loss"] < records[0 + 1].metrics["validation_loss"]
