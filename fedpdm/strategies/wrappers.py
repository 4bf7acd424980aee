"""Strategies that wrap others, as Flower's differential-privacy strategies do.

Whatever is asked of a strategy (how many sites it needs, which training it assumes, what it
remembers) is asked of the outer one and of those that it wraps, all the way down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flwr.clientapp.mod import adaptiveclipping_mod, fixedclipping_mod
from flwr.clientapp.typing import Mod
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from fedpdm.config.imports import OURS
from fedpdm.errors import ConfigError
from fedpdm.training.loop import TrainingSettings

MODS_NEEDED: dict[type[Strategy], Mod] = {
    flower.DifferentialPrivacyClientSideFixedClipping: fixedclipping_mod,
    flower.DifferentialPrivacyClientSideAdaptiveClipping: adaptiveclipping_mod,
}
"""What must clip at the sites. Without it, fixed clipping would add noise to whole updates."""


def unwrap(strategy: Strategy) -> Iterator[Strategy]:
    """Yield a strategy and all that it wraps, also in lists, the outermost first."""
    yield strategy
    for value in vars(strategy).values():
        for held in value if isinstance(value, list | tuple) else (value,):
            if isinstance(held, Strategy):
                yield from unwrap(held)


def is_ours(kind: type) -> bool:
    """Return whether a class is one of fedpdm or Flower."""
    return kind.__module__.partition(".")[0] in OURS


def sites_needed(layer: Strategy) -> int:
    """Return how many sites a layer needs in a round: its ``min_sites``, or what is known of
    Flower's classes (Blanchard et al. 2017, El Mhamdi et al. 2018). With fewer those run
    without protection (Krum) or without a new model (Bulyan)."""
    if isinstance(layer, flower.Bulyan):
        return 4 * layer.num_malicious_nodes + 3
    if isinstance(layer, flower.MultiKrum):  # Krum is one, and selects one
        guarantee = 2 * layer.num_malicious_nodes + 3 if layer.num_malicious_nodes else 1
        return max(guarantee, layer.num_nodes_to_select)
    return int(getattr(layer, "min_sites", 1))


def check_training(strategy: Strategy, settings: TrainingSettings) -> None:
    """Refuse local training that some layer's formulas do not describe.

    Raises:
        ConfigError: the message says what is needed.
    """
    for layer in unwrap(strategy):
        if (check := getattr(layer, "check_training", None)) is not None:
            check(settings)


def check_mods(strategy: Strategy, mods: Sequence[Mod]) -> None:
    """Refuse a strategy without the client mod that it relies on, and such a mod without it.

    Args:
        strategy: the outermost layer.
        mods: what wraps the sites' training.

    Raises:
        ConfigError: names the mod.
    """
    held = list(unwrap(strategy))
    there = [getattr(each, "func", each) for each in mods]  # of functools.partial
    # A user's own strategy may send what a mod reads.
    known = all(is_ours(type(layer)) for layer in held)
    for kind, mod in MODS_NEEDED.items():
        name, needed = getattr(mod, "__name__", mod), any(isinstance(each, kind) for each in held)
        if needed and mod not in there:
            raise ConfigError(
                f"strategy {kind.__name__} relies on clipping at the sites: "
                f"add client_mods=[{name}]"
            )
        if known and mod in there and not needed:
            raise ConfigError(
                f"client_mods: {name} clips to the norm that strategy {kind.__name__} sends, and "
                f"this run's {type(strategy).__name__} sends none; choose that strategy, or leave "
                "the mod out"
            )


def check_sites(strategy: Strategy, sampled: int, sites: int) -> None:
    """Refuse a strategy that cannot work with the sites of a round.

    Args:
        strategy: the outermost layer.
        sampled: sites in a round.
        sites: sites of the federation.

    Raises:
        ConfigError: one sentence says why, and the way out.
    """
    for layer in unwrap(strategy):
        name = type(layer).__name__
        if isinstance(layer, flower.FedXgbBagging | flower.FedXgbCyclic):
            raise ConfigError(
                f"strategy {name} combines XGBoost trees, and these sites train networks; "
                "choose another strategy"
            )
        if layer is not strategy and (records := getattr(layer, "replies", ())):
            raise ConfigError(
                f"strategy {name} cannot be wrapped by {type(strategy).__name__}: its sites send "
                f"{', '.join(records)} beside their weights, which the wrapper does not know"
            )
        needed = sites_needed(layer)
        if sampled < needed:
            raise ConfigError(
                f"strategy {name} needs at least {needed} sites in a round, this "
                f"run samples {sampled} of {sites}; add sites (site=…, replicas=…) or choose "
                "another strategy"
            )
        stated = getattr(layer, "num_sampled_clients", sampled)
        if stated != sampled:
            raise ConfigError(
                f"strategy {name} scales its noise to num_sampled_clients={stated}, and this run "
                f"samples {sampled} of {sites} sites; set strategy.num_sampled_clients={sampled}"
            )
