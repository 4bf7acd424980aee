"""What a model takes, checked by shape alone and said in one sentence.

The checks look at shapes only, so they cost nothing and hold under ``torch.func.vmap``
(where the stacked dimension is hidden) and ``torch.compile``.
Shapes: B cases, T time steps, F features.
"""

from __future__ import annotations

from torch import Tensor

from fedpdm.errors import ModelError


def check_rows(model: str, x: Tensor, features: int) -> None:
    """Raise ModelError unless ``x`` is (B, features)."""
    if x.ndim != 2 or x.shape[1] != features:
        raise ModelError(
            f"model={model} was built for tabular rows (B, {features}) "
            f"and was given {_shape(x)}{_hint(x, features)}"
        )


def check_windows(
    model: str, x: Tensor, features: int, length: int | None = None, minimum: int = 1
) -> None:
    """Raise ModelError unless ``x`` is (B, T, features) with T as told.

    Args:
        length: The only T that the model takes, or None for any.
        minimum: The smallest T that the model takes.
    """
    if x.ndim != 3 or x.shape[2] != features or (length is not None and x.shape[1] != length):
        steps = "T" if length is None else length
        raise ModelError(
            f"model={model} was built for windows (B, {steps}, {features}) "
            f"and was given {_shape(x)}{_hint(x, features)}"
        )
    if x.shape[1] < minimum:
        raise ModelError(
            f"model={model} needs windows of at least {minimum} time steps "
            f"and was given {_shape(x)}: set data.window to {minimum} or more"
        )


def require_windows(model: str, sequence_length: int | None, minimum: int = 1) -> None:
    """Raise ModelError where a model of sequences is built for tabular data."""
    if sequence_length is None:
        raise ModelError(
            f"model={model} needs sequences (B, T, F), and this data is tabular, "
            "one row a case (data=ai4i is): use model=cnn or model=mlp"
        )
    if sequence_length < minimum:
        raise ModelError(
            f"model={model} needs windows of at least {minimum} time steps, "
            f"not {sequence_length}: set data.window to {minimum} or more"
        )


def _shape(x: Tensor) -> str:
    return f"({', '.join(str(size) for size in x.shape)})"


def _hint(x: Tensor, features: int) -> str:
    if x.ndim == 3 and x.shape[1] == features and x.shape[2] != features:
        return ": the last dimension must be the features"
    if x.ndim in (2, 3) and x.shape[-1] != features:
        return f": it has {x.shape[-1]} features, not {features}"
    return ""
