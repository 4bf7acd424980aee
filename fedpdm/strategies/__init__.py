"""Strategies that Flower does not ship, and range checks for those that it does.

A strategy is one file here (or anywhere importable) and one yaml in ``conf/strategy``
with ``_target_``. Where it changes local training, the server half names a value in the
train config and the client half, in the same file, registers what that value does with
``@client_half`` (``strategies.base``), or ``@local_term`` where it is one term of the gradient.

Every module in this folder is imported on both sides, so the two halves find each other.
"""

from __future__ import annotations

import importlib
import pkgutil

from fedpdm.strategies.local_terms import gradient_terms, local_term

for _module in pkgutil.iter_modules(__path__):
    if _module.name != "__main__":  # the command, which lists them
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["gradient_terms", "local_term"]
