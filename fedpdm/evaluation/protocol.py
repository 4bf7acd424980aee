"""The evaluation protocol: settings of the final test, the block ``evaluate`` of the config."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedpdm.errors import ConfigError
from fedpdm.evaluation.alarms import Watch
from fedpdm.evaluation.calibration import METHODS

AIMS = ("f1", "cost", "false_alarms")
SCOPES = ("global", "plant")


@dataclass(frozen=True)
class Costs:
    """What alarms cost, in any currency; only ratios matter.

    Attributes:
        missed: of a failure that no sustained alarm warned of in time.
        false_alarm: of an episode of alarms that no failure follows.
        inspection: of every episode, false or true.
    """

    missed: float = 50.0
    false_alarm: float = 1.0
    inspection: float = 0.0

    @staticmethod
    def of(given: object, where: str, base: Costs | None = None) -> Costs:
        """Return ``base`` with what is given, a block or nothing.

        Raises:
            ConfigError: no block, an unknown key, or no number of at least 0; names ``where``.
        """
        values: dict[str, float] = dict(vars(base or Costs()))
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(f"{where}={given} must be a block, for example {where}.missed=50")
        for key, value in (given or {}).items():
            if key not in values:
                raise ConfigError(f"{where}.{key} is unknown; there are {', '.join(values)}")
            _check(f"{where}.{key}", value, lambda v: v >= 0, "a number of at least 0")
            values[key] = float(value)
        return Costs(**values)


@dataclass(frozen=True)
class ThresholdPolicy:
    """How a threshold is chosen.

    Attributes:
        aim: ``f1`` greatest F1; ``cost`` least expected cost; ``false_alarms`` the lowest
            threshold with at most ``budget`` of the healthy windows in alarm.
        scope: ``global`` one threshold on all sites' validation windows, ``plant`` one for
            each site on its own.
        budget: share of healthy windows.
        costs: where a site has none of its own.
        own_costs: by site.
    """

    aim: str = "f1"
    scope: str = "global"
    budget: float = 0.05
    costs: Costs = field(default_factory=Costs)
    own_costs: Mapping[str, Costs] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _choose("threshold", self.aim, AIMS)
        _choose("threshold_scope", self.scope, SCOPES)
        _share("false_alarm_budget", self.budget)

    def costs_of(self, site: str) -> Costs:
        """Return the costs of a site."""
        return self.own_costs.get(site, self.costs)


@dataclass(frozen=True)
class EvaluationProtocol:
    """How thresholds, calibration, alarms, intervals and their certainty are found.

    Attributes:
        policy: how alarm thresholds are chosen.
        calibration: ``none``, ``temperature`` or ``isotonic``.
        interval: promised coverage of intervals of remaining life.
        bootstrap: resamples of machines; 0 draws none.
        cooldown: time within which alarms are one episode; None is the horizon.
        sustained: windows in a row in alarm before a crew acts.
    """

    policy: ThresholdPolicy = field(default_factory=ThresholdPolicy)
    calibration: str = "none"
    interval: float = 0.9
    bootstrap: int = 1000
    cooldown: float | None = None
    sustained: int = 2

    def __post_init__(self) -> None:
        _choose("calibration", self.calibration, METHODS)
        _share("interval", self.interval)
        _whole("bootstrap", self.bootstrap, 0)
        _whole("sustained", self.sustained, 1)
        if self.cooldown is not None:
            must = "a time of at least 0 in the data's unit, or null for the horizon"
            _check("evaluate.cooldown", self.cooldown, lambda v: v >= 0, must)

    @staticmethod
    def of(block: Mapping[str, Any], sites: Mapping[str, Any]) -> EvaluationProtocol:
        """Read ``evaluate``, and ``sites.NAME.costs``; what is not there keeps its default.

        Raises:
            ConfigError: a value is unknown or out of range; names the key.
        """
        costs = Costs.of(block.get("costs"), "evaluate.costs")
        own = {
            name: Costs.of(site["costs"], f"sites.{name}.costs", costs)
            for name, site in sites.items()
            if isinstance(site, Mapping) and site.get("costs") is not None
        }
        policy = ThresholdPolicy(
            block.get("threshold", "f1"),
            block.get("threshold_scope", "global"),
            block.get("false_alarm_budget", 0.05),
            costs,
            own,
        )
        names = ("calibration", "interval", "bootstrap", "cooldown", "sustained")
        return EvaluationProtocol(policy, **{name: block[name] for name in names if name in block})

    def watch(self, horizon: float) -> Watch:
        """Return how alarms for a horizon are counted."""
        cooldown = horizon if self.cooldown is None else float(self.cooldown)
        return Watch(horizon, cooldown, self.sustained)


def _choose(key: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"evaluate.{key}={value} is unknown; choose {', '.join(known)}")


def _share(key: str, value: object) -> None:
    _check(f"evaluate.{key}", value, lambda v: 0 < v < 1, "a number above 0 and below 1")


def _whole(key: str, value: object, least: int) -> None:
    must = f"a whole number of at least {least}"
    _check(f"evaluate.{key}", value, lambda v: isinstance(v, int) and v >= least, must)


def _check(key: str, value: Any, fits: Callable[[Any], bool], must: str) -> None:
    """Refuse what is no number, or does not fit."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not fits(value):
        raise ConfigError(f"{key}={value} must be {must}")
