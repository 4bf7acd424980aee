"""Trees from sums: closed forms, and the same bits however rows are spread."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpdm.errors import ConfigError
from fedpdm.models.gbdt import GradientBoostedTrees, score
from fedpdm.tasks import AssetType, Failure, Horizons, RemainingLife, Task
from fedpdm.training.boosting import Changed, Growth, Request, Rows, boost, drive, flaw_of, loss_of
from fedpdm.training.boosting.bins import (
    CELLS,
    FARTHEST,
    PARTS,
    bin_of,
    cell_counts,
    edges_of,
    heavy_cells,
    keys,
    part_counts,
    values,
)
from fedpdm.training.boosting.growth import best_split, leaf_value
from fedpdm.training.boosting.rows import STEEPEST, UNIT

TASKS: dict[str, Task] = {
    "failure": Failure(4.0), "horizons": Horizons([2, 4, 8]), "rul": RemainingLife(10.0),
    "asset_type": AssetType(["fan", "press", "pump"]),
}  # fmt: skip


def empty(task: Task, columns: int, rounds: int = 2, **config: Any) -> dict[str, Any]:
    model = GradientBoostedTrees(columns, task.outputs, None, rounds=rounds, **config)
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def example(task: Task, seed: int, rows: int = 90, columns: int = 4) -> tuple[Any, Any]:
    """Return columns, one of them of few values, and targets that depend on two of them."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, columns)).astype(np.float32)
    x[:, 0] = np.round(x[:, 0])
    left = np.abs(6 + 3 * x[:, 1] + 2 * (x[:, 2] > 0) + random.normal(size=rows))
    if isinstance(task, Horizons):
        return x, (left[:, None] <= np.array(task.horizons)).astype(np.float32)
    if isinstance(task, Failure):
        return x, (left <= 4).astype(np.int64)
    if isinstance(task, AssetType):
        return x, np.digitize(left, [4, 8])
    return x, (np.minimum(left, 10) / 10).astype(np.float32)


def grown(task: Task, parts: list[tuple[Any, Any]], growth: Growth, rounds: int = 2) -> Any:
    """Grow trees from the sums of several holders of rows."""
    loss = loss_of(task)
    trees = empty(task, parts[0][0].shape[1], rounds, leaves=growth.leaves, bins=16,
                  trees_per_round=growth.trees_per_round)  # fmt: skip
    holders = [Rows(x, y, loss) for x, y in parts]

    def answer(request: Request) -> dict[str, Any]:
        found = [holder.answer(request, trees) for holder in holders]
        for holder, sums in zip(holders, found, strict=True):
            assert flaw_of(sums, request, trees, loss, len(holder)) is None
        return {name: sum(sums[name] for sums in found) for name in found[0]}

    for number in range(1, rounds + 1):
        drive(boost(trees, growth, loss, number), answer)
    return trees


# Partitions ---------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    name=st.sampled_from(sorted(TASKS)),
    owners=st.lists(st.integers(0, 4), min_size=90, max_size=90),
    seed=st.integers(0, 9),
)
def test_however_rows_are_spread_the_trees_are_those_of_pooled_rows(
    name: str, owners: list[int], seed: int
) -> None:
    task, growth = TASKS[name], Growth(trees_per_round=2, leaves=6, least_rows=3)
    x, y = example(task, seed)
    owner = np.array(owners)
    parts = [(x[owner == site], y[owner == site]) for site in sorted(set(owners), reverse=True)]
    pooled, federated = grown(task, [(x, y)], growth), grown(task, parts, growth)
    assert (pooled["left"] > 0).any()
    for key, array in pooled.items():
        assert array.tobytes() == federated[key].tobytes(), key


def test_a_tree_is_begun_again_when_a_holder_of_rows_goes_away() -> None:
    task, growth = TASKS["rul"], Growth(trees_per_round=2, leaves=4, least_rows=3)
    loss = loss_of(task)
    first, second = (Rows(*example(task, seed), loss) for seed in (0, 1))
    trees, expected = (empty(task, 4, leaves=4, bins=16, trees_per_round=2) for _ in range(2))
    steps = boost(trees, growth, loss, 1)
    request = next(steps)
    for _ in range(3):  # cells, parts, the root of the first tree
        sums = [rows.answer(request, trees) for rows in (first, second)]
        request = steps.send({name: sum(s[name] for s in sums) for name in sums[0]})
    expected |= {name: trees[name].copy() for name in ("edges", "base")}
    request = steps.throw(Changed())
    assert request.at_roots
    with pytest.raises(StopIteration):
        while True:
            request = steps.send(first.answer(request, trees))
    drive(boost(expected, growth, loss, 1), lambda each: first.answer(each, expected))
    assert all(trees[name].tobytes() == expected[name].tobytes() for name in trees)


def test_rows_that_saw_other_trees_give_the_sums_of_rows_that_saw_none() -> None:
    """After a rollback, or for a second model, a site's rows must not answer for old trees."""
    task, growth = TASKS["failure"], Growth(trees_per_round=2, leaves=4, least_rows=3)
    loss, (x, y) = loss_of(task), example(TASKS["failure"], 3)
    used = Rows(x, y, loss)
    trees = empty(task, 4, leaves=4, bins=16, trees_per_round=2)
    drive(boost(trees, growth, loss, 1), lambda request: used.answer(request, trees))
    other = {name: array.copy() for name, array in trees.items()}
    other["value"][0] *= 2
    arrays = {"nodes": np.array([[0, 0]])} | {
        name: np.zeros((1, 1), dtype)
        for name, dtype in (("feature", np.int32), ("threshold", np.float32), ("left", np.int32))
    }
    for tree in (2, 1, 0, 2):
        request = Request("nodes", tree, arrays)
        fresh = Rows(x, y, loss).answer(request, other)
        found = used.answer(request, other)
        assert all(np.array_equal(found[name], fresh[name]) for name in fresh), tree


# Closed forms -------------------------------------------------------------------------


def test_the_best_split_and_the_leaf_values_are_those_of_the_formulas() -> None:
    """By hand: G = (-4, 1, 3), H = (2, 1, 1) in three bins of one column, l2 = 1."""
    growth = Growth(least_rows=1, l2=1.0, learning_rate=0.5)
    sums = np.array([[[-4, 1, 3]], [[2, 1, 1]], [[2, 1, 1]]]) * int(UNIT)
    sums[2] //= int(UNIT)
    best = best_split(sums, growth)
    assert best is not None and (best.column, best.bin) == (0, 0)
    # 16 / 3 + 16 / 3 - 0 / 5, halved; the other border gives 9 / 4 + 9 / 2, halved.
    assert best.gain == pytest.approx(16 / 3, rel=1e-12)
    assert leaf_value(best.left, growth) == pytest.approx(0.5 * 4 / 3, rel=1e-12)
    assert leaf_value(sums[:, 0].sum(axis=1) - best.left, growth) == pytest.approx(-0.5 * 4 / 3)
    assert best_split(sums, Growth(least_rows=2, l2=1.0)).bin == 0  # type: ignore[union-attr]
    assert best_split(sums, Growth(least_rows=3)) is None


def reference(x: Any, gradient: Any, hessian: Any, growth: Growth) -> dict[tuple[Any, ...], float]:
    """Grow a tree leaf by leaf over all thresholds; return values of leaves by their rows."""

    def fall(rows: Any) -> float:
        return float(gradient[rows].sum() ** 2 / (hessian[rows].sum() + growth.l2))

    def best(rows: Any) -> tuple[float, Any, Any]:
        found = (0.0, rows, rows)
        for column in x.T:
            for border in np.unique(column[rows])[:-1]:
                below, above = rows[column[rows] <= border], rows[column[rows] > border]
                if min(len(below), len(above)) >= growth.least_rows:
                    gain = (fall(below) + fall(above) - fall(rows)) / 2
                    if gain > found[0] + 1e-9:
                        found = (gain, below, above)
        return found

    leaves = [np.arange(len(x))]
    while len(leaves) < growth.leaves:
        splits = [best(rows) for rows in leaves]
        place = int(np.argmax([gain for gain, *_ in splits]))
        if splits[place][0] <= 0:
            break
        leaves[place : place + 1] = list(splits[place][1:])
    rate = growth.learning_rate
    return {
        tuple(rows): -rate * gradient[rows].sum() / (hessian[rows].sum() + growth.l2)
        for rows in leaves
    }


@settings(max_examples=15)
@given(seed=st.integers(0, 999), leaves=st.integers(2, 8), name=st.sampled_from(["rul", "failure"]))
def test_a_tree_is_that_of_growing_leaf_by_leaf_over_all_thresholds(
    seed: int, leaves: int, name: str
) -> None:
    task = TASKS[name]
    growth = Growth(trees_per_round=1, leaves=leaves, least_rows=4, l2=0.5, learning_rate=0.3)
    random = np.random.default_rng(seed)
    x = random.integers(0, 6, size=(60, 3)).astype(np.float32)
    y = random.random(60).astype(np.float32) if name == "rul" else random.integers(0, 2, 60)
    trees = grown(task, [(x, y)], growth, rounds=1)
    base = float(trees["base"][-1])
    mean = base if name == "rul" else 1 / (1 + np.exp(-base))
    assert mean == pytest.approx(y.mean(), abs=2e-6)
    hessian = np.full(60, 1.0 if name == "rul" else mean * (1 - mean))
    expected = reference(x, mean - y, hessian, growth)
    found = score(trees, x)[:, -1] - base
    for rows, value in expected.items():
        assert found[list(rows)] == pytest.approx(value, abs=1e-4)
    assert len(set(found.round(6))) <= len(expected)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_derivatives_are_those_of_the_tasks_loss(name: str) -> None:
    task = TASKS[name]
    loss, (x, y) = loss_of(task), example(task, 5)
    answers = np.random.default_rng(0).normal(size=(len(x), task.outputs))
    for output in set(range(task.outputs)) - set(loss.outputs):
        answers[:, output] = 0.0
    output = torch.tensor(answers, requires_grad=True)
    rows = task.row_losses(output, torch.from_numpy(y))
    assert rows is not None
    (first,) = torch.autograd.grad(rows.sum(), output, create_graph=True)
    mine = answers[:, list(loss.outputs)]
    targets, counted = loss.target(y)
    mean = mine if loss.mean is None else loss.mean(mine)
    factor = 2.0 if loss.mean is None else 1.0  # of half the squared error
    expected = first.detach().numpy()[:, list(loss.outputs)]
    assert np.allclose(factor * (mean - targets) * counted, expected, atol=1e-6)
    if loss.mean is not None:
        for place, column in enumerate(loss.outputs):
            (second,) = torch.autograd.grad(first[:, column].sum(), output, retain_graph=True)
            curve = (mean * (1 - mean) * counted)[:, place]
            assert np.allclose(curve, second.numpy()[:, column], atol=1e-6)


def test_trees_learn_and_risks_of_horizons_are_nested() -> None:
    growth = Growth(trees_per_round=20, leaves=6, least_rows=3, learning_rate=0.2)
    for task in TASKS.values():
        x, y = example(task, 1, rows=300)
        trees = grown(task, [(x, y)], growth, rounds=1)
        answers = torch.from_numpy(score(trees, x))
        target = torch.from_numpy(y)
        start = torch.from_numpy(np.repeat(trees["base"][None].astype(float), 300, axis=0))
        learnt, constant = (float(task.loss(each.float(), target)) for each in (answers, start))
        assert learnt < 0.5 * constant
    risks = TASKS["horizons"].scores(torch.from_numpy(score(
        grown(TASKS["horizons"], [example(TASKS["horizons"], 2)], growth, 1),
        example(TASKS["horizons"], 3)[0],
    )))  # fmt: skip
    assert (np.diff(risks, axis=1) >= 0).all() and risks.std() > 0


def test_trees_of_classes_find_the_classes() -> None:
    task, growth = TASKS["asset_type"], Growth(trees_per_round=8, leaves=8, least_rows=3)
    (x, y), (new, truth) = example(task, 1, rows=300), example(task, 2, rows=300)
    trees = grown(task, [(x, y)], growth)
    shares = np.bincount(y, minlength=3) / len(y)
    np.testing.assert_allclose(np.exp(trees["base"]), shares, rtol=1e-5)
    scores = task.scores(torch.from_numpy(score(trees, new)))
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert np.mean(scores.argmax(axis=1) == truth) > shares.max() + 0.2


def test_a_task_without_a_loss_for_trees_is_refused() -> None:
    class Other(Failure):
        pass

    assert loss_of(Other(4.0)).outputs == (1,)
    strange: Any = SimpleNamespace(
        lives=False, per_class=True, outputs=3, columns=False, name="strange"
    )
    with pytest.raises(ConfigError, match="task=strange"):
        loss_of(strange)


# Bins ---------------------------------------------------------------------------------

Value = st.floats(-(2.0**100), 2.0**100, width=32)


@given(st.lists(Value, min_size=1, max_size=40))
def test_keys_keep_the_order_of_values_and_give_them_back(found: list[float]) -> None:
    column = np.array(found, dtype=np.float32)
    order = keys(column)
    assert np.array_equal(values(order), column + np.float32(0.0))
    assert ((order[:, None] < order) == (column[:, None] < column)).all()


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), bins=st.integers(2, 64), kind=st.sampled_from("nlm"))
def test_bins_from_counts_hold_about_equal_shares(seed: int, bins: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    column = {
        "n": random.normal(size=4000), "l": random.lognormal(0, 3, 4000),
        "m": np.concatenate([random.normal(5, 1e-2, 2000), -random.exponential(100, 2000)]),
    }[kind].astype(np.float32)[:, None]  # fmt: skip
    counts = cell_counts(column)
    cells = heavy_cells(counts, bins)
    parts = part_counts(column, cells)
    assert counts.shape == (1, CELLS) and parts.shape == (*cells.shape, PARTS)
    assert counts.sum() == 4000 and (counts[0, cells[0][cells[0] >= 0]] == parts[0].sum(1)).all()
    edges = edges_of(counts, cells, parts, bins)
    assert (np.diff(edges[edges < FARTHEST]) > 0).all()
    sizes = np.bincount(bin_of(column, edges).ravel(), minlength=bins)
    largest = max(int(parts.max()), int(4000 / bins))
    assert sizes.max() <= 4000 / bins + largest
    # A bin is what a comparison with its border says.
    for place, border in enumerate(edges[0]):
        assert ((bin_of(column, edges)[:, 0] <= place) == (column[:, 0] <= border)).all()


def test_few_values_have_a_bin_each_however_rare_they_are() -> None:
    column = np.repeat(np.float32([0.0, 1.0, 2.0, 3.0]), [1, 5000, 2, 1])[:, None]
    counts = cell_counts(column)
    cells = heavy_cells(counts, 64)
    edges = edges_of(counts, cells, part_counts(column, cells), 64)
    assert len(np.unique(bin_of(column, edges))) == 4


# Sums of strangers --------------------------------------------------------------------


def histograms(task: Task) -> tuple[dict[str, Any], Request, dict[str, Any], Any, int]:
    """Return honest sums of the root, and what ``flaw_of`` needs."""
    loss, (x, y) = loss_of(task), example(task, 4)
    trees, rows = empty(task, 4, bins=16), Rows(x, y, loss)
    steps = boost(trees, Growth(least_rows=3), loss, 1)
    request = next(steps)
    while request.kind != "nodes":
        request = steps.send(rows.answer(request, trees))
    return rows.answer(request, trees), request, trees, loss, len(x)


def spoilt(sums: dict[str, Any], how: str) -> dict[str, Any]:
    sums = {name: array.copy() for name, array in sums.items()}
    counts, gradients = sums["counts"], sums["gradients"]
    if how == "float64":
        sums["gradients"] = gradients.astype(np.float64)
    elif how == "shape":
        sums["counts"] = counts[:, :1]
    elif how == "missing":
        del sums["gradients"]
    elif how == "negative":
        counts[0, 0, :2] += [-1000, 1000]
    elif how == "more rows":
        counts *= 2
    elif how == "fewer rows":
        counts[:] = 0
        gradients[:] = 0
    elif how == "uneven":
        counts[0, 1, np.argmax(counts[0, 1])] -= 1
    elif how == "steep":
        gradients[0] += int(STEEPEST * UNIT) * 100
    elif how == "smallest":
        gradients[0, 0, 0] = np.iinfo(np.int64).min
    elif how == "columns":
        fullest = int(np.argmax(counts[0, 2]))
        gradients[0, 2, fullest] += 1
    return sums


@pytest.mark.parametrize("how", [
    "float64", "shape", "missing", "negative", "more rows", "fewer rows", "uneven", "steep",
    "smallest", "columns",
])  # fmt: skip
def test_sums_that_cannot_be_are_named(how: str) -> None:
    honest, *rest = histograms(TASKS["rul"])
    assert flaw_of(honest, *rest) is None
    assert flaw_of(spoilt(honest, how), *rest)


def test_second_derivatives_and_first_counts_are_screened_too() -> None:
    honest, *rest = histograms(TASKS["failure"])
    assert flaw_of(honest, *rest) is None
    assert "hessians" in str(flaw_of({**honest, "hessians": -honest["hessians"]}, *rest))
    task = TASKS["rul"]
    loss, (x, y) = loss_of(task), example(task, 4)
    trees, rows, request = empty(task, 4, bins=16), Rows(x, y, loss), Request("cells")
    sums = rows.answer(request, trees)
    assert flaw_of(sums, request, trees, loss, len(x)) is None
    for name, factor in (("counts", 2), ("rows", 2), ("targets", -1), ("targets", 1000)):
        assert flaw_of({**sums, name: sums[name] * factor}, request, trees, loss, len(x)), name
