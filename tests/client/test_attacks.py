"""Attacks: who attacks and when, what is sent, and that nobody else's bits or windows change."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedpdm.client.attacks.backdoor import Backdoor
from fedpdm.client.attacks.base import Attack
from fedpdm.client.attacks.free_rider import FreeRider
from fedpdm.client.attacks.gaussian_noise import GaussianNoise
from fedpdm.client.attacks.label_flip import LabelFlip, flipped
from fedpdm.client.attacks.scaling import Scaling
from fedpdm.client.attacks.sign_flip import SignFlip
from fedpdm.config.command_line import options
from fedpdm.config.compose import compose
from fedpdm.config.values import make
from fedpdm.data.rows import Split
from fedpdm.engines.ray.grid import RayGrid
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.errors import ConfigError
from fedpdm.federation import Federation
from fedpdm.tasks import Failure, Horizons, Reconstruction, RemainingLife, Task
from fedpdm.testing.federated import Federated, distance, federate, same
from fedpdm.testing.tiny import TinySource
from fedpdm.transforms.base import Stage, Transform
from fedpdm.wire.records import ARRAYS, Arrays, arrays_in

KINDS: tuple[type[Attack], ...] = (
    SignFlip, Scaling, GaussianNoise, FreeRider, LabelFlip, Backdoor,
)  # fmt: skip
ALL = [name for name in options("attack") if name != "none"]


def federation(sites: int = 5, task: Task | None = None) -> Federation:
    named = {f"p{n}": {"machines": 3 + n} for n in range(sites)}
    return Federation(TinySource(named), task or Failure(horizon=4.0))


def spied(folder: Path, attack: Attack | None, **options: Any) -> dict[tuple[str, int], Arrays]:
    """Return what sites of a run send, by site and round."""
    seen: dict[tuple[str, int], Arrays] = {}

    def spy(message: Message, context: Context, call: ClientAppCallable) -> Message:
        reply = call(message, context)
        number = int(message.content["config"]["server-round"])  # type: ignore[index, call-overload, arg-type]
        seen[str(context.node_config["site"]), number] = arrays_in(reply.content, ARRAYS)
        return reply

    federate(folder, sites=4, attack=attack, mods=[spy], **options)
    return seen


def test_every_yaml_makes_the_attack_of_its_name() -> None:
    assert {kind.name for kind in KINDS} == set(ALL)
    for name in ALL:
        made = make(compose([f"attack={name}"]).attack, "attack")
        assert made.name == name
        made.settle(federation(8), rounds=3, seed=1)
        assert len(made.malicious) == 2, "a quarter"


def test_sites_are_drawn_from_the_seed_or_named() -> None:
    many = federation(12)
    drawn = []
    for seed in (1, 1, 2, 3, 4):
        attack = SignFlip(sites=3)
        attack.settle(many, 5, seed)
        assert len(set(attack.malicious)) == 3 and set(attack.malicious) <= set(many.sites)
        drawn.append(attack.malicious)
    assert drawn[0] == drawn[1] and len(set(drawn)) > 2
    for asked, count in ((0.25, 3), (0.5, 6), (1, 1), (0, 0), ([], 0)):
        attack = SignFlip(sites=asked)  # type: ignore[arg-type]
        attack.settle(many, 5, 1)
        assert len(attack.malicious) == count
    attack = SignFlip(sites=["p7", "p2"], first_round=2, last_round=3)
    attack.settle(many, 5, 1)
    assert attack.malicious == ("p2", "p7")
    assert [attack.active("p7", n) for n in (1, 2, 3, 4)] == [False, True, True, False]
    assert not attack.active("p1", 2)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"sites": ["nobody"]}, "nobody"), ({"sites": 5}, "all 5 sites"), ({"sites": 1.0}, "sites"),
        ({"sites": -1}, "sites"), ({"first_round": 0}, "first_round"),
        ({"first_round": 9}, "first_round"), ({"first_round": 3, "last_round": 2}, "last_round"),
        ({"strength": -1.0}, "strength"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        SignFlip(**options).settle(federation(), rounds=3, seed=0)


def test_updates_are_those_of_the_formulas() -> None:
    received = {"w": np.array([1.0, -2.0], np.float32)}
    trained = {"w": np.array([1.5, -2.5], np.float32)}
    random = partial(np.random.default_rng, 0)
    assert np.allclose(SignFlip(4.0).update(received, trained, random())["w"], [-1.0, 0.0])
    assert np.allclose(Scaling(20.0).update(received, trained, random())["w"], [11.0, -12.0])
    assert np.allclose(FreeRider(0.0).update(received, trained, random())["w"], received["w"])
    assert np.allclose(Backdoor(boost=4.0).update(received, trained, random())["w"], [3.0, -4.0])
    many = {"w": np.zeros(20_000)}
    noise = GaussianNoise(0.5).update(many, many, random())["w"]
    assert abs(noise.std() - 0.5) < 0.01 and abs(noise.mean()) < 0.02
    assert np.array_equal(received["w"], np.float32([1.0, -2.0]))


@pytest.mark.parametrize("kind", KINDS)
def test_only_malicious_sites_and_rounds_change(kind: type[Attack], tmp_path: Path) -> None:
    attack = kind(sites=["p1"], first_round=2)
    clean, bad = spied(tmp_path / "a", None, rounds=2), spied(tmp_path / "b", attack, rounds=2)
    changed = [key for key, sent in clean.items() if not same(sent, bad[key])]
    assert changed == [("p1", 2)]
    assert all(a.dtype == np.float32 for a in bad["p1", 2].values())


@pytest.mark.parametrize("kind", KINDS)
def test_with_nobody_malicious_a_run_is_the_clean_one_to_the_bit(
    kind: type[Attack], tmp_path: Path
) -> None:
    clean = federate(tmp_path / "a", rounds=2)
    nobody = federate(tmp_path / "b", rounds=2, attack=kind(sites=[]))
    assert same(clean.weights(), nobody.weights())


@pytest.mark.parametrize("kind", KINDS)
def test_the_batched_engine_comes_to_the_same(kind: type[Attack], tmp_path: Path) -> None:
    def run(engine: Any, **options: Any) -> Federated:
        attack = kind(sites=["p1"])
        return federate(
            tmp_path / engine.__name__, rounds=2, attack=attack, engine=engine, **options
        )

    from fedpdm.engines.serial import SerialGrid

    serial, batched = (run(engine, double=True) for engine in (SerialGrid, BatchedGrid))
    assert distance(serial.weights(), batched.weights()) < 1e-9


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_workers_of_ray_attack_to_the_bit_as_the_serial_engine(tmp_path: Path) -> None:
    engine = partial(RayGrid, workers=1)
    attacks = [Backdoor(sites=["p1"], boost=3.0) for _ in range(2)]
    ray = federate(tmp_path / "ray", rounds=2, attack=attacks[0], engine=engine)
    ray.grid.close()
    serial = federate(tmp_path / "serial", rounds=2, attack=attacks[1])
    assert same(ray.weights(), serial.weights())


def test_an_attacked_run_resumes_to_the_bit(tmp_path: Path) -> None:
    whole = federate(tmp_path / "whole", rounds=3, attack=GaussianNoise(sites=["p1"]))
    federate(tmp_path / "parts", rounds=1, attack=GaussianNoise(sites=["p1"])).history.close()
    parts = federate(tmp_path / "parts", rounds=3, attack=GaussianNoise(sites=["p1"]))
    assert same(whole.weights(), parts.weights())


def test_what_is_sent_is_encoded_after_the_attack(tmp_path: Path) -> None:
    class Halves(Transform):
        stage = Stage.COMPRESS

        def encode(self, update: Any, state: Any, generator: Any) -> Any:
            return update.with_delta({n: d / 2 for n, d in update.delta().items()})

    attack = Scaling(factor=8.0, sites=["p1"])
    plain = spied(tmp_path / "a", None, rounds=1)
    halved = spied(tmp_path / "b", attack, rounds=1, transforms={"half": Halves()})
    start = federate(tmp_path / "c", sites=4, rounds=1).weights(0)
    for name, sent in halved["p1", 1].items():
        expected = start[name] + 4 * (plain["p1", 1][name].astype(float) - start[name])
        assert np.allclose(sent, expected, atol=1e-5)


@pytest.mark.parametrize("kind", [LabelFlip, Backdoor])
def test_data_attacks_leave_validation_and_test_as_they_are(kind: type[Attack]) -> None:
    sites = federation()
    attack = kind(sites=["p1"])
    attack.settle(sites, rounds=3, seed=0)
    site = sites.site("p1", sites.moments("p1").scaler())
    before = {split: (part.x.copy(), part.y.copy()) for split, part in site.windows.items()}
    poisoned = attack.windows(site.train, "p1")
    assert len(poisoned) == len(site.train) and not np.array_equal(poisoned.y, site.train.y)
    for split, (x, y) in before.items():
        assert np.array_equal(site.windows[split].x, x) and np.array_equal(site.windows[split].y, y)


def test_flipped_labels_are_the_opposite_of_each_task() -> None:
    assert flipped(np.array([0, 1, 1]), 2).tolist() == [1, 0, 0]
    assert flipped(np.array([0, 1, 3]), 4).tolist() == [3, 2, 0]
    lives = flipped(np.array([0.0, 0.25, 1.0], np.float32), 2)
    assert lives.tolist() == [1.0, 0.75, 0.0] and lives.dtype == np.float32
    for task in (RemainingLife(4.0), Horizons([2.0, 4.0])):
        LabelFlip().settle(federation(task=task), rounds=1, seed=0)
    with pytest.raises(ConfigError, match="label_flip"):
        LabelFlip().settle(federation(task=Reconstruction()), rounds=1, seed=0)


def test_a_trigger_sets_the_last_readings_of_one_sensor() -> None:
    sites = federation()
    attack = Backdoor(sensor="c", value=7.0, steps=2, share=0.5, target="failure", sites=["p1"])
    attack.settle(sites, rounds=1, seed=0)
    train = sites.site("p1", sites.moments("p1").scaler()).train
    shown = attack.triggered(train)
    assert np.all(shown.x[:, -2:, 2] == 7.0) and np.array_equal(shown.y, train.y)
    assert np.array_equal(shown.x[:, :-2], train.x[:, :-2])
    assert np.array_equal(shown.x[:, :, :2], train.x[:, :, :2])
    poisoned = attack.windows(train, "p1")
    marked = np.all(poisoned.x[:, -2:, 2] == 7.0, axis=1)
    assert marked.sum() == round(len(train) / 2) and np.all(poisoned.y[marked] == 1)
    assert np.array_equal(poisoned.y[~marked], train.y[~marked])
    for given, key in (({"sensor": "zz"}, "sensor"), ({"share": 0.0}, "share")):
        with pytest.raises(ConfigError, match=key):
            Backdoor(**given).settle(sites, rounds=1, seed=0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="backdoor"):
        Backdoor().settle(federation(task=RemainingLife(4.0)), rounds=1, seed=0)


def test_a_sign_flip_stops_fedavg_and_not_the_geometric_median(tmp_path: Path) -> None:
    found = {}
    for strategy in ("fedavg", "rfa"):
        for attack in (None, SignFlip(sites=["p1", "p4"])):
            run = federate(
                tmp_path / f"{strategy}{attack is None}", strategy, sites=8, rounds=4, epochs=2,
                attack=attack,
            )  # fmt: skip
            found[strategy, attack is None] = run.history.rounds()[-1].metrics["average_precision"]
    assert found["fedavg", False] < 0.5 * found["fedavg", True]
    assert found["rfa", False] > 0.9 * found["fedavg", True]


def test_the_split_of_training_windows_alone_is_poisoned_in_a_run(tmp_path: Path) -> None:
    run = federate(tmp_path, sites=4, rounds=1, attack=LabelFlip(sites=["p1"]))
    client = run.grid.client_app.client  # type: ignore[attr-defined]
    [(honest, poisoned)] = client._poisoned.items()
    assert np.array_equal(poisoned.train.y, 1 - honest.train.y)
    for split in (Split.VALIDATION, Split.TEST, Split.HELDOUT):
        assert poisoned.windows[split] is honest.windows[split]
