"""What a federated model is compared with. Modules register in the order of the columns."""

# isort: off
from fedpdm.baselines import networks as networks
from fedpdm.baselines import estimators as estimators
