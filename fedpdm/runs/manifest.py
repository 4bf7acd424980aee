"""What a run was made of: config, versions, commit, data and split hashes."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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
    root = Path(__file__).resolve().parents[2]
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
    """Return one hash over all sites' rows and splits, and each site's own."""
    whole = hashlib.sha256()
    for shape in shapes:
        whole.update(f"{shape['site']}:{shape['sha256']}".encode())
    return {
        "sha256": whole.hexdigest(),
        "sites": {shape["site"]: shape["sha256"] for shape in shapes},
    }
