"""Which model your own runs speak for: what ``ModelFactory.recommend`` says first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from fedpdm.comparison.runs import find_runs
from fedpdm.errors import ConfigError
from fedpdm.evaluation.wording import primary_metric


def measured_models(folders: Sequence[Path], task: str, data: str) -> dict[str, str]:
    """Return the models of your finished runs and what they scored, the best first.

    Models are ordered by the mean of their runs' scores on validation data, on which nothing is
    reported. Means of few runs are chance to a large part: ``fedpdm compare`` tests differences.

    Args:
        folders: run folders, or folders with run folders below.
        task: the task that counts, for example ``failure``.
        data: the data set that counts, for example ``fleet``.

    Raises:
        HistoryError: a folder holds no run.
        ConfigError: no finished run is of this task and data.
    """
    runs, _ = find_runs(folders)
    own = [r for r in runs if (r.summary["task"], r.summary["data"]["name"]) == (task, data)]
    scores: dict[str, list[float]] = {}
    sent: dict[str, list[float]] = {}
    for run in own:
        if (best := run.summary["validation"]["best"]) is not None:
            scores.setdefault(run.summary["model"], []).append(best)
            sent.setdefault(run.summary["model"], []).append(sum(run.summary["bytes"].values()))
    if not scores:
        raise ConfigError(
            f"no finished run of task={task} on data={data} in {', '.join(map(str, folders))}; "
            "run some first: python -m fedpdm.simulate -m model=cnn,lstm,hybrid seed=0,1,2"
        )
    metric = primary_metric(own[0].summary)
    order = sorted(scores, key=lambda name: -metric.sign * fmean(scores[name]))
    return {
        name: f"{metric.label} {fmean(scores[name]):.{metric.digits}f} on validation data, "
        f"{fmean(sent[name]) / 1e6:.1f} MB; mean of {len(scores[name])} runs of yours"
        for name in order
    }
