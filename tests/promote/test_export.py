"""An exported file gives the scores of the model that it was made from."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpdm.errors import ModelError
from fedpdm.models import ModelFactory
from fedpdm.promote.export import export_model, latency, parity, scorer_of
from fedpdm.seeding import torch_seeded
from fedpdm.tasks import Failure, Horizons, RemainingLife, Task

STEPS, FEATURES = 90, 5
TASKS: dict[str, Task] = {
    "softmax of class 1": Failure(7.0),
    "hazards": Horizons([7, 14, 30]),
    "capped life": RemainingLife(125),
}


def built(name: str, task: Task) -> nn.Module:
    """A model whose normalisation has seen data, so that it is not the identity."""
    with torch_seeded(3, "export"):
        model = ModelFactory.create_model(
            name, FEATURES, task.outputs, sequence_length=STEPS
        ).module
    model.train()
    with torch.no_grad():
        model(torch.from_numpy(windows(64)))
    return model


def windows(count: int) -> NDArray[np.float32]:
    draw = np.random.default_rng(count)
    return draw.normal(size=(count, STEPS, FEATURES)).astype(np.float32)


def task_of(name: str) -> Task:
    """Another task for some, so that each way of scoring meets a network."""
    return TASKS[{"cnn": "hazards", "trend": "capped life"}.get(name, "softmax of class 1")]


def scores_windows(name: str) -> bool:
    """Whether a model gives what the tasks here score; others belong to tasks of their own."""
    task = task_of(name)
    try:
        with torch.no_grad():
            output = built(name, task).eval()(torch.from_numpy(windows(3)))
    except ModelError:
        return False
    return isinstance(output, Tensor) and output.shape == (3, task.outputs)


NAMES = [name for name in ModelFactory.list_available_models() if scores_windows(name)]


@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_exported_to_onnx(name: str) -> None:
    task = task_of(name)
    model = built(name, task)
    exported = export_model(model, task, windows(1)[0])
    assert exported.format == "onnx" and exported.reason is None
    for count in (1, 2, 7, 300):  # of any number of windows, and not of that of the trace
        assert parity(exported, model, task, windows(count)) < 1e-5
    proto = onnx.load_from_string(exported.content)
    assert not any(node.metadata_props for node in proto.graph.node)
    assert b"/fedpdm/" not in exported.content
    assert latency(exported, windows(1)[0]) > 0


def test_the_networks_are_among_them() -> None:
    assert {"cnn", "hybrid", "lstm", "mlp", "trend"} <= set(NAMES)


@pytest.mark.parametrize("name", TASKS)
def test_the_scores_of_each_task_are_found(name: str) -> None:
    assert scorer_of(TASKS[name]) == name


def test_the_same_model_gives_the_same_bytes() -> None:
    task = TASKS["softmax of class 1"]
    first, second = (export_model(built("mlp", task), task, windows(1)[0]) for _ in range(2))
    assert first.content == second.content


class Products(nn.Module):
    """Takes a running product, which ONNX does not know."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cumprod(x[:, 0].tanh(), dim=1)[:, :2]


def test_what_onnx_cannot_hold_is_exported_by_torch_and_says_why() -> None:
    task = TASKS["softmax of class 1"]
    exported = export_model(Products(), task, windows(1)[0])
    assert exported.format == "torch.export" and exported.name == "model.pt2"
    assert exported.reason is not None and "ONNX" in exported.reason
    assert parity(exported, Products(), task, windows(9)) < 1e-9


class Untraceable(nn.Module):
    """Decides in Python, by values."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0, :2] if float(x.sum()) > 0 else x[:, 1, :2]


def test_what_nobody_can_export_is_refused_in_one_sentence() -> None:
    with pytest.raises(ModelError, match="cannot be exported") as caught:
        export_model(Untraceable(), TASKS["softmax of class 1"], windows(1)[0])
    assert "\n" not in str(caught.value)

    class Odd(Failure):
        name = "odd"

        def scores(self, output: Tensor) -> NDArray[np.float64]:
            return super().scores(output) ** 2

    with pytest.raises(ModelError, match="task=odd"):
        scorer_of(Odd(7.0))


def test_a_file_with_other_weights_or_no_numbers_has_no_parity() -> None:
    task = TASKS["softmax of class 1"]
    model = built("mlp", task)
    exported = export_model(model, task, windows(1)[0])
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1.0
    assert parity(exported, model, task, windows(50)) > 1e-5
    assert parity(exported, model, task, windows(50) * np.float32(np.nan)) == np.inf
