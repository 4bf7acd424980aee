"""From a config to the privacy of a run: what it knows of the run, and what goes with it."""

from __future__ import annotations

from typing import Any, cast

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from fedpdm.aggregation.sums import adds_up
from fedpdm.config.values import Config, block, make, plain, select
from fedpdm.data.sources.base import Source
from fedpdm.errors import ConfigError, HistoryError
from fedpdm.models import ModelWrapper
from fedpdm.models.policy import ParameterPolicy
from fedpdm.privacy.accounting import Sampling
from fedpdm.privacy.base import Facts, Privacy, Protection
from fedpdm.server.base import Server
from fedpdm.server.poisson import Poisson
from fedpdm.server.selection import fraction_of
from fedpdm.server.synchronous import Synchronous
from fedpdm.strategies.base import ClientHalf, ServerHalf
from fedpdm.strategies.wrappers import unwrap
from fedpdm.training.loop import TrainingSettings
from fedpdm.wire.records import EXAMPLES

FIXED = ("noise_multiplier", "clip", "sampling", "sampling_rate", "delta", "mechanism")
"""What of a plan must not change when a run is continued."""


def build_privacy(
    cfg: Config,
    source: Source,
    strategy: Strategy,
    server: Server,
    settings: TrainingSettings,
    model: ModelWrapper,
    policy: ParameterPolicy,
    rounds: int,
) -> Protection | None:
    """Make a run's privacy; None for a run without.

    Args:
        cfg: a composed config.
        source: the data.
        strategy: of the server.
        server: draws the sites of a round.
        settings: local training.
        model: as it is trained.
        policy: which of its tensors travel.
        rounds: of the run.

    Raises:
        ConfigError: a value is out of its range, or the run has what does not go with privacy.
    """
    if select(cfg, "privacy._target_") is None:
        return None
    kind = cast(Privacy, make(cfg.privacy, "privacy"))
    name = f"privacy={kind.name}"
    if plain(select(cfg, "client_mods")):
        raise ConfigError(
            f"{name} and client_mods exclude each other: a mod changes updates after their noise; "
            "leave client_mods out"
        )
    central, drawn = kind.name.startswith("central"), sampling_of(server)
    if drawn == "none":  # trees send sums; others release a model of a site at any time
        raise ConfigError(
            f"{name} knows what leaves the sites under server=poisson and server=synchronous, and "
            f"this run's {type(server).__name__} sends otherwise; choose one of the two, and a "
            "model that is trained by gradients"
        )
    check_strategy(strategy, name, sums=central)
    counts = isinstance(strategy, ServerHalf) and strategy.client.groups
    if central and counts and drawn == "poisson" and fraction_of(strategy) < 1:
        raise ConfigError(
            f"{name} hides how many sites are in a round, and {type(strategy).__name__}'s formulas "
            "count them; use server=synchronous, or strategy.fraction_train=1"
        )
    adding = adds_up(strategy)
    augment = block(cfg, "training.augment")
    mixes = [f"training.augment.{n}" for n in ("mixup", "cutmix") if augment.get(n) is not None]
    if select(cfg, "training.resample") is not None:
        mixes.append("training.resample")
    facts = Facts(
        sites=len(source.sites),
        fraction=fraction_of(strategy),
        sampling=drawn,
        rounds=rounds,
        settings=settings,
        module=model.module,
        parts=policy.parts(model),
        window=source.window,
        stride=source.stride,
        scaling=cfg.scaling == "federated",
        records=tuple(adding.replies) if adding else (),
        started=select(cfg, "init.run") is not None,
        rollback=bool(select(cfg, "monitor.rollback")),
        mixes=mixes,
    )
    return kind.protect(facts)


def sampling_of(server: Server) -> Sampling:
    """Return how a server draws the sites of a round; ``none`` for what no account knows."""
    if type(server) is Poisson:
        return "poisson"
    return "fixed" if type(server) is Synchronous else "none"


def check_strategy(strategy: Strategy, name: str, sums: bool) -> None:
    """Refuse a strategy that needs what privacy withholds.

    Args:
        strategy: the outermost layer.
        name: of the privacy, for messages.
        sums: whether noise is added to sums of updates.

    Raises:
        ConfigError: says what it needs.
    """
    layers, adding = list(unwrap(strategy)), adds_up(strategy)
    who = type(strategy).__name__
    if len(layers) > 1:
        raise ConfigError(
            f"{name} does not know what {who} does around {type(layers[-1]).__name__}; choose a "
            "strategy that wraps no other"
        )
    if sums and adding is None:
        raise ConfigError(
            f"{name} adds noise to the sum of updates, and {who} needs every single update; choose "
            "strategy=fedavg, or privacy=local"
        )
    if sums and getattr(strategy, "needs_norms", False):
        raise ConfigError(
            f"{name} adds noise to the sum of updates, and {who} makes its step from their lengths "
            "as well, which have none; choose strategy=fedavg, or privacy=local"
        )
    if not weighs_all_alike(strategy):
        raise ConfigError(
            f"{name} counts every site once, and {who} weighs them by what they report, which "
            "would not stay at the sites; choose strategy=fedavg"
        )
    if name == "privacy=dpsgd" and isinstance(strategy, ServerHalf):
        if strategy.client.finish is not ClientHalf.finish:
            raise ConfigError(
                f"{name} makes another number of steps than {who}'s formulas count; choose "
                "strategy=fedavg or strategy=fedprox"
            )


def weighs_all_alike(strategy: Strategy) -> bool:
    """Return whether sites that report nothing but one example count once each."""
    adding: Any = adds_up(strategy)
    if adding is None:
        return not isinstance(strategy, flower.QFedAvg)
    try:
        return bool(adding.weight({EXAMPLES: 1.0}) == 1.0)
    except Exception:  # it needs more than that
        return False


def refuse_other_noise(before: Any, now: Protection | None, folder: object) -> None:
    """Refuse to go on with other noise than a run was begun with.

    Args:
        before: what its manifest says.
        now: of the run that continues.
        folder: of the run.

    Raises:
        HistoryError: the noise would change, because a budget was solved for fewer rounds.
    """
    plan = None if now is None else now.plan()
    if plan is None or not isinstance(before, dict):
        return
    changed = [key for key in FIXED if before.get(key) != plan[key]]
    if changed:
        raise HistoryError(
            f"{folder}: the noise of privacy={plan['mechanism']} was settled for the rounds that "
            f"this run was begun with, and would change ({changed[0]}); a longer run under "
            "privacy.epsilon is a new run"
        )
