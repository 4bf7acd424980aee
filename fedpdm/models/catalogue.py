"""Ready-made choices of the source system: what models cost, training settings, use cases.

No accuracy stands here. The source system's 92-94 % lie below the 96.6 % of a rule that
never announces a failure, so they recommend nothing; compare on your own validation data.
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

recommend_model_for_usecase = ModelFactory.recommend
"""The source's name for it."""

MODEL_PERFORMANCE_GUIDE: dict[str, dict[str, Any]] = {
    "mlp": {
        "best_for": ["tabular data", "a baseline for the others", "thousands of sites"],
        "takes": "(B, F), or (B, T, F) flattened",
        "minimum_features": 1,
        "minimum_steps": 1,
        "parameters": 2_978,
        "buffers": 0,
        "update_bytes": 11_912,
        "note": "on windows the first layer grows with T * F",
    },
    "cnn": {
        "best_for": ["local patterns in time", "tabular data"],
        "takes": "(B, F) with F >= 8, or (B, T, F) with T >= 8",
        "minimum_features": 8,
        "minimum_steps": 8,
        "parameters": 97_666,
        "buffers": 451,
        "update_bytes": 392_480,
        "note": "on rows it convolves over the order of the columns, which is arbitrary; "
        "BatchNorm's running statistics must be federated too",
    },
    "lstm": {
        "best_for": ["slow wear over a window", "windows of changing length"],
        "takes": "(B, T, F) with any T",
        "minimum_features": None,
        "minimum_steps": 1,
        "parameters": 55_682,
        "buffers": 0,
        "update_bytes": 222_728,
        "note": "time steps follow each other, so the cost grows with T",
    },
    "hybrid": {
        "best_for": ["long windows with local patterns"],
        "takes": "(B, T, F) with T >= 4",
        "minimum_features": None,
        "minimum_steps": 4,
        "parameters": 115_106,
        "buffers": 194,
        "update_bytes": 461_208,
        "note": "pooling leaves the LSTM T // 4 steps; BatchNorm's running statistics must "
        "be federated too",
    },
    "trend": {
        "best_for": ["remaining life", "long windows", "many rounds at little cost"],
        "takes": "(B, T, F) with the T it was built for",
        "minimum_features": None,
        "minimum_steps": 1,
        "parameters": 21_614,
        "buffers": 0,
        "update_bytes": 86_456,
        "note": "counted at windows of 30 steps; no recurrence, so a step is cheap",
    },
}
"""What each model takes and costs, at 10 features and 2 classes.

``minimum_features`` is the smallest F of rows (B, F), None where it takes no rows;
``minimum_steps`` the smallest T of windows. ``parameters`` and ``buffers`` count values,
``update_bytes`` is their size as stored, one way. For cnn and mlp the counts are of rows.
"""

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
