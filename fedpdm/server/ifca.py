"""IFCA: there are k models, and each site trains the one that fits its data best.

Ghosh, Chung, Yin and Ramchandran 2020, An Efficient Framework for Clustered Federated Learning
(NeurIPS), algorithm 1 with model averaging. In a round every sampled site i gets all k models and
takes

    j_i = argmin_j F_i(w_j)        F_i: loss on its training windows

then trains w_j and the server sets w_j ← Σ p_i w_i over the sites that took it, p_i by examples.
Ours asks for the losses first and sends the chosen model again to be trained, so that any engine
and any objective will do: k + 1 models go down for one that comes up. The models start near each
other: w_j = w_1 + s·rms(w_1)·N(0, 1), tensor by tensor, drawn from the seed (the paper: random
starts, and tries several). A model that no site takes stays as it is. k = 1 is FedAvg, bit for bit.

Use it where sites fall into a few kinds and k is about known; a k too large leaves models without
sites. Few sites can all take one model in the first rounds and never part: another seed, or a
larger spread. A site that has not been sampled yet has the model of the largest cluster. Fits a
``fraction_train`` below 1. Messages to sites cost k + 1 times FedAvg's; sites remember nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from flwr.app import ConfigRecord

from fedpdm.aggregation.update import Base
from fedpdm.errors import ConfigError
from fedpdm.seeding import numpy_generator
from fedpdm.server.base import Round
from fedpdm.server.clusters import Clustered
from fedpdm.server.round_metrics import evaluate
from fedpdm.wire.records import ON_TRAINING

__all__ = ["IFCA"]

MOST = 100


class IFCA(Clustered):
    """Sites choose the model of the lowest loss.

    Args:
        clusters: k, how many models; 1: FedAvg.
        spread: s, how far the models start from each other, in root mean squares of each tensor.

    Raises:
        ConfigError: a value out of its range.
    """

    def __init__(self, clusters: int = 2, spread: float = 0.5) -> None:
        super().__init__()
        if not 1 <= clusters <= MOST:
            raise ConfigError(f"server.clusters={clusters} must be at least 1 and at most {MOST}")
        if not 0 < spread <= 100:
            raise ConfigError(f"server.spread={spread} must be above 0 and at most 100")
        self.first, self.spread = clusters, float(spread)

    def start(self, model: Base, name: str) -> Base:
        place = self.names.index(name)
        if place == 0:
            return model
        generator = numpy_generator(self.services.seed, "ifca", place)
        arrays = {}
        for tensor, values in model.arrays.items():
            size = self.spread * float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
            moved = values + size * generator.standard_normal(values.shape)
            arrays[tensor] = moved.astype(values.dtype)
        return Base(model.version, arrays, model.buffers)

    def assign(self, round: Round, sites: Sequence[str]) -> Mapping[str, str]:
        names, members = self.names, self.members
        if len(names) == 1:
            return dict.fromkeys(sites, names[0])
        config = ConfigRecord({**round.config, ON_TRAINING: True})
        best = {site: (math.inf, members.get(site, names[0])) for site in sites}
        for name in names:
            services = self.services
            found, down, up = evaluate(
                services.dispatcher, services.calls, self.model(round, name), sites, config,
                round.note,
            )  # fmt: skip
            round.bytes_down += down
            self._up += up
            for site, said in found.items():
                if said.get("loss", math.inf) < best[site][0]:  # NaN is below nothing
                    best[site] = said["loss"], name
        return {site: name for site, (_, name) in best.items()}
