"""The counts of the source document, and attention that is PyTorch's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from fedpdm.errors import ModelError
from fedpdm.models import ModelFactory
from fedpdm.models.enhanced_lstm import SelfAttention
from fedpdm.testing import check_model

CONF = Path(__file__).parents[2] / "conf" / "model"


@pytest.mark.parametrize(("layers", "count"), [(1, 409_186), (2, 804_450)])
def test_counts_are_those_of_the_document(layers: int, count: int) -> None:
    model = ModelFactory.create_model("enhanced_lstm", 4, 2, num_layers=layers)
    assert model.num_parameters == count


def test_attention_is_pytorchs() -> None:
    ours, theirs = SelfAttention(8, 2, 0.0), nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.in_proj_weight.data.copy_(ours.in_proj.weight)
    theirs.in_proj_bias.data.normal_()
    ours.in_proj.bias.data.copy_(theirs.in_proj_bias)
    theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])


def test_it_keeps_the_contract_of_models_and_stacks() -> None:
    def build() -> nn.Module:
        settings = {"hidden_size": 6, "fc_hidden": 5, "num_layers": 2}
        return ModelFactory.create_model("enhanced_lstm", 3, 2, sequence_length=9, **settings)

    # A bias of all keys moves all scores of a query alike: softmax takes it away. The layer of
    # queries, keys and values has one bias, so its tensor as a whole has a gradient.
    assert check_model(build, shape=(9, 3), outputs=2) is None


def test_the_last_state_sees_every_step() -> None:
    model = ModelFactory.create_model("enhanced_lstm", 3, 2).eval()
    x = torch.randn(2, 20, 3, requires_grad=True)
    model(x).sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(dim=2) > 0).all()


def test_heads_must_divide_the_states() -> None:
    with pytest.raises(ModelError, match=r"heads=3 .* 256"):
        ModelFactory.create_model("enhanced_lstm", 3, 2, heads=3)


def test_the_yaml_is_the_class() -> None:
    option = yaml.safe_load((CONF / "enhanced_lstm.yaml").read_text(encoding="utf-8"))
    defaults = ModelFactory.get_default_config("enhanced_lstm")
    shape = ("input_dim", "num_classes", "sequence_length")
    assert option["config"] == {k: v for k, v in defaults.items() if k not in shape}
    documented = option["training"]
    assert (documented["optimizer"], documented["weight_decay"]) == ("adamw", 1e-4)
