"""Prediction tasks: failures, remaining life, or what a machine does."""

from __future__ import annotations

from fedpdm.data.rows import within_horizon
from fedpdm.tasks.anomaly import Anomaly
from fedpdm.tasks.base import NEEDS_TIMES, TASKS, Metrics, Risk, Task
from fedpdm.tasks.classes import AssetType, DeviceFailure, Operation
from fedpdm.tasks.failure import Failure
from fedpdm.tasks.horizons import Horizons
from fedpdm.tasks.program import Program
from fedpdm.tasks.reconstruction import Reconstruction
from fedpdm.tasks.remaining_life import RemainingLife

__all__ = [
    "NEEDS_TIMES",
    "TASKS",
    "Anomaly",
    "AssetType",
    "DeviceFailure",
    "Failure",
    "Horizons",
    "Metrics",
    "Operation",
    "Program",
    "Reconstruction",
    "RemainingLife",
    "Risk",
    "Task",
    "within_horizon",
]
