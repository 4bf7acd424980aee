"""Trains a finished run again, to value its updates or to leave out its sites one by one.

The same seed gives the same rounds, so a run is replayed to see its updates. Without a site, the
others train in the same rounds, with the same draws and the same shared scaler; the site is left
out of training only, and all sites' validation windows judge each model. So what is compared
differs in that site's updates alone.

    RUN/contribution/without-000    rounds without the first site, kept so that a stopped command
                                    goes on; without-001, …
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedpdm.errors import ConfigError
from fedpdm.evaluation.wording import metric, number
from fedpdm.history import History, RoundRecord
from fedpdm.history.lock import CONTRIBUTION
from fedpdm.report.sections.contribution import lines, ranked
from fedpdm.runs.again import fresh, train_again
from fedpdm.runs.contribution import check_contribution, contributions
from fedpdm.runs.reopened import Reopened, reopen
from fedpdm.server.base import Result, Round
from fedpdm.server.round_metrics import best_round
from fedpdm.server.synchronous import Synchronous
from fedpdm.server.valuation import Shapley

RETRAINED = "retrained"


class Without(Synchronous):
    """Synchronous rounds in which one site is never asked to train.

    Args:
        site: the one. In rounds that only it would be in, nothing happens.
    """

    one_model = True

    def __init__(self, site: str) -> None:
        super().__init__()
        self._site = site

    def select(self, round: Round) -> list[str]:
        return [site for site in super().select(round) if site != self._site]

    def result(self, round: Round) -> Result:
        if not round.sampled:
            return Result(round.model.arrays, round.model.buffers, [], 0)
        return super().result(round)


def opened(run: Path, imports: Sequence[str]) -> tuple[Reopened, list[RoundRecord]]:
    """Return a finished run and its rounds."""
    found = reopen(run, imports=imports)
    with History.open(run) as history:
        return found, history.rounds()


def replayed(run: Path, *, imports: Sequence[str] = ()) -> dict[str, Any]:
    """Return the Shapley values of a run's updates, which are made again.

    Args:
        run: its folder.
        imports: the modules that the run's own code comes from.

    Raises:
        UserError: the run is not finished, or its updates cannot be valued.
    """
    before, records = opened(run, imports)
    if found := before.summary.get("contribution"):
        return {"run": run.name, "same": True, **found}
    experiment = replace(fresh(run, imports), valuation=Shapley())
    check_contribution(experiment)
    print(f"training {run.name} once more, to see its updates", flush=True)
    with TemporaryDirectory() as place:
        again = train_again(
            experiment, before.manifest["engine"]["settings"], Path(place) / "again"
        )
    key = experiment.task.primary
    same = [r.metrics.get(key) for r in again] == [r.metrics.get(key) for r in records]
    chosen = best_round(again, experiment.task) or again[-1].round
    return {"run": run.name, "same": same, **contributions(experiment, again, chosen)}


def retrained(run: Path, *, imports: Sequence[str] = ()) -> dict[str, Any]:
    """Return what the best validation score loses when the run is trained without each site.

    Args:
        run: its folder; the rounds without each site are kept below it.
        imports: the modules that the run's own code comes from.

    Raises:
        UserError: the run is not finished, or has no synchronous rounds of two sites or more.
    """
    before, records = opened(run, imports)
    experiment = before.experiment
    sites, task = experiment.federation.sites, experiment.task
    if type(experiment.server) is not Synchronous:
        raise ConfigError(
            "--retrain leaves sites out of synchronous rounds, and this run has "
            f"{type(experiment.server).__name__}; take a run with server=synchronous"
        )
    if len(sites) < 2:
        raise ConfigError(f"{run} has one site; without it nothing would be trained")
    if experiment.privacy is not None:
        raise ConfigError(
            f"{run} was made with privacy: its validation scores stay at the sites, and each "
            "training would be a further release; take a run with privacy=none"
        )
    whole = best(records, task)
    found = {}
    for place, site in enumerate(sites):
        print(f"training without {site} ({place + 1} of {len(sites)})", flush=True)
        left = replace(fresh(run, imports), server=Without(site))
        folder = run / CONTRIBUTION / f"without-{place:03d}"
        found[site] = best(train_again(left, before.manifest["engine"]["settings"], folder), task)
    name = task.primary if None not in (whole[0], *(b[0] for b in found.values())) else "loss"
    at = 0 if name == task.primary else 1
    sign = 1.0 if at == 0 and task.higher_is_better else -1.0
    score = whole[at]
    return {
        "run": run.name,
        "method": RETRAINED,
        "metric": name,
        "higher_is_better": sign > 0,
        "end": score,
        "trainings": len(sites),
        "sites": {
            site: {
                "without": scores[at],
                "value": None
                if score is None or scores[at] is None
                else sign * (score - scores[at]),
            }
            for site, scores in found.items()
        },
    }


def best(records: Sequence[RoundRecord], task: Any) -> tuple[Any, Any]:
    """Return the task's score and the loss, on validation windows, of the best of these rounds."""
    chosen = best_round(records, task) or records[-1].round
    metrics = next(r.metrics for r in records if r.round == chosen)
    return (metrics.get(task.primary) if task.learns_labels else None), metrics["validation_loss"]


def told(found: Mapping[str, Any]) -> str:
    """Return the result in words.

    Args:
        found: what ``replayed`` or ``retrained`` returned.
    """
    if found["method"] != RETRAINED:
        said = lines({"contribution": found})
        if not found["same"]:
            said.append(
                "The rounds differ from those of the run (another processor or version?): the "
                "values are of the training that was made now."
            )
        return "\n".join(said)
    of = metric(found["metric"])
    rows = [
        f"  {site}: {number(own['value'], of.digits, sign=True)}, without it "
        f"{number(own['without'], of.digits)}"
        for site, own in ranked(found)
    ]
    return "\n".join([
        f"Leave-one-out by {found['trainings']} trainings: {of.label} on the validation windows of "
        f"all sites is {number(found['end'], of.digits)} with all of them. What each site brings:",
        *rows,
        "Of two sites that bring the same neither is missed, so these values do not add up; they "
        "are of one seed.",
    ])  # fmt: skip
