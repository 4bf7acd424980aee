"""The monitor: when a round is bad, and when it is rolled back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedpdm.errors import ConfigError, TrainingStopped
from fedpdm.history import History, RoundRecord

IDLE_ROUNDS = 3
"""After so many rounds in a row without a usable update the run stops."""


@dataclass(frozen=True)
class Judged:
    """What a round is judged by; None is not known, and not judged.

    Attributes:
        round_num: its number.
        loss: on validation data where there is any, else in training.
        metric: the task's primary metric on validation data.
        parameter_norm: Euclidean norm of all parameters.
    """

    round_num: int
    loss: float | None
    metric: float | None
    parameter_norm: float | None


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
        fall = self.metric_fall
        for name, works, rule in (
            ("loss_factor", self.loss_factor > 1, "greater than 1"),
            ("norm_factor", self.norm_factor > 1, "greater than 1"),
            ("metric_fall", fall is None or fall > 0, "greater than 0, or null"),
            ("max_rollbacks", self.max_rollbacks >= 0, "0 or more"),
        ):
            if not works:
                raise ConfigError(f"monitor.{name}={getattr(self, name)} must be {rule}")

    def judge(self, now: Judged, before: Sequence[Judged], higher_is_better: bool) -> str | None:
        """Return why a round is bad, or None.

        Args:
            now: the round.
            before: the committed rounds before it. Round 0, the untrained model, may have a
                norm alone.
            higher_is_better: how the metric is read.
        """
        watched = {
            "loss": now.loss, "validation metric": now.metric, "parameter norm": now.parameter_norm
        }  # fmt: skip
        for name, value in watched.items():
            if value is not None and not math.isfinite(value):
                return f"the {name} is {value}"

        def known(name: str) -> list[tuple[float, int]]:
            # Without rollback a bad round is committed too, and NaN must not become the measure.
            pairs = [(getattr(good, name), good.round_num) for good in before]
            return [
                (value, at) for value, at in pairs if value is not None and math.isfinite(value)
            ]

        # A best of 0 or below has no multiples to compare with.
        if now.loss is not None and (losses := known("loss")):
            best, at = min(losses)
            if best > 0 and now.loss > self.loss_factor * best:
                return (
                    f"the loss {now.loss:.4g} is over {self.loss_factor:g} times "
                    f"the best so far ({best:.4g}, round {at})"
                )
        if now.parameter_norm is not None and (norms := known("parameter_norm")):
            last, at = norms[-1]
            if last > 0 and now.parameter_norm > self.norm_factor * last:
                return (
                    f"the parameter norm {now.parameter_norm:.4g} is over {self.norm_factor:g} "
                    f"times that of the last good round ({last:.4g}, round {at})"
                )
        if now.metric is None or self.metric_fall is None or not (metrics := known("metric")):
            return None
        sign, way = (1, "below") if higher_is_better else (-1, "above")
        best, at = max(metrics, key=lambda pair: sign * pair[0])
        if best > 0 and sign * now.metric < sign * best * (1 - sign * self.metric_fall):
            return (
                f"the validation metric {now.metric:.4g} is over {self.metric_fall:.0%} {way} "
                f"the best so far ({best:.4g}, round {at})"
            )
        return None


def refuse_to_learn_nothing(finished: Sequence[RoundRecord], rounds: int, history: History) -> None:
    """Stop a run that goes through its rounds without one usable update.

    One such round is an event; several in a row are no training.

    Args:
        finished: the rounds so far.
        rounds: how many the run has.
        history: where the stop is noted.

    Raises:
        TrainingStopped: the last rounds had none.
    """
    last = [record for record in finished if record.round > 0][-IDLE_ROUNDS:]
    idle = all("examples" not in site for record in last for site in record.sites.values())
    if not idle or len(last) < min(IDLE_ROUNDS, max(rounds, 2)):
        return
    reasons = "; ".join(event["message"] for event in last[-1].events[:2])
    message = f"no usable update in {len(last)} rounds in a row ({reasons})"
    history.note({"kind": "stopped", "round": last[-1].round, "message": message})
    raise TrainingStopped(f"{message}; lower training.learning_rate, or look at the sites")


def give_up(history: History, monitor: MonitorSettings, number: int, fault: str) -> None:
    """Stop a run that was rolled back too often in a row.

    Args:
        history: where the stop is noted; its head is the last good round.
        monitor: says how often.
        number: of the round that was bad.
        fault: what was wrong with it.

    Raises:
        TrainingStopped: always.
    """
    reason = f"stopped after {monitor.max_rollbacks} rollbacks in a row at round {number}: {fault}"
    history.note({"kind": "stopped", "round": number, "message": reason})
    head = history.head()
    raise TrainingStopped(
        f"{reason}; round {head.round if head else 0} is the last good one. Look at the sites with "
        "python -m fedpdm.history show RUN, lower training.learning_rate, or choose a "
        "robust strategy (strategy=fedmedian)"
    )
