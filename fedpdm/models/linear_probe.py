"""Linear probe: how much an encoder knows already, seen by one linear layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from fedpdm.models.encoders import build_encoder, tokens_of
from fedpdm.models.layers import check_windows, require_windows
from fedpdm.models.registry import register


@register("linear_probe")
class LinearProbe(nn.Module):
    """An encoder, the mean of its tokens, and one linear layer.

    Takes windows (B, T, F), returns (B, C). With ``init=RUN init.freeze_rounds=all`` only the
    linear layer is trained (Alain and Bengio 2016).
    Names: ``encoder.…`` as in the encoder's own model, ``output``.

    Args:
        input_dim: F.
        num_classes: C.
        sequence_length: T.
        encoder: name of a model that has an encoder.
        settings: of that model, as the run that is probed has them.

    Raises:
        ModelError: no such encoder, or tabular data; (forward) an input that is no window.
    """

    good_for: ClassVar[None] = None
    encoder_prefix: ClassVar[str] = "encoder."

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        sequence_length: int | None = 30,
        *,
        encoder: str = "lstm",
        settings: Mapping[str, Any] = {},
    ) -> None:
        super().__init__()
        steps = require_windows("linear_probe", sequence_length)
        self.input_dim = input_dim
        self.encoder = build_encoder(encoder, input_dim, sequence_length, settings)
        self.output = nn.Linear(tokens_of(self.encoder, steps, input_dim)[1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, num_classes) of ``x``, (B, T, F)."""
        check_windows("linear_probe", x, self.input_dim)
        found: Tensor = self.output(self.encoder.encode(x).mean(dim=1))  # type: ignore[operator]
        return found
