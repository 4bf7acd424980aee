"""Models by name: create, list, extend, recommend; and the yaml options beside them."""

from __future__ import annotations

import copy
import itertools
import pickle
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import fedpdm.models
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
    recommend_model_for_usecase,
    registry,
    setup_federated_models_for_network,
    setup_federated_training,
)

CONF = Path(__file__).parents[2] / "conf" / "model"
OURS = ["cnn", "hybrid", "lstm", "mlp", "trend"]


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """What a test registers is gone after it."""
    registry.discover()
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))


class Custom(nn.Module):
    def __init__(self, input_dim: int, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.output = nn.Sequential(nn.Linear(input_dim, width), nn.Linear(width, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(x)


@pytest.mark.parametrize("name", OURS)
def test_the_default_config_builds_the_default_model(name):
    """Defect 9: the source's default config disagreed with its classes and raised TypeError."""
    config = ModelFactory.get_default_config(name)
    built = ModelFactory.create_model(name, **config)
    plain = ModelFactory.create_model(name, input_dim=10, num_classes=2)
    shapes = {key: value.shape for key, value in built.get_parameters().items()}
    assert shapes == {key: value.shape for key, value in plain.get_parameters().items()}
    assert built.config == plain.config == config


@pytest.mark.parametrize("name", OURS)
def test_every_setting_changes_the_model(name):
    """A documented setting that changes nothing is a lie (rule 15)."""
    config = ModelFactory.get_default_config(name)
    others = {"bidirectional": False, "dropout_rate": 0.7, "num_layers": 2, "shares": [0.5, 1.0]}
    built = ModelFactory.create_model(name, **config)
    for key in BEST_HYPERPARAMETERS[name]:
        old = config[key]
        new = others.get(key, [v // 2 for v in old] if isinstance(old, list) else old)
        new = old // 2 if new == old else new
        changed = ModelFactory.create_model(name, **{**config, key: new})
        assert str(changed.module) != str(built.module), key


@pytest.mark.parametrize("name", ["rnn", "", "CNN"])
def test_an_unknown_model_is_refused_with_the_list(name):
    with pytest.raises(
        ModelError, match=f"model={name} does not exist: .*cnn, hybrid, lstm, mlp, trend"
    ):
        ModelFactory.create_model(name, 10, 2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_sizes": 3}, "no setting hidden_sizes: it has sequence_length, hidden_size"),
        ({"hidden_size": -1}, "cannot be built with"),
        ({"hidden_size": "wide"}, "cannot be built with"),
        ({"dropout_rate": 1.5}, "cannot be built with"),
        ({"dropout_rate": -0.5}, "cannot be built with"),
    ],
)
def test_wrong_settings_are_refused(config, message):
    with pytest.raises(ModelError, match=message):
        ModelFactory.create_model("lstm", 10, 2, **config)


@pytest.mark.parametrize("sizes", [(0, 2), (10, 0)])
def test_empty_shapes_are_refused(sizes):
    with pytest.raises(ModelError, match="must be 1 or more"):
        ModelFactory.create_model("mlp", *sizes)


def test_any_string_can_be_registered():
    """Defect 11: ``ModelType.CUSTOM`` did not exist; here the enum needs no change."""
    ModelFactory.register_model("custom", Custom)
    assert ModelFactory.create_model("custom", 5, 3, width=7)(torch.zeros(2, 5)).shape == (2, 3)
    # tabular is None everywhere, also for a class that has no such argument
    ModelFactory.create_model("custom", 5, 3, sequence_length=None)
    with pytest.raises(ModelError, match="no setting sequence_length: it has width"):
        ModelFactory.create_model("custom", 5, 3, sequence_length=9)
    available = ModelFactory.list_available_models()
    assert [model.value for model in available] == [
        "cnn",
        "custom",
        "hybrid",
        "lstm",
        "mlp",
        "trend",
    ]
    custom = ModelType("custom")
    assert custom in available
    assert copy.deepcopy(custom) == pickle.loads(pickle.dumps(custom)) == "custom"
    config = ModelFactory.get_default_config(custom)
    assert config == {"input_dim": 10, "num_classes": 2, "width": 4}
    ModelFactory.create_model(custom, **config)


def test_a_name_is_taken_once_but_a_class_may_be_defined_anew():
    ModelFactory.register_model("custom", Custom)
    again = type("Custom", (Custom,), {"__module__": __name__, "__qualname__": "Custom"})
    ModelFactory.register_model("custom", again)  # the notebook cell was run again
    assert type(ModelFactory.create_model("custom", 5, 3).module) is again
    with pytest.raises(ModelError, match=r"'cnn' is already registered by fedpdm\.models\.cnn"):
        ModelFactory.register_model("cnn", Custom)
    with pytest.raises(ModelError, match="not a torch.nn.Module class"):
        ModelFactory.register_model("list", list)


def test_a_class_that_takes_any_setting_gets_them_all():
    class Anything(nn.Module):
        def __init__(self, **settings: object) -> None:
            super().__init__()
            self.settings = settings

    ModelFactory.register_model("anything", Anything)
    model = ModelFactory.create_model("anything", 5, 3, sequence_length=9, colour="red")
    assert model.settings == {
        "input_dim": 5, "num_classes": 3, "sequence_length": 9, "colour": "red"
    }  # fmt: skip


def test_a_file_dropped_into_the_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "dropped_net.py").write_text(
        "from torch import nn\n"
        "from fedpdm.models import register\n"
        "@register('dropped')\n"
        "class Dropped(nn.Linear):\n"
        "    def __init__(self, input_dim, num_classes):\n"
        "        super().__init__(input_dim, num_classes)\n"
    )
    monkeypatch.setattr(fedpdm.models, "__path__", [*fedpdm.models.__path__, str(tmp_path)])
    registry.discover.cache_clear()
    try:
        assert ModelFactory.create_model("dropped", 4, 2)(torch.zeros(3, 4)).shape == (3, 2)
        assert "dropped" in ModelFactory.list_available_models()
    finally:
        sys.modules.pop("fedpdm.models.dropped_net", None)


# Options in conf/model ----------------------------------------------------------------


def test_every_model_has_a_yaml():
    assert sorted(path.stem for path in CONF.glob("*.yaml")) == OURS


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


# Whole factories ----------------------------------------------------------------------


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


# Guide and recommendations ------------------------------------------------------------


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


WISHES = ("fastest_training", "smallest_update", "comprehensive_analysis", "max_accuracy")
KINDS = ("temporal_dominant", "spatial_dominant", "complex_patterns")


@pytest.mark.parametrize("length", [None, 3, 10])
@pytest.mark.parametrize("features", [5, 10])
def test_recommended_models_take_the_data(length, features):
    shape = (4, features) if length is None else (4, length, features)
    for wish, kind in itertools.product((*WISHES, "none"), (*KINDS, "none")):
        data = {"sequence_length": length, "feature_count": features, kind: True}
        found = ModelFactory.recommend(data, {wish: True})
        assert found, (wish, kind)
        assert len({name for name, _ in found}) == len(found)
        for name, _ in found:
            ModelFactory.create_model(name, features, 2, sequence_length=length).eval()(
                torch.zeros(shape)
            )


def test_recommendations_follow_the_source_rules_without_its_claims():
    windows = {"sequence_length": 10, "feature_count": 10}
    first = {kind: recommend_model_for_usecase({**windows, kind: True}, {})[0][0] for kind in KINDS}
    assert first == {
        "temporal_dominant": "lstm", "spatial_dominant": "cnn", "complex_patterns": "hybrid"
    }  # fmt: skip
    best = recommend_model_for_usecase(windows, {"max_accuracy": True})
    assert {reason for _, reason in best} == {
        "none of them wins everywhere: compare on your validation data"
    }
