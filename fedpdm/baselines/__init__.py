"""Baselines: what a federated model is compared with. Modules register in column order."""

import importlib
import pkgutil

# isort: off
from fedpdm.baselines import networks as networks
from fedpdm.baselines import trees as trees
from fedpdm.baselines import estimators as estimators

for _module in pkgutil.iter_modules(__path__):  # one that is new registers last
    importlib.import_module(f"{__name__}.{_module.name}")
