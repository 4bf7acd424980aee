"""engine=auto: the same workload, the same choice, and a resumed run keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fedpdm.config.compose import compose
from fedpdm.config.schema import conf_dir
from fedpdm.config.values import plain
from fedpdm.engines.auto import Auto, Workload, read, seconds, settle_engine
from fedpdm.errors import ConfigError, HistoryError
from fedpdm.history import History
from fedpdm.models import ModelFactory
from fedpdm.runs.experiment import build
from fedpdm.simulate import resume, simulate
from fedpdm.storage import read_json, write_json


def work(model: str = "lstm", **change: Any) -> Workload:
    module = ModelFactory.create_model(model, 10, 2, sequence_length=10).module
    given: dict[str, Any] = {
        "sampled": 2, "rounds": 10, "steps": 5, "device": torch.device("cpu"), "cores": 4, **change
    }  # fmt: skip
    return Workload(module=module, **given)


@pytest.mark.parametrize(
    ("engine", "model", "change"),
    [
        ("serial", "lstm", {}),
        ("serial", "mlp", {"sampled": 7}),
        ("batched", "mlp", {"sampled": 8}),
        ("batched", "mlp", {"sampled": 100, "rounds": 5}),
        ("batched", "cnn", {"sampled": 100}),
        ("ray", "cnn", {"sampled": 100, "steps": 40}),
        ("ray", "lstm", {"sampled": 4, "steps": 500}),
        ("serial", "lstm", {"sampled": 4, "steps": 500, "cores": 1}),
        ("batched", "lstm", {"sampled": 8, "steps": 5000, "cores": 1}),
        ("serial", "lstm", {"sampled": 1, "steps": 5000}),
        ("batched", "lstm", {"sampled": 8, "device": torch.device("cuda")}),
        ("serial", "lstm", {"sampled": 3, "steps": 5000, "device": torch.device("cuda")}),
    ],
)
def test_the_rule(engine: str, model: str, change: dict[str, Any]) -> None:
    choice = Auto().choose(work(model, **change))
    assert choice.name == engine
    assert (conf_dir() / "engine" / f"{choice.name}.yaml").exists()
    assert choice.reason and "\n" not in choice.reason


def test_what_is_set_for_the_chosen_engine_reaches_it() -> None:
    yaml = read("auto") | {"workers": 3, "chunk": 5}
    many = settle_engine(yaml, work(sampled=100, steps=100))["settings"]
    assert many["_target_"].endswith("RayGrid")
    assert (many["workers"], many["stacked"], many["chunk"]) == (3, True, 5)
    few = settle_engine(yaml, work(sampled=4, steps=2000))["settings"]
    assert (few["workers"], few["stacked"]) == (3, False)
    stacked = settle_engine(yaml, work("mlp", sampled=20))
    assert (stacked["name"], stacked["settings"]["chunk"]) == ("batched", 5)


def test_batched_with_several_workers_is_ray_with_stacks() -> None:
    asked = plain(compose(["engine=batched", "engine.workers=2", "engine.chunk=4"]).engine)
    other = compose(["engine=ray", "engine.workers=2", "engine.stacked=true", "engine.chunk=4"])
    assert settle_engine(asked, work())["settings"] == plain(other.engine)


def test_more_of_the_same_work_never_goes_back_to_one_process() -> None:
    """And twice the cores are never predicted to be slower."""
    for model in ("mlp", "cnn", "lstm", "hybrid"):
        names = [
            Auto().choose(work(model, sampled=50, steps=steps)).name
            for steps in (1, 10, 100, 1000, 10_000)
        ]
        assert names == sorted(names), (model, names)  # batched, then ray
        loads = [work(model, sampled=50, steps=1000, cores=cores) for cores in (2, 4, 8)]
        times = [seconds(load, stacked=True, workers=load.cores) for load in loads]
        assert times == sorted(times, reverse=True)


def test_an_engine_that_was_asked_for_is_taken_without_reasons() -> None:
    asked = plain(compose(["engine=batched", "engine.chunk=2"]).engine)
    engine = settle_engine(asked, work())
    assert engine == {"name": "batched", "settings": asked, "reason": None}


def test_a_resumed_run_obeys_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = ["model=mlp", "data.days=120", "debug=quick", "rounds=1", "baselines.max_plants=0"]
    cfg = compose(["site=detroit,houston", "engine.stack_from=2", *few])
    first = simulate(cfg, tmp_path / "run")
    kept = read_json(tmp_path / "run" / "manifest.json")["engine"]
    assert first["engine"] == kept["name"] == "batched"
    assert kept["settings"]["_target_"].endswith("BatchedGrid") and "2 sites" in kept["reason"]

    def never(self: Auto, work: Workload) -> None:
        raise AssertionError("a resumed run must not choose again")

    monkeypatch.setattr(Auto, "choose", never)
    assert resume([f"resume={tmp_path / 'run'}", "rounds=2"])["engine"] == "batched"


def test_reasons_name_the_numbers_that_decided() -> None:
    cuda = torch.device("cuda")
    reasons = [
        (work("mlp", sampled=123), "123 sites a round train faster as stacks"),
        (work("cnn", sampled=77, device=cuda), "77 sites a round on a GPU"),
        (work(sampled=3, device=cuda), "3 sites a round are too few to stack (from 8)"),
        (work(sampled=2, rounds=10, steps=1000), "20,000 training steps repay the start of 2 pro"),
        (work(sampled=9, rounds=100, steps=100), "repay the start of stacks in 4 processes"),
        (work(sampled=2, rounds=1, steps=900), "1,800 training steps take less time"),
        (work(cores=1), "one core"),
    ]
    for load, words in reasons:
        assert words in Auto().choose(load).reason


def test_the_threshold_is_that_of_the_yaml() -> None:
    from_three = Auto(stack_from=3)
    assert from_three.choose(work("mlp", sampled=3)).name == "batched"
    assert from_three.choose(work("mlp", sampled=2)).name == "serial"
    assert Auto(workers=1).choose(work(steps=10**6)).name == "serial"


def test_a_model_that_cannot_be_stacked_is_not_and_the_reason_is_said() -> None:
    stubborn = work("mlp", sampled=50, obstacle=lambda: "cannot train Odd as a stack of sites")
    choice = Auto().choose(stubborn)
    assert choice.name == "serial" and "Odd" in choice.reason


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("engine.workers=0", "engine.workers=0"),
        ("engine.chunk=-1", "engine.chunk=-1"),
        ("engine.stack_from=0", "engine.stack_from=0"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_a_run(setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(compose([setting]))


@pytest.mark.parametrize(
    "given",
    [
        ["engine=batched", "engine.chunk=0"],
        ["engine=batched", "engine.cuda_graphs=true"],
        ["engine=ray", "engine.workers=0"],
        ["engine=ray", "engine.num_gpus_per_worker=0.5"],
        ["engine=ray", "engine.address=127.0.0.1:9"],
    ],
    ids=" ".join,
)
def test_a_refused_engine_leaves_no_run_folder(given: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=given[1].split("=")[0]):
        build(compose(given))


def test_a_deployed_run_is_not_resumed_as_a_simulation(tmp_path: Path) -> None:
    few = ["model=mlp", "data.days=120", "debug=quick", "rounds=1", "baselines.max_plants=0"]
    folder = tmp_path / "run"
    simulate(compose(["site=detroit,houston", "engine=serial", *few]), folder)
    manifest = read_json(folder / "manifest.json")
    manifest["engine"] = {"name": "flower", "settings": {}, "reason": None}
    write_json(folder / "manifest.json", manifest)
    with History.open(folder) as history:
        history.sealed.seal("manifest.json")
    with pytest.raises(HistoryError, match="flwr run"):
        resume([f"resume={folder}", "rounds=2"])
