"""When a round is bad, and what follows: judged by the round loop."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fedpdm.errors import ConfigError


@dataclass(frozen=True)
class MonitorSettings:
    """When a round is bad, and what follows.

    Raises:
        ConfigError: a value that cannot work.
    """

    rollback: bool = False
    """Return to the last good round by itself; otherwise a bad round is only reported."""
    loss_factor: float = 10.0
    """Bad: the loss is over this many times the best so far."""
    norm_factor: float = 2.0
    """Bad: the parameter norm is over this many times that of the last good round."""
    metric_fall: float | None = 0.5
    """Bad: the validation metric is worse than the best so far by over this share of it.
    None: not watched."""
    max_rollbacks: int = 3
    """After this many rollbacks in a row the run stops."""

    def __post_init__(self) -> None:
        for name in ("loss_factor", "norm_factor"):
            if not getattr(self, name) > 1:
                raise ConfigError(f"monitor.{name}={getattr(self, name)} must be greater than 1")
        if self.metric_fall is not None and not self.metric_fall > 0:
            raise ConfigError(
                f"monitor.metric_fall={self.metric_fall} must be greater than 0, or null"
            )
        if self.max_rollbacks < 0:
            raise ConfigError(f"monitor.max_rollbacks={self.max_rollbacks} must be 0 or more")


@dataclass(frozen=True)
class AcceptedRound:
    """What the monitor remembers of a good round; None is not known."""

    round_num: int
    loss: float | None
    metric: float | None
    parameter_norm: float | None


class RoundMonitor:
    """Judges each finished round against the good rounds before it.

    Args:
        settings: The limits.
        accepted: Good rounds so far, see ``rebuild``.
    """

    def __init__(self, settings: MonitorSettings, accepted: Iterable[AcceptedRound] = ()) -> None:
        self.settings = settings
        self.accepted: list[AcceptedRound] = []
        self.rebuild(accepted)

    def judge(
        self,
        round_num: int,
        loss: float | None,
        metric: float | None,
        higher_is_better: bool,
        parameter_norm: float | None,
    ) -> str | None:
        """Return why the round is bad, or None. Changes nothing.

        What is None, here or in all earlier rounds, is not judged.
        """
        limits = self.settings
        watched = {"loss": loss, "validation metric": metric, "parameter norm": parameter_norm}
        for name, value in watched.items():
            if value is not None and not math.isfinite(value):
                return f"the {name} is {value}"
        # A best of 0 or below has no multiples to compare with.
        losses = self._known("loss")
        if loss is not None and losses:
            best, at = min(losses)
            if best > 0 and loss > limits.loss_factor * best:
                return (
                    f"the loss {loss:.4g} is over {limits.loss_factor:g} times "
                    f"the best so far ({best:.4g}, round {at})"
                )
        norms = self._known("parameter_norm")
        if parameter_norm is not None and norms:
            before, at = norms[-1]
            if before > 0 and parameter_norm > limits.norm_factor * before:
                return (
                    f"the parameter norm {parameter_norm:.4g} is over {limits.norm_factor:g} "
                    f"times that of the last good round ({before:.4g}, round {at})"
                )
        return self._metric_fell(metric, higher_is_better)

    def accept(self, good: AcceptedRound) -> None:
        """Remember a good round. Round 0, the untrained model, may give its norm alone.

        A round accepted before was undone: it and all later ones are forgotten.
        """
        self.accepted = [old for old in self.accepted if old.round_num < good.round_num]
        self.accepted.append(good)

    def rebuild(self, accepted: Iterable[AcceptedRound]) -> None:
        """Forget everything and remember these rounds instead, in any order.

        For a resume or a rollback, which read the good rounds from the history.
        """
        self.accepted = sorted(accepted, key=lambda good: good.round_num)

    def _known(self, name: str) -> list[tuple[float, int]]:
        # Without rollback a bad round is accepted too, and NaN must not become the measure.
        pairs = [(getattr(good, name), good.round_num) for good in self.accepted]
        return [(value, at) for value, at in pairs if value is not None and math.isfinite(value)]

    def _metric_fell(self, metric: float | None, higher_is_better: bool) -> str | None:
        fall = self.settings.metric_fall
        known = self._known("metric")
        if fall is None or metric is None or not known:
            return None
        if higher_is_better:
            best, at = max(known, key=lambda pair: pair[0])
            worse, way = metric < best * (1 - fall), "below"
        else:
            best, at = min(known)
            worse, way = metric > best * (1 + fall), "above"
        if best > 0 and worse:
            return (
                f"the validation metric {metric:.4g} is over {fall:.0%} {way} "
                f"the best so far ({best:.4g}, round {at})"
            )
        return None
