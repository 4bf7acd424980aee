"""``python -m fedpdm.predict RUN plant.csv``: risk and alarms per machine, for new data.

The model is rebuilt from the run folder alone: ``model.json`` says what it is and which
columns it reads, ``scaler.safetensors`` how they are scaled, the history holds its weights.
No label and no failure log is needed.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch
from rich.console import Console

from fedpdm.config.imports import import_all, lookup, names_of, own_code_error
from fedpdm.data.features import WindowFeatures
from fedpdm.data.sources.readings import values_of
from fedpdm.data.sources.tables import Table
from fedpdm.errors import ConfigError, FedPdmError, HistoryError, ModelError, printable, run_command
from fedpdm.evaluation.calibration import calibration_of
from fedpdm.evaluation.conformal import Interval
from fedpdm.evaluation.costs import NEVER
from fedpdm.history.lock import FEDERATIONS
from fedpdm.history.schemas import Card
from fedpdm.history.sealed import read_sealed
from fedpdm.models import ModelFactory, ModelWrapper
from fedpdm.runs.initial import stored_start
from fedpdm.runs.inputs import mapping_of, operating_of, scaler_of
from fedpdm.runs.predictor import Predictor, personal_model, weights_for
from fedpdm.runs.progress import Working
from fedpdm.seeding import torch_seeded
from fedpdm.server.base import models_of
from fedpdm.server.round_metrics import best_round
from fedpdm.storage import write_bytes
from fedpdm.tasks import TASKS, Task
from fedpdm.training.objective import Objective

if TYPE_CHECKING:
    from fedpdm.history import History

SHOWN = 40  # machines in the printed table
MOST_KEPT = 20_000_000
"""Values of a model that belong to a site; a card can name any number."""
ODD = (ArithmeticError, TypeError, ValueError)
"""What odd values of a model card may raise, beside what is looked for."""
OPTIONS = ("site", "round", "out", "threshold", "imports")


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
    card = _card(folder, imports)
    try:
        task = _task(card["task"], folder, imports)
        with History.open(folder) as history:
            chosen, notes = _round(history, card, task, round, folder)
            model = _model(card, history, chosen, folder, task, site, objective)
            members = models_of(history, chosen)[1]
        features = WindowFeatures(**card.get("inputs", {}))
        scaler, alone = scaler_of(card, folder, site, features, members)
        name = site or alone
        own = {
            key: card.get(f"{key}s", {}).get(name, card.get(key))
            for key in ("threshold", "calibration", "interval")
        }
        level = _threshold(threshold, own["threshold"], task)
        return Predictor(
            run=folder,
            round=chosen,
            model=model,
            task=task,
            mapping=mapping_of(card, name),
            scaler=scaler,
            window=card["window"],
            features=features,
            conditions=int(card["conditions"]),
            operating=operating_of(card, folder),
            time_unit=str(card["data"]["time_unit"]),
            max_gap=card["data"].get("max_gap"),
            threshold=level,
            calibration=calibration_of(own["calibration"]),
            interval=own["interval"] and _interval(own["interval"]),
            notes=notes if level is not None else (*notes, _silent(task)),
        )
    except (*ODD, AttributeError, LookupError, RuntimeError) as error:
        raise HistoryError(
            f"{folder}/model.json is damaged: {type(error).__name__} {error}; "
            "it does not describe a model of this version of fedpdm"
        ) from error


def _card(folder: Path, imports: Sequence[str]) -> dict[str, Any]:
    """Return the run's model card; the modules that the run used are imported."""
    path = folder / "model.json"
    if not path.exists() and (own := sorted(folder.glob(f"{FEDERATIONS}/*/model.json"))):
        raise HistoryError(
            f"{folder} holds several federations, a model each; predict with one of them: "
            f"{', '.join(str(model.parent) for model in own)} (models.json says which validation "
            "chose at each site)"
        )
    card = Card.read(read_sealed(folder, path.name), path)
    if not set(used := names_of(card.get("imports"))) <= set(imports):
        raise ConfigError(
            f"{folder}: this run used code of its own; if you know and trust it, add "
            f"--imports {','.join(used)}"
        )
    import_all(imports)
    return card


def _model(
    card: dict[str, Any],
    history: History,
    chosen: int,
    folder: Path,
    task: Task,
    site: str | None,
    objective: Objective | None,
) -> ModelWrapper:
    """Return the model with the weights of the chosen round, and of ``site`` what it kept."""
    weights, personal = weights_for(history, chosen, card, site, folder), card.get("personal")

    def build() -> ModelWrapper:
        return ModelFactory.create_model(
            card["model_type"], card["input_dim"], card["num_classes"],
            sequence_length=card["sequence_length"], **card["config"],
        )  # fmt: skip

    if not card.get("imports"):
        with torch.device("meta"):  # takes no memory, whatever sizes the card names
            shapes = {n: tuple(t.shape) for n, t in build().module.state_dict().items()}
        own = set(personal["tensors"] if personal else ())
        kept = sum(math.prod(shape) for name, shape in shapes.items() if name in own)
        if kept > MOST_KEPT:
            raise ModelError(f"{folder}: {kept:,} values of its model belong to each site")
        shared = {name: shape for name, shape in shapes.items() if name not in own}
        if shared != {n: array.shape for n, array in weights.items() if n not in own}:
            raise ModelError(
                f"{folder}: the weights of round {chosen} have another shape than its model"
            )
    with torch_seeded(personal["seed"] if personal else 0, "model"):
        model = build()
    if not personal:
        model.set_parameters(weights)
        return model
    if (start := stored_start(folder)) is not None:  # what a site keeps began there
        model.set_parameters({**model.get_parameters(), **start.weights})
    states = history.client_states(chosen)
    return personal_model(personal, model, weights, states, site, objective, task, folder)


def _interval(said: dict[str, Any]) -> Interval:
    """Return the interval of a model card, where JSON has null for an infinite width."""
    return Interval(**said | {"factor": np.inf if said["factor"] is None else said["factor"]})


def _task(described: dict[str, Any], folder: Path, imports: Sequence[str]) -> Task:
    """Return the run's task: one of ours by its name, else the class the run names."""
    settings = {k: v for k, v in described.items() if k not in ("name", "_target_")}
    if kind := TASKS.get(described["name"]):
        return kind(**settings)
    target = str(described.get("_target_"))
    found = lookup("task", target, imports)
    if found is None:
        raise HistoryError(
            f"{folder}/model.json: task '{described['name']}' ({target}) is not known here; "
            f"there are {', '.join(TASKS)}; a task of your own needs --imports PACKAGE"
        )
    return cast(Task, found(**settings))


def _round(
    history: History, card: dict[str, Any], task: Task, wanted: int | None, folder: Path
) -> tuple[int, tuple[str, ...]]:
    """Return the round to load, and what to say about it."""
    best, records = card["best_round"], history.rounds()
    if wanted is not None:
        there = sorted(record.round for record in records)
        if wanted not in there:
            found = ", ".join(map(str, there)) or "none"
            raise HistoryError(f"{folder} has no finished round {wanted}; there are: {found}")
        if best is not None and wanted != best and card["threshold"] is not None:
            return wanted, (f"the threshold was chosen for round {best}, not for round {wanted}",)
        return wanted, ()
    if best is not None:
        return int(best), ()
    trained = best_round(records, task)
    if trained is None:
        raise HistoryError(
            f"{folder} has no finished round yet; let the run finish, or continue it with "
            f"python -m fedpdm.simulate resume={folder}"
        )
    return trained, (f"the run is not finished; round {trained} is its best so far",)


def _threshold(given: float | None, own: float | None, task: Task) -> float | None:
    if given is None:
        if own is not None and task.risks and own > NEVER:
            raise HistoryError(f"model.json is damaged: threshold {own:g} is no probability")
        return own
    if not 0 <= given <= (1.0 if task.risks else np.inf):
        wanted = "a probability, between 0 and 1" if task.risks else "0 or more"
        raise ConfigError(f"--threshold {given:g} must be {wanted}")
    return given


def _silent(task: Task) -> str:
    """Return what to say where no threshold is known."""
    score = task.score_columns[0].partition("_")[0] if task.risks else task.score_columns[0]
    told = f"{score.replace('_', ' ')} at or {'below' if task.alarm_below else 'above'} it"
    return f"the run has no threshold, so there are no alarms: set --threshold ({told})"


def machines(scored: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return one row per machine: its last time, its score there, and its alarm since when.

    Args:
        scored: what ``Predictor.score`` returned.
        column: the score to show.

    Returns:
        Columns ``machine``, ``time``, ``column``, ``alarm``, ``since`` (the first row of the
        unbroken alarm that lasts until now, else None), ``padded``.
    """
    lines, since = [], []
    for machine, rows in scored.groupby("machine", sort=True):
        last = rows.iloc[-1]
        alarm = rows["alarm"].fillna(False).to_numpy(dtype=bool)
        quiet = np.flatnonzero(~alarm)
        begin = int(quiet[-1]) + 1 if len(quiet) else 0
        since.append(rows["time"].iloc[begin] if alarm[-1] else None)
        lines.append((machine, last["time"], last[column], last["alarm"], last["padded"]))
    frame = pd.DataFrame(lines, columns=["machine", "time", column, "alarm", "padded"])
    frame.insert(4, "since", pd.Series(since, dtype=object))  # keeps None and 3
    return frame


def print_machines(predictor: Predictor, scored: pd.DataFrame) -> None:
    """Print a table with a line per machine, the one most at risk first."""
    from rich.text import Text

    from fedpdm.report.console import STYLE, console_for, grid_of, say

    task, console = predictor.task, console_for(None)
    column = task.score_columns[0]
    lines = machines(scored, column).sort_values(column, ascending=task.alarm_below, kind="stable")
    title = f"{task.name}, round {predictor.round} of {predictor.run.name}"
    if predictor.threshold is not None:
        title += f", alarm at {'≤' if task.alarm_below else '≥'} {predictor.threshold:.3g}"
    say(console, title)
    rows = []
    for line in lines.head(SHOWN).itertuples(index=False):
        machine, when, value, alarm, since, padded = line
        said = "" if pd.isna(alarm) else "ALARM" if alarm else "no"
        rows.append([
            Text(f"{machine}{' *' if padded else ''}"),
            Text(str(when)),
            Text(f"{value:.{task.score_digits}f}"),
            Text(said, style=STYLE["worse"] if said == "ALARM" else ""),
            Text("" if since is None else str(since)),
        ])  # fmt: skip
    heads = ["machine", "last time", column.replace("_", " "), "alarm", "since"]
    console.print(grid_of(heads, rows, console))
    if len(lines) > SHOWN:
        say(console, f"… and {len(lines) - SHOWN} more machines in the file")
    if lines["padded"].any():
        say(console, f"* fewer rows than the model's window of {predictor.window}: padded")


def drifted(
    predictor: Predictor, table: Table, scored: pd.DataFrame, site: str | None
) -> list[str]:
    """Return lines: each sensor and score, how far it lies from training, the farthest first.

    Args:
        predictor: the model.
        table: the new rows.
        scored: what ``Predictor.score`` returned of them.
        site: whose readings to compare with; None for all sites'.
    """
    from fedpdm.runs.drift import MUCH, before, distances, stored_reference

    names, columns = predictor.mapping.inputs, list(predictor.task.score_columns)
    stored = stored_reference(predictor.run, len(names))
    old = before(stored, "readings", site)
    if old is None:
        return ["no readings to measure drift from"]
    found = distances(old, values_of(table, predictor.mapping), names)
    was = before(stored, "scores", site)
    if was is not None and was.shape[1] == len(columns):
        found |= distances(was, scored[columns].to_numpy(dtype=float), columns)
    whose = f"site {site}" if site and f"readings/{site}" in stored else "all sites"
    head = f"drift from the training of {predictor.run.name} ({whose}):  PSI    KS"
    return [head] + [
        f"  {printable(name)}: {each['psi']:.3f}  {each['ks']:.3f}"
        + ("  much" if each["psi"] > MUCH else "")
        for name, each in found.items()
    ]


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
    parser.add_argument(
        "--out",
        type=Path,
        help="where the scores go (default: FILE-scores.csv, all-scores.csv for *.csv)",
    )
    parser.add_argument("--threshold", type=float, help="alarm threshold (default: the run's)")
    parser.add_argument("--drift", action="store_true",
                        help="also print how far the file lies from the training")  # fmt: skip
    parser.add_argument("--imports", help="modules of your own that the run used: mylab,…")
    words = list(sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(1)
    try:
        _refuse_overrides(words)
        given = parser.parse_args(words)
        with Working("scoring the rows", Console(stderr=True)):
            predictor = load_predictor(
                given.run, site=given.site, round=given.round, threshold=given.threshold,
                imports=names_of(given.imports),
            )  # fmt: skip
            table = predictor.read(given.file)
            scored, silent = predictor.score(table), predictor.silent(table)
            far = drifted(predictor, table, scored, given.site) if given.drift else []
        name = re.sub(r"[*?\[\]]+", "", given.file.name.partition(".")[0]).strip("-_ ")
        out = given.out or Path(f"{name or 'all'}-scores.csv")
        if out.exists() and given.file.exists() and out.samefile(given.file):
            raise ConfigError(f"--out {out} is the file with the data; choose another name")
        write_bytes(out, scored.to_csv(index=False).encode())
    except Exception as raised:
        error = own_code_error(raised)
        if not isinstance(error, FedPdmError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    about = (f"column '{c}' has no reading at all; it counts as average" for c in silent)
    for note in (*predictor.notes, *about):
        print(f"note: {printable(note)}", file=sys.stderr)
    print_machines(predictor, scored)
    print(*far, sep="\n", end="\n" if far else "")
    print(f"{len(scored)} scored rows: {out}")
    return 0


def _refuse_overrides(words: Sequence[str]) -> None:
    """Refuse overrides of a config on this command line, and name the option to write."""
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in OPTIONS and not Path(word).exists():
            raise ConfigError(f"{word}: predict takes no overrides; write --{key} {value}")


if __name__ == "__main__":
    sys.exit(run_command(main))
