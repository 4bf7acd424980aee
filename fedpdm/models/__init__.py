"""Models: architectures by name, and what a federation needs around them.

Every architecture maps rows (B, F) or windows (B, T, F) to raw outputs (B, C) and calls its
last layer ``output``, so that a policy can tell body from head. To add one, drop a file with
a class under ``@register("name")`` into this folder.
"""

from fedpdm.models.cnn import OptimizedCNNModel
from fedpdm.models.factory import ModelFactory
from fedpdm.models.hybrid import OptimizedHybridModel
from fedpdm.models.lstm import OptimizedLSTMModel
from fedpdm.models.manager import ModelManager
from fedpdm.models.mlp import MLP
from fedpdm.models.registry import ModelType, register
from fedpdm.models.wrapper import ModelWrapper

__all__ = [
    "MLP",
    "ModelFactory",
    "ModelManager",
    "ModelType",
    "ModelWrapper",
    "OptimizedCNNModel",
    "OptimizedHybridModel",
    "OptimizedLSTMModel",
    "register",
]
