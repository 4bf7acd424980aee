"""Where data sets lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from fedpdm.errors import DataError


def data_folder(path: str | os.PathLike[str] | None = None) -> Path:
    """Return ``path``, else the environment's ``FEDPDM_DATA``, else ``~/.cache/fedpdm``.

    Below it lie ``ai4i2020/ai4i2020.csv`` and ``cmapss/train_FD001.txt`` and so on.
    """
    chosen = path or os.environ.get("FEDPDM_DATA") or Path("~/.cache/fedpdm")
    return Path(chosen).expanduser()


def find(path: str | os.PathLike[str] | None, relative: str, dataset: str) -> Path:
    """Return the file ``relative`` of ``dataset`` below the data folder.

    A ``path`` that leads straight to the file, or to the folder it lies in, is taken too.

    Raises:
        DataError: it is not there; the message says how to fetch it.
    """
    folder = data_folder(path)
    wanted = folder / relative
    for candidate in (wanted, folder / wanted.name, folder):
        if candidate.is_file() and candidate.name == wanted.name:
            return candidate
    raise DataError(
        f"data={dataset}: {wanted} is not there; fetch it with "
        f"'python -m fedpdm.data fetch {dataset} --to {folder}', or set data.path (or the "
        f"environment's FEDPDM_DATA) to the folder that holds {relative}"
    )
