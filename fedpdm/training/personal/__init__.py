"""Personal methods: what a site keeps for itself beside what is learnt together."""

from fedpdm.training.personal.apfl import APFL
from fedpdm.training.personal.base import METHODS, Personal, personal
from fedpdm.training.personal.ditto import Ditto
from fedpdm.training.personal.fedala import FedALA
from fedpdm.training.personal.fedrep import FedRep
from fedpdm.training.personal.finetune import FineTune
from fedpdm.training.personal.knnper import KNNPer
from fedpdm.training.personal.mapper import MAPPER
from fedpdm.training.personal.pfedme import PFedMe

__all__ = [
    "APFL", "MAPPER", "METHODS", "Ditto", "FedALA", "FedRep", "FineTune", "KNNPer", "PFedMe",
    "Personal", "personal",
]  # fmt: skip
