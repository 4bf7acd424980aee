"""Writes the results of a finished run: summary.json, metrics.csv, report.html."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpdm.baselines.best_alone import NAME as BEST_ALONE
from fedpdm.baselines.best_alone import best_alone, reference_alone
from fedpdm.baselines.registry import predictors
from fedpdm.config.values import Config, plain
from fedpdm.data.rows import Split
from fedpdm.evaluation.clusters import found_clusters
from fedpdm.evaluation.confidence import certainty
from fedpdm.evaluation.final_test import FinalTest
from fedpdm.evaluation.scoring import Predictions, gains, score
from fedpdm.evaluation.summary_sections import gain_spread
from fedpdm.evaluation.wording import described
from fedpdm.federation import Site
from fedpdm.history import History, RoundRecord
from fedpdm.runs.experiment import Experiment
from fedpdm.runs.folder import SCHEMA, versions
from fedpdm.server.clock import MESSAGES, SIMULATED
from fedpdm.server.round_metrics import further_metrics
from fedpdm.storage import write_bytes, write_json
from fedpdm.tasks import Task

RESULTS = ("model.json", "metrics.csv", "summary.json", "report.html")
"""Files that ``write_results`` writes."""


def summarise(
    experiment: Experiment,
    cfg: Config,
    history: History,
    *,
    engine: str,
    best_round: int,
    tested: Mapping[str, Any],
    members: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the content of ``summary.json``, still without baselines (docs/summary.md).

    Args:
        experiment: what was run.
        cfg: its config.
        history: its rounds.
        engine: name of the engine.
        best_round: the round that validation chose.
        tested: ``threshold``, ``test`` and ``heldout`` of its weights, and what else was found.
        members: by site, its cluster in that round, if sites are in clusters.
    """
    task, source = experiment.task, experiment.federation.source
    records = history.rounds()
    best = next((r for r in records if r.round == best_round), records[-1])
    sent = history.rounds(undone=True)  # what was rolled back was sent all the same
    return {
        "schema": SCHEMA,
        "sites": list(experiment.federation.sites),
        "task": task.name,
        "model": experiment.model["model_type"],
        "strategy": type(experiment.strategy).__name__,
        "engine": engine,
        "rounds": experiment.rounds,
        "best_round": best_round,
        "validation": {
            "metric": task.primary,
            "best": best.metrics.get(task.primary),
            **described(task.primary, task.higher_is_better),
        },
        "reported": further_metrics(best.to_dict()),
        "clusters": found_clusters(members, source.families) if members else None,
        "threshold": tested["threshold"],
        "test": {**tested["test"], "baselines": {}},
        "heldout": tested["heldout"],
        "inspect": tested.get("inspect"),
        "gain": {},
        "gain_against": None,
        "bytes": {
            "up": sum(r.bytes_up for r in sent),
            "down": sum(r.bytes_down for r in sent),
        },
        "seconds": {},
        "simulated": simulated(records, best),
        "seed": experiment.seed,
        "versions": versions(),
        "data": {
            "name": source.name,
            "sha256": None,
            "time_unit": source.time_unit,
            "window": source.window,
            "facts": list(source.facts),
        },
        "options": {
            "task": plain(cfg.task), "strategy": plain(cfg.strategy),
            "scaling": str(cfg.scaling),
        },
        "privacy": None,
        "attack": tested.get("attack"),
        "events": history.events(),
    }  # fmt: skip


def simulated(records: Sequence[RoundRecord], best: RoundRecord) -> dict[str, Any] | None:
    """Return what a virtual clock says of a run; None for the clock of this machine.

    Args:
        records: the rounds that count.
        best: the round that validation chose.
    """
    last = records[-1].metrics
    if f"{SIMULATED}seconds" not in last:
        return None
    of_best = {"seconds": best.metrics.get(f"{SIMULATED}seconds", 0.0),
               "bytes": best.metrics.get(f"{MESSAGES}bytes", 0)}  # fmt: skip
    messages = {
        name.removeprefix(MESSAGES): count
        for name, count in last.items()
        if name.startswith(MESSAGES)
    }
    return {"seconds": last[f"{SIMULATED}seconds"], "bytes": messages.pop("bytes"),
            "best_round": of_best, "messages": messages}  # fmt: skip


def add_baselines(
    summary: dict[str, Any], found: dict[str, Predictions], sites: list[Site], task: Task
) -> None:
    """Put the baselines beside the federation, on the same test windows, in place.

    Args:
        summary: what ``summarise`` made.
        found: the baselines' scores; the best alone is added where sites have several kinds.
        sites: the sites they were tested on.
        task: what is predicted.
    """
    chosen = None
    if (best := best_alone(found, sites, task)) is not None:
        found[BEST_ALONE], chosen = best
    baselines, heldout = summary["test"]["baselines"], {}
    for name, predictions in found.items():
        result = score(predictions, sites, task, Split.TEST)
        baselines[name] = {key: result[key] for key in ("global", "mean_site", "per_site")}
        if summary["heldout"] is not None:
            heldout[name] = score(predictions, sites, task, Split.HELDOUT)
    if summary["heldout"] is not None:
        summary["heldout"]["baselines"] = heldout
    if chosen is not None:
        baselines[BEST_ALONE]["chosen"] = chosen
    summary["gain_against"] = reference_alone(found)
    alone = baselines.get(summary["gain_against"], {}).get("per_site", {})
    summary["gain"] = gains(summary["test"]["per_site"], alone, task)
    summary["test"]["spread"]["gain"] = gain_spread(summary["gain"])


def add_confidence(
    summary: dict[str, Any],
    trial: FinalTest,
    baselines: Mapping[str, Predictions],
    experiment: Experiment,
) -> None:
    """Add intervals over machines to the results and to the gains, in place."""
    summary["test"]["bootstrap"] = certainty(
        trial.predictions,
        {
            name: baselines[name]
            for name, shown in predictors(baselines).items()
            if shown.interval and name in baselines
        },
        trial.sites,
        experiment.task,
        resamples=experiment.protocol.bootstrap,
        seed=experiment.seed,
        shared=experiment.federation.source.shares_machines,
    )


def write_results(
    folder: Path,
    summary: dict[str, Any],
    card: dict[str, Any],
    history: History,
    manifest: Mapping[str, Any],
    shapes: list[dict[str, Any]],
) -> None:
    """Write the files that people and programs read."""
    from fedpdm.report.report import write_report

    card = card | {"best_round": summary["best_round"], "threshold": summary["threshold"]}
    write_json(folder / "model.json", card)
    write_metrics(folder, history)
    write_json(folder / "summary.json", summary)
    records = [record.to_dict() for record in history.rounds(undone=True)]
    write_report(folder, summary, records, manifest, shapes)


def write_metrics(folder: Path, history: History) -> None:
    """Write ``metrics.csv``: one line per round and site, and one per round for all."""
    lines: list[dict[str, Any]] = []
    for record in history.rounds():
        if record.round == 0:
            continue
        shared = {"round": record.round, "attempt": record.attempt}
        lines.append({**shared, "site": "", **record.metrics, "bytes_up": record.bytes_up,
                      "bytes_down": record.bytes_down})  # fmt: skip
        for site, values in record.sites.items():
            line = {**shared, "site": site}
            line |= {k: v for k, v in values.items() if k != "validation"}
            for name, value in values.get("validation", {}).items():
                line["validation_loss" if name == "loss" else name] = value
            lines.append(line)
    text = io.StringIO()
    columns = dict.fromkeys(name for line in lines for name in line)
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    write_bytes(folder / "metrics.csv", text.getvalue().encode())
