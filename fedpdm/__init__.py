"""Federated learning for predictive maintenance across factory sites.

``python -m fedpdm.simulate site=detroit,houston`` is the command; these names are what a
program or a notebook needs. They are imported when they are first used, so that
``import fedpdm`` costs nothing: no torch, no Flower.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpdm.client.app import make_client_app
    from fedpdm.errors import FedPdmError
    from fedpdm.history import History
    from fedpdm.models import ModelFactory, ModelManager, ModelWrapper
    from fedpdm.server.loop import make_server_app

__version__ = "0.1.0"

# Without it a product's last digits depend on where its arrays lie in memory. MKL reads it
# when it multiplies for the first time.
os.environ.setdefault("MKL_CBWR", "AUTO")

__all__ = [
    "FedPdmError",
    "History",
    "ModelFactory",
    "ModelManager",
    "ModelWrapper",
    "__version__",
    "make_client_app",
    "make_server_app",
]

_HOMES = {
    "FedPdmError": "fedpdm.errors",
    "History": "fedpdm.history",
    "ModelFactory": "fedpdm.models",
    "ModelManager": "fedpdm.models",
    "ModelWrapper": "fedpdm.models",
    "make_client_app": "fedpdm.client.app",
    "make_server_app": "fedpdm.server.loop",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
