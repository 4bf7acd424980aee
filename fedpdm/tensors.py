"""Named NumPy arrays on disk: safetensors files, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.errors import HistoryError


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> str:
    """Write ``tensors`` to ``path`` atomically, and return the file's sha256."""
    from safetensors.numpy import save

    content = save({name: np.array(value, order="C") for name, value in tensors.items()})
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, sha256: str | None = None) -> dict[str, NDArray[Any]]:
    """Return the tensors in ``path``.

    Raises:
        HistoryError: the file is missing, damaged, or not the one with this checksum.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
    except OSError as error:
        raise HistoryError(f"{path} cannot be read: {error}") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise HistoryError(f"{path} is damaged: its checksum is not the recorded one")
    try:
        return dict(load(content))
    except (SafetensorError, ValueError) as error:
        raise HistoryError(f"{path} is damaged: {error}") from error
