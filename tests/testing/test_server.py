"""``check_server``: all servers keep its contract, and every breach is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from flwr.app import Message

from fedpdm.config.command_line import options
from fedpdm.config.compose import compose
from fedpdm.config.schema import conf_dir
from fedpdm.config.values import make
from fedpdm.engines.ray.grid import RayGrid
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.models.policy import POLICIES
from fedpdm.privacy.base import Protection
from fedpdm.runs.experiment import build as built
from fedpdm.server.base import Result, Round, Server
from fedpdm.server.cfl import CFL
from fedpdm.server.clock import Clock
from fedpdm.server.deadline import Deadline
from fedpdm.server.fedasync import FedAsync
from fedpdm.server.fedbuff import FedBuff
from fedpdm.server.flhc import FLHC
from fedpdm.server.ifca import IFCA
from fedpdm.server.poisson import Poisson
from fedpdm.server.synchronous import Synchronous
from fedpdm.server.virtual_clock import VirtualClock
from fedpdm.tasks import Failure
from fedpdm.testing import check_server
from fedpdm.testing.federated import federate
from fedpdm.testing.server import STILL, Watched, check_idle
from fedpdm.training.objective import Supervised
from fedpdm.transforms.base import Transform
from fedpdm.transforms.topk import TopK

ALL: dict[str, Callable[[], Server]] = {
    "synchronous": Synchronous,
    "poisson": Poisson,
    "ifca": lambda: IFCA(clusters=2, spread=0.2),
    "cfl": lambda: CFL(epsilon=1.0, gamma=0.0, progress=0.0, after=1),
    "flhc": lambda: FLHC(clusters=3, after=1),
    "fedbuff": lambda: FedBuff(buffer=2),
    "fedasync": FedAsync,
    "deadline": lambda: Deadline(seconds=5.0, late="take"),
}


def uneven() -> Clock:
    return VirtualClock(spread=1.0)


def test_no_server_is_left_out() -> None:
    # Trees and masked updates are sums: tests/server/test_boosting and test_secagg.
    assert {*ALL, "boosting", "secagg"} == {*options("server")}


@pytest.mark.parametrize("name", [
    name if name in ("ifca", "fedbuff") else pytest.param(name, marks=pytest.mark.long)
    for name in ALL
])  # fmt: skip
def test_every_server_keeps_its_contract(name: str) -> None:
    late = name in ("fedbuff", "fedasync", "deadline")
    check_server(ALL[name], clock=uneven if late else None)


def ray(app: Any, sites: Any) -> RayGrid:
    return RayGrid(app, sites, workers=2)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", ALL)
def test_every_server_on_ray_with_compression_and_personal_heads(name: str) -> None:
    check_server(
        ALL[name], clock=uneven, engines=[ray, BatchedGrid], policy=POLICIES["body"](),
        transforms={"topk": TopK(1.0, "up")},
    )  # fmt: skip


# Transforms and privacy: a rate of nothing, and messages as they were sent ----------------------


def transform(name: str, direction: str) -> dict[str, Transform]:
    block = yaml.safe_load((conf_dir() / "transforms" / f"{name}.yaml").read_text())[name]
    return {name: make({**block, "direction": direction}, "transforms")}


@pytest.mark.parametrize("name", options("transforms"))
def test_an_update_of_nothing_is_nothing_however_it_travels(name: str, tmp_path: Path) -> None:
    for direction in ("up", "down"):
        check_idle(federate(
            tmp_path / direction, rounds=2, engine=Watched, settings=STILL,
            transforms=transform(name, direction),
        ))  # fmt: skip


def protection(kind: str) -> Protection:
    """Return a kind of privacy for four sites, without its noise."""
    words = [f"privacy={kind}", "privacy.epsilon=null", "privacy.noise_multiplier=0", "model=mlp",
             "replicas=2", "sites.detroit.machines=3", "sites.houston.machines=3"]  # fmt: skip
    found = built(compose(words)).privacy
    assert found is not None
    return found


@pytest.mark.parametrize("kind", [
    pytest.param(kind, marks=pytest.mark.long if kind == "dpsgd" else ())
    for kind in options("privacy") if kind != "none"
])  # fmt: skip
def test_without_noise_and_steps_privacy_leaves_the_model_as_it_is(
    kind: str, tmp_path: Path
) -> None:
    found = protection(kind)
    run = federate(
        tmp_path, sites=4, rounds=2, engine=Watched, settings=STILL, transforms=found.transforms,
        objective=found.trains(Supervised.of(Failure(4.0))), evaluate_fraction=0.0,
    )  # fmt: skip
    check_idle(run)
    assert len(run.grid.came) == 2 * 4 + 4, "training, and the sums for the scaler"  # type: ignore[attr-defined]


# Breaches ----------------------------------------------------------------------------------------


class Writes(Synchronous):
    def apply(self, round: Round, site: str, reply: Message) -> None:
        super().apply(round, site, reply)
        reply.content["metrics"] = reply.content["metrics"].__class__({"num-examples": 1})


class Drifts(Synchronous):
    def result(self, round: Round) -> Result:
        found = super().result(round)
        return replace(found, arrays={n: 1.01 * a for n, a in found.arrays.items()})


class Forgets(Synchronous):
    """Remembers in an attribute, which the history does not keep."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = 0

    def result(self, round: Round) -> Result:
        self.rounds += 1
        found = super().result(round)
        trained = {
            n: a + self.rounds * (a - round.model.arrays[n]) for n, a in found.arrays.items()
        }
        return replace(found, arrays=trained)


@pytest.mark.parametrize(("server", "said"), [
    (Writes, "a reply was changed"), (Drifts, "the model moved by"), (Forgets, "differs after"),
])  # fmt: skip
def test_breaches_are_found(server: Callable[[], Server], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_server(server, engines=())
