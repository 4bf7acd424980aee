"""Which tensors of a model travel, by policy."""

from __future__ import annotations

import pytest
from torch import nn

from fedpdm.errors import ConfigError
from fedpdm.models import ModelFactory, ModelWrapper
from fedpdm.models.policy import POLICIES, Named, ParameterPolicy, Parts


def model(name: str) -> ModelWrapper:
    return ModelFactory.create_model(name, 3, 2, sequence_length=8)


def parts(policy: str, name: str) -> Parts:
    return POLICIES[policy]().parts(model(name))


@pytest.mark.parametrize("name", ["mlp", "cnn", "lstm", "hybrid", "trend"])
@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "adapters"])
def test_every_tensor_has_one_place_in_the_models_order(policy: str, name: str) -> None:
    made, found = model(name), parts(policy, name)
    state = list(made.state_dict())
    assert sorted((*found.shared, *found.buffers, *found.local)) == sorted(state)
    assert set(found.shared) <= set(made.parameter_names)
    assert set(found.buffers) <= set(made.buffer_names)
    for group in (found.shared, found.buffers):
        assert list(group) == [n for n in state if n in group]


def test_all_shares_all_parameters_and_averages_all_buffers() -> None:
    made, found = model("cnn"), parts("all", "cnn")
    assert found == Parts(made.parameter_names, made.buffer_names, ())


def test_no_norm_keeps_normalisation_and_its_statistics() -> None:
    found = parts("no_norm", "cnn")
    assert found.buffers == () and len(found.local) == 15
    assert all(name.startswith("bn") for name in found.local)
    assert not any(name.startswith("bn") for name in found.shared)


def test_body_and_head_part_the_model_at_its_last_layer() -> None:
    body, head = parts("body", "hybrid"), parts("head", "hybrid")
    assert body.local == head.shared == ("output.weight", "output.bias")
    assert set(head.local) == {*body.shared, *body.buffers}


def test_names_by_pattern_travel_and_a_pattern_that_matches_nothing_is_refused() -> None:
    found = Named(["conv*", "bn?.running_*"]).parts(model("cnn"))
    assert found.shared == tuple(f"conv{n}.{key}" for n in (1, 2, 3) for key in ("weight", "bias"))
    assert len(found.buffers) == 6
    with pytest.raises(ConfigError, match=r"'conw\*'.*conv1\.weight"):
        Named(["conw*"]).parts(model("cnn"))


def test_a_policy_that_shares_nothing_is_refused() -> None:
    class Nothing(ParameterPolicy):
        def is_local(self, name: str, layer: nn.Module) -> bool:
            return True

    with pytest.raises(ConfigError, match="learnt together"):
        Nothing().parts(model("mlp"))
