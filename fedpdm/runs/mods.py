"""Makes the client mods around the sites' training from a run's config."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from flwr.clientapp import mod as flower
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import Strategy

from fedpdm.config.values import Config, block, make, object_of, plain, select
from fedpdm.errors import ConfigError
from fedpdm.strategies.layers import check_mods


def build_mods(cfg: Config, strategy: Strategy) -> list[Mod]:
    """Make the mods of ``client_mods``, the outermost first.

    Raises:
        ConfigError: one cannot be made, one that the strategy needs is missing, or transforms
            would hide from them what they work on.
    """
    entries = plain(select(cfg, "client_mods")) or []
    if not isinstance(entries, list):
        raise ConfigError(f"client_mods={entries} must be a list: [fixedclipping_mod]")
    if entries and (transforms := list(block(cfg, "transforms"))):
        raise ConfigError(
            f"client_mods would see updates as transforms.{transforms[0]} leaves them; use either "
            "client_mods or transforms"
        )
    mods = [build_mod(entry) for entry in entries]
    check_mods(strategy, mods)
    return mods


def build_mod(entry: Any) -> Mod:
    """Make one client mod: of the name of one of Flower's, or of a node with ``_target_``.

    With ``_partial_`` the target is a function, and the node's other keys are arguments.
    """
    if isinstance(entry, str):
        if entry not in flower.__all__:
            raise ConfigError(
                f"client_mods: Flower has no mod {entry}; it has {', '.join(flower.__all__)}, and "
                "others are blocks with a _target_"
            )
        return cast(Mod, getattr(flower, entry))
    if not isinstance(entry, dict):
        raise ConfigError(f"client_mods: {entry} is neither a name nor a block with _target_")
    node = dict(entry)
    if not node.pop("_partial_", False):
        return cast(Mod, make(node, "client_mods"))
    function = object_of(str(node.pop("_target_", "")), "client_mods")
    return partial(cast(Mod, function), **node)
