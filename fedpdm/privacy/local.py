"""Local differential privacy: a site clips its update and adds noise before it is sent.

The Gaussian mechanism (Dwork and Roth 2014, appendix A) at the site, on the whole update as one
vector:

    Δ_k ← w_k − w_t,  Δ_k ← Δ_k · min(1, C/‖Δ_k‖) + N(0, z²C²·1)

Whatever a site holds, its update lies in a ball, so another data set moves it by at most 2C: noise
counts half, and no sampling is credited, because the server knows whom it asked. A site's budget
is spent by the rounds that it takes part in.

When to use: the server is not trusted, and sites are many. The noise of the mean over n sites is
z·C/√n in each weight, √n times that of ``privacy=central``; memory and bytes are those of the
strategy.
"""

from __future__ import annotations

import numpy as np

from fedpdm.aggregation.update import Update
from fedpdm.privacy.accounting import Mechanism
from fedpdm.privacy.base import Facts, Privacy, Protection, refuse_buffers
from fedpdm.privacy.central import REPLACED, SITE
from fedpdm.privacy.clipping import clipped, differences, withheld
from fedpdm.transforms.base import Stage, Transform
from fedpdm.wire.records import Arrays


class LocalNoise(Transform):
    """Clips at the site, and adds noise there.

    Args:
        clip: C; None for no bound.
        noise: z, deviation of the noise over C.
    """

    stage = Stage.NOISE

    def __init__(self, clip: float | None, noise: float) -> None:
        self.clip, self.noise = clip, noise

    def encode(
        self, update: Update, state: dict[str, Arrays], generator: np.random.Generator
    ) -> Update:
        update = clipped(withheld(update), self.clip)
        deviation = self.noise * (self.clip or 0.0)
        if not deviation:
            return update
        for record, deltas in differences(update).items():
            noised = {n: d + generator.normal(0, deviation, d.shape) for n, d in deltas.items()}
            update = update.with_delta(noised, record)
        return update


class Local(Privacy):
    """Local differential privacy.

    Args:
        epsilon: see ``Privacy``, also for the others.
        delta: of the guarantee.
        noise_multiplier: z.
        clip: C.
        validation: whether sites evaluate during training.
    """

    name = "local"

    def protect(self, facts: Facts) -> Protection:
        refuse_buffers(facts, self.name)
        mechanism = self.settled(Mechanism(0.0), facts.rounds, None)
        return Protection(
            name=self.name,
            protects=SITE,
            against="everybody, the server too",
            neighbours=REPLACED,
            mechanism=mechanism,
            per_round=1,
            planned=facts.rounds,
            delta=self.delta,
            target=self.target,
            clip=self.clip,
            by_site=True,
            leaves=self.leaves(facts),
            open=self.uncovered(facts),
            transforms={"privacy": LocalNoise(self.clip, mechanism.noise)},
            withholds_validation=self.withholds,
        )
