"""Central differential privacy: sites clip their updates, and the server adds noise to the sum.

McMahan et al. 2018, Learning Differentially Private Recurrent Language Models (ICLR), algorithm
1 with flat clipping and the estimator of fixed denominator:

    Δ_k  ← w_k − w_t,  Δ_k ← Δ_k · min(1, C/‖Δ_k‖)
    w    ← w_t + (Σ_{k in S} Δ_k + N(0, z²C²·1)) / (q·K)

K sites, each in S by itself with probability q (``server=poisson``). One site more or less moves
the sum by at most C, whatever it sends, so a site with all its machines is hidden. Every site
counts as one: weights by examples would tell of its size. Weights and the records that a
strategy's client half sends are one vector. The server measures what arrives, and clips it again
if a site did not.

With ``server=synchronous`` the cohort has a fixed size n: then a site may be exchanged for any
other, which moves the sum by up to 2C, and the denominator is n.

Adaptive clipping is Andrew et al. 2021, Differentially Private Learning with Adaptive Clipping
(NeurIPS), algorithm 1, equation 1 and theorem 1. With b_k = 1 where ‖Δ_k‖ ≤ C, else 0:

    b̃ ← (Σ (b_k − ½) + N(0, σ_b²)) / (q·K) + ½
    C ← C · exp(−η_C · (b̃ − γ))
    z_Δ ← (z⁻² − (2σ_b)⁻²)^(−½)      noise of the sum, so that both together cost what z costs

It goes beyond the paper in σ_b: at least z, where the paper's q·K/20 would be too little for few
sites. C is clipped by the server: sites do not know it.

When to use: the server is trusted, and who gets the model is not. It costs accuracy more the
fewer sites there are; memory and bytes are those of the strategy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from fedpdm.aggregation.sums import Total
from fedpdm.aggregation.update import Base, Contribution, Update
from fedpdm.errors import ConfigError
from fedpdm.privacy.accounting import Mechanism
from fedpdm.privacy.base import Facts, Privacy, Protection, refuse_buffers
from fedpdm.privacy.clipping import clipped, length, withheld
from fedpdm.seeding import numpy_generator
from fedpdm.transforms.base import Stage, Transform
from fedpdm.wire.records import ARRAYS, BUFFERS, Arrays

SITE = "a site with all its machines"
MODELS = "whoever sees the models of the rounds, but not the server"
ADDED = "federations that differ in whether one site takes part"
REPLACED = "federations that differ in what one site holds"


class CentralNoise(Transform):
    """Bounds what a site sends; adds noise to the sum.

    Args:
        clip: C, the bound; None for none.
        noise: z, deviation of the noise over C.
        expected: q·K, what the sum is divided by.
    """

    stage = Stage.CLIP
    needs_sums = True
    needs_values = True

    def __init__(self, clip: float | None, noise: float, expected: float) -> None:
        self.clip, self.noise, self.expected = clip, noise, expected
        self.base: Base | None = None

    def bound(self) -> float | None:
        """Return C of this round."""
        return self.clip

    def encode(
        self, update: Update, state: dict[str, Arrays], generator: np.random.Generator
    ) -> Update:
        return clipped(withheld(update), self.clip)

    def before_sum(self, update: Update) -> Update:
        self.base = update.base
        return clipped(withheld(update), self.bound())

    def after_sum(
        self,
        totals: dict[str, Total],
        contributions: Sequence[Contribution],
        generator: np.random.Generator,
    ) -> dict[str, Total]:
        deviation = self.noise * (self.bound() or 0.0)
        draws = drawn_for(generator, contributions)
        return {
            name: total if name == BUFFERS else self.noised(name, total, deviation, draws)
            for name, total in totals.items()
        }

    def noised(
        self, name: str, total: Total, deviation: float, draws: np.random.Generator
    ) -> Total:
        """Return a sum over as many sites as were expected, with noise.

        Args:
            name: of the record.
            total: over the sites that answered, each of weight 1.
            deviation: of the noise of the sum.
            draws: the noise.
        """
        values, missing = dict(total.values), self.expected - total.weight
        if missing and name == ARRAYS:  # sites that are not there change nothing
            assert self.base is not None
            values = {n: v + missing * self.base.arrays[n].astype(float) for n, v in values.items()}
        if deviation:
            values = {n: v + draws.normal(0, deviation, v.shape) for n, v in values.items()}
        return Total(values, self.expected)


def drawn_for(
    generator: np.random.Generator, contributions: Sequence[Contribution]
) -> np.random.Generator:
    """Return a generator for exactly these sites.

    A round that is begun again, after a crash, has the same key. Where other sites answer then, it
    must not draw the same noise: the difference of two models would be free of it.
    """
    own = int(generator.integers(2**62))
    return numpy_generator(own, "privacy", *(each.site for each in contributions))


class AdaptiveNoise(CentralNoise):
    """The same with a bound that follows a quantile of the updates' lengths.

    The server remembers C.

    Args:
        clip: C of the first round.
        noise: z_Δ.
        expected: q·K.
        quantile: γ, the share of updates that are not to be clipped.
        rate: η_C, how fast C follows.
        count_noise: σ_b.
    """

    def __init__(
        self, clip: float, noise: float, expected: float, quantile: float, rate: float,
        count_noise: float,
    ) -> None:  # fmt: skip
        super().__init__(clip, noise, expected)
        self.quantile, self.rate, self.count_noise = quantile, rate, count_noise
        self.inside: dict[str, bool] = {}

    def bound(self) -> float:
        return float(self.state.get("clip", self.clip or 0.0))

    def encode(
        self, update: Update, state: dict[str, Arrays], generator: np.random.Generator
    ) -> Update:
        return withheld(update)

    def before_sum(self, update: Update) -> Update:
        self.inside[update.site] = length(update) <= self.bound()
        return super().before_sum(update)

    def after_sum(
        self,
        totals: dict[str, Total],
        contributions: Sequence[Contribution],
        generator: np.random.Generator,
    ) -> dict[str, Total]:
        found = super().after_sum(totals, contributions, generator)
        bits: float = sum(self.inside[each.site] - 0.5 for each in contributions)
        if self.count_noise:
            bits += drawn_for(generator, contributions).normal(0, self.count_noise)
        share = bits / self.expected + 0.5
        self.state["clip"] = self.bound() * float(np.exp(-self.rate * (share - self.quantile)))
        self.inside = {}
        return found


class Central(Privacy):
    """Central differential privacy with a fixed bound.

    Args:
        epsilon: see ``Privacy``, also for the others.
        delta: of the guarantee.
        noise_multiplier: z.
        clip: C.
        validation: whether sites evaluate during training.
    """

    name: ClassVar[str] = "central"

    def protect(self, facts: Facts) -> Protection:
        refuse_buffers(facts, self.name)
        drawn = facts.fraction
        if facts.sampling == "fixed":
            drawn = max(1, int(facts.fraction * facts.sites + 1e-9))
        mechanism = self.settled(
            Mechanism(0.0, facts.sampling, facts.sites, drawn), facts.rounds, facts.sites
        )
        poisson = facts.sampling == "poisson"
        expected = drawn * facts.sites if poisson else drawn
        uncovered = [
            *self.uncovered(facts),
            "the server sees each site's clipped update, and its run folder holds their lengths",
        ]
        if facts.rollback:
            uncovered.append(
                "which sites the monitor leaves out after a rollback follows from the lengths of "
                "their updates, without noise"
            )
        return Protection(
            name=self.name,
            protects=SITE,
            against=MODELS,
            neighbours=ADDED if poisson else REPLACED,
            mechanism=mechanism,
            per_round=1,
            planned=facts.rounds,
            delta=self.delta,
            target=self.target,
            clip=self.clip,
            by_site=False,
            leaves=self.leaves(facts),
            open=uncovered,
            transforms={"privacy": self.transform(mechanism.noise, expected)},
            withholds_validation=self.withholds,
        )

    def transform(self, noise: float, expected: float) -> Transform:
        """Return what bounds and noises, for a noise that the account knows."""
        return CentralNoise(self.clip, noise, expected)


class CentralAdaptive(Central):
    """Central differential privacy with a bound that adapts.

    Args:
        epsilon: see ``Privacy``.
        delta: of the guarantee.
        noise_multiplier: z.
        clip: C of the first round.
        quantile: γ, the share of updates that are not to be clipped.
        clip_rate: η_C, how fast C follows.
        count_noise: σ_b, deviation of the noise on the number of updates that are not clipped;
            null: a twentieth of the sites of a round, but at least the noise multiplier.
        validation: whether sites evaluate during training.
    """

    name = "central_adaptive"

    def __init__(
        self,
        epsilon: float | None = None,
        delta: float = 1e-5,
        noise_multiplier: float | None = None,
        clip: float = 0.1,
        quantile: float = 0.5,
        clip_rate: float = 0.2,
        count_noise: float | None = None,
        validation: Literal["withheld", "reported"] = "withheld",
    ) -> None:
        super().__init__(epsilon, delta, noise_multiplier, clip, validation)
        for name, value, most in (("quantile", quantile, 1.0), ("clip_rate", clip_rate, 10.0)):
            if not 0 < value <= most:
                raise ConfigError(f"privacy.{name}={value} must be above 0 and at most {most:g}")
        if count_noise is not None and not 0 <= count_noise <= 1e6:
            raise ConfigError(f"privacy.count_noise={count_noise} must be between 0 and 1e6")
        self.quantile, self.clip_rate, self.count_noise = quantile, clip_rate, count_noise

    def transform(self, noise: float, expected: float) -> Transform:
        count = self.count_noise
        if count is None:
            count = max(expected / 20, noise) if noise else 0.0
        if noise and not noise < 2 * count:
            raise ConfigError(
                f"privacy.count_noise={count:g} must be above half the noise multiplier "
                f"({noise:.4g}): the number of clipped updates costs a part of the budget"
            )
        split = (noise**-2 - (2 * count) ** -2) ** -0.5 if noise else 0.0
        first: Any = self.clip
        return AdaptiveNoise(first, split, expected, self.quantile, self.clip_rate, count)
