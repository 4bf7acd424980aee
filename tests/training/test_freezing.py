"""A frozen encoder: no gradient, evaluation mode under train(), its own rate afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fedpdm.models import ModelFactory, ModelWrapper
from fedpdm.models.encoders import encoder_tensors
from fedpdm.seeding import torch_seeded
from fedpdm.training.freezing import Freezing
from fedpdm.training.loop import TrainingSettings, fit
from fedpdm.training.objective import Supervised

X = torch.randn((24, 20, 5), generator=torch.Generator().manual_seed(0))
Y = X[:, :, 0].mean(dim=1, keepdim=True)
SETTINGS = TrainingSettings(local_epochs=1, batch_size=8, learning_rate=0.01, optimizer="sgd")


def hybrid() -> ModelWrapper:
    with torch_seeded(0, "test"):
        return ModelFactory.create_model("hybrid", 5, 1, sequence_length=20, dropout_rate=0.5)


def names(model: ModelWrapper) -> frozenset[str]:
    return frozenset(encoder_tensors(type(model.module), model.get_parameters()).values())


def trained(freezing: Freezing | None, epochs: int, **changes: Any) -> ModelWrapper:
    model = hybrid()
    objective = Supervised(torch.nn.functional.mse_loss)
    settings = replace(SETTINGS, freezing=freezing, **changes)
    fit(model.module, X, Y, objective, settings, seed=0, key=("a",), epochs=epochs)
    assert all(parameter.requires_grad for parameter in model.module.parameters())
    return model


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_frozen_tensors_stay_to_the_bit_and_then_move(optimizer: str) -> None:
    fresh, encoder = hybrid().get_parameters(), names(hybrid())
    settings = {"optimizer": optimizer, "weight_decay": 0.1}  # a decay would move them, too
    frozen = trained(Freezing(encoder, 2), 2, **settings).get_parameters()
    free = trained(Freezing(encoder, 2), 3, **settings).get_parameters()
    for name, tensor in fresh.items():
        assert torch.equal(frozen[name], tensor) == (name in encoder), name
        if name in encoder:
            assert not torch.equal(free[name], tensor), name


def test_layers_of_frozen_tensors_stay_in_evaluation_mode() -> None:
    module = hybrid().module.train()
    Freezing(names(hybrid()), 1).quiet(module)
    training = {name for name, layer in module.named_modules() if layer.training}
    assert training == {"", "drop", "fc1", "output", "pool"}


def test_an_encoder_has_its_own_rate_when_it_is_not_frozen() -> None:
    encoder = names(hybrid())
    alike = trained(Freezing(encoder, 0), 1).get_parameters()
    for name, tensor in trained(None, 1).get_parameters().items():
        assert torch.equal(alike[name], tensor)
    fresh = hybrid().get_parameters()
    still = trained(Freezing(encoder, 0, rate=1e-12), 1).get_parameters()
    parameters = dict(hybrid().module.named_parameters())
    for name in parameters:
        close = torch.allclose(still[name], fresh[name], rtol=0, atol=1e-9)
        assert close == (name in encoder), name
