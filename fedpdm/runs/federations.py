"""A federation for each model that sites prefer: ``sites.detroit.models=[cnn,hybrid]``.

From the source document of NetworkFed (its sections 4 and 7): each factory names the models that it
prefers, and each model is trained by those that prefer it. Every federation is a run of its own in
``RUN/models/MODEL``, with rounds, baselines and report. At the end a site has several models: their
mean risk (an unweighted ensemble) stands beside each of them, and validation chooses.

    RUN/models.json       sites, their models and scores (docs/summary.md)
    RUN/model_states      all rounds of all models: ``fedpdm.models.ModelManager(FOLDER)``
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from fedpdm.config.values import Config, resolved, select, yaml_of
from fedpdm.data.rows import Split
from fedpdm.errors import ConfigError
from fedpdm.evaluation.scoring import Predictions, score
from fedpdm.evaluation.wording import counted, described, listing, primary_metric
from fedpdm.federation import Site
from fedpdm.history import History
from fedpdm.history.lock import FEDERATIONS
from fedpdm.models.manager import ModelManager
from fedpdm.report.console import console_for, grid_of, say
from fedpdm.runs.experiment import build
from fedpdm.runs.folder import refuse_used
from fedpdm.runs.look import look_at_data
from fedpdm.runs.progress import Working
from fedpdm.runs.reopened import Reopened, reopen
from fedpdm.storage import write_bytes, write_json
from fedpdm.tasks import Task

RESULT, STATES, ENSEMBLE = "models.json", "model_states", "ensemble"
SCHEMA = 1


def run_federations(
    cfg: Config, folder: Path, simulate: Callable[..., Any], resumed: bool
) -> dict[str, Any]:
    """Run every federation that is not finished, compare the models at each site, and keep them.

    Args:
        cfg: the config of the whole command.
        folder: of the run.
        simulate: runs a config in a folder, new or ``resumed=True``.
        resumed: continue what the folder holds.

    Returns:
        What ``models.json`` holds.

    Raises:
        UserError: one of the federations cannot work, or the folder holds another run.
    """
    if not resumed:
        refuse_used(folder)
    parts = {str(model): resolved(part) for model, part in cfg.federations.items()}
    for part in parts.values():
        part.rounds, part.engine = cfg.rounds, cfg.engine  # as resumed
    with Working("checking all federations"):
        for part in parts.values():
            look_at_data(build(part))
    refuse_shared_budget(parts)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "config.yaml", yaml_of(cfg).encode())  # what resume= goes on with
    for number, (model, part) in enumerate(parts.items(), start=1):
        place, sites = folder / FEDERATIONS / model, listing([str(site) for site in part.sites])
        print(f"\nfederation {number} of {len(parts)}: {model} at {sites}", flush=True)
        simulate(part, place, resumed=(place / "manifest.json").exists())
    with Working("comparing the models at each site"):
        runs = {m: reopen(folder / FEDERATIONS / m, cfg=part) for m, part in parts.items()}
        result = compared(runs, folder, [str(site) for site in cfg.sites])
        keep_states(runs, folder / STATES)
    write_json(folder / RESULT, result)
    show(result, folder)
    return result


def refuse_shared_budget(parts: Mapping[str, Config]) -> None:
    """Refuse privacy where a site is in several federations, each with an account of its own.

    Their noise would be drawn alike, from one seed, so not even the sum of their budgets holds.

    Args:
        parts: the config of each federation by model.

    Raises:
        ConfigError: names the site.
    """
    sites = [str(site) for part in parts.values() for site in part.sites]
    shared = [site for site in dict.fromkeys(sites) if sites.count(site) > 1]
    first = next(iter(parts.values()))
    if shared and select(first, "privacy._target_") is not None:
        raise ConfigError(
            f"sites.{shared[0]}.models: with privacy a site may be in one federation only, whose "
            "budget is counted and whose noise is its own; give each site one model"
        )


def compared(runs: Mapping[str, Reopened], folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return by site what each of its models and their ensemble score, and what validation chooses.

    Args:
        runs: the finished federations by model.
        folder: of the whole.
        names: of all sites, in order.

    Raises:
        ConfigError: the models of a site do not see the same windows.
    """
    task = next(iter(runs.values())).experiment.task
    found = {model: run.test().predictions for model, run in runs.items()}
    sites: dict[str, dict[str, Any]] = {}
    for name in names:
        own = {m: site for m, run in runs.items() for site in run.sites if site.name == name}
        if not own:  # evaluate.fraction leaves it out
            continue
        predictions = {model: {name: found[model][name]} for model in own}
        if len(own) > 1:
            predictions[ENSEMBLE] = {name: ensemble([found[m][name] for m in own], name)}
        site = next(iter(own.values()))
        sites[name] = {
            "models": list(own),
            **{
                split.name.lower(): scores(predictions, site, task, split)
                for split in (Split.VALIDATION, Split.TEST, Split.HELDOUT)
                if len(site.windows[split])
            },
            "best_alone": best_alone(runs, list(own), name, task),
        }
        sites[name]["chosen"] = chosen(sites[name].get("validation", {}), list(predictions), task)
    own_sites = list(sites.values())
    return {
        "schema": SCHEMA,
        "task": task.name,
        "metric": task.primary,
        "seed": next(iter(runs.values())).experiment.seed,
        "sites": sites,
        "validation": {
            **described(task.primary, task.higher_is_better),
            "best": mean([site.get("validation", {}).get(site["chosen"]) for site in own_sites]),
        },
        "federations": {
            model: {
                "folder": str(run.folder.relative_to(folder)),
                "sites": [site.name for site in run.sites],
                **{key: run.summary[key] for key in ("rounds", "best_round", "bytes", "seconds")},
            }
            for model, run in runs.items()
        },
    }  # fmt: skip


def ensemble(predictions: Sequence[Mapping[Split, Any]], site: str) -> dict[Split, Any]:
    """Return the mean scores of a site's models, by split.

    Raises:
        ConfigError: they do not have the same windows.
    """
    for split, first in predictions[0].items():
        if any(other[split].shape != first.shape for other in predictions):
            raise ConfigError(
                f"sites.{site}.models: its models do not see the same windows, so they have no "
                "ensemble; give them one data.window and data.stride"
            )
    return {split: np.mean([p[split] for p in predictions], axis=0) for split in predictions[0]}


def scores(
    predictions: Mapping[str, Predictions], site: Site, task: Task, split: Split
) -> dict[str, float | None]:
    """Return the task's primary metric of each predictor at a site."""
    return {
        name: score(own, [site], task, split)["per_site"][site.name][task.primary]
        for name, own in predictions.items()
    }


def chosen(validation: Mapping[str, float | None], names: Sequence[str], task: Task) -> str:
    """Return the predictor that is best on validation windows; the first where none is known."""
    best = names[0]
    for name in names[1:]:
        if task.better(validation.get(name), validation.get(best)):
            best = name
    return best


def best_alone(
    runs: Mapping[str, Reopened], models: Sequence[str], site: str, task: Task
) -> float | None:
    """Return the best test score of what the site has by itself, beside any of its models.

    Test data choose among its models, which flatters what a site has by itself.
    """
    best: float | None = None
    for model in models:
        summary = runs[model].summary
        baseline = summary["test"]["baselines"].get(summary.get("gain_against") or "alone") or {}
        value = (baseline.get("per_site") or {}).get(site, {}).get(task.primary)
        if task.better(value, best):
            best = value
    return best


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are known; None without any."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def keep_states(runs: Mapping[str, Reopened], folder: Path) -> None:
    """Put every kept round of every model into a model manager's folder."""
    manager = ModelManager(folder)
    for name, run in runs.items():
        made = run.experiment.model
        if name not in manager.list_models():
            manager.create_and_register_model(
                name, made["model_type"], made["input_dim"], made["num_classes"],
                sequence_length=made["sequence_length"], **made["config"],
            )  # fmt: skip
        known = {state.round_num for state in manager.list_model_states(name)}
        with History.open(run.folder) as history:
            for record in history.rounds():
                kept = history.path(history.row(record.round)).exists()
                if record.round not in known and kept:
                    manager.get_model(name).set_parameters(
                        {**run.experiment.initial, **history.weights(record.round)}
                    )
                    manager.save_model_state(name, record.round)


def show(result: Mapping[str, Any], folder: Path) -> None:
    """Print the sites' models, what validation chooses, and what a site has by itself."""
    console, metric = console_for(None), primary_metric(result)

    def text(value: float | None) -> str:
        return "–" if value is None else f"{value:.{metric.digits}f}"

    columns = [*result["federations"], ENSEMBLE]
    heads = ["Site", *columns, "Chosen", "Its score", "Best alone"]
    rows = []
    for name, site in result["sites"].items():
        tested = site.get("test", {})
        cells = [text(tested.get(column)) for column in columns]
        own = [text(tested.get(site["chosen"])), text(site["best_alone"])]
        rows.append([Text(cell) for cell in (name, *cells, site["chosen"], *own)])
    aim = "higher" if metric.higher_is_better else "lower"
    say(console, f"\nTest data, {metric.label}, {aim} is better; validation data choose:",
        style="dim")  # fmt: skip
    console.print(grid_of(heads, rows, console))
    many = counted(len(result["federations"]), "federation")
    say(console, f"{many}, each a run folder in {folder / FEDERATIONS}", wrap=False)
    say(console, f"  scores: {folder / RESULT}; all rounds: {folder / STATES}", wrap=False)
