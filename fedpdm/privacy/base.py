"""What a kind of privacy is, and what it says of a run.

A kind (``conf/privacy``) is made from its yaml and told what the run is like. It answers with a
``Protection``: transforms for the updates, how sites train, the noise, and an account of what was
spent and of what is not covered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import nn

from fedpdm.errors import ConfigError
from fedpdm.history.record import RoundRecord
from fedpdm.models.policy import NORMALISATION, Parts
from fedpdm.privacy.accounting import Mechanism, Sampling, library
from fedpdm.training.loop import TrainingSettings
from fedpdm.training.objective import Objective
from fedpdm.transforms.base import Transform

NOISED, WITHHELD, OPEN, NOTHING = "clipped and noised", "withheld", "not covered", "there is none"
"""What happens to something that would leave a site."""


@dataclass(frozen=True)
class Facts:
    """What a kind of privacy must know of a run.

    Attributes:
        sites: how many there are.
        fraction: share of them that a round is to have.
        sampling: how the sites of a round are drawn.
        rounds: of the run.
        settings: local training.
        module: the model.
        parts: which of its tensors travel.
        window: rows of a window; None for rows.
        stride: rows between the ends of two training windows.
        scaling: whether sites send sums for a shared scaler.
        records: what the strategy's client half sends beside the weights.
        started: whether the weights of another run are taken over.
        rollback: whether the monitor takes rounds back.
        mixes: settings by which a training window holds other windows' readings.
    """

    sites: int
    fraction: float
    sampling: Sampling
    rounds: int
    settings: TrainingSettings
    module: nn.Module
    parts: Parts
    window: int | None = None
    stride: int = 1
    scaling: bool = False
    records: Sequence[str] = ()
    started: bool = False
    rollback: bool = False
    mixes: Sequence[str] = ()


@dataclass(frozen=True)
class Protection:
    """A run's privacy, settled before it starts.

    Attributes:
        name: of the kind.
        protects: in words, the unit whose presence is hidden.
        against: from whom.
        neighbours: in words, which two data sets can hardly be told apart.
        mechanism: one release.
        per_round: releases that a round is for whoever takes part in it.
        planned: releases in a run without rollbacks.
        delta: probability with which epsilon may not hold.
        target: the epsilon that noise was solved for; None where the noise was given.
        clip: the bound of a vector; None for none.
        by_site: a site's budget is spent by the rounds that it takes part in, not by all.
        leaves: what happens to each thing that would leave a site.
        open: what is not covered, a sentence each.
        transforms: what updates go through.
        objective: how sites train; None as without privacy.
        withholds_validation: sites do not evaluate during training.
        notes: what else a person should know.
    """

    name: str
    protects: str
    against: str
    neighbours: str
    mechanism: Mechanism
    per_round: int
    planned: int
    delta: float
    target: float | None
    clip: float | None
    by_site: bool
    leaves: Mapping[str, str]
    open: Sequence[str]
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    objective: Callable[[Objective], Objective] | None = None
    withholds_validation: bool = True
    notes: Sequence[str] = ()

    def trains(self, objective: Objective) -> Objective:
        """Return what sites minimise, from the run's objective.

        Raises:
            ConfigError: sites would fit what they keep when they evaluate, and they do not.
        """
        if self.withholds_validation and objective.personalises == "evaluate":
            raise ConfigError(
                f"personal: {type(objective).__name__} fits a site's own part when the site "
                f"evaluates a round, and with privacy={self.name} no site does; choose "
                "strategy=ditto, apfl or fedper, or privacy.validation=reported"
            )
        return objective if self.objective is None else self.objective(objective)

    def plan(self) -> dict[str, Any]:
        """Return what was settled before the run, for ``manifest.json``."""
        return {
            "mechanism": self.name,
            "protects": self.protects,
            "against": self.against,
            "neighbours": self.neighbours,
            "target_epsilon": self.target,
            "delta": self.delta,
            "noise_multiplier": self.mechanism.noise,
            "clip": self.clip,
            "sampling": self.mechanism.sampling,
            "sampling_rate": self.rate,
            "planned_releases": self.planned,
            "planned_epsilon": self.mechanism.epsilon(self.planned, self.delta),
            "leaves": dict(self.leaves),
            "not_covered": list(self.open),
        }

    @property
    def rate(self) -> float:
        """Share of the units that a release draws."""
        mechanism = self.mechanism
        if mechanism.sampling == "none":
            return 1.0
        poisson = mechanism.sampling == "poisson"
        return mechanism.drawn if poisson else mechanism.drawn / mechanism.units

    def spent(self, records: Iterable[RoundRecord]) -> dict[str, Any]:
        """Return the plan and what the rounds so far have spent, for ``summary.json``.

        Args:
            records: all rounds, those that were taken back, too: their models were released.
        """
        trained = [record for record in records if record.round > 0]
        took_part = Counter(site for record in trained for site in record.sampled)
        rounds = max(took_part.values(), default=0) if self.by_site else len(trained)
        releases = rounds * self.per_round
        return self.plan() | {
            "rounds": len(trained),
            "undone": sum(record.undone for record in trained),
            "releases": releases,
            "epsilon": self.mechanism.epsilon(releases, self.delta),
            "final_clip": next(
                (each.state["clip"] for each in self.transforms.values() if "clip" in each.state),
                self.clip,
            ),
        }


def sentence(found: Mapping[str, Any]) -> str:
    """Say what a plan or what was spent guarantees, in words.

    Args:
        found: what ``Protection.plan`` or ``Protection.spent`` returned.
    """
    done = "epsilon" in found
    epsilon = found["epsilon"] if done else found["planned_epsilon"]
    rounds = f"{found['releases'] if done else found['planned_releases']:,} noisy releases"
    if epsilon is None:
        return (
            f"privacy={found['mechanism']} protects nobody: without noise there is no bound on "
            "epsilon"
        )
    undone = found.get("undone", 0)
    taken = f", {undone} of its rounds taken back and counted all the same" if undone else ""
    said = (
        f"privacy={found['mechanism']}: epsilon {epsilon:.3g} at delta {found['delta']:g} after "
        f"{rounds}{taken}, for {found['protects']}, against {found['against']}; "
        f"noise multiplier {found['noise_multiplier']:.4g}"
    )
    target = found["target_epsilon"]
    if done and target is not None and epsilon > target * 1.001:
        said += f". That is more than the {target:g} that was asked for"
    return said


def uncovered(protection: Protection) -> str:
    """Say what the guarantee of a run does not cover."""
    return f"not covered by privacy={protection.name}: {'; '.join(protection.open)}"


class Privacy(ABC):
    """A kind of privacy.

    Args:
        epsilon: the budget that noise is solved for; null where ``noise_multiplier`` is given.
        delta: probability with which epsilon may not hold.
        noise_multiplier: deviation of the noise over ``clip``; null where ``epsilon`` is given.
        clip: the bound of a vector's length; null for none, which only goes without noise.
        validation: ``withheld``: sites do not evaluate during training, and the last round is
            the result; ``reported``: they do, and what they report is not covered.

    Raises:
        ConfigError: a value out of its range, or none or both of ``epsilon`` and
            ``noise_multiplier``.
    """

    name: ClassVar[str]

    def __init__(
        self,
        epsilon: float | None = None,
        delta: float = 1e-5,
        noise_multiplier: float | None = None,
        clip: float | None = 1.0,
        validation: Literal["withheld", "reported"] = "withheld",
    ) -> None:
        if (epsilon is None) == (noise_multiplier is None):
            raise ConfigError(
                "privacy.epsilon and privacy.noise_multiplier exclude each other, and one of them "
                "is needed: set the other to null"
            )
        for name, value in (("epsilon", epsilon), ("clip", clip)):
            if value is not None and not 0 < value <= 1e6:
                raise ConfigError(f"privacy.{name}={value} must be above 0 and at most 1e6")
        if noise_multiplier is not None and not 0 <= noise_multiplier <= 1e6:
            raise ConfigError(
                f"privacy.noise_multiplier={noise_multiplier} must be between 0 and 1e6"
            )
        if not 0 < delta < 1:
            raise ConfigError(f"privacy.delta={delta} must be between 0 and 1")
        if clip is None and noise_multiplier != 0:
            raise ConfigError(
                "privacy.clip=null bounds nothing, so no noise is enough; set a bound, or "
                "privacy.epsilon=null privacy.noise_multiplier=0 for a run without protection"
            )
        self.target, self.delta, self.given, self.clip = epsilon, delta, noise_multiplier, clip
        self.validation = validation
        library()

    @abstractmethod
    def protect(self, facts: Facts) -> Protection:
        """Return what a run does and guarantees.

        Raises:
            ConfigError: this privacy does not work in such a run; says why.
        """

    def settled(self, mechanism: Mechanism, releases: int, units: int | None) -> Mechanism:
        """Return a mechanism with the noise that was given, or that the budget asks for.

        Args:
            mechanism: how its vectors are drawn.
            releases: in the whole run.
            units: how many units there are, if that is known.

        Raises:
            ConfigError: delta is so large that one unit in it could be published as it is.
        """
        if units is not None and self.delta * units >= 1:
            raise ConfigError(
                f"privacy.delta={self.delta:g} must be below 1/{units}: a mechanism that publishes "
                "one of so many units as it is would pass with a larger one"
            )
        if self.given is not None:
            return Mechanism(self.given, mechanism.sampling, mechanism.units, mechanism.drawn)
        assert self.target is not None
        return mechanism.with_epsilon(self.target, releases, self.delta)

    def leaves(self, facts: Facts, weights: str = NOISED) -> dict[str, str]:
        """Return what happens to each thing that would leave a site."""
        return {
            "weights": weights,
            "strategy records": weights if facts.records else NOTHING,
            "buffers": WITHHELD if facts.parts.buffers else NOTHING,
            "numbers of examples": WITHHELD,
            "training losses and metrics": WITHHELD,
            "validation losses and metrics": WITHHELD if self.withholds else OPEN,
            "sums of rows for the shared scaler": OPEN if facts.scaling else NOTHING,
            "test scores, thresholds and baselines": OPEN,
            "who takes part, fails or is late": OPEN,
        }

    @property
    def withholds(self) -> bool:
        return self.validation == "withheld"

    def uncovered(self, facts: Facts) -> list[str]:
        """Return what the guarantee does not cover, a sentence each."""
        said = [
            "test scores, thresholds, calibration and baselines of this simulation come from the "
            "sites' rows as they are; a real federation would not publish them without noise",
            "who takes part, fails or is late, and how long that takes, is seen",
            "noise and samples are drawn from the run's seed, so that the run can be repeated: "
            "whoever knows the seed can take the noise off",
        ]
        if not self.withholds:
            said.insert(0, "validation losses and metrics of every round leave the sites as they "
                           "are, and choose the round (privacy.validation=withheld)")  # fmt: skip
        if facts.scaling:
            said.insert(0, "sums of training rows make the shared scaler, exact ones "
                           "(scaling=plant leaves each site its own)")  # fmt: skip
        if facts.started:
            said.append("the weights that this run starts from have a history of their own")
        return said


def refuse_buffers(facts: Facts, kind: str) -> None:
    """Refuse running statistics of batch norm that would leave a site.

    Args:
        facts: of the run.
        kind: of privacy.

    Raises:
        ConfigError: names the layer, and the way out.
    """
    travelling = set(facts.parts.buffers)
    for prefix, layer in facts.module.named_modules():
        names = {f"{prefix}.{key}" if prefix else key for key in layer._buffers}
        if isinstance(layer, NORMALISATION) and names & travelling:
            raise ConfigError(
                f"privacy={kind} does not send the running statistics of {prefix}, which are no "
                "weights and would be wrong with noise (a variance may become negative); keep "
                "normalisation at the sites with travels=no_norm, or choose a model without batch "
                "norm (model=mlp, model=lstm)"
            )
