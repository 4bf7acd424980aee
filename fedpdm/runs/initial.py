"""The start of a run: weights of another run (``init=RUN_FOLDER``), with a proof of the load.

What is taken over is kept in the run's own folder, so that a resume needs the other no more. The
proof is that of the source document (moola-decision-log) with its defects mended: it counts the
encoder's tensors, not the head's, and looks at values, not at names alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedpdm.config.values import Config, plain, positive, select
from fedpdm.data.normalise import Scaler
from fedpdm.errors import ConfigError
from fedpdm.evaluation.wording import counted
from fedpdm.federation import Federation
from fedpdm.history import History
from fedpdm.history.schemas import Card, Manifest, Summary
from fedpdm.history.sealed import read_sealed
from fedpdm.models import ModelWrapper, registry
from fedpdm.models.encoders import encoder_tensors
from fedpdm.runs.drift import NAME as REFERENCE
from fedpdm.runs.drift import stored_reference
from fedpdm.runs.inputs import scaler_of
from fedpdm.storage import parse_tensors, write_tensors
from fedpdm.training.freezing import Freezing
from fedpdm.wire.records import Arrays

NAME = "init.safetensors"
DRIFT = "drift/"
SCOPES = ("whole", "encoder")
LEAST = 0.8
"""Share of the tensors that must be loaded and differ from a fresh model's."""


@dataclass(frozen=True)
class Start:
    """What a run takes over from another.

    Attributes:
        weights: tensors of this run's model by their names in it; the others are fresh.
        scaler: what readings were scaled with there; None where this run makes its own.
        record: what the manifest says of it: which run and round, hashes, counts.
        reference: readings and scores that drift is measured from (``runs.drift``); may be empty.
    """

    weights: Arrays
    scaler: Scaler | None
    record: Mapping[str, Any]
    reference: Arrays = field(default_factory=dict)

    def __str__(self) -> str:
        found = self.record
        what = "the encoder" if found["scope"] == "encoder" else "the model"
        text = (
            f"{found['loaded']} of {found['tensors']} tensors of {what} come from round "
            f"{found['round']} of {found['run']} (model={found['model']}); all of them are that "
            f"run's values, and {found['different']} differ from a fresh model's"
        )
        scaled = (
            "as in that run"
            if self.scaler is not None
            else f"by this run's own data, because {found['why_own']}"
        )
        spent = _spent(found["cost"]) if "cost" in found else ""
        return f"{text}.{spent} Readings are scaled {scaled}. Alone and pooled start alike"

    def write(self, folder: Path) -> None:
        """Keep it in the run's folder."""
        arrays = {f"weights/{name}": array for name, array in self.weights.items()}
        if self.scaler is not None:
            arrays |= {"scaler/mean": self.scaler.mean, "scaler/scale": self.scaler.scale}
        arrays |= {f"{DRIFT}{name}": array for name, array in self.reference.items()}
        write_tensors(folder / NAME, arrays)


def stored_start(folder: Path) -> Start | None:
    """Return what the run in ``folder`` took over when it began; None if it took nothing.

    Raises:
        HistoryError: its file is damaged.
    """
    path, place = folder / NAME, folder / "manifest.json"
    record = Manifest.read(read_sealed(folder, place.name, unsealed=True), place).get("init")
    if record is None:
        return None
    arrays = parse_tensors(read_sealed(folder, NAME), path)
    scaler = None
    if "scaler/mean" in arrays:
        scaler = Scaler(arrays["scaler/mean"], arrays["scaler/scale"])
    weights, reference = (
        {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        for prefix in ("weights/", DRIFT)
    )
    return Start(weights, scaler, record, reference)


def read_start(
    cfg: Config, model: Mapping[str, Any], fresh: Callable[[], ModelWrapper], federation: Federation
) -> Start | None:
    """Read what ``init=RUN_FOLDER`` names; None without one.

    Args:
        cfg: the config of the new run.
        model: the entries of its model card.
        fresh: makes its model with fresh weights.
        federation: its sites.

    Raises:
        HistoryError: there is no finished run in the folder, or it is damaged.
        ConfigError: the weights do not belong to this model, or were never trained.
    """
    chosen = select(cfg, "init.run")
    if chosen is None:
        return None
    folder = Path(str(chosen)).expanduser()
    card = Card.read(read_sealed(folder, "model.json"), folder / "model.json")
    if card["best_round"] is None:
        raise ConfigError(
            f"init={folder}: this run is not finished, so no round of it is chosen; finish it "
            f"with resume={folder}"
        )
    scope = scope_of(cfg, card, model)
    manifest = Manifest.read(read_sealed(folder, "manifest.json"), folder / "manifest.json")
    with History.open(folder) as history:
        there = history.weights(int(card["best_round"]))
        begun = history.path(history.row(0)).exists()  # history.keep=N drops it
        # What that run took over itself was trained before it began.
        first = history.weights(0) if begun and manifest.get("init") is None else None
    source, sensors = str(card["model_type"]), list(_sensors(federation))
    if scope == "whole" and card["features"] != sensors:
        other = [name for name in (*card["features"], *sensors)
                 if (name in card["features"]) != (name in sensors)]  # fmt: skip
        raise ConfigError(
            f"init={folder}: that model sees other inputs, or in another order "
            f"({_some(other or sensors, ', ')}); give this run the same, or take the encoder only: "
            "init.scope=encoder"
        )
    taken, counts = load(fresh(), there, source, scope, f"init={folder}", first)
    summary = Summary.read(read_sealed(folder, "summary.json"), folder / "summary.json")
    scaler, why_own = _scaler(cfg, card, folder, federation)
    record = {
        "run": folder.name, "round": int(card["best_round"]), "model": card["model_type"],
        "scope": scope, "weights_sha256": _hash(there), "data_sha256": manifest["data"]["sha256"],
        **counts, "scaler": "theirs" if scaler else "own", "why_own": why_own,
        "cost": {"rounds": summary["rounds"], "bytes": summary.get("bytes"),
                 "seconds": (summary.get("seconds") or {}).get("total")},
    }  # fmt: skip
    reference: Arrays = {}
    if (folder / REFERENCE).exists() and card["features"] == sensors:
        reference = stored_reference(folder, len(card["features"]))
        if card.get("calibration") or card.get("calibrations"):  # a fresh start has none
            reference = {n: a for n, a in reference.items() if n.startswith("readings/")}
    return Start(taken, scaler, record, reference)


def load(
    model: ModelWrapper,
    there: Arrays,
    source: str,
    scope: str,
    where: str,
    untrained: Arrays | None = None,
) -> tuple[Arrays, dict[str, int]]:
    """Return the tensors that a fresh model takes over, and the counts that prove it.

    Args:
        model: fresh; changed in place.
        there: tensors of the other run by their names in its model.
        source: name of that run's model.
        scope: ``whole`` or ``encoder``.
        where: begins messages.
        untrained: tensors that the other run began with; None if they are not known.

    Returns:
        Tensors by their names in ``model``; and how many ``tensors`` both encoders have between
        them, how many were ``loaded`` with the checkpoint's values, and how many of these are
        ``different`` from what they were in the fresh model and in that run's.

    Raises:
        ConfigError: a shape differs, too few tensors have the same names, or too few of them
            differ from untrained ones; names the tensors.
    """
    before = {name: tensor.numpy() for name, tensor in model.cpu().get_parameters().items()}
    mine, theirs = {n: n for n in before}, {n: n for n in there}
    if scope == "encoder":
        mine = encoder_tensors(type(model.module), before)
        theirs = encoder_tensors(registry.find(source), there)
    for named, whose in ((mine, str(model.model_type)), (theirs, source)):
        if not named:
            raise ConfigError(
                f"{where}: model={whose} does not say what its encoder is (encoder_names, "
                "docs/extending.md), so only init.scope=whole can be used"
            )
    shared = [name for name in mine if name in theirs]
    mismatched = [
        f"{name} is {there[theirs[name]].shape} there and {before[mine[name]].shape} here"
        for name in shared
        if there[theirs[name]].shape != before[mine[name]].shape
    ]
    if mismatched:
        raise ConfigError(
            f"{where}: tensors have other shapes ({_some(mismatched, '; ')}); give the model the "
            "settings and the inputs of that run"
            + (", or take its encoder only: init.scope=encoder" if scope == "whole" else "")
        )
    taken = {mine[name]: there[theirs[name]].astype(before[mine[name]].dtype) for name in shared}
    model.set_parameters({**before, **taken})
    after = {name: tensor.numpy() for name, tensor in model.get_parameters().items()}
    loaded = [name for name, array in taken.items() if np.array_equal(after[name], array)]
    begun = {mine[n]: untrained[theirs[n]] for n in shared} if untrained is not None else {}
    different = [
        name
        for name in loaded
        if not np.array_equal(after[name], before[name])
        and not (name in begun and np.array_equal(after[name], begun[name]))
    ]
    every = {*mine, *theirs}
    least = len(every) if scope == "whole" else LEAST * len(every)
    if len(loaded) < least or len(different) < LEAST * len(every):
        lacking = (
            ("not there", [name for name in mine if name not in theirs]),
            ("not here", [name for name in theirs if name not in mine]),
            ("untrained", [name for name in loaded if name not in different]),
        )
        said = "; ".join(f"{what}: {_some(names, ', ')}" for what, names in lacking if names)
        raise ConfigError(
            f"{where}: {len(loaded)} of {len(every)} tensors would be loaded and "
            f"{len(different)} of them were trained, where "
            f"{'all' if scope == 'whole' else format(LEAST, '.0%')} are needed ({said}); give the "
            "model the settings of that run, or start from a run that was trained"
        )
    counts = {"tensors": len(every), "loaded": len(loaded), "different": len(different)}
    return taken, counts


def build_freezing(cfg: Config, model: ModelWrapper, local_epochs: int) -> Freezing | None:
    """Make how long the encoder is frozen; None where it is not, and learns at the common rate.

    Raises:
        ConfigError: a value is out of its range, or the model does not name its encoder.
    """
    rounds = select(cfg, "init.freeze_rounds")
    rate = 1.0 if select(cfg, "init") is None else positive(cfg, "init.unfrozen_rate")
    if rounds in (None, 0) and rate == 1.0:
        return None
    whole_number = isinstance(rounds, int) and not isinstance(rounds, bool) and rounds >= 0
    if not (rounds is None or rounds == "all" or whole_number):
        raise ConfigError(
            f"init.freeze_rounds={rounds} must be a whole number of rounds, all, or null for none"
        )
    if rounds == "all" and rate != 1.0:
        raise ConfigError(
            f"init.unfrozen_rate={rate:g} is of an encoder that learns, and init.freeze_rounds=all "
            "freezes it to the end: leave one of the two"
        )
    set_to = f"init.freeze_rounds={rounds}" if rounds else f"init.unfrozen_rate={rate:g}"
    names = encoder_tensors(type(model.module), model.get_parameters())
    if not names:
        raise ConfigError(
            f"{set_to}: model={model.model_type} "
            "does not say what its encoder is (encoder_names, docs/extending.md)"
        )
    trained = {n for n, p in model.module.named_parameters() if p.requires_grad}
    if not trained & set(names.values()):
        raise ConfigError(
            f"{set_to}: model.config.freeze_encoder=true freezes the encoder of "
            f"model={model.model_type} for the whole run; leave one of the two"
        )
    epochs = float("inf") if rounds == "all" else float((rounds or 0) * local_epochs)
    return Freezing(frozenset(names.values()), epochs, rate)


def scope_of(cfg: Config, card: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """Return what is taken over: ``whole`` where both models are alike, unless the config says.

    Args:
        cfg: the config of the new run.
        card: the model's entries there.
        model: and here.

    Raises:
        ConfigError: ``init.scope`` is neither.
    """
    scope = plain(select(cfg, "init.scope"))
    if scope is None:
        same = all(card[key] == model[key] for key in ("model_type", "config", "num_classes"))
        return "whole" if same else "encoder"
    if scope not in SCOPES:
        raise ConfigError(f"init.scope={scope} is unknown; choose whole or encoder, or leave it")
    return str(scope)


def _scaler(
    cfg: Config, card: dict[str, Any], folder: Path, federation: Federation
) -> tuple[Scaler | None, str | None]:
    """Return the other run's scaler, or why it is none for this run."""
    source, features = federation.source, federation.features
    if "plant" in (cfg.scaling, card["scaling"]):
        return None, "each site scales by itself (scaling=plant)"
    inputs = {"mode": features.mode, "limits": dict(features.limits)}
    here = list(_sensors(federation)), inputs, source.conditions
    if here != (card["features"], card["inputs"], card["conditions"]):
        return None, "that run has other inputs"
    return scaler_of(card, folder, None, features)[0], None


def _spent(cost: Mapping[str, Any]) -> str:
    """Say what the other run took, which is in no number of this one."""
    sent = sum((cost["bytes"] or {}).get(way) or 0 for way in ("up", "down")) / 1e6
    took = "" if cost["seconds"] is None else f" and took {cost['seconds']:.0f} s"
    return f" It sent {sent:.3g} MB in {counted(cost['rounds'], 'round')}{took}, beside this run's."


def _sensors(federation: Federation) -> tuple[str, ...]:
    return federation.features.sensors(federation.source.features)


def _hash(weights: Arrays) -> str:
    found = hashlib.sha256()
    for name, array in sorted(weights.items()):
        found.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _some(names: list[str], between: str) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return between.join(names[:5]) + more
