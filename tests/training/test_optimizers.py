"""Our steps are torch's, to the bit, and spare its slow import."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from fedpdm.training.optimizers import OPTIMIZERS


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("adam", lambda p, decay: torch.optim.Adam(p, lr=1.0, weight_decay=decay, fused=True)),
        (
            "adamw",
            lambda p, decay: torch.optim.AdamW(p, lr=1.0, weight_decay=decay, fused=True),
        ),
        ("sgd", lambda p, decay: torch.optim.SGD(p, lr=1.0, weight_decay=decay)),
    ],
)
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_steps_equal_those_of_torchs_class(name: str, reference: Any, decay: float) -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    theirs = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    theirs.load_state_dict(ours.state_dict())
    mine = OPTIMIZERS[name](list(ours.parameters()), decay)
    other = reference(theirs.parameters(), decay)
    for step in range(20):
        x, rate = torch.randn(4, 5), 0.05 / (1 + step)
        for module in (ours, theirs):
            module.zero_grad()
            module(x).square().mean().backward()
        mine.step(rate)
        other.param_groups[0]["lr"] = rate
        other.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_parameter_without_gradient_is_left_alone() -> None:
    for make in OPTIMIZERS.values():
        used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
        optimizer = make([used, unused], 0.1)
        used.sum().backward()
        optimizer.step(0.1)
        assert torch.equal(unused, torch.ones(2)) and not torch.equal(used, torch.ones(2))


def test_training_does_not_import_dynamo() -> None:
    code = """
import sys, torch
from fedpdm.models import ModelFactory
from fedpdm.training.loop import TrainingSettings, fit
from fedpdm.training.objective import Supervised
model = ModelFactory.create_model("lstm", 3, 2, sequence_length=8)
settings = TrainingSettings(1, 4, 1e-3, clip_norm=1.0)
x, y = torch.randn(8, 8, 3), torch.randint(0, 2, (8,))
loss = Supervised(torch.nn.functional.cross_entropy)
fit(model.module, x, y, loss, settings, seed=0, key=(), epochs=1)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
