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
from fedpdm.models import ModelFactory, ModelType, registry

CONF = Path(__file__).parents[2] / "conf" / "model"
OURS = ["cnn", "hybrid", "lstm", "mlp", "program_decoder", "sensor_encoder", "trend"]
SHAPE = {"input_dim", "num_classes", "sequence_length"}


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
    classes = config["num_classes"]
    assert classes == 2 or name == "program_decoder"
    plain = ModelFactory.create_model(name, input_dim=10, num_classes=classes)
    shapes = {key: value.shape for key, value in built.get_parameters().items()}
    assert shapes == {key: value.shape for key, value in plain.get_parameters().items()}
    assert built.config == plain.config == config


@pytest.mark.parametrize("name", OURS)
def test_every_setting_changes_the_model(name):
    """A documented setting that changes nothing is a lie (rule 15)."""
    config = ModelFactory.get_default_config(name)
    others = {"bidirectional": False, "dropout_rate": 0.7, "num_layers": 3, "shares": [0.5, 1.0],
              "levels": [0] * 8 + [3, 4], "reconstructs": True, "beam": 2}  # fmt: skip
    if "levels" in config:  # an embedding's size shows where there is one
        config["levels"] = [0] * 9 + [3]
    built = ModelFactory.create_model(name, **config)
    for key in set(config) - SHAPE:
        old = config[key]
        new = others.get(key, [v // 2 for v in old] if isinstance(old, list) else old)
        new = old // 2 if new == old else new
        changed = ModelFactory.create_model(name, **{**config, key: new})
        assert str(changed.module) != str(built.module), key


@pytest.mark.parametrize("name", ["rnn", "", "CNN"])
def test_an_unknown_model_is_refused_with_the_list(name):
    with pytest.raises(
        ModelError, match=f"model={name} does not exist: .*cnn, .*hybrid, .*lstm, .*mlp, .*trend"
    ):
        ModelFactory.create_model(name, 10, 2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_sizes": 3}, "no setting hidden_sizes: it has sequence_length, hidden_size"),
        ({"hidden_size": -1}, "hidden_size=-1"),
        ({"hidden_size": "wide"}, "hidden_size=wide"),
        ({"dropout_rate": 1.5}, "dropout_rate"),
        ({"dropout_rate": -0.5}, "dropout_rate"),
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
    names = [model.value for model in available]
    assert names == sorted(names) and {*OURS, "custom"} <= set(names)
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
    ours = {n for n in registry.names() if registry.find(n).__module__.startswith("fedpdm.")}
    assert {path.stem for path in CONF.glob("*.yaml")} == ours >= set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_the_yaml_is_the_class_and_trains_as_the_source_says(name):
    """Defect 12: the source's documented settings never reached its training."""
    option = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    assert set(option) == {"model_type", "config", "training"}
    assert option["model_type"] == name
    defaults = ModelFactory.get_default_config(name)
    assert option["config"] == {k: v for k, v in defaults.items() if k not in SHAPE}
    training = option["training"]
    assert (training["optimizer"], training["weight_decay"]) == ("adam", 1e-4)
    picked = training["batch_size"], training["learning_rate"], training["clip_norm"]
    source = {"cnn": (32, 5e-4, None), "lstm": (16, 5e-4, 1.0), "hybrid": (16, 1e-3, 1.0)}
    assert picked == source.get(name, picked)
    classes = defaults["num_classes"]
    ModelFactory.create_model(name, 10, classes, sequence_length=10, **option["config"])


# Recommendations ----------------------------------------------------------------------


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
    first = {kind: ModelFactory.recommend({**windows, kind: True})[0][0] for kind in KINDS}
    assert first == {
        "temporal_dominant": "lstm", "spatial_dominant": "cnn", "complex_patterns": "hybrid"
    }  # fmt: skip
    best = ModelFactory.recommend(windows, {"max_accuracy": True})
    names = [name for name, _ in best]
    assert names == sorted(names)
    assert {"cnn", "hybrid", "lstm", "mlp", "trend"} <= set(names)
    assert not {"masked_autoencoder", "program_decoder"} & set(names)  # they predict no failure
    assert len({reason for _, reason in best}) == 1


def test_a_model_of_ones_own_is_recommended_where_it_takes_the_data():
    ModelFactory.register_model("custom", Custom)
    wish = {"smallest_update": True, "readable": True}
    assert "custom" not in dict(ModelFactory.recommend({"feature_count": 5}, wish))
    mine = type("Mine", (Custom,), {"good_for": {"readable": "one matrix"}})
    ModelFactory.register_model("mine", mine)
    rows = ModelFactory.recommend({"feature_count": 5, "sequence_length": None}, wish)
    assert [name for name, _ in rows] == ["mlp", "mine"] and rows[1][1] == "one matrix"
    windows = ModelFactory.recommend({"feature_count": 5, "sequence_length": 9}, wish)
    assert [name for name, _ in windows] == ["mlp"]
