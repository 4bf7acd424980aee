"""What a group of sensors is worth, on a model whose answer is known in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedpdm.ablate import scores
from fedpdm.ablate.groups import columns_of, groups_of
from fedpdm.ablate.replacing import replaced
from fedpdm.ablate.result import ablation_of
from fedpdm.ablate.scores import WHOLE, Ablated, ablate_run
from fedpdm.comparison.runs import FinishedRun
from fedpdm.data.features import RANGE, RAW, STATISTICS, WindowFeatures
from fedpdm.data.rows import Split
from fedpdm.data.windows import Windows
from fedpdm.errors import ConfigError, HistoryError
from fedpdm.federation import Site
from fedpdm.seeding import numpy_generator
from fedpdm.tasks.base import Task
from fedpdm.testing.tiny import TinySource

WEIGHTS = np.array([3.0, 0.0, -1.0], dtype=np.float32)
ALL = np.array([False, False, False])


class Line(Task):
    """Values to be met exactly; its error is the mean square."""

    outputs, primary, higher_is_better, reach = 1, "mse", False, 0.0

    def targets(self, rows: Any) -> Any:
        raise NotImplementedError

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError

    def scores(self, output: Tensor) -> Any:
        return output[:, 0].double().numpy()

    def metrics(self, target: Any, truth: Any, scores: Any) -> dict[str, float | None]:
        return {"mse": float(np.mean((target - scores) ** 2))}


class Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1] @ torch.from_numpy(WEIGHTS)[:, None]


def windows(name: str, count: int, shift: float) -> Windows:
    x = numpy_generator(1, name).normal(size=(count, 4, 3)).astype(np.float32) + np.float32(shift)
    y = (x[:, -1] @ WEIGHTS).astype(np.float64)
    empty = np.zeros(count)
    no = np.zeros(count, dtype=bool)
    return Windows(x=x, y=y, truth=empty, machine=empty.astype(str), time=empty, padded=no, last=no)


SITES = [
    Site(name, {split: windows(f"{name}{split}", 60, shift) for split in Split})
    for name, shift in (("north", 0.5), ("south", -0.5))
]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A run whose model is right, as ``ablate_run`` opens it."""
    task, source = Line(), TinySource({"north": {}, "south": {}})
    federation = SimpleNamespace(source=source, features=RAW, inputs=source.features)
    found = SimpleNamespace(
        sites=SITES,
        models=lambda site: Sum(),
        experiment=SimpleNamespace(
            federation=federation, task=task, device=torch.device("cpu"), seed=7
        ),
        manifest={"data": {"sha256": "as it was"}},
        data_sha256=lambda: "as it was",
    )
    predictions = {s.name: {Split.TEST: s.test.y} for s in SITES}
    found.test = lambda: SimpleNamespace(predictions=predictions, card={"calibration": None})
    monkeypatch.setattr(scores, "reopen", lambda run, **_: found)
    return found


HOWS = ("permute", "mean", "zero")


def test_a_linear_model_misses_each_sensor_by_its_weight(opened: SimpleNamespace) -> None:
    found, groups = ablate_run(Path("run"), [], HOWS)
    assert [*groups] == ["a", "b", "c"] and found.seed == 7
    assert found.intact[WHOLE] == 0.0
    for place, sensor in enumerate("abc"):
        weight = float(WEIGHTS[place])
        for site in SITES:
            last = site.test.x[:, -1, place].astype(np.float64)
            mean = site.train.x[..., place].mean()
            zero = weight**2 * np.mean(last**2)
            assert found.without[sensor, "zero"][site.name] == pytest.approx(zero, rel=1e-4)
            away = weight**2 * np.mean((last - mean) ** 2)
            assert found.without[sensor, "mean"][site.name] == pytest.approx(away, rel=1e-4)
            # Independent copies lie twice the variance apart; 300 pairs are drawn.
            permuted = found.without[sensor, "permute"][site.name]
            assert permuted == pytest.approx(2 * weight**2 * last.var(), rel=0.3)
        each = [found.without[sensor, "zero"][site.name] or 0.0 for site in SITES]
        assert found.without[sensor, "zero"][WHOLE] == pytest.approx(np.mean(each))


def test_the_same_seed_draws_the_same_and_another_does_not(opened: SimpleNamespace) -> None:
    first, again = (ablate_run(Path("run"), [], ["permute"])[0] for _ in range(2))
    assert first == again
    opened.experiment.seed = 8
    other = ablate_run(Path("run"), [], ["permute"])[0]
    assert other.without["a", "permute"] != first.without["a", "permute"]
    assert other.without["b", "permute"] == first.without["b", "permute"], "it has no weight"


def test_groups_of_ones_own_are_replaced_together(opened: SimpleNamespace) -> None:
    found, groups = ablate_run(Path("run"), ["both=a+c", "b"], ["zero"])
    assert groups == {"both": ("a", "c"), "b": ("b",)}
    y = np.concatenate([site.test.y for site in SITES])
    assert found.without["both", "zero"][WHOLE] == pytest.approx(np.mean(y**2), rel=1e-4)
    assert found.without["b", "zero"][WHOLE] == pytest.approx(0.0, abs=1e-9)


def test_data_that_changed_since_is_refused(opened: SimpleNamespace) -> None:
    opened.data_sha256 = lambda: "another"
    with pytest.raises(HistoryError, match="has changed since the run"):
        ablate_run(Path("run"), [], ["zero"])


@pytest.mark.parametrize("asked", [["x=a+nope"], ["nope"], ["x=a", "x=b"], ["x="]])
def test_a_group_that_cannot_be_is_refused(asked: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"--groups.*(nope|twice|x)"):
        groups_of(TinySource({}), asked)


def test_the_datas_own_groups_come_first_and_the_rest_stand_alone() -> None:
    source = TinySource({})
    source.groups = {"pair": ("a", "c")}
    assert groups_of(source) == {"pair": ("a", "c"), "b": ("b",)}
    assert groups_of(source, ["all=pair+b"]) == {"all": ("a", "b", "c")}


def test_statistics_go_with_their_sensor() -> None:
    source, many = TinySource({}), len(STATISTICS)
    limits = {"b": (0.0, 1.0)}
    both = columns_of(("b",), source, WindowFeatures("both", limits)).tolist()
    assert both == [1, *range(3 + many, 3 + 2 * many + len(RANGE))]
    only = columns_of(("a", "c"), source, WindowFeatures("statistics")).tolist()
    assert only == [*range(many), *range(2 * many, 3 * many)]
    names = WindowFeatures("both", limits).inputs(source.features)
    assert {names[k].partition(":")[0] for k in both} == {"b"}


def test_a_permutation_moves_whole_windows_of_the_group_and_nothing_else() -> None:
    x = SITES[0].test.x
    columns = np.array([0, 2])
    found = replaced("permute", x, columns, x, ALL, numpy_generator(0, "p"))
    np.testing.assert_array_equal(found[..., 1], x[..., 1])
    blocks = {window[:, columns].tobytes() for window in x}
    assert {window[:, columns].tobytes() for window in found} == blocks
    assert not np.array_equal(found, x) and x is SITES[0].test.x


def test_zero_is_the_mean_where_training_windows_have_mean_0() -> None:
    x = SITES[0].test.x
    training = np.concatenate([x, -x])
    columns, generator = np.array([0, 1]), numpy_generator(0, "p")
    mean, zero = (replaced(h, x, columns, training, ALL, generator) for h in ("mean", "zero"))
    np.testing.assert_allclose(mean, zero, atol=1e-7)


def test_the_mean_of_codes_is_the_commonest() -> None:
    training = np.array([[0.0], [2.0], [2.0], [1.0]], dtype=np.float32)
    codes = np.array([True])
    found = replaced("mean", training, np.array([0]), training, codes, numpy_generator(0, "p"))
    assert found.tolist() == [[2.0]] * 4


# Over seeds -----------------------------------------------------------------------------


def over_seeds(falls: Mapping[str, list[float]]) -> Any:
    """Return the ablation of runs whose score of .9 falls by these numbers, by group and seed."""
    count = len(next(iter(falls.values())))
    ablated = [
        Ablated(Path(f"{seed}"), seed, {WHOLE: 0.9, "north": None},
                {(group, "zero"): {WHOLE: 0.9 - own[seed], "north": None}
                 for group, own in falls.items()})
        for seed in range(count)
    ]  # fmt: skip
    test = {"baselines": {"trivial": {"global": {"average_precision": 0.1}}}}
    runs = [FinishedRun(Path(f"{s}"), s, {}, {"seed": s, "test": test}) for s in range(count)]
    return ablation_of(ablated, {group: (group,) for group in falls}, ["zero"], runs)


def test_falls_have_ranks_and_with_five_seeds_a_t_interval() -> None:
    found = over_seeds(
        {"least": [0.0, 0.01, 0.0, 0.0, -0.01], "most": [0.3, 0.2, 0.4, 0.3, 0.3],
         "some": [0.1, 0.2, 0.1, 0.1, 0.1]}
    )  # fmt: skip
    most, some, least = found.at(WHOLE, "zero")
    assert (most.group, some.group, least.group) == ("most", "some", "least")
    assert (most.first, most.last, least.last, some.rank) == (4, 0, 5, 2.0), "one seed is a tie"
    assert most.effect.mean == pytest.approx(0.3)
    # t(.975, 4) = 2.776 times the deviation .0707 over the root of 5.
    assert most.effect.high - most.effect.mean == pytest.approx(2.776 * 0.07071 / 5**0.5, rel=1e-3)
    assert found.baselines == {"trivial": 0.1}
    assert found.places == [WHOLE], "a site without a score is not ranked"


def test_with_four_seeds_there_is_no_interval() -> None:
    found = over_seeds({"a": [0.1, 0.2, 0.3, 0.1], "b": [0.0] * 4})
    assert found.at(WHOLE, "zero")[0].effect.low is None
