"""The encoder of numbers and codes: layout, gradients, noise, and that codes are told apart."""

from __future__ import annotations

import pytest
import torch

from fedpdm.errors import ConfigError, ModelError
from fedpdm.models import ModelFactory
from fedpdm.models.sensor_encoder import Encoder, SensorEncoder
from fedpdm.seeding import torch_seeded
from fedpdm.testing import check_model
from fedpdm.training.denoising import SEEN, Denoising
from fedpdm.training.loop import TrainingSettings, fit
from fedpdm.training.objective import LocalContext

LEVELS = [0, 0, 3, 0, 4, 0]
TINY = {"width": 16, "hidden_size": 8, "fc_hidden": 8}


def encoder_count(numbers: int, levels: list[int], width: int = 128, hidden: int = 64) -> int:
    """Return the parameters of the documented layout, counted by hand."""
    fused = numbers * width + width + 2 * width
    codes = sum(4 * n for n in levels) + (4 * len(levels) * width + width) + 2 * width
    gates = 4 * hidden
    first = 2 * (gates * width + gates * hidden + 2 * gates)
    second = 2 * (gates * 2 * hidden + gates * hidden + 2 * gates)
    return fused + (codes if levels else 0) + first + second


def test_the_documented_layout_has_the_count_of_its_layers() -> None:
    model = ModelFactory.create_model("sensor_encoder", 159, 9, levels=[0] * 155 + [3] * 4)
    assert sum(p.numel() for p in model.encoder.parameters()) == encoder_count(155, [3] * 4)
    assert model.encoder(torch.zeros(2, 64, 159)).shape == (2, 64, 128)
    head = 128 + (128 * 128 + 128) + (128 * 9 + 9)
    assert model.num_parameters == encoder_count(155, [3] * 4) + head
    plain = ModelFactory.create_model("sensor_encoder", 10, 2)
    assert sum(p.numel() for p in plain.encoder.parameters()) == encoder_count(10, [])


@pytest.mark.parametrize("levels", [LEVELS, []])
def test_it_keeps_the_contract_of_models_and_can_be_stacked(levels: list[int]) -> None:
    def build() -> SensorEncoder:
        return SensorEncoder(6, 3, levels=levels, dropout_rate=0.0, **TINY)

    assert check_model(build, (12, 6), 3) is None


def test_codes_are_embedded_one_by_one_and_rounded() -> None:
    encoder = Encoder(6, LEVELS, 16, 8).eval()
    x = torch.randn(2, 5, 6)
    x[:, :, 2], x[:, :, 4] = 1.0, 2.0
    near, other, far = x.clone(), x.clone(), x.clone()
    near[:, :, 2] = 1.3
    other[:, :, 2] = 2.0
    far[:, :, 4] = 99.0
    assert torch.equal(encoder(near), encoder(x))
    assert not torch.allclose(encoder(other), encoder(x))
    x[:, :, 4] = 3.0
    assert torch.equal(encoder(far), encoder(x))  # the last level


def test_noise_is_on_numbers_only() -> None:
    encoder, x = Encoder(6, LEVELS, 16, 8), torch.zeros(50, 20, 6)
    noisy = encoder.noisy(x, 0.1, torch.Generator().manual_seed(0))
    moved = noisy.std(dim=(0, 1))
    assert (moved[[2, 4]] == 0).all()
    assert torch.allclose(moved[[0, 1, 3, 5]], torch.full((4,), 0.1), atol=0.01)


def test_every_tensor_is_trained_by_the_denoising_objective() -> None:
    with torch_seeded(0, "test"):
        model = SensorEncoder(6, 3, levels=LEVELS, reconstructs=True, **TINY)
        x, y = torch.randn(12, 10, 6), torch.arange(12) % 3
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    objective = Denoising()
    objective.check_model(model)
    settings = TrainingSettings(1, 6, 0.01)
    fit(model, x, y, objective, settings, seed=0, key=("t",), epochs=1)
    assert all(not torch.equal(before[name], p) for name, p in model.named_parameters())


def test_denoising_learns_both_and_evaluates_without_noise() -> None:
    with torch_seeded(1, "test"):
        model = SensorEncoder(6, 2, levels=LEVELS, reconstructs=True, dropout_rate=0.0, **TINY)
        y = torch.arange(40) % 2
        x = torch.randn(40, 10, 6) + 2.0 * y[:, None, None]
    objective, context = Denoising(), LocalContext()
    before = objective.mean_loss(model, x, y, context)
    assert before == objective.mean_loss(model, x, y, context)
    with torch.no_grad():
        rebuilt = (model.denoised(x)[1] - model.encoder.readings(x)).square().mean()
    fit(model, x, y, objective, TrainingSettings(1, 8, 0.01), seed=0, key=("t",), epochs=20)
    model.eval()
    with torch.no_grad():
        logits, after = model.denoised(x)
    assert (logits.argmax(dim=1) == y).float().mean() > 0.9
    assert (after - model.encoder.readings(x)).square().mean() < 0.7 * rebuilt


def test_rare_classes_weigh_as_much_as_frequent_ones() -> None:
    with torch_seeded(2, "test"):
        model = SensorEncoder(6, 2, reconstructs=True, dropout_rate=0.0, **TINY)
        x = torch.randn(20, 10, 6)
    y = torch.tensor([0] * 15 + [1] * 5)
    context = LocalContext()
    model.train()
    Denoising(noise=0.0, weight=0.0).losses(model, x, y, context)
    assert context.memory[SEEN].tolist() == [15.0, 5.0]
    model.eval()
    even = Denoising(noise=0.0, weight=0.0, balanced=False).losses(model, x, y, context)
    weighed = Denoising(noise=0.0, weight=0.0).losses(model, x, y, context)
    ratio = weighed / even
    assert torch.allclose(ratio[:15], torch.full((15,), 20 / 2 / 15))
    assert torch.allclose(ratio[15:], torch.full((5,), 20 / 2 / 5))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.config\.reconstructs=true"):
        Denoising().check_model(SensorEncoder(6, 2, **TINY))
    for levels in ([0, 0], [3] * 6, [0, 0, 0, 0, 0, -1]):
        with pytest.raises(ModelError, match="levels"):
            SensorEncoder(6, 2, levels=levels, **TINY)
    with pytest.raises(ModelError, match="tabular"):
        SensorEncoder(6, 2, None, **TINY)
    with pytest.raises(ConfigError, match=r"objective\.noise"):
        Denoising(noise=-1.0)
