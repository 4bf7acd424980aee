"""What cannot be stacked, said in one sentence that names the operation and the way out."""

from __future__ import annotations

import contextlib
import re
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from fedpdm.errors import ConfigError, FedPdmError

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)
_FALLBACK = "There is a performance drop because we have not yet implemented"


@contextlib.contextmanager
def stackable(module: nn.Module) -> Iterator[None]:
    """Turn what ``vmap`` refuses, or does site by site, into an error.

    Raises:
        ConfigError: names the operation and the model's class; memory that ran out.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=_FALLBACK)
        try:
            yield
        except FedPdmError:
            raise
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                "engine=batched ran out of the device's memory: set engine.chunk to fewer sites"
            ) from error
        except (RuntimeError, NotImplementedError, UserWarning, AttributeError) as error:
            raise ConfigError(
                f"engine=batched cannot train {type(module).__name__} as a stack of sites, "
                f"because of {_operation(error)}: use engine=serial"
            ) from error


def _operation(error: BaseException) -> str:
    """Return the operation that failed, the model's line that asked for it, and why."""
    text = str(error).strip()
    name = re.search(r"aten::\w+(\.\w+)?", text) or re.search(r"\.item\(\)", text)
    why = text.splitlines()[0].split(". ")[0] if text else type(error).__name__
    lines = [
        f"`{frame.line}`"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.line and not frame.filename.startswith((_TORCH, _HERE))
    ]
    parts = [name.group(0)] if name else []
    return " ".join([*parts, *(["in", lines[-1]] if lines else []), f"({why})"])
