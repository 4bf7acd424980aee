"""What a run is judged by: test, baselines, monitor, and how many sites evaluate."""

from __future__ import annotations

from dataclasses import dataclass

from fedpdm.baselines.inputs import BaselineSchedule, RocketSettings
from fedpdm.baselines.registry import able, wanted
from fedpdm.config.kinds import check_arguments
from fedpdm.config.values import Config, block, plain, positive, select, share, whole
from fedpdm.data.sources.base import expand_replicas
from fedpdm.errors import ConfigError
from fedpdm.evaluation.protocol import EvaluationProtocol
from fedpdm.models import ModelWrapper
from fedpdm.runs.local_training import frozen_schedule
from fedpdm.server.monitor import MonitorSettings
from fedpdm.tasks import Task

AUTO = "auto"
FEW = 50
"""Up to so many sites, all evaluate; as many get baselines (``baselines.max_plants``)."""
TIMES = 2
"""Sites that evaluate in the time in which one trains (docs/decisions/060-command-line.md)."""


def evaluated_share(cfg: Config, sites: int, sampled: int) -> float:
    """Return the share of the sites that evaluate (``evaluate.fraction``).

    ``auto``: all of few; of more, ``TIMES`` as many as train in a round, so that a round's
    evaluation takes about as long as its training.

    Args:
        cfg: a composed config.
        sites: of the federation.
        sampled: that train in a round.

    Raises:
        ConfigError: it is neither auto nor a share.
    """
    asked = select(cfg, "evaluate.fraction")
    if asked == AUTO:
        return min(1.0, max(FEW, TIMES * sampled) / sites)
    if isinstance(asked, str):
        raise ConfigError(f"evaluate.fraction={asked} must be above 0 and at most 1, or auto")
    return share(cfg, "evaluate.fraction")


def build_protocol(cfg: Config) -> EvaluationProtocol:
    """Make what a test is asked to say."""
    named = expand_replicas(block(cfg, "sites"), whole(cfg, "replicas", 1))
    return EvaluationProtocol.of(block(cfg, "evaluate"), named)


@dataclass(frozen=True)
class BaselinePlan:
    """What a run is compared with.

    Attributes:
        names: of the baselines.
        sites: at most so many get some; 0: none.
        processes: they run in, beside the federation.
        pooled: how networks train on the pooled rows.
        alone: how they train at each site.
        rocket: settings of MiniRocket.
    """

    names: tuple[str, ...]
    sites: int
    processes: int
    pooled: BaselineSchedule
    alone: BaselineSchedule
    rocket: RocketSettings


def build_baselines(cfg: Config, task: Task, model: ModelWrapper) -> BaselinePlan:
    """Make the plan of the baselines.

    Args:
        cfg: a composed config.
        task: what is predicted.
        model: a fresh one; what is frozen in it, no baseline trains.
    """
    return BaselinePlan(
        names=baseline_names(cfg, task),
        sites=whole(cfg, "baselines.max_plants", 0),
        processes=whole(cfg, "baselines.processes", 0),
        pooled=frozen_schedule(cfg, model, "baselines"),
        alone=frozen_schedule(cfg, model, "baselines", "baselines.alone"),
        rocket=build_rocket(cfg),
    )


def baseline_names(cfg: Config, task: Task) -> tuple[str, ...]:
    """Return the names of the baselines that are wanted; null: all there are for the task."""
    names = plain(select(cfg, "baselines.controls"))
    if names is None:
        return able(task.name)
    if not isinstance(names, list):
        raise ConfigError(
            f"baselines.controls={names} must be a list, for example [alone,hgb], or [] for none"
        )
    return wanted([str(name) for name in names], task.name)


def build_rocket(cfg: Config) -> RocketSettings:
    """Make the settings of the MiniRocket baseline."""
    if select(cfg, "baselines.minirocket") is None:
        return RocketSettings()
    return RocketSettings(
        features=whole(cfg, "baselines.minirocket.features", 84, 1_000_000),
        windows=None
        if select(cfg, "baselines.minirocket.windows") is None
        else whole(cfg, "baselines.minirocket.windows", 2, 10_000_000),
    )


def build_monitor(cfg: Config) -> MonitorSettings:
    """Make the monitor's settings."""
    monitor = block(cfg, "monitor")
    for name in ("loss_factor", "norm_factor"):
        positive(cfg, f"monitor.{name}")
    whole(cfg, "monitor.max_rollbacks", 0)
    check_arguments(MonitorSettings, monitor, "monitor")
    return MonitorSettings(**monitor)
