"""Versions of promoted models: folders, and on request MLflow's registry.

STORE/NAME/3/                  version 3, whole; the highest version is the current one
STORE/NAME/refused/RUN/        the decision record of a run that was refused
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpdm.errors import ConfigError, HistoryError
from fedpdm.storage import read_json, write_bytes

NAME = re.compile(r"[\w][\w .-]{0,99}")
REFUSED = "refused"


def check_name(name: str) -> None:
    """Refuse a name that is no name of a folder.

    Raises:
        ConfigError: it is none.
    """
    if not NAME.fullmatch(name) or name.endswith("."):
        raise ConfigError(
            f"--name {name!r} must be letters, digits, blanks, points, '_' and '-', a letter or "
            "digit first"
        )


def next_version(store: Path, name: str) -> int:
    """Return the number of the next version of a model."""
    return max(_versions(store / name), default=0) + 1


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder whole or not at all; one that is there is replaced.

    Raises:
        HistoryError: it cannot be written.
    """
    temporary = folder.parent / f".{folder.name}-{secrets.token_hex(4)}"
    try:
        temporary.mkdir(parents=True)
        for name, content in files.items():
            write_bytes(temporary / name, content)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    except OSError as error:
        raise HistoryError(
            f"{folder} cannot be written ({error.strerror or error}); choose another --out"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def listed(store: Path) -> list[dict[str, Any]]:
    """Return what decision records in a store say, with their ``version`` and ``status``.

    ``current``, ``earlier`` or ``refused``; models by name, their versions in order.

    Raises:
        ConfigError: there is no such folder.
        HistoryError: a record is missing or damaged.
    """
    if not store.is_dir():
        raise ConfigError(f"--out {store}: there is no such folder, so nothing was promoted to it")
    result = []
    for model in sorted(path for path in store.iterdir() if path.is_dir()):
        versions = sorted(_versions(model))
        for version in versions:
            status = "current" if version == versions[-1] else "earlier"
            record = _record(model / str(version) / "decision.json")
            result.append(record | {"version": version, "status": status})
        for path in sorted((model / REFUSED).glob("*/decision.json")):
            result.append(_record(path) | {"version": None, "status": REFUSED})
    return result


def _record(path: Path) -> dict[str, Any]:
    """Return what a list shows of a decision record, as text but for the score."""
    said = read_json(path)
    test = said.get("test")
    if "name" not in said or not isinstance(test, int | float | None):
        raise HistoryError(f"{path} is no decision record; remove its folder, or promote again")
    shown = {key: said.get(key) for key in ("name", "metric", "run", "date", "signed_by")}
    return {"test": test, **{key: str(value or "") for key, value in shown.items()}}


def _versions(model: Path) -> list[int]:
    if not model.is_dir():
        return []
    return [int(p.name) for p in model.iterdir() if p.is_dir() and p.name.isdecimal()]


# MLflow -----------------------------------------------------------------------------------


class MLflowRegistry:
    """MLflow's registry of models.

    Args:
        uri: a data base or a server, ``sqlite:///promoted/registry.db`` or ``http://host:5000``.

    Raises:
        ConfigError: the package is not installed, or there is no such registry.
    """

    def __init__(self, uri: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        try:
            from mlflow import exceptions, tracking
        except ImportError as error:
            raise ConfigError(
                f"--registry needs a package that is not installed ({error.name}): "
                "pip install 'fedpdm[mlflow]'"
            ) from error
        self._wrong = exceptions.MlflowException
        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._client = tracking.MlflowClient(tracking_uri=uri, registry_uri=uri)
            self._client.search_registered_models(max_results=1)
        except self._wrong as error:
            raise ConfigError(f"--registry {uri} cannot be used: {_line(error)}") from error

    def add(self, folder: Path, record: Mapping[str, Any], manifest_sha256: str) -> int:
        """Add a promoted folder as a version, and make it the current one; return its number.

        Args:
            folder: of the version.
            record: its decision record.
            manifest_sha256: of its ``manifest.json``, which holds the other files' checksums.

        Raises:
            ConfigError: the registry does not take it.
        """
        name = str(record["name"])
        tags = {"status": "promoted", "folder_version": str(record["version"]),
                "run": str(record["run"]), "metric": str(record["metric"]),
                "test": str(record["test"]), "manifest_sha256": manifest_sha256}  # fmt: skip
        try:
            if not self._client.search_registered_models(f"name = '{name}'"):
                self._client.create_registered_model(name)
            made = self._client.create_model_version(name, folder.resolve().as_uri(), tags=tags)
            self._client.set_registered_model_alias(name, "current", made.version)
        except self._wrong as error:
            raise ConfigError(
                f"{folder} is promoted, but the registry does not take it: {_line(error)}"
            ) from error
        return int(made.version)


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
