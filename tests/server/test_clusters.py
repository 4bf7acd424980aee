"""Clusters: two groups of sites with known optima are told apart and reached; one is FedAvg."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from fedpdm.client.app import make_client_app
from fedpdm.config.compose import compose
from fedpdm.engines.serial import SerialGrid
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.errors import ConfigError
from fedpdm.history import History
from fedpdm.models import ModelWrapper
from fedpdm.runs.experiment import build
from fedpdm.server.base import MAIN, SERVER, Server, models_of
from fedpdm.server.cfl import CFL, split
from fedpdm.server.clusters import cosines
from fedpdm.server.flhc import FLHC, groups
from fedpdm.server.ifca import IFCA
from fedpdm.server.loop import RoundLoop
from fedpdm.server.monitor import MonitorSettings
from fedpdm.testing.federated import Federated, Screen, federate, named, same
from fedpdm.training.loop import TrainingSettings
from tests.strategies.quadratics import Bowl, Bowls, Point
from tests.toys.mask import Mask

# Two kinds of sites, mixed: each kind's optimum is the mean of its sites' own.
LEFT, RIGHT = np.array([-4.0, 1.0]), np.array([4.0, -1.0])
TWO_KINDS = {
    f"p{k}": Bowl((1.0, 2.0), tuple((LEFT, RIGHT)[k % 2] + (-1) ** (k // 2) * np.array([0.3, 0.2])))
    for k in range(4)
}
KINDS = {"p0": 0, "p2": 0, "p1": 1, "p3": 1}


def settle(folder: Path, server: Server, rounds: int, start: Sequence[float]) -> History:
    """Run quadratics by a server of clusters, from a start other than the origin."""
    bowls = Bowls(TWO_KINDS)
    settings = TrainingSettings(1, 2, 0.1, optimizer="sgd", gamma=1.0)
    app = make_client_app(bowls, lambda: ModelWrapper(Point()), settings, seed=0)  # type: ignore[arg-type]
    folder.mkdir(parents=True, exist_ok=True)
    history = History.create(folder)
    RoundLoop(
        strategy=named(["strategy=fedavg"]), history=history, initial={"w": np.array(start)},
        trainable=("w",), task=bowls.task,  # type: ignore[arg-type]
        rounds=rounds, seed=0, monitor=MonitorSettings(), display=Screen(), evaluate_fraction=0,
        federated_scaling=False, server=server,
    ).run(SerialGrid(app, bowls.sites), Context(1, 1, {}, RecordDict(), {}))  # fmt: skip
    return history


@pytest.mark.parametrize("make", [
    lambda: IFCA(clusters=2, spread=3.0), lambda: CFL(after=2, progress=0.2),
    lambda: FLHC(after=3),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
def test_two_kinds_of_sites_are_told_apart_and_each_reaches_its_optimum(
    make: Callable[[], Server], tmp_path: Path
) -> None:
    with settle(tmp_path, make(), 40, [2.0, -0.5]) as history:
        models, members = models_of(history, 40)
        assert len(models) == 2 and set(members) == set(TWO_KINDS)
        for site, name in members.items():
            goal = (LEFT, RIGHT)[KINDS[site]]
            # Two sites of a kind with one curvature: FedAvg stops at the mean of their optima.
            assert np.abs(models[name]["w"] - goal).max() < 5e-3, history.events()[:2]
        assert members["p0"] == members["p2"] != members["p1"] == members["p3"]
        assert np.array_equal(history.weights()["w"], models["cluster-1"]["w"])
        told = [e["message"] for e in history.events() if e["kind"] == "clusters"]
        assert told and "p0 and p2" in told[-1] and "p1 and p3" in told[-1]


def test_one_model_for_both_kinds_stops_between_them(tmp_path: Path) -> None:
    with settle(tmp_path, CFL(epsilon=0.0), 40, [1.0, 1.5]) as history:
        assert np.abs(history.weights()["w"]).max() < 1e-3


# The arithmetic -------------------------------------------------------------------------------


def test_a_cluster_splits_where_the_mean_is_short_and_single_updates_are_long() -> None:
    east, west = np.array([1.0, 0.1]), np.array([-1.0, 0.1])
    assert split([east, west, east, west], [1.0] * 4, 0.4, 0.7) == [1, 3]
    assert split([east, west, east, east], [1.0] * 4, 0.4, 0.7) == [], "the mean is long"
    assert split([east, west, east, east], [1.0, 3.0, 1.0, 1.0], 0.4, 0.7) == [1], "by examples"
    assert split([east, west], [1.0, 1.0], 0.0, 0.7) == []
    assert split([east, west, east, west], [1.0] * 4, 0.4, 0.7, least=3) == []
    assert split([np.zeros(2)] * 3, [1.0] * 3, 0.4, 0.7) == []
    # Three directions at 120°: two parts have a cosine of -1/2 at most, √(3/4) = 0.866.
    three = [np.array([np.cos(t), np.sin(t)]) for t in np.arange(3) * 2 * np.pi / 3]
    assert len(split(three, [1.0] * 3, 0.4, 0.86)) in (1, 2)
    assert split(three, [1.0] * 3, 0.4, 0.87) == []


def test_the_parting_has_the_smallest_largest_cosine_of_all() -> None:
    random = np.random.default_rng(4)
    for _ in range(20):
        vectors = [*random.normal(size=(6, 3))]
        found = split(vectors, [1.0] * 6, 1.0, 0.0)
        if not found:
            continue
        alike, best = cosines(vectors), []
        for code in range(1, 2**5):
            second = [k for k in range(6) if code >> k & 1]
            first = [k for k in range(6) if k not in second]
            best.append(alike[np.ix_(first, second)].max())
        rest = [k for k in range(6) if k not in found]
        assert alike[np.ix_(rest, found)].max() == pytest.approx(min(best))


def test_trees_are_cut_by_number_or_by_distance() -> None:
    points = [np.array([x, 0.0]) for x in (0.0, 5.0, 0.1, 5.2, 20.0)]
    assert groups(points, "euclidean", "average", 3, None) == [1, 2, 1, 2, 3]
    assert groups(points, "cityblock", "single", None, 6.0) == [1, 1, 1, 1, 2]
    assert groups(points, "euclidean", "ward", 1, None) == [1] * 5
    angles = [np.array(v) for v in ([1.0, 0], [0, 2.0], [9.0, 0.1])]
    assert groups(angles, "cosine", "complete", None, 0.5) == [1, 2, 1]


# In a federation ------------------------------------------------------------------------------

SITES = 4
ONE = {"ifca": lambda: IFCA(clusters=1), "cfl": lambda: CFL(epsilon=0.0),
       "flhc": lambda: FLHC(clusters=1, after=1)}  # fmt: skip
MANY: dict[str, Callable[[], Server]] = {
    "ifca": lambda: IFCA(clusters=2, spread=0.2),
    "cfl": lambda: CFL(epsilon=1.0, gamma=0.0, progress=0.0, after=1),
    "flhc": lambda: FLHC(clusters=3, after=2),
}  # fmt: skip


def run(folder: Path, server: Callable[[], Server], rounds: int, **options: Any) -> Federated:
    return federate(folder, sites=SITES, rounds=rounds, server=server, **options)


@pytest.fixture(scope="module")
def average(tmp_path_factory: pytest.TempPathFactory) -> Federated:
    return federate(tmp_path_factory.mktemp("average"), sites=SITES, rounds=3, model="cnn")


@pytest.mark.parametrize("name", sorted(ONE))
def test_one_cluster_is_fedavg_to_the_bit(name: str, average: Federated, tmp_path: Path) -> None:
    found = run(tmp_path, ONE[name], 3, model="cnn")
    assert all(same(average.weights(n), found.weights(n)) for n in range(4))
    plain, ours = (
        [(r.metrics, r.sites, r.bytes_up, r.bytes_down, r.events) for r in each.history.rounds()]
        for each in (average, found)
    )
    assert plain == ours


@pytest.mark.parametrize("name", sorted(MANY))
def test_a_run_that_was_killed_goes_on_with_its_clusters(name: str, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", MANY[name], 4)
    calls: list[int] = []

    def power_cut(message: Message, context: Context, call: ClientAppCallable) -> Message:
        calls.append(1)
        if len(calls) == 11:  # in round 3
            raise KeyboardInterrupt
        return call(message, context)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", MANY[name], 4, mods=[power_cut])
    part = run(tmp_path / "part", MANY[name], 4)
    assert len(whole.history.models(4)) > 1
    for number in range(5):
        assert same(whole.weights(number), part.weights(number))
        (ours, where), (theirs, there) = (models_of(r.history, number) for r in (whole, part))
        assert where == there and all(same(ours[n], theirs[n]) for n in ours)
    assert [r.metrics for r in whole.history.rounds()] == [r.metrics for r in part.history.rounds()]


@pytest.mark.parametrize("name", sorted(MANY))
def test_a_rollback_takes_the_clusters_back(name: str, tmp_path: Path) -> None:
    found = run(tmp_path, MANY[name], 3)
    before = models_of(found.history, 1)[1]
    found.history.rollback(1, by="person", reason="test")
    found.history.close()
    again = run(tmp_path, MANY[name], 3)
    assert models_of(again.history, 1)[1] == before
    # The attempt is part of what draws batches, so weights differ; what round 1 knew does not.
    assert again.history.rounds()[3].attempt == 1
    assert set(models_of(again.history, 3)[1]) == {f"p{n}" for n in range(SITES)}


def test_sites_evaluate_their_own_model_and_stacks_give_the_same(tmp_path: Path) -> None:
    serial, batched = (
        run(tmp_path / engine.__name__, MANY["cfl"], 3, double=True, engine=engine)
        for engine in (SerialGrid, BatchedGrid)
    )
    models, members = models_of(serial.history, 3)
    theirs, there = models_of(batched.history, 3)
    assert members == there and len(set(members.values())) > 1
    for name, model in models.items():
        assert max(np.abs(a - theirs[name][n]).max() for n, a in model.items()) < 1e-9
    server = serial.loop.server
    panel = [f"p{n}" for n in range(SITES)]
    grouped = server.evaluated([*panel, "new"])
    assert {site: name for name, sites in grouped.items() for site in sites} == {
        **members, "new": MAIN
    }  # fmt: skip


def test_a_site_takes_the_model_of_the_lowest_training_loss(tmp_path: Path) -> None:
    asked: dict[str, list[float]] = {}
    app = run(tmp_path / "first", MANY["ifca"], 1)
    client = app.grid.client_app.client  # type: ignore[attr-defined]
    models, members = models_of(app.history, 1)
    again = run(tmp_path / "first", MANY["ifca"], 2)
    chosen = models_of(again.history, 2)[1]
    scaler = client.federation.moments
    total = scaler("p0")
    for n in range(1, SITES):
        total = total + scaler(f"p{n}")
    for site in members:
        data = client.federation.site(site, total.scaler())
        for model in models.values():
            client.model.set_parameters(model)
            loss = client.minimised.mean_loss(client.model.module, *client.tensors(data, 0), None)
            asked.setdefault(site, []).append(loss)
    lowest = {site: list(models)[int(np.argmin(losses))] for site, losses in asked.items()}
    assert lowest == chosen


def test_models_that_sites_are_asked_about_are_counted(tmp_path: Path) -> None:
    one, two = (
        run(tmp_path / str(k), lambda k=k: IFCA(clusters=k), 1, evaluate_fraction=0)  # type: ignore[misc]
        for k in (1, 2)
    )
    down = [each.history.rounds()[1].bytes_down for each in (one, two)]
    assert 2.8 * down[0] < down[1] < 3.2 * down[0]


def test_a_site_that_fails_keeps_its_cluster_and_a_refused_update_does_not_count(
    tmp_path: Path,
) -> None:
    found = run(tmp_path, MANY["flhc"], 3, faults={"nan": "p1@2"})
    members = models_of(found.history, 3)[1]
    assert members["p1"] == "cluster-1" and len(found.history.models(3)) == 3
    state = found.history.strategy_state(2)[SERVER]
    assert set(state["members"]) == {f"p{n}" for n in range(SITES)}


# Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("overrides", "said"), [
    (["server=ifca", "strategy=fedadam"], "server=ifca takes the mean of each cluster"),
    (["server=cfl", "strategy=scaffold"], "one memory for all"),
    (["server=cfl", "strategy.fraction_train=0.5"], "fraction_train=0.5 must be 1"),
    (["server=ifca", "server.clusters=0"], r"server\.clusters=0"),
    (["server=ifca", "server.spread=-1"], r"server\.spread"),
    (["server=cfl", "server.gamma=2"], r"server\.gamma=2"),
    (["server=flhc", "server.threshold=0.5"], "cut by one of them"),
    (["server=flhc", "server.linkage=ward"], "needs server.metric=euclidean"),
    (["server=flhc", "server.metric=hamming"], r"server\.metric=hamming"),
])  # fmt: skip
def test_what_cannot_work_is_refused_before_the_run(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(compose(["model=mlp", "site=detroit", "sites.detroit.machines=6", *overrides]))


def test_hidden_updates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"transforms\.mask hides all but"):
        run(tmp_path, MANY["ifca"], 1, transforms={"mask": Mask()})
