"""The source's ready-made choices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from fedpdm.errors import ModelError
from fedpdm.models import (
    BEST_HYPERPARAMETERS,
    FACTORY_NETWORK_CONFIG,
    MODEL_PERFORMANCE_GUIDE,
    OPTIMIZED_TRAINING_CONFIG,
    ModelFactory,
    ModelManager,
    ModelType,
    create_optimized_model,
    deploy_models_for_factory,
    setup_federated_models_for_network,
    setup_federated_training,
)

CONF = Path(__file__).parents[2] / "conf" / "model"
OURS = ["cnn", "hybrid", "lstm", "mlp", "trend"]


@pytest.mark.parametrize("name", OURS)
def test_the_yaml_is_the_class_and_the_catalogue(name):
    """Defect 12: the source's documented settings never reached its training."""
    option = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    assert set(option) == {"model_type", "config", "training"}
    assert option["model_type"] == name
    assert option["config"] == BEST_HYPERPARAMETERS[name]
    documented = OPTIMIZED_TRAINING_CONFIG[name]
    assert option["training"] == {key: documented[key] for key in option["training"]}
    assert set(documented) - set(option["training"]) == {"scheduler", "step_size", "gamma"}
    ModelFactory.create_model(name, 10, 2, sequence_length=10, **option["config"])


def test_training_settings_are_those_of_the_source():
    picked = {
        name: (config["batch_size"], config["learning_rate"], config["clip_norm"])
        for name, config in OPTIMIZED_TRAINING_CONFIG.items()
    }
    assert picked["cnn"] == (32, 5e-4, None)
    assert picked["lstm"] == (16, 5e-4, 1.0)
    assert picked["hybrid"] == (16, 1e-3, 1.0)
    setup = setup_federated_training(ModelType.CNN)
    assert (setup["federated_rounds"], setup["local_epochs"], setup["gamma"]) == (10, 3, 0.5)
    assert setup["conv_filters"] == [32, 64, 128]
    with pytest.raises(ModelError, match="no training settings"):
        setup_federated_training("custom")


def test_models_for_a_factory():
    data = {"feature_count": 9, "num_classes": 2, "sequence_length": 10}
    wishes = {"has_temporal_patterns": True, "complex_patterns": True}
    models = deploy_models_for_factory("automotive", {**data, **wishes})
    assert {role: model.model_type for role, model in models.items()} == {
        "temporal": "lstm",
        "hybrid": "hybrid",
    }
    assert models["temporal"](torch.zeros(3, 10, 9)).shape == (3, 2)
    with pytest.raises(ModelError, match=r"automotive: has_temporal_patterns .* needs sequences"):
        deploy_models_for_factory("automotive", {**data, **wishes, "sequence_length": None})
    with pytest.raises(ModelError, match="automotive: feature_count is missing"):
        deploy_models_for_factory("automotive", {})


def test_a_network_gets_what_each_factory_prefers(tmp_path):
    network = setup_federated_models_for_network(FACTORY_NETWORK_CONFIG, ModelManager(tmp_path))
    assert {factory: list(models) for factory, models in network.items()} == {
        "automotive_detroit": ["cnn", "hybrid"],
        "chemical_houston": ["lstm"],
        "aerospace_seattle": ["cnn", "lstm", "hybrid"],
    }
    for models in network.values():
        for model in models.values():
            assert model(torch.zeros(2, 10, 10)).shape == (2, 2)
    assert "automotive_detroit_cnn" in ModelManager(tmp_path).list_models()


def test_a_network_as_the_source_writes_it_builds():
    """Without ``sequence_length``: sequence models at their default, the CNN on rows."""
    config = {"input_dim": 10, "num_classes": 2, "prefers_cnn": True, "prefers_lstm": True}
    models = setup_federated_models_for_network({"seattle": config})["seattle"]
    assert models["cnn"].num_parameters == 97_666
    assert models["lstm"].num_parameters == 55_682
    with pytest.raises(ModelError, match="seattle: prefers_rnn names no model"):
        setup_federated_models_for_network({"seattle": {**config, "prefers_rnn": True}})


@pytest.mark.parametrize("name", OURS)
def test_the_guide_states_what_the_models_cost(name):
    guide = MODEL_PERFORMANCE_GUIDE[name]
    model = create_optimized_model(name, 10, 2)
    tensors = model.get_parameters()
    assert guide["parameters"] == model.num_parameters
    assert guide["buffers"] == sum(tensors[key].numel() for key in model.buffer_names)
    assert guide["update_bytes"] == sum(t.numel() * t.element_size() for t in tensors.values())
    assert not any("accuracy" in key for key in guide)
    minimum = guide["minimum_steps"]
    create_optimized_model(name, 10, 2, sequence_length=minimum)
    with pytest.raises(ModelError):
        create_optimized_model(name, 10, 2, sequence_length=minimum - 1)(torch.zeros(1, 0, 10))
