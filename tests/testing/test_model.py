"""``check_model``: every architecture passes, and every breach is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedpdm.models import ModelFactory
from fedpdm.testing import check_model

SHAPES = [
    ("mlp", (10,)), ("mlp", (12, 10)), ("cnn", (10,)), ("cnn", (12, 10)), ("lstm", (12, 10)),
    ("hybrid", (12, 10)), ("trend", (12, 10)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shape"), SHAPES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_every_architecture_keeps_its_contract(
    name: str, shape: tuple[int, ...], dropout: float
) -> None:
    length = shape[0] if len(shape) == 2 else None

    def build() -> Any:
        return ModelFactory.create_model(name, 10, 2, sequence_length=length, dropout_rate=dropout)

    # The mean takes off a bias before BatchNorm; it is there because the source counts it.
    biases = [n for n in build().parameter_names if n.startswith("conv") and n.endswith("bias")]
    assert check_model(build, shape, 2, without_gradient=biases) is None


class Linear(nn.Module):
    """A model that keeps the contract; each toy below breaks one clause."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(x)  # type: ignore[no-any-return]


def test_a_plain_module_keeps_it() -> None:
    assert check_model(Linear, (3,), 2) is None


class Narrow(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, 0]


class Undrawn(Linear):
    started = 0

    def __init__(self) -> None:
        super().__init__()
        Undrawn.started += 1
        nn.init.constant_(self.output.bias, Undrawn.started)


class Hidden(Linear):
    """What forward needs is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(3)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.scale = self.scale + 1
        return super().forward(x * self.scale)


class Dead(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(2))


class Noisy(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.randn(1)


class Counting(Linear):
    """Evaluation leaves a trace."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class Unpicklable(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.shift: Callable[[Tensor], Tensor] = lambda x: x

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.shift(x))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Narrow, r"gives \(1,\), where \(1, 2\)"),
        (Undrawn, r"same seed differ.*output\.bias"),
        (Hidden, "register_buffer"),
        (Dead, "no gradient: unused"),
        (Noisy, "eval mode two calls differ"),
        (Counting, "eval mode a forward pass changed calls"),
        (Unpicklable, "does not pickle"),
    ],
)
def test_every_breach_is_found(model: type[nn.Module], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_model(model, (3,), 2)


class Branching(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if float(x.sum()) > 0 else -x)


def test_a_model_that_cannot_be_stacked_says_why() -> None:
    reason = check_model(Branching, (3,), 2)
    assert reason is not None and "engine=batched" in reason
