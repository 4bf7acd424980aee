"""What a run is asked to say of its test: the block ``evaluate`` of the config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedpdm.errors import ConfigError
from fedpdm.evaluation.alarms import Watch
from fedpdm.evaluation.calibration import METHODS
from fedpdm.evaluation.thresholds import Costs, Policy


@dataclass(frozen=True)
class Protocol:
    """How thresholds, calibration, alarms, intervals and their certainty are found.

    Attributes:
        policy: how alarm thresholds are chosen.
        calibration: ``none``, ``temperature`` or ``isotonic``.
        interval: promised coverage of intervals of remaining life.
        bootstrap: resamples of machines; 0 draws none.
        cooldown: time within which alarms are one episode; None is the horizon.
        sustained: windows in a row in alarm before a crew acts.
        seed: of the draws.
    """

    policy: Policy = field(default_factory=Policy)
    calibration: str = "none"
    interval: float = 0.9
    bootstrap: int = 1000
    cooldown: float | None = None
    sustained: int = 2
    seed: int = 0

    @staticmethod
    def of(block: Mapping[str, Any], sites: Mapping[str, Any], seed: int) -> Protocol:
        """Read ``evaluate``, and ``sites.NAME.costs``; what is not there keeps its default.

        Raises:
            ConfigError: a value is unknown or out of range; names the key.
        """
        costs = Costs.of(_block(block.get("costs"), "evaluate.costs"), "evaluate.costs")
        own = {
            name: Costs.of(_block(site["costs"], f"sites.{name}.costs"), f"sites.{name}.costs",
                           costs)
            for name, site in sites.items()
            if isinstance(site, Mapping) and site.get("costs") is not None
        }  # fmt: skip
        policy = Policy(
            aim=str(block.get("threshold", "f1")),
            scope=str(block.get("threshold_scope", "global")),
            budget=_number(block, "false_alarm_budget", 0.05, 0.0, 1.0),
            costs=costs,
            own_costs=own,
        )
        calibration = str(block.get("calibration") or "none")
        if calibration not in METHODS:
            raise ConfigError(
                f"evaluate.calibration={calibration} is unknown; choose {', '.join(METHODS)}"
            )
        cooldown = block.get("cooldown")
        return Protocol(
            policy=policy,
            calibration=calibration,
            interval=_number(block, "interval", 0.9, 0.0, 1.0),
            bootstrap=_whole(block, "bootstrap", 1000, 0),
            cooldown=None if cooldown is None else _time(cooldown),
            sustained=_whole(block, "sustained", 2, 1),
            seed=seed,
        )

    def watch(self, horizon: float) -> Watch:
        """Return how alarms for a horizon are counted."""
        return Watch(horizon, horizon if self.cooldown is None else self.cooldown, self.sustained)


def _block(value: object, key: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}={value} must be a block, for example {key}.missed=50")
    return value


def _number(block: Mapping[str, Any], key: str, default: float, low: float, high: float) -> float:
    """Return a number strictly between ``low`` and ``high``."""
    value = block.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        raise ConfigError(f"evaluate.{key}={value} must be above {low:g} and below {high:g}")
    return float(value)


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigError(
            f"evaluate.cooldown={value} must be a time of at least 0 in the data's unit, or null "
            "for the horizon"
        )
    return float(value)


def _whole(block: Mapping[str, Any], key: str, default: int, least: int) -> int:
    value = block.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"evaluate.{key}={value} must be a whole number of at least {least}")
    return value
