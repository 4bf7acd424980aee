"""Makes the predictor of a run folder again.

The model is rebuilt from the run folder alone: ``model.json`` says what it is and which
columns it reads, ``scaler.safetensors`` how they are scaled, the history holds its weights.
No label and no failure log is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from fedpdm.config.imports import import_all, lookup, names_of
from fedpdm.data.features import WindowFeatures
from fedpdm.errors import ConfigError, HistoryError, ModelError
from fedpdm.evaluation.calibration import calibration_of
from fedpdm.evaluation.conformal import Interval
from fedpdm.evaluation.costs import NEVER
from fedpdm.evaluation.locales import DEFAULT
from fedpdm.history.lock import FEDERATIONS
from fedpdm.history.schemas import Card
from fedpdm.history.sealed import read_sealed
from fedpdm.models import ModelFactory, ModelWrapper
from fedpdm.runs.initial import stored_start
from fedpdm.runs.inputs import mapping_of, operating_of, scaler_of
from fedpdm.runs.predictor import Predictor, personal_model, weights_for
from fedpdm.seeding import torch_seeded
from fedpdm.server.base import models_of
from fedpdm.server.round_metrics import best_round
from fedpdm.tasks import TASKS, Task
from fedpdm.training.objective import Objective

if TYPE_CHECKING:
    from fedpdm.history import History

MOST_KEPT = 20_000_000
"""Values of a model that belong to a site; a card can name any number."""
ODD = (ArithmeticError, TypeError, ValueError)
"""What odd values of a model card may raise, beside what is looked for."""


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
            locale=card.get("locale", DEFAULT),
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
