"""Makes the transforms of a run's config."""

from __future__ import annotations

from typing import Any

from flwr.serverapp.strategy import Strategy
from omegaconf import DictConfig, OmegaConf

from fedpdm.config.values import block, make
from fedpdm.transforms.chain import Chain


def build_transforms(cfg: DictConfig, seed: int, strategy: Strategy) -> Chain:
    """Make the chain of ``transforms``; a run from before there was the key has an empty one.

    Raises:
        ConfigError: an entry cannot be made, or the chain cannot work.
    """
    made: dict[str, Any] = {}
    for name, node in block(cfg, "transforms").items():
        made[name] = make(OmegaConf.create(node), f"transforms.{name}")
    chain = Chain(made, seed)
    chain.check(strategy)
    return chain
