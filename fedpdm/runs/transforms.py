"""Makes what happens to updates, and the kind of server, from a run's config."""

from __future__ import annotations

from typing import Any

from flwr.serverapp.strategy import Strategy

from fedpdm.config.values import Config, block, make, select
from fedpdm.errors import ConfigError
from fedpdm.server.base import Server
from fedpdm.server.synchronous import Synchronous
from fedpdm.transforms.base import Chain


def build_transforms(cfg: Config, seed: int, strategy: Strategy) -> Chain:
    """Make the chain of ``transforms``; a run from before there was the key has an empty one.

    Raises:
        ConfigError: an entry cannot be made, or the chain cannot work.
    """
    made: dict[str, Any] = {}
    for name, node in block(cfg, "transforms").items():
        made[name] = make(node, f"transforms.{name}")
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
