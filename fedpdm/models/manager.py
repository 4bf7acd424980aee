"""The model manager: several models side by side, each with its saved states on disk.

    folder/
      automotive_detroit_cnn/
        model.json                 what to build, and the list of states with their sha256
        initial.safetensors        the weights at registration
        000004-2.safetensors       round 4; the second number counts the saves

A state is written first and listed second, both atomically, so a crash between them loses
the new state and never an old one. One process may write to a folder at a time.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fedpdm.errors import HistoryError, ModelError
from fedpdm.models.factory import ModelFactory
from fedpdm.models.registry import ModelType
from fedpdm.models.wrapper import ModelWrapper
from fedpdm.seeding import torch_seeded
from fedpdm.storage import read_tensors, write_bytes, write_tensors

SCHEMA = 1
INDEX = "model.json"
INITIAL = "initial.safetensors"


@dataclass(frozen=True)
class SavedState:
    """One saved state of a model."""

    round_num: int | None
    """None: as it was registered."""
    saved_at: str
    """UTC time of the save, ISO 8601."""
    file: str
    sha256: str


@dataclass
class _Entry:
    model_type: str
    config: dict[str, Any]
    saves: int
    states: list[SavedState]
    """In the order of saving; at most one a round. The first is that of the registration."""


class ModelManager:
    """Creates, keeps, saves, restores and removes models by id.

    Args:
        folder: Where states are kept. A new manager on the same folder has the same models
            and states. None keeps them in a temporary folder that ends with the manager.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="fedpdm-models-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.folder = Path(folder)
        self._models: dict[str, ModelWrapper] = {}
        self._entries = {
            path.parent.name: _read_index(path) for path in sorted(self.folder.glob(f"*/{INDEX}"))
        }

    def create_and_register_model(
        self,
        model_id: str,
        model_type: str | ModelType,
        input_dim: int,
        num_classes: int,
        **config: Any,
    ) -> ModelWrapper:
        """Build a model as ``ModelFactory.create_model`` does, and keep it as ``model_id``.

        Raises:
            ModelError: the id is taken or cannot name a folder, or the model cannot be built.
            HistoryError: the folder cannot be written.
        """
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", model_id):
            raise ModelError(
                f"model id {model_id!r}: use letters, digits, '_', '-' and '.' only, "
                "for example automotive_detroit_cnn"
            )
        if model_id in self._entries:
            raise ModelError(
                f"model {model_id} is already registered in {self.folder}: "
                "get_model continues it, remove_model starts over"
            )
        model = ModelFactory.create_model(model_type, input_dim, num_classes, **config)
        place = self.folder / model_id
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HistoryError(
                f"{place} cannot be written ({error}): choose another folder"
            ) from error
        sha256 = write_tensors(place / INITIAL, _arrays(model))
        initial = SavedState(None, _now(), INITIAL, sha256)
        entry = _Entry(str(model_type), model.config, 0, [initial])
        _write_index(place / INDEX, entry)
        self._entries[model_id], self._models[model_id] = entry, model
        return model

    def get_model(self, model_id: str) -> ModelWrapper:
        """Return the model; in a new process it is rebuilt with its latest saved state.

        Raises:
            ModelError: no such id.
            HistoryError: its state on disk is damaged.
        """
        entry = self._entry(model_id)
        if model_id not in self._models:
            return self._load(model_id, entry.states[-1])
        return self._models[model_id]

    def list_models(self) -> list[str]:
        """Return the ids of all models, in the order of registration."""
        begun = {name: entry.states[0].saved_at for name, entry in self._entries.items()}
        return sorted(begun, key=lambda name: (begun[name], name))

    def list_model_states(self, model_id: str) -> list[SavedState]:
        """Return the saved states, oldest save first."""
        return self._entry(model_id).states[1:]

    def remove_model(self, model_id: str) -> None:
        """Forget a model and delete its states from disk.

        Raises:
            ModelError: no such id.
            HistoryError: the folder cannot be written; the model stays.
        """
        self._entry(model_id)
        place = self.folder / model_id
        # Without its index the folder is no model any more, even if deleting stops half-way.
        try:
            (place / INDEX).unlink(missing_ok=True)
        except OSError as error:
            raise HistoryError(f"{place} cannot be deleted ({error})") from error
        shutil.rmtree(place, ignore_errors=True)
        del self._entries[model_id]
        self._models.pop(model_id, None)

    def save_model_state(self, model_id: str, round_num: int) -> SavedState:
        """Save parameters and buffers as the state of ``round_num``.

        Saving a round again replaces it and makes it the latest.

        Raises:
            ModelError: no such id, or a negative round.
            HistoryError: the folder cannot be written; earlier states stay as they were.
        """
        entry = self._entry(model_id)
        if round_num < 0:
            raise ModelError(f"model {model_id}: round {round_num} must be 0 or more")
        place = self.folder / model_id
        file = f"{round_num:06d}-{entry.saves + 1}.safetensors"
        arrays = _arrays(self.get_model(model_id))
        replaced = [old for old in entry.states if old.round_num == round_num]
        kept = [old for old in entry.states if old.round_num != round_num]
        state = SavedState(round_num, _now(), file, write_tensors(place / file, arrays))
        changed = replace(entry, saves=entry.saves + 1, states=[*kept, state])
        _write_index(place / INDEX, changed)
        self._entries[model_id] = changed
        for old in replaced:
            with contextlib.suppress(OSError):  # it is not listed any more and does no harm
                (place / old.file).unlink()
        return state

    def restore_model_state(self, model_id: str, round_num: int | None = None) -> ModelWrapper:
        """Bring back parameters and buffers of a round; None means the latest save.

        Later states stay on disk until their rounds are saved again.

        Raises:
            ModelError: no such id, or no saved state of this round.
            HistoryError: the state on disk is damaged.
        """
        states = self.list_model_states(model_id)
        if not states:
            raise ModelError(f"model {model_id} has no saved state: call save_model_state first")
        chosen = [s for s in states if round_num is None or s.round_num == round_num]
        if not chosen:
            rounds = ", ".join(str(number) for number in sorted(s.round_num or 0 for s in states))
            raise ModelError(
                f"model {model_id} has no state of round {round_num}: saved are {rounds}"
            )
        return self._load(model_id, chosen[-1])

    def remove_underperforming(
        self,
        scores: Mapping[str, float] | Callable[[ModelWrapper], float],
        performance_threshold: float = 0.85,
    ) -> list[str]:
        """Remove the models that score below the threshold, and return their ids.

        Args:
            scores: A score per id, higher is better, or a function from model to score. A
                model without a score, or with NaN, stays: not judged is not failed.
            performance_threshold: A model with exactly this score stays.

        Raises:
            ModelError: a score names no model. Nothing is removed then.
        """
        if callable(scores):
            found = {name: float(scores(self.get_model(name))) for name in self.list_models()}
        else:
            found = {name: float(score) for name, score in scores.items()}
            for name in found:
                self._entry(name)
        below = [
            name for name in self.list_models() if found.get(name, math.nan) < performance_threshold
        ]
        for name in below:
            self.remove_model(name)
        return below

    def _entry(self, model_id: str) -> _Entry:
        try:
            return self._entries[model_id]
        except KeyError:
            known = ", ".join(self.list_models()) or "none"
            raise ModelError(f"no model {model_id!r} in {self.folder}: there are {known}") from None

    def _load(self, model_id: str, state: SavedState) -> ModelWrapper:
        # Read first: a damaged file must leave the model as it is.
        tensors = read_tensors(self.folder / model_id / state.file, state.sha256)
        model = self._models.get(model_id)
        if model is None:
            entry = self._entries[model_id]
            with torch_seeded(0, "rebuilt", model_id):  # weights that are overwritten at once
                model = ModelFactory.create_model(entry.model_type, **entry.config)
        model.set_parameters(tensors)
        self._models[model_id] = model
        return model


def _arrays(model: ModelWrapper) -> dict[str, Any]:
    state = model.get_parameters()
    # NumPy has no bfloat16; float32 holds it exactly, and set_parameters casts it back.
    return {
        name: (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy()
        for name, value in state.items()
    }


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _read_index(path: Path) -> _Entry:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.pop("schema") != SCHEMA:
            raise ValueError("written by another version of fedpdm")
        return _Entry(**{**raw, "states": [SavedState(**state) for state in raw["states"]]})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HistoryError(
            f"{path} is damaged ({error}): put it back from a copy, or delete the folder "
            f"{path.parent} to give this model up"
        ) from error


def _write_index(path: Path, entry: _Entry) -> None:
    try:
        text = json.dumps({"schema": SCHEMA, **asdict(entry)}, indent=1)
    except TypeError as error:
        raise ModelError(
            f"model={entry.model_type}: its settings must be plain numbers, texts and lists "
            f"to be kept on disk ({error})"
        ) from error
    write_bytes(path, text.encode())
