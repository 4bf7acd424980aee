"""Models: architectures by name, and what a federation needs around them.

Every architecture maps rows (B, F) or windows (B, T, F) to raw outputs (B, C) and calls its
last layer ``output``, so that a policy can tell body from head. To add one, drop a file with
a class under ``@register("name")`` into this folder.
"""

from fedpdm.models.catalogue import (
    BEST_HYPERPARAMETERS,
    FACTORY_NETWORK_CONFIG,
    MODEL_PERFORMANCE_GUIDE,
    OPTIMIZED_TRAINING_CONFIG,
    create_optimized_model,
    deploy_models_for_factory,
    recommend_model_for_usecase,
    setup_federated_models_for_network,
    setup_federated_training,
)
from fedpdm.models.cnn import OptimizedCNNModel
from fedpdm.models.factory import ModelFactory
from fedpdm.models.hybrid import OptimizedHybridModel
from fedpdm.models.lstm import OptimizedLSTMModel
from fedpdm.models.manager import ModelManager
from fedpdm.models.mlp import MLP
from fedpdm.models.monitor import ModelPerformanceMonitor
from fedpdm.models.registry import ModelType, register
from fedpdm.models.wrapper import ModelWrapper

__all__ = [
    "BEST_HYPERPARAMETERS",
    "FACTORY_NETWORK_CONFIG",
    "MLP",
    "MODEL_PERFORMANCE_GUIDE",
    "OPTIMIZED_TRAINING_CONFIG",
    "ModelFactory",
    "ModelManager",
    "ModelPerformanceMonitor",
    "ModelType",
    "ModelWrapper",
    "OptimizedCNNModel",
    "OptimizedHybridModel",
    "OptimizedLSTMModel",
    "create_optimized_model",
    "deploy_models_for_factory",
    "recommend_model_for_usecase",
    "register",
    "setup_federated_models_for_network",
    "setup_federated_training",
]
