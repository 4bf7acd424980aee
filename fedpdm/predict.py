"""``python -m fedpdm.predict RUN plant.csv``: risk and alarms per machine, for new data.

The model is rebuilt from the run folder alone: ``model.json`` says what it is and which
columns it reads, ``scaler.safetensors`` how they are scaled, the history holds its weights.
No label and no failure log is needed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from fedpdm.config.imports import allowed, import_all, names_of
from fedpdm.data.features import RAW, WindowFeatures
from fedpdm.data.normalise import Scaler
from fedpdm.data.sources.base import OperatingConditions
from fedpdm.data.sources.mapping import Dialect, SiteMapping, closest, site_mapping
from fedpdm.errors import ConfigError, FedPdmError, HistoryError
from fedpdm.evaluation.calibration import calibration_of
from fedpdm.evaluation.conformal import Interval
from fedpdm.models import ModelFactory
from fedpdm.runs.predictor import Predictor
from fedpdm.seeding import torch_seeded
from fedpdm.storage import read_json, read_tensors
from fedpdm.tasks import TASKS, Task
from fedpdm.training.objective import Objective

if TYPE_CHECKING:
    from fedpdm.history import History

SHOWN = 40  # machines in the printed table


def load_predictor(
    run: str | Path,
    *,
    site: str | None = None,
    round: int | None = None,
    threshold: float | None = None,
    objective: Objective | None = None,
    imports: Sequence[str] = (),
) -> Predictor:
    """Return the predictor of a run folder.

    Args:
        run: the run folder.
        site: whose columns the data has, and by whose scaler (``scaling=plant``).
        round: whose weights; None takes the round that validation chose.
        threshold: alarm threshold; None takes the run's, chosen on validation: that of
            ``site``, where each site has its own.
        objective: what the run's sites minimised, if that was not the task's own loss.
        imports: the modules that the run's own code comes from.

    Raises:
        HistoryError: not a run folder, no finished round, or damaged.
        ConfigError: an unknown or missing ``site``, a threshold out of range, or ``imports``
            that the run needs and that are not named.
        ModelError: the weights do not belong to the model.
    """
    from fedpdm.history import History

    folder = Path(run).expanduser()
    card = read_json(folder / "model.json")
    if not isinstance(card, dict):
        raise HistoryError(f"{folder}/model.json is damaged: it holds no object")
    if not set(used := names_of(card.get("imports"))) <= set(imports):
        raise ConfigError(
            f"{folder}: this run used code of its own; if you know and trust it, add "
            f"--imports {','.join(used)}"
        )
    import_all(imports)
    try:
        task = _task(card["task"], folder, imports)
        with History.open(folder) as history:
            chosen, notes = _round(history, card, task, round, folder)
            weights = history.weights(chosen)
            personal = card.get("personal")
            with torch_seeded(personal["seed"] if personal else 0, "model"):
                model = ModelFactory.create_model(
                    card["model_type"], int(card["input_dim"]), int(card["num_classes"]),
                    sequence_length=card["sequence_length"], **card["config"],
                )  # fmt: skip
            if personal:
                from fedpdm.runs.personal import personal_model

                states = history.client_states(chosen)
                model = personal_model(
                    personal, model, weights, states, site, objective, task, folder
                )
            else:
                model.set_parameters(weights)
        scaler, scope = _scaler(card, folder, site)
        name = site or scope
        own = card.get("thresholds", {}).get(name, card["threshold"])
        calibration = card.get("calibrations", {}).get(name, card.get("calibration"))
        interval = card.get("intervals", {}).get(name, card.get("interval"))
        predictor = Predictor(
            run=folder,
            round=chosen,
            model=model,
            task=task,
            mapping=_mapping(card, site or scope),
            scaler=scaler,
            window=card["window"],
            features=_features(card),
            conditions=int(card["conditions"]),
            operating=_operating(card),
            time_unit=str(card["data"]["time_unit"]),
            threshold=_threshold(threshold, own, task),
            calibration=calibration_of(calibration),
            interval=_interval(interval),
            notes=notes,
        )
    except (KeyError, TypeError) as error:
        raise HistoryError(
            f"{folder}/model.json is damaged: {type(error).__name__} {error}; "
            "it does not describe a model of this version of fedpdm"
        ) from error
    if predictor.conditions > 1 and predictor.operating is None:
        raise ConfigError(
            f"{folder}: this run scales by {predictor.conditions} operating conditions, and "
            f"data={card['data']['name']} does not say how new rows get theirs; such runs cannot "
            "be scored from a file"
        )
    if predictor.threshold is None:
        what = task.score_columns[0].partition("_")[0] if task.risks else task.score_columns[0]
        told = f"{what.replace('_', ' ')} at or {'below' if task.alarm_below else 'above'} it"
        note = f"the run has no threshold, so there are no alarms: set --threshold ({told})"
        predictor = replace(predictor, notes=(*predictor.notes, note))
    return predictor


def _task(described: dict[str, Any], folder: Path, imports: Sequence[str]) -> Task:
    """Return the run's task: one of ours by its name, else the class the run names."""
    settings = {k: v for k, v in described.items() if k not in ("name", "_target_")}
    if kind := TASKS.get(described["name"]):
        return kind(**settings)
    target = str(described.get("_target_"))
    found = allowed(target, imports)
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise HistoryError(
            f"{folder}/model.json: task '{described['name']}' ({target}) is not known here; "
            f"there are {', '.join(TASKS)}; a task of your own needs --imports PACKAGE"
        )
    return found(**settings)


def _round(
    history: History, card: dict[str, Any], task: Task, wanted: int | None, folder: Path
) -> tuple[int, tuple[str, ...]]:
    """Return the round to load, and what to say about it."""
    best = card["best_round"]
    records = {record.round: record for record in history.rounds()}
    if wanted is not None:
        if wanted not in records:
            there = ", ".join(str(n) for n in sorted(records)) or "none"
            raise HistoryError(f"{folder} has no finished round {wanted}; there are: {there}")
        if best is not None and wanted != best and card["threshold"] is not None:
            return wanted, (f"the threshold was chosen for round {best}, not for round {wanted}",)
        return wanted, ()
    if best is not None:
        return int(best), ()
    trained: int | None = None
    value: float | None = None
    for number in sorted(n for n in records if n > 0):
        found = records[number].metrics.get(task.primary)
        if trained is None or task.better(found, value):
            trained, value = number, found
    if trained is None:
        raise HistoryError(
            f"{folder} has no finished round yet; let the run finish, or continue it with "
            f"python -m fedpdm.simulate resume={folder}"
        )
    return trained, (f"the run is not finished; round {trained} is its best so far",)


def _scaler(card: dict[str, Any], folder: Path, site: str | None) -> tuple[Scaler, str | None]:
    """Return the scaler for ``site``, and the site it belongs to if there is only one."""
    path = folder / "scaler.safetensors"
    if not path.exists():
        raise HistoryError(
            f"{folder} is not finished: it has no scaler.safetensors yet; continue it with "
            f"python -m fedpdm.simulate resume={folder}"
        )
    arrays = read_tensors(path)
    scopes = [name.removesuffix("/mean") for name in arrays if name.endswith("/mean")]
    named = [*card["sites"], *(s for s in scopes if s != "federated"), *card.get("thresholds", {}),
             *((card.get("personal") or {}).get("sites", ()))]  # fmt: skip
    sites = list(dict.fromkeys(named))
    if site is not None and site not in sites:
        there = f"there are {', '.join(sites)}." if sites else "its sites have no names of own."
        raise ConfigError(f"--site {site}: {folder} has no such site; {there}"
                          + closest(site, sites))  # fmt: skip
    scope, alone = "federated", None
    if card["scaling"] == "plant":
        if site is None and len(sites) > 1:
            raise ConfigError(
                f"{folder} scales each site by itself (scaling=plant): say whose data this is "
                f"with --site ({', '.join(sites)})"
            )
        scope = alone = site or sites[0]
    try:
        scaler = Scaler(arrays[f"{scope}/mean"], arrays[f"{scope}/scale"])
    except KeyError:
        raise HistoryError(
            f"{path} has no scaler for {scope}; it has {', '.join(scopes)}"
        ) from None
    sensors = [str(name) for name in card["features"]]
    computed = len(_features(card).names(sensors))
    expected = (int(card["conditions"]), len(sensors) + computed)
    if scaler.mean.shape != expected or scaler.scale.shape != expected:
        raise HistoryError(f"{path} is of another run: its shape is not {expected}")
    return scaler, alone


def _features(card: dict[str, Any]) -> WindowFeatures:
    """Return what the model sees of a window; in a run of an older version, the readings."""
    return WindowFeatures(**card["inputs"]) if "inputs" in card else RAW


def _operating(card: dict[str, Any]) -> OperatingConditions | None:
    """Return how new rows get their operating condition; None where the run does not say."""
    said = card.get("operating")
    if said is None:
        return None
    points = tuple(tuple(map(float, point)) for point in said["points"])
    return OperatingConditions(tuple(said["columns"]), points, tuple(said["tolerance"]))


def _mapping(card: dict[str, Any], site: str | None) -> SiteMapping:
    """Return which columns to read: a site's own, or ``machine``, ``time`` and the features.

    Without a site, sites that all name their columns alike stand for each other.
    """
    features = [str(name) for name in card["features"]]
    named = [site] if site is not None else list(card["sites"])
    if named and all("path" in (card["sites"].get(name) or {}) for name in named):
        mappings = [site_mapping(name, card["sites"][name]) for name in named]
        ordered = [replace(m, columns={f: m.columns[f] for f in features}) for m in mappings]
        first = ordered[0]
        if all(
            (m.machine, m.time, m.columns, m.dialect)
            == (first.machine, first.time, first.columns, first.dialect)
            for m in ordered
        ):
            return first
    return SiteMapping("", "", "machine", "time", {f: f for f in features}, dialect=Dialect())


def _threshold(given: float | None, own: float | None, task: Task) -> float | None:
    if given is None:
        return None if own is None else float(own)
    highest = 1.0 if task.risks else np.inf
    if not 0 <= given <= highest:
        raise ConfigError(
            f"--threshold {given:g} must be "
            + ("0 or more" if highest == np.inf else "a probability, between 0 and 1")
        )
    return given


def _interval(described: dict[str, Any] | None) -> Interval | None:
    """Return the interval of remaining life that validation machines calibrated, if any."""
    if described is None:
        return None
    level, factor, cap = (float(described[key]) for key in ("level", "factor", "cap"))
    return Interval(level, factor, cap, int(described["machines"]))


def machines(scored: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return one row per machine: its last time, its score there, and its alarm since when.

    Args:
        scored: what ``Predictor.score`` returned.
        column: the score to show.

    Returns:
        Columns ``machine``, ``time``, ``column``, ``alarm``, ``since`` (the first row of the
        unbroken alarm that lasts until now, else None), ``padded``.
    """
    lines = []
    for machine, rows in scored.groupby("machine", sort=True):
        last = rows.iloc[-1]
        alarm = rows["alarm"].fillna(False).to_numpy(dtype=bool)
        quiet = np.flatnonzero(~alarm)
        begin = int(quiet[-1]) + 1 if len(quiet) else 0
        since = rows["time"].iloc[begin] if alarm[-1] else None
        lines.append((machine, last["time"], last[column], last["alarm"], since, last["padded"]))
    names = ["machine", "time", column, "alarm", "since", "padded"]
    frame = pd.DataFrame(lines, columns=names)
    frame["since"] = pd.Series([line[4] for line in lines], dtype=object)  # keeps None and 3
    return frame


def print_machines(predictor: Predictor, scored: pd.DataFrame) -> None:
    """Print a table with a line per machine, the one most at risk first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    task = predictor.task
    column = task.score_columns[0]
    lines = machines(scored, column).sort_values(column, ascending=task.alarm_below, kind="stable")
    title = f"{task.name}, round {predictor.round} of {escape(predictor.run.name)}"
    if predictor.threshold is not None:
        title += f", alarm at {'≤' if task.alarm_below else '≥'} {predictor.threshold:.3g}"
    table = RichTable(title=title, title_justify="left")
    for name in ("machine", "last time", column.replace("_", " "), "alarm", "since"):
        table.add_column(name, justify="right" if name == column.replace("_", " ") else "left")
    for line in lines.head(SHOWN).itertuples(index=False):
        machine, when, value, alarm, since, padded = line
        said = "" if pd.isna(alarm) else "[bold red]ALARM[/]" if alarm else "no"
        shown = f"{value:.{task.score_digits}f}"
        table.add_row(f"{escape(machine)}{' *' if padded else ''}", escape(str(when)), shown, said,
                      "" if since is None else escape(str(since)))  # fmt: skip
    console = Console()
    console.print(table)
    if len(lines) > SHOWN:
        console.print(f"… and {len(lines) - SHOWN} more machines in the file")
    if lines["padded"].any():
        console.print(f"* fewer rows than the model's window of {predictor.window}: padded")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 for mistakes."""
    parser = argparse.ArgumentParser(
        prog="python -m fedpdm.predict",
        description="Score a site's new data with the model of a run: risk and alarms by machine.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the run folder")
    parser.add_argument("file", metavar="FILE", type=Path, help="CSV or Parquet with new rows")
    parser.add_argument("--site", help="the site whose columns and scaling apply")
    parser.add_argument("--round", type=int, help="weights of this round (default: the best)")
    parser.add_argument("--out", type=Path, help="where the scores go (default: FILE-scores.csv)")
    parser.add_argument("--threshold", type=float, help="alarm threshold (default: the run's)")
    parser.add_argument("--imports", help="modules of your own that the run used: mylab,…")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        predictor = load_predictor(
            given.run, site=given.site, round=given.round, threshold=given.threshold,
            imports=names_of(given.imports),
        )  # fmt: skip
        table = predictor.read(given.file)
        scored = predictor.score(table)
        out = given.out or Path(f"{given.file.name.partition('.')[0]}-scores.csv")
        write_scores(scored, out, given.file)
    except FedPdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    silent = [c for c in predictor.mapping.columns.values() if np.isnan(table.numbers(c)).all()]
    about = (f"column '{c}' has no reading at all; it counts as average" for c in silent)
    for note in (*predictor.notes, *about):
        print(f"note: {note}", file=sys.stderr)
    print_machines(predictor, scored)
    print(f"{len(scored)} scored rows: {out}")
    return 0


def write_scores(scored: pd.DataFrame, out: Path, source: Path) -> None:
    """Write the scores as CSV, whole or not at all; never over the file they come from.

    Raises:
        ConfigError: ``out`` cannot be written.
    """
    if out.exists() and source.exists() and out.samefile(source):
        raise ConfigError(f"--out {out} is the file with the data; choose another name")
    temporary = out.with_name(out.name + ".tmp")
    try:
        scored.to_csv(temporary, index=False)
        temporary.replace(out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(
            f"--out {out} cannot be written: {error.strerror or error}; choose another place"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
