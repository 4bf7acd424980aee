"""What each site brought to a run: made from the config, and summed up over its rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from fedpdm.config.values import Config, make, select
from fedpdm.errors import ConfigError
from fedpdm.history import RoundRecord
from fedpdm.server.round_metrics import CONTRIBUTION
from fedpdm.server.valuation import ERROR, VALUE, Shapley, Valuation, check_valuation

if TYPE_CHECKING:
    from fedpdm.runs.experiment import Experiment

SHOWS_SITES = (
    "contribution=… sends models of single sites to all others, which only a simulation may do; "
    "leave it out"
)
LEVEL = 0.95


def asks(cfg: Config) -> bool:
    """Return whether a config asks what each site brings."""
    return select(cfg, "contribution._target_") is not None


def build_valuation(cfg: Config) -> Valuation | None:
    """Return how the value of sites is measured; None where it is not.

    Raises:
        ConfigError: a value is out of its range.
    """
    return cast(Valuation, make(cfg.contribution, "contribution")) if asks(cfg) else None


def check_contribution(experiment: Experiment) -> None:
    """Refuse a run whose updates cannot be valued, with a ConfigError."""
    if experiment.valuation is None:
        return
    if experiment.privacy is not None:
        raise ConfigError(
            "contribution is made of single updates and of scores that privacy withholds, and "
            "would itself have to be accounted for; use privacy=none, or contribution=none"
        )
    check_valuation(
        experiment.strategy, experiment.server, experiment.transforms, experiment.personal
    )


def contributions(
    experiment: Experiment, records: Sequence[RoundRecord], chosen: int
) -> dict[str, Any]:
    """Return what each site brought, as ``summary.json`` tells it.

    Args:
        experiment: what was run.
        records: the rounds that count; what was rolled back is not among them.
        chosen: the round that validation chose: later ones do not count.
    """
    from scipy.special import stdtrit

    valuation, task = experiment.valuation, experiment.task
    assert valuation is not None
    rounds = [r for r in records if 0 < r.round <= chosen]
    valued = [r for r in rounds if f"{CONTRIBUTION}start" in r.metrics]
    sampled, orders = isinstance(valuation, Shapley), getattr(valuation, "permutations", 2)
    quantile = float(stdtrit(orders - 1, (1 + LEVEL) / 2))
    sites = {}
    for site in experiment.federation.sites:
        own = [r.sites.get(site, {}) for r in valued]
        variance = math.fsum(said.get(ERROR, 0.0) ** 2 for said in own)
        sites[site] = {
            "value": math.fsum(said.get(VALUE, 0.0) for said in own),
            "bound": quantile * math.sqrt(variance) if sampled else None,
            "rounds": sum(VALUE in said for said in own),
        }
    metric = metric_of(valued, task.primary) if valued else None
    return {
        "method": valuation.name,
        "metric": metric,
        "higher_is_better": metric == task.primary and bool(task.higher_is_better),
        "start": valued[0].metrics[f"{CONTRIBUTION}start"] if valued else None,
        "end": valued[-1].metrics[f"{CONTRIBUTION}end"] if valued else None,
        "rounds": len(rounds),
        "rounds_valued": len(valued),
        "models": int(sum(r.metrics[f"{CONTRIBUTION}models"] for r in valued)),
        "bytes": {
            way: int(sum(r.metrics[f"{CONTRIBUTION}bytes_{way}"] for r in valued))
            for way in ("up", "down")
        },
        "sites": sites,
    }


def metric_of(valued: Sequence[RoundRecord], primary: str) -> str:
    """Return the score that rounds were valued by: the task's, or the loss."""
    last = valued[-1].metrics
    return primary if last.get(primary) == last[f"{CONTRIBUTION}end"] else "loss"
