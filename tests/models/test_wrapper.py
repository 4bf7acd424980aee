"""Tensors out and in by name: exact, strict, all or nothing."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedpdm.errors import ModelError
from fedpdm.models import ModelFactory, ModelWrapper

SHAPES = [("mlp", None), ("cnn", None), ("cnn", 12), ("lstm", 12), ("hybrid", 12), ("trend", 12),
          ("enhanced_lstm", 12)]  # fmt: skip


def build(name: str = "cnn", length: int | None = None) -> ModelWrapper:
    return ModelFactory.create_model(name, 10, 2, sequence_length=length)


def trained(name: str, length: int | None) -> ModelWrapper:
    """A model whose parameters and buffers have all left their initial values."""
    model = build(name, length).train()
    for _ in range(3):
        model(torch.randn((16, 10) if length is None else (16, length, 10)) * 3 + 1)
    return model


@pytest.mark.parametrize(("name", "length"), SHAPES)
def test_round_trip_is_exact_for_parameters_and_buffers(name, length):
    """Defect 11: BatchNorm's buffers were lost, and with them the aggregated CNN (defect 14)."""
    source, target = trained(name, length), build(name, length)
    sent = source.get_parameters()
    assert set(sent) == {*source.parameter_names, *source.buffer_names}
    target.set_parameters(sent)
    received = target.get_parameters()
    assert list(sent) == list(received)
    for key, tensor in sent.items():
        assert received[key].dtype == tensor.dtype
        assert torch.equal(received[key], tensor)
    x = torch.randn((5, 10) if length is None else (5, length, 10))
    assert torch.equal(source.eval()(x), target.eval()(x))


def test_buffers_are_named_and_carry_what_training_left():
    model = trained("cnn", None)
    names = model.buffer_names
    assert len(names) == 9
    assert model.get_parameters()["bn1.num_batches_tracked"] == 3
    assert model.get_parameters()["bn1.num_batches_tracked"].dtype == torch.int64
    assert not torch.equal(model.get_parameters()["bn1.running_mean"], torch.zeros(32))
    assert build("lstm", 10).buffer_names == ()


def test_arrays_are_taken_like_tensors():
    source, target = trained("hybrid", 12), build("hybrid", 12)
    target.set_parameters({k: v.numpy() for k, v in source.get_parameters().items()})
    assert all(
        torch.equal(v, source.get_parameters()[k]) for k, v in target.get_parameters().items()
    )


def test_copies_share_nothing_with_the_model():
    model = build()
    taken = model.get_parameters()
    before = model.get_parameters()
    for tensor in taken.values():
        assert not tensor.requires_grad
        tensor.zero_()
    assert all(torch.equal(v, before[k]) for k, v in model.get_parameters().items())
    given_ = {k: v.clone() for k, v in before.items()}
    model.set_parameters(given_)
    given_["fc1.weight"].zero_()
    assert torch.equal(model.get_parameters()["fc1.weight"], before["fc1.weight"])


def test_setting_keeps_the_objects_that_an_optimizer_holds():
    model = build()
    held = list(model.parameters())
    model.set_parameters({k: v + 1 for k, v in model.get_parameters().items()})
    assert all(new is old for new, old in zip(model.parameters(), held, strict=True))
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())


@given(data=st.data())
@settings(max_examples=25)
def test_missing_and_unknown_names_are_refused_and_nothing_changes(data):
    model = build("hybrid", 12)
    before = model.get_parameters()
    names = list(before)
    dropped = data.draw(st.sets(st.sampled_from(names), max_size=3))
    added = data.draw(st.sets(st.text("abc.", min_size=1, max_size=6), max_size=2))
    offered = {k: v + 1 for k, v in before.items() if k not in dropped}
    offered |= {name: torch.zeros(1) for name in added}
    if not dropped and not added:
        model.set_parameters(offered)
        return
    with pytest.raises(ModelError) as caught:
        model.set_parameters(offered)
    assert all(name in str(caught.value) for name in dropped | added)
    assert "model=hybrid" in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in model.get_parameters().items())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("output.weight", torch.zeros(3, 128), r"output.weight has shape \(2, 128\).*\(3, 128\)"),
        ("bn1.num_batches_tracked", torch.zeros(1, dtype=torch.int64), r"shape \(\)"),
        ("bn1.num_batches_tracked", torch.tensor(1.5), "holds torch.int64 and was given"),
        ("bn1.running_mean", torch.zeros(32, dtype=torch.int64), "holds torch.float32"),
    ],
)
def test_wrong_shapes_and_kinds_are_refused_and_nothing_changes(name, value, message):
    model = build()
    before = model.get_parameters()
    with pytest.raises(ModelError, match=message):
        model.set_parameters({**{k: v + 1 for k, v in before.items()}, name: value})
    assert all(torch.equal(v, before[k]) for k, v in model.get_parameters().items())


def test_wider_floats_are_cast_back_to_the_model():
    """FedAdam returns float64; the model stays float32."""
    model = build("mlp")
    wide = {k: v.double() for k, v in model.get_parameters().items()}
    model.set_parameters(wide)
    assert {v.dtype for v in model.get_parameters().values()} == {torch.float32}


@pytest.mark.parametrize(("name", "length"), SHAPES)
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_and_pickles_work(name, length, how):
    """Defect 11: ``__getattr__`` made deepcopy and unpickling recurse for ever."""
    model = trained(name, length).eval()
    twin = how(model)
    assert isinstance(twin, ModelWrapper)
    assert (twin.model_type, twin.config) == (model.model_type, model.config)
    x = torch.randn((5, 10) if length is None else (5, length, 10))
    assert torch.equal(model(x), twin(x))


def test_a_deep_copy_is_independent():
    model = build("mlp")
    twin = copy.deepcopy(model)
    twin.set_parameters({k: v + 1 for k, v in twin.get_parameters().items()})
    assert not torch.equal(model.get_parameters()["fc1.bias"], twin.get_parameters()["fc1.bias"])


def test_a_half_built_wrapper_says_what_is_missing():
    with pytest.raises(AttributeError, match="parameters"):
        _ = ModelWrapper.__new__(ModelWrapper).parameters
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = build().no_such_thing


def test_a_call_is_the_forward_pass():
    """Defect 11: the source's document calls ``hybrid_model(x)``, its wrapper could not."""
    model = build("hybrid", 12).eval()
    x = torch.randn(3, 12, 10)
    assert torch.equal(model(x), model.forward(x))
    assert torch.equal(model(x), model.module(x))


def test_the_rest_is_the_module_s_and_stays_wrapped():
    model = build()
    assert model.train() is model and model.training
    assert model.eval() is model and not model.module.training
    assert model.to(torch.float64) is model
    assert model.float() is model and model.requires_grad_(False) is model
    assert model.conv1 is model.module.conv1
    assert set(model.state_dict()) == set(model.get_parameters())


def test_any_module_can_be_wrapped():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.second = self.first
            self.register_buffer("kept", torch.ones(2))
            self.register_buffer("cache", torch.ones(2), persistent=False)

    model = ModelWrapper(Tied())
    assert model.num_parameters == 12
    assert model.buffer_names == ("kept",)
    model.set_parameters({k: v + 1 for k, v in model.get_parameters().items()})
    with pytest.raises(ModelError, match="Tied: .*unknown: third"):
        model.set_parameters({**model.get_parameters(), "third": torch.ones(1)})
