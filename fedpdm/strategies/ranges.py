"""Ranges of strategies' options, also of Flower's own strategies, which do not check them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpdm.errors import ConfigError


def check_range(
    name: str, value: float, *, zero: bool = False, below: float = 1e6, block: str = "strategy"
) -> None:
    """Refuse an argument of a strategy that is out of its range.

    Args:
        name: of the argument.
        value: must be above 0.
        zero: 0 is allowed, too.
        below: the value must be below this.
        block: of the config, where it is another's argument.

    Raises:
        ConfigError: names ``strategy.NAME``.
    """
    if not (value > 0 or (zero and value == 0)) or value >= below:
        least = "at least 0" if zero else "above 0"
        raise ConfigError(f"{block}.{name}={value} must be {least} and below {below:g}")


FLOWER_RANGES: dict[str, dict[str, Any]] = {
    "eta": {}, "eta_l": {}, "tau": {}, "server_learning_rate": {},
    "beta_1": {"zero": True, "below": 1}, "beta_2": {"zero": True, "below": 1},
    "server_momentum": {"zero": True, "below": 1}, "beta": {"zero": True, "below": 0.5},
    "num_malicious_nodes": {"zero": True}, "num_nodes_to_select": {},
    "min_train_nodes": {"zero": True}, "min_evaluate_nodes": {"zero": True},
    "min_available_nodes": {"zero": True},
}  # fmt: skip
"""What Flower's own strategies take; they do not check it, and make a model of NaN of the rest."""


def check_flower(strategy: type, options: Mapping[str, Any]) -> None:
    """Refuse options of one of Flower's own strategies that are out of their range.

    Raises:
        ConfigError: names ``strategy.NAME``.
    """
    for name, value in options.items() if strategy.__module__.startswith("flwr.") else ():
        if name in FLOWER_RANGES and value is not None:
            check_range(name, value, **FLOWER_RANGES[name])
