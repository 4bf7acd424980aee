"""Makes what happens to updates (client mods, transforms), and the kind of server."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, cast

from flwr.clientapp import mod as flower
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import Strategy

from fedpdm.config.values import Config, block, make, object_of, plain, select
from fedpdm.errors import ConfigError
from fedpdm.server.base import Server
from fedpdm.server.synchronous import Synchronous
from fedpdm.strategies.layers import check_mods
from fedpdm.transforms.chain import Chain


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

    The target is a class whose objects are mods, or with ``_partial_`` a function; the node's
    other keys are its arguments.

    Raises:
        ConfigError: it is no mod, or its arguments are not those of the target.
    """
    if isinstance(entry, str):
        if entry not in flower.__all__:
            raise ConfigError(
                f"client_mods: Flower has no mod {entry}; it has {', '.join(flower.__all__)}, and "
                "others are blocks with a _target_"
            )
        entry = {"_target_": f"{flower.__name__}.{entry}", "_partial_": True}
    if not isinstance(entry, dict):
        raise ConfigError(f"client_mods: {entry} is neither a name nor a block with _target_")
    path = str(entry.get("_target_", ""))
    target = object_of(path, "client_mods")
    arguments = {key: value for key, value in entry.items() if not key.startswith("_")}
    if isinstance(target, type):
        if entry.get("_partial_"):
            names = "".join(f", {name}: …" for name in inspect.signature(target).parameters)
            raise ConfigError(
                f"client_mods: {target.__name__} is a class with settings of its own; write "
                f"client_mods=[{{_target_: {path}{names}}}], without _partial_"
            )
        mod = make(entry, "client_mods")
    else:
        if not entry.get("_partial_"):
            raise ConfigError(
                f"client_mods: {path} is a function, and the sites call it; add _partial_: true "
                "beside its _target_"
            )
        mod = partial(target, **arguments) if arguments else target
    try:
        inspect.signature(mod).bind("message", "context", "next")
    except TypeError as error:
        raise ConfigError(
            f"client_mods: {path} cannot be called with a message, its context and the next app: "
            f"{error}; a mod takes these three first, and then what stands beside its _target_"
        ) from None
    return cast(Mod, mod)


def build_transforms(cfg: Config, seed: int, strategy: Strategy) -> Chain:
    """Make the chain of ``transforms``; a run from before there was the key has an empty one.

    Raises:
        ConfigError: an entry cannot be made, or the chain cannot work.
    """
    nodes = block(cfg, "transforms")
    made: dict[str, Any] = {name: make(nodes[name], f"transforms.{name}") for name in nodes}
    chain = Chain(made, seed)
    chain.check(strategy)
    return chain


def build_server(cfg: Config) -> Server:
    """Make the server; in a run from before there was a choice, rounds are synchronous."""
    node = select(cfg, "server")
    server = Synchronous() if node is None else make(node, "server")
    if not isinstance(server, Server):
        raise ConfigError(
            f"server: {type(server).__name__} is no server; derive it from "
            "fedpdm.server.base.Server"
        )
    return server
