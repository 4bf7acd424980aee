"""What a run was made of: config, versions, commit, data and split hashes."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from fedpdm.errors import HistoryError
from fedpdm.tensors import write_bytes

SCHEMA = 1
PACKAGES = ("flwr", "torch", "numpy", "pandas", "scikit-learn", "hydra-core", "safetensors")


def versions() -> dict[str, str]:
    """Return the versions of Python, fedpdm and the packages that shape a result."""
    from fedpdm import __version__

    found = {"python": platform.python_version(), "fedpdm": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


_CODE = ("fedpdm", "conf", "clients", "server", "pyproject.toml")
"""What a result depends on; a README that a benchmark writes is not of it."""


def git_commit() -> str | None:
    """Return the commit of the checkout that fedpdm runs from.

    With ``+`` if its code or its options were edited.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None  # a wheel: the version says it

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return (
            f"{commit}{'+' if git('status', '--porcelain', '--', *_CODE) else ''}"
            if commit
            else None
        )
    except (OSError, subprocess.SubprocessError):
        return None


def data_hashes(shapes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one hash over all plants' rows and splits, and each plant's own."""
    whole = hashlib.sha256()
    for shape in shapes:
        whole.update(f"{shape['site']}:{shape['sha256']}".encode())
    return {
        "sha256": whole.hexdigest(),
        "sites": {shape["site"]: shape["sha256"] for shape in shapes},
    }


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, keys in order, NaN as null."""
    text = json.dumps(cleaned(content), indent=2, sort_keys=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON that a run wrote.

    Raises:
        HistoryError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise HistoryError(f"{path} is missing: {path.parent} is not a fedpdm run") from error
    except (OSError, ValueError) as error:
        raise HistoryError(f"{path} cannot be read: {error}") from error


def cleaned(value: Any) -> Any:
    """Return a value as JSON can hold it: NumPy to Python, NaN and infinity to None."""
    if isinstance(value, dict):
        return {str(k): cleaned(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
