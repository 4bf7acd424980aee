"""A run's folder: created, checked before a resume, and described for ``predict``."""

from __future__ import annotations

import hashlib
import platform
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedpdm.config.imports import import_all, names_of, refuse_foreign
from fedpdm.config.parts import parts_of
from fedpdm.config.schema import check_keys
from fedpdm.config.values import Config, plain, select, stored_config, yaml_of
from fedpdm.data.normalise import Scaler
from fedpdm.errors import ConfigError, HistoryError
from fedpdm.history import History
from fedpdm.history.lock import FEDERATIONS, PRETRAINING
from fedpdm.history.schemas import Manifest
from fedpdm.history.sealed import FIRST
from fedpdm.runs.experiment import Experiment
from fedpdm.runs.sources import site_blocks
from fedpdm.storage import read_bytes, write_bytes, write_json, write_tensors
from fedpdm.training.objective import Objective
from fedpdm.training.personal import Personal

SCHEMA = 1
PACKAGES = ("flwr", "torch", "numpy", "pandas", "scikit-learn", "hydra-core", "safetensors")

WORKERS = "engine.workers"
FREE = {"rounds", "log"}
"""What may differ when the same run goes on."""
RESUMABLE = {"rounds", WORKERS}
"""What may be changed by ``resume=``: a longer run, and on how many processes, which changes no
result. All else is in the folder."""
OUTSIDE = ("tracker.uri", "tracker.folder", "engine.address")
"""Addresses outside the run folder: whoever resumes says them again."""


def stored_run(arguments: Sequence[str]) -> tuple[Config, Path]:
    """Return the config and the folder of the run of ``resume=FOLDER``.

    Code is never imported because a folder says so: a run that used ``imports=[…]`` needs it
    again.

    Raises:
        HistoryError: there is no run in the folder.
        ConfigError: something is to be changed that cannot be, or ``imports=`` or one of
            ``OUTSIDE`` is missing.
    """
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    folder, imports = Path(given.pop("resume")), names_of(given.pop("imports", None))
    stored = folder / "config.yaml"
    if not _places(folder) or not stored.is_file():
        raise HistoryError(
            f"resume={folder}: there is no run in this folder (no manifest.json); runs are in "
            "runs/<time>-<random>"
        )
    cfg = stored_config(_checked(folder, "config.yaml"), stored)
    check_keys(cfg)
    used = names_of(select(cfg, "imports"))
    if not set(used) <= set(imports):
        raise ConfigError(
            f"resume={folder}: this run used code of its own; if you know and trust it, add "
            f"imports=[{','.join(used)}]"
        )
    import_all(imports)
    _refuse_foreign(plain(cfg), imports, folder)
    begun = _manifest(folder) if (folder / "manifest.json").exists() else {}
    begun_with = {"engine": (begun.get("engine") or {}).get("settings")}
    _refuse_foreign(begun_with, imports, folder)
    said = _outside(plain(cfg), given, folder) | _outside(begun_with, given, folder)
    for key, value in given.items():
        if key in said:
            continue
        if key not in RESUMABLE:
            raise ConfigError(
                f"resume={folder} continues with the config stored there; {key}={value} cannot be "
                "changed (only rounds=…, to run longer, and engine.workers=…). Start a new run for "
                "another setting"
            )
        if not value.isdigit() or int(value) < 1:
            raise ConfigError(f"{key}={value} must be a whole number of at least 1")
        if key == WORKERS:
            if "workers" not in cfg.engine:
                raise ConfigError(f"{key}={value}: the engine of this run has no workers")
            cfg.engine.workers = int(value)
        else:
            cfg[key] = int(value)
    return cfg, folder


def _places(folder: Path) -> list[Path]:
    """Return where runs were begun in a folder: in its first stage or a federation, too."""
    places = (folder, folder / PRETRAINING, *sorted(folder.glob(f"{FEDERATIONS}/*")))
    return [place for place in places if (place / "manifest.json").is_file()]


def _refuse_foreign(config: Mapping[str, Any], imports: Sequence[str], folder: Path) -> None:
    config, inside = parts_of(config)
    for part in inside:
        _refuse_foreign(part, imports, folder)
    way_out = f"resume with resume={str(folder).replace('{', '{{').replace('}', '}}')}"
    refuse_foreign(config, imports, f"{way_out} imports=[{{}}]")


def _outside(config: Mapping[str, Any], given: Mapping[str, str], folder: Path) -> set[str]:
    """Return the keys by which a config reaches outside its folder; all were given again.

    Raises:
        ConfigError: one was not, or with another value.
    """
    found = set()
    for key in OUTSIDE:
        block, name = key.split(".")
        settings = config.get(block)
        address = settings.get(name) if isinstance(settings, Mapping) else None
        if address is None:
            continue
        if given.get(key) != str(address):
            raise ConfigError(
                f"resume={folder}: this run reaches outside its folder; if you know and trust this "
                f"address, add {shlex.quote(f'{key}={address}')}"
            )
        found.add(key)
    _, inside = parts_of(config)
    return found.union(*(_outside(part, given, folder) for part in inside))


def _checked(folder: Path, name: str) -> bytes:
    """Return a file of a run that is to be continued, checked if the history has its checksum.

    Raises:
        HistoryError: it, or another file that the run began with, is missing or damaged.
    """
    if not (folder / "history.sqlite").exists():
        return read_bytes(folder / name)
    with History.open(folder) as history:
        begun = [file for file in FIRST if file in history.sealed.names() and file != "model.json"]
        for file in begun:
            history.sealed.read(file, unsealed=True)
        return history.sealed.read(name, unsealed=True)


def _manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest.

    Raises:
        HistoryError: it is damaged.
    """
    path = folder / "manifest.json"
    return Manifest.read(_checked(folder, path.name), path)


def stored_manifest(folder: Path, cfg: Config) -> dict[str, Any]:
    """Return the manifest of a run that is to be continued.

    Raises:
        HistoryError: there is none, or the config was edited since the run began.
    """
    manifest = _manifest(folder)
    if changed := changed_settings(manifest["config"], plain(cfg)):
        raise HistoryError(
            f"{folder / 'config.yaml'} was changed since the run began: {changed[0]} is "
            "not what manifest.json says; put it back, or start a new run for other settings"
        )
    return manifest


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the keys in which two configs differ, in order, without those of ``FREE``."""
    keys = sorted({*before, *now} - FREE)
    return [key for key in keys if _fixed(before.get(key)) != _fixed(now.get(key))]


def _fixed(value: Any) -> Any:
    """Return a block of a config without the number of workers, which changes no result."""
    if isinstance(value, Mapping) and "_target_" in value and "workers" in value:
        return {key: each for key, each in value.items() if key != "workers"}
    return value


def refuse_used(folder: Path, second: bool = False) -> None:
    """Refuse a folder that already holds a run.

    Args:
        folder: of the run.
        second: its first stage lies there, and belongs to it.

    Raises:
        HistoryError: it holds another run, or the first stage of one.
    """
    first = [folder / PRETRAINING] if second else []
    if set(_places(folder)) - {*first} or (folder / "history.sqlite").exists():
        raise HistoryError(
            f"{folder} already holds a run; continue it with resume={folder}, or "
            "choose another folder with --out FOLDER"
        )


def write_manifest(folder: Path, cfg: Config, manifest: Mapping[str, Any]) -> None:
    """Write config and manifest, which comes last: a folder with a manifest can be resumed."""
    write_bytes(folder / "config.yaml", yaml_of(cfg).encode())
    write_json(folder / "manifest.json", dict(manifest))


@contextmanager
def opened_history(folder: Path, keep: int | None) -> Iterator[History]:
    """Open the folder's history, or create it."""
    exists = (folder / "history.sqlite").exists()
    history = History.open(folder) if exists else History.create(folder, keep)
    with history:
        yield history


def settle_rounds(
    folder: Path, cfg: Config, history: History, manifest: dict[str, Any], rounds: int
) -> None:
    """Refuse fewer rounds than are done, and remember that a run was made longer."""
    head = history.head()
    if head is not None and head.round > rounds:
        raise HistoryError(
            f"{folder} has {head.round} finished rounds, rounds={rounds} is less; go back "
            f"with python -m fedpdm.history rollback {folder} {rounds}, or ask for more"
        )
    if manifest["config"]["rounds"] != rounds:
        manifest["config"]["rounds"] = rounds
        with history.sealed.writing("config.yaml", "manifest.json"):
            write_manifest(folder, cfg, manifest)


def write_scalers(folder: Path, scalers: Mapping[str, Scaler]) -> None:
    """Keep what new data must be scaled with: by site, or one for all (``federated``)."""
    arrays: dict[str, Any] = {}
    for scope, each in scalers.items():
        arrays |= {f"{scope}/mean": each.mean, f"{scope}/scale": each.scale}
    write_tensors(folder / "scaler.safetensors", arrays)


def model_card(experiment: Experiment, cfg: Config) -> dict[str, Any]:
    """Return what ``predict`` needs to know to score new data."""
    source, features = experiment.federation.source, experiment.federation.features
    return {
        "schema": SCHEMA,
        **experiment.model,
        "features": list(features.sensors(source.features)),
        "window": source.window,
        "inputs": {"mode": features.mode, "limits": dict(features.limits)},
        "conditions": source.conditions,
        "operating": source.operating and vars(source.operating),
        "imports": names_of(select(cfg, "imports")),
        "task": plain(cfg.task) | {"name": experiment.task.name},
        "data": {
            "name": source.name,
            "time_unit": source.time_unit,
            "max_gap": source.max_gap,
        },
        "scaling": str(cfg.scaling),
        "best_round": None,
        "threshold": None,
        "thresholds": {},
        "calibration": None,
        "interval": None,
        "sites": site_blocks(cfg),
        "personal": described(experiment, cfg),
    }


def described(experiment: Experiment, cfg: Config) -> dict[str, Any] | None:
    """Return what ``predict`` needs to know of what sites keep; None if all of them predict alike.

    Args:
        experiment: what is run.
        cfg: the resolved config of the run.
    """
    if not experiment.personal:
        return None
    objective = experiment.objective
    plainly = (
        type(objective.without_federation()).predictor is Objective.predictor
    )  # as the model does
    return {
        "tensors": list(experiment.parts.local),
        "seed": experiment.seed,  # of the tensors of a site that never trained
        "sites": list(experiment.federation.sites),
        "objective": None if plainly else plain(cfg.objective),
        "method": objective.name if isinstance(objective, Personal) else None,
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, fedpdm and the packages that shape a result."""
    from fedpdm import __version__

    packages = {package: version(package) for package in PACKAGES}
    return {"python": platform.python_version(), "fedpdm": __version__, **packages}


_CODE = ("fedpdm", "conf", "clients", "server", "pyproject.toml")
"""What a result depends on; a README that a benchmark writes is not of it."""


def git_commit() -> str | None:
    """Return the commit of the checkout that fedpdm runs from.

    With ``+`` if its code or its options were edited.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None  # a wheel: the version says it

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        edited = "+" if git("status", "--porcelain", "--", *_CODE) else ""
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}{edited}" if commit else None


def data_hashes(shapes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one hash over all sites' rows and splits, and each site's own."""
    whole = hashlib.sha256()
    for shape in shapes:
        whole.update(f"{shape['site']}:{shape['sha256']}".encode())
    return {
        "sha256": whole.hexdigest(),
        "sites": {shape["site"]: shape["sha256"] for shape in shapes},
    }
