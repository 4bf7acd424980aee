"""Local training: schedule, clipping, seeding, batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from fedpdm.errors import ConfigError
from fedpdm.training.loop import TrainingSettings, batches, fit
from fedpdm.training.objective import Supervised, outputs

X = torch.linspace(-1, 1, 40).reshape(20, 2)
Y = (X.sum(1) > 0).long()


CROSS_ENTROPY = Supervised(functional.cross_entropy)


def network(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 2))


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def settings(**changes: object) -> TrainingSettings:
    return TrainingSettings(
        **{"local_epochs": 2, "batch_size": 4, "learning_rate": 0.01, **changes}
    )


def train(module: nn.Module, key: tuple[str | int, ...] = ("t",), **changes: object) -> float:
    return fit(module, X, Y, CROSS_ENTROPY, settings(**changes), seed=1, key=key, epochs=3)


def test_rate_halves_every_ten_epochs_counted_over_rounds() -> None:
    rates = [settings(learning_rate=1.0).rate(epoch) for epoch in (0, 9, 10, 19, 20, 30)]
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25, 0.125]


def test_schedules_follow_the_runs_length() -> None:
    cosine = settings(learning_rate=1.0, schedule="cosine", epochs=40)
    assert [cosine.rate(epoch) for epoch in (0, 20, 40)] == pytest.approx([1.0, 0.5, 0.0])
    assert all(cosine.rate(e) > cosine.rate(e + 1) > 0 for e in range(39))
    constant = settings(learning_rate=0.3, schedule="constant")
    assert {constant.rate(epoch) for epoch in (0, 7, 900)} == {0.3}
    with pytest.raises(ConfigError, match="linear"):
        settings(schedule="linear")
    with pytest.raises(ConfigError, match="cosine"):
        settings(schedule="cosine").rate(0)


def test_one_sgd_step_by_hand() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 2.0)
    x, y = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [0.0]])
    # loss = mean((w x)²) = 5 w², gradient 10 w = 20; with clipping to norm 1 the step is lr · 1.
    for clip, expected in ((None, 2.0 - 0.1 * 20.0), (1.0, 2.0 - 0.1)):
        nn.init.constant_(module.weight, 2.0)
        chosen = settings(optimizer="sgd", learning_rate=0.1, batch_size=2, clip_norm=clip)
        fit(module, x, y, Supervised(functional.mse_loss), chosen, seed=0, key=("hand",), epochs=1)
        assert module.weight.item() == pytest.approx(expected, abs=1e-5)


def test_same_key_same_bits_whatever_the_global_state() -> None:
    first, second, other = network(0.5), network(0.5), network(0.5)
    train(first)
    torch.manual_seed(999)
    torch.rand(17)
    train(second)
    train(other, key=("another round",))
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


def test_training_leaves_the_global_generator_alone() -> None:
    module = network(0.5)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(module)
    assert torch.equal(torch.rand(3), expected)


def test_terms_add_to_the_gradient_before_clipping() -> None:
    plain, pulled = network(), network()
    start = weights(plain).clone()

    def pull(parameters, received):  # type: ignore[no-untyped-def]
        for parameter, reference in zip(parameters, received, strict=True):
            parameter.grad.add_(parameter.detach() - reference, alpha=50.0)

    chosen = settings(optimizer="sgd", learning_rate=0.005)
    for module, terms in ((plain, ()), (pulled, (pull,))):
        fit(
            module,
            X,
            Y,
            CROSS_ENTROPY,
            chosen,
            seed=1,
            key=("k",),
            epochs=5,
            terms=terms,
        )
    assert (weights(pulled) - start).norm() < 0.5 * (weights(plain) - start).norm()


@given(count=st.integers(1, 60), size=st.integers(1, 20))
def test_batches_cover_all_once_and_leave_no_single(count: int, size: int) -> None:
    parts = list(batches(count, size, torch.Generator().manual_seed(0)))
    assert sorted(torch.cat(parts).tolist()) == list(range(count))
    if size > 1 and count > 1:
        assert min(len(part) for part in parts) > 1  # BatchNorm cannot train on one


def test_loss_is_the_mean_over_examples_of_the_last_epoch() -> None:
    module = nn.Linear(2, 2)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    loss = fit(
        module, X, Y, CROSS_ENTROPY, settings(learning_rate=1e-12, batch_size=7),
        seed=0, key=("loss",), epochs=1,
    )  # fmt: skip
    assert loss == pytest.approx(0.6931472, abs=1e-5)


def test_outputs_do_not_depend_on_the_batch() -> None:
    module = network(0.5)
    assert torch.allclose(outputs(module, X, 3), outputs(module, X, 100), atol=1e-6)
    assert outputs(module, X[:0]).shape[0] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"local_epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": -1.0},
        {"clip_norm": 0.0},
        {"weight_decay": -0.1},
        {"optimizer": "adamw9"},
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"training.{next(iter(change))}"):
        settings(**change)


def test_mixed_precision_changes_the_loss_a_little_and_no_dtype() -> None:
    from fedpdm.engines.stacked.trainer import StackedTrainer

    def trained(amp: bool) -> tuple[float, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
        x, y = torch.linspace(-2, 2, 240).reshape(40, 6), torch.arange(40) % 2
        settings = TrainingSettings(1, 8, 0.01, amp=amp)
        objective = Supervised(nn.functional.cross_entropy)
        loss = fit(model, x, y, objective, settings, seed=0, key=("a",), epochs=1)
        assert all(p.dtype == torch.float32 for p in model.parameters())
        with pytest.raises(ConfigError, match="amp"):
            StackedTrainer(model, objective, TrainingSettings(1, 8, 0.01, amp=True), seed=0)
        return loss, torch.cat([p.detach().flatten() for p in model.parameters()])

    (exact, plain), (rough, mixed) = trained(False), trained(True)
    assert exact != rough and exact == pytest.approx(rough, rel=0.02)
    assert not torch.equal(plain, mixed) and torch.allclose(plain, mixed, atol=0.05)
