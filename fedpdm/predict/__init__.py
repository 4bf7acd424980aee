"""Scores new data with a finished run, on the command line and from Python.

Imported when first used: ``--help`` and a shell's completion need no PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpdm.predict.command import main
    from fedpdm.predict.loading import load_predictor
    from fedpdm.predict.ranking import machines

__all__ = ["load_predictor", "machines", "main"]

_HOMES = {"load_predictor": "loading", "machines": "ranking", "main": "command"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
