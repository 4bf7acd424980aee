"""Trees as arrays: one function scores them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedpdm.data.summaries import tree_columns
from fedpdm.errors import ModelError
from fedpdm.models import ModelFactory
from fedpdm.models.gbdt import leaf_of, score


def planted(length: int | None = 7, seed: int = 0) -> torch.nn.Module:
    """Return a model with random trees of five leaves."""
    model = ModelFactory.create_model(
        "gbdt", 3, 2, sequence_length=length, rounds=2, trees_per_round=3, leaves=5
    )
    random = np.random.default_rng(seed)
    arrays = {name: tensor.numpy() for name, tensor in model.get_parameters().items()}
    arrays["value"][:] = random.normal(size=arrays["value"].shape)
    arrays["base"][:] = [0.0, 1.5]
    for tree in np.ndindex(arrays["left"].shape[:2]):
        leaves = [0]
        for left in range(1, 9, 2):
            node = leaves.pop(random.integers(len(leaves)))
            arrays["left"][tree][node] = left
            arrays["feature"][tree][node] = random.integers(arrays["edges"].shape[0])
            arrays["threshold"][tree][node] = random.normal()
            leaves += [left, left + 1]
    model.set_parameters(arrays)
    return model


@pytest.mark.parametrize("length", [None, 7])
def test_answers_are_those_of_walking_down_each_tree(length: int | None) -> None:
    model = planted(length)
    arrays = {name: tensor.numpy() for name, tensor in model.get_parameters().items()}
    shape = (20, 3) if length is None else (20, length, 3)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    columns = tree_columns(x.numpy())
    expected = np.repeat(arrays["base"][None].astype(np.float64), 20, axis=0)
    for row, table in zip(expected, columns, strict=True):
        for tree, output in np.ndindex(arrays["left"].shape[:2]):
            left, feature, threshold, value = (
                arrays[name][tree, output] for name in ("left", "feature", "threshold", "value")
            )
            node = 0
            while left[node]:
                node = left[node] + int(table[feature[node]] > threshold[node])
            row[output] += value[node]
    assert np.array_equal(score(arrays, columns), expected)
    assert torch.equal(model.eval()(x), torch.from_numpy(expected).float())
    assert torch.equal(torch.cat([model(row[None]) for row in x]), model(x))


@pytest.mark.parametrize("length", [None, 1, 7])
def test_what_is_exported_answers_the_same(length: int | None) -> None:
    model = planted(length).eval()
    shape = (200, 3) if length is None else (200, length, 3)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    rows = torch.export.Dim("rows")
    program = torch.export.export(model.module, (x[:2],), dynamic_shapes=({0: rows},)).module()
    with torch.no_grad():
        assert torch.allclose(program(x), model(x), rtol=0, atol=1e-5)
        assert torch.allclose(program(x[:1]), model(x[:1]), rtol=0, atol=1e-5)


def test_untrained_it_answers_nothing_and_has_nothing_to_train_by_gradients() -> None:
    model = ModelFactory.create_model("gbdt", 4, 2, sequence_length=None)
    assert not model(torch.randn(3, 4)).any()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.get_parameters()["value"].shape == (150, 2, 61)


def test_arrays_that_are_no_tree_come_to_an_end() -> None:
    circle = np.array([0, 0, 0], np.int32), np.zeros(3, np.float32), np.array([1, 0, 1], np.int32)
    assert len(leaf_of(np.ones((2, 1), np.float32), *circle)) == 2


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"leaves": 1}, "leaves=1"),
        ({"bins": 300}, "bins=300"),
        ({"learning_rate": 0.0}, "learning_rate=0"),
        ({"l2": -1.0}, "l2=-1"),
        ({"trees_per_round": 0}, "trees_per_round"),
    ],
)
def test_sizes_that_cannot_be_are_refused(config: dict[str, float], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        ModelFactory.create_model("gbdt", 4, 2, **config)


def test_inputs_of_another_shape_are_refused() -> None:
    with pytest.raises(ModelError, match="model=gbdt was built for windows"):
        planted(7)(torch.zeros(2, 3))
    with pytest.raises(ModelError, match="model=gbdt was built for tabular rows"):
        planted(None)(torch.zeros(2, 7, 3))
