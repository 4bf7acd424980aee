"""The source's ready-made choices: training settings, and models for whole factories.

``conf/model/*.yaml`` carry the same settings into a run; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpdm.errors import ModelError
from fedpdm.models.cnn import OptimizedCNNModel
from fedpdm.models.factory import ModelFactory, defaults
from fedpdm.models.hybrid import OptimizedHybridModel
from fedpdm.models.lstm import OptimizedLSTMModel
from fedpdm.models.manager import ModelManager
from fedpdm.models.mlp import MLP
from fedpdm.models.registry import ModelType
from fedpdm.models.trend import TrendModel
from fedpdm.models.wrapper import ModelWrapper

_DECAY = {"scheduler": "StepLR", "step_size": 10, "gamma": 0.5}

OPTIMIZED_TRAINING_CONFIG: dict[str, dict[str, Any]] = {
    name: {
        "optimizer": "adam",
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": 1e-4,
        "clip_norm": clip_norm,
        **_DECAY,
    }
    for name, batch_size, learning_rate, clip_norm in (
        ("mlp", 32, 1e-3, None),
        ("cnn", 32, 5e-4, None),
        ("lstm", 16, 5e-4, 1.0),
        ("hybrid", 16, 1e-3, 1.0),
        ("trend", 64, 1e-3, 1.0),
    )
}
"""Training settings by model, those of the source (``mlp`` and ``trend`` are ours).

``clip_norm`` is the largest norm of all gradients together, None for no clipping. The
learning rate halves every ``step_size`` epochs, counted over all rounds.
"""

BEST_HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    name: {key: value for key, value in defaults(cls).items() if key != "sequence_length"}
    for name, cls in (
        ("mlp", MLP),
        ("cnn", OptimizedCNNModel),
        ("lstm", OptimizedLSTMModel),
        ("hybrid", OptimizedHybridModel),
        ("trend", TrendModel),
    )
}
"""Architecture settings by model, read off the classes."""

FACTORY_NETWORK_CONFIG: dict[str, dict[str, Any]] = {
    factory: {
        "input_dim": 10,
        "num_classes": 2,
        "sequence_length": 10,
        **{f"prefers_{name}": name in liked for name in ("cnn", "lstm", "hybrid")},
    }
    for factory, liked in (
        ("automotive_detroit", ("cnn", "hybrid")),
        ("chemical_houston", ("lstm",)),
        ("aerospace_seattle", ("cnn", "lstm", "hybrid")),
    )
}
"""The source's three factories and the models that each prefers."""


def create_optimized_model(
    model_type: str | ModelType, input_dim: int, num_classes: int, **config: Any
) -> ModelWrapper:
    """Build a model with its best settings; ``config`` as in ``ModelFactory.create_model``."""
    return ModelFactory.create_model(model_type, input_dim, num_classes, **config)


def setup_federated_training(model_type: str | ModelType) -> dict[str, Any]:
    """Return training settings, architecture and the source's federated defaults in one dict.

    Raises:
        ModelError: the source has no settings for this model.
    """
    name = str(model_type)
    if name not in OPTIMIZED_TRAINING_CONFIG:
        raise ModelError(
            f"model={name} has no training settings here: "
            f"there are {', '.join(OPTIMIZED_TRAINING_CONFIG)}"
        )
    return {
        **OPTIMIZED_TRAINING_CONFIG[name],
        **BEST_HYPERPARAMETERS[name],
        "federated_rounds": 10,
        "local_epochs": 3,
        "aggregation_method": "FedAvg",
    }


def deploy_models_for_factory(
    factory_type: str, data_characteristics: Mapping[str, Any]
) -> dict[str, ModelWrapper]:
    """Build the models that a factory's data calls for.

    Args:
        factory_type: Name of the factory, for messages.
        data_characteristics: ``feature_count``, ``num_classes``, ``sequence_length`` (None or
            left out: tabular), and truth values ``has_temporal_patterns``,
            ``has_spatial_patterns``, ``complex_patterns``.

    Returns:
        ``temporal`` (lstm), ``spatial`` (cnn) and ``hybrid``, those that were asked for.

    Raises:
        ModelError: a key is missing, or a model does not take this data.
    """
    roles = (
        ("temporal", "has_temporal_patterns", ModelType.LSTM),
        ("spatial", "has_spatial_patterns", ModelType.CNN),
        ("hybrid", "complex_patterns", ModelType.HYBRID),
    )
    shape: dict[str, Any] = {
        "input_dim": _required(factory_type, data_characteristics, "feature_count"),
        "num_classes": _required(factory_type, data_characteristics, "num_classes"),
        "sequence_length": data_characteristics.get("sequence_length"),
    }
    models = {}
    for role, wish, model_type in roles:
        if data_characteristics.get(wish):
            try:
                models[role] = create_optimized_model(model_type, **shape)
            except ModelError as error:
                raise ModelError(f"{factory_type}: {wish} asks for a model, but {error}") from error
    return models


def setup_federated_models_for_network(
    factory_configs: Mapping[str, Mapping[str, Any]], manager: ModelManager | None = None
) -> dict[str, dict[str, ModelWrapper]]:
    """Build every factory's preferred models, registered as ``<factory>_<model>``.

    Args:
        factory_configs: By factory: ``input_dim``, ``num_classes``, perhaps
            ``sequence_length``, and ``prefers_<model>: true`` for any registered model
            (``FACTORY_NETWORK_CONFIG`` is an example).
        manager: Where they are registered; None for a new one that lives in memory only.

    Returns:
        The models by factory and model name.

    Raises:
        ModelError: a preference names no model, a key is missing, an id is taken, or a model
            does not take this data.
    """
    manager = manager or ModelManager()
    known = [str(name) for name in ModelFactory.list_available_models()]
    network: dict[str, dict[str, ModelWrapper]] = {}
    for factory, config in factory_configs.items():
        shape = {key: _required(factory, config, key) for key in ("input_dim", "num_classes")}
        if "sequence_length" in config:
            shape["sequence_length"] = config["sequence_length"]
        preferred = {
            key.removeprefix("prefers_"): bool(wish)
            for key, wish in config.items()
            if key.startswith("prefers_")
        }
        for name in preferred:
            if name not in known:
                raise ModelError(
                    f"{factory}: prefers_{name} names no model; there are {', '.join(known)}"
                )
        network[factory] = {
            name: manager.create_and_register_model(f"{factory}_{name}", name, **shape)
            for name, wish in preferred.items()
            if wish
        }
    return network


def _required(factory: str, config: Mapping[str, Any], key: str) -> int:
    if key not in config:
        raise ModelError(f"{factory}: {key} is missing; given are {', '.join(config) or 'no keys'}")
    return int(config[key])
