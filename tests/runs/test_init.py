"""``init=RUN``: pretrained without labels, taken over with a proof, frozen, resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from fedpdm.config.command_line import rewrite
from fedpdm.errors import ConfigError
from fedpdm.history import History
from fedpdm.models import ModelFactory, ModelWrapper
from fedpdm.runs.initial import load
from fedpdm.simulate import main
from fedpdm.storage import read_tensors
from fedpdm.wire.records import Arrays

SMALL = [
    "site=detroit,houston", "sites.detroit.machines=8", "sites.houston.machines=8",
    "data.days=150", "baselines.max_plants=0", "evaluate.bootstrap=0", "training.local_epochs=1",
    "engine=serial",
]  # fmt: skip
PLAIN = ["model.config.dropout_rate=0.0"]


def simulate(folder: Path, *arguments: str) -> dict[str, Any]:
    assert main([*SMALL, *arguments, f"hydra.run.dir={folder}"]) == 0
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def weights(folder: Path, round: int | None = None) -> Arrays:
    with History.open(folder) as history:
        return history.weights(round)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init") / "pretrained"
    summary = simulate(
        folder, "task=reconstruction", "rounds=3", "training.local_epochs=2",
        "training.batch_size=8", "baselines.max_plants=2", "baselines.processes=0",
    )  # fmt: skip
    assert summary["validation"]["metric"] == "reconstruction_error"
    return folder


def test_pretraining_beats_the_mean_and_says_where_it_stands(pretrained: Path) -> None:
    test = json.loads((pretrained / "summary.json").read_text())["test"]
    ours = test["global"]
    assert ours["reconstruction_error"] < 0.9 * ours["mean_error"]
    baselines = test["baselines"]
    assert set(baselines) == {"trivial", "alone", "pooled", "interpolation"}
    for name, error in (("trivial", "mean_error"), ("interpolation", "interpolation_error")):
        assert baselines[name]["global"]["reconstruction_error"] == ours[error]
    assert test["alarms"] is None and test["calibration"] is None


def test_a_run_starts_from_the_encoder_and_the_scaler(pretrained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    simulate(run, f"init={pretrained}", "rounds=1", "data.days=120", "init.freeze_rounds=all")
    there, began, ended = weights(pretrained, 3), weights(run, 0), weights(run, 1)
    encoder = [name for name in began if name.startswith("lstm.")]
    assert len(encoder) == 8
    for name in encoder:
        assert np.array_equal(began[name], there[f"encoder.{name}"])
        assert np.array_equal(ended[name], began[name])  # frozen, to the bit
    for name in set(began) - set(encoder):
        assert not np.array_equal(ended[name], began[name])
    proof = manifest(run)["init"]
    assert (proof["tensors"], proof["loaded"], proof["different"]) == (8, 8, 8)
    assert proof["scope"] == "encoder" and proof["round"] == 3
    assert proof["data_sha256"] == manifest(pretrained)["data"]["sha256"]
    assert proof["data_sha256"] != manifest(run)["data"]["sha256"]  # other months
    assert proof["said"] in (run / "report.html").read_text().replace("&#39;", "'")
    scaler = read_tensors(run / "scaler.safetensors")
    for name, array in read_tensors(pretrained / "scaler.safetensors").items():
        assert np.array_equal(scaler[name], array)


def test_scalers_that_do_not_fit_are_made_anew(pretrained: Path, tmp_path: Path) -> None:
    simulate(tmp_path, f"init={pretrained}", "rounds=1", "scaling=plant")
    proof = manifest(tmp_path)["init"]
    assert proof["scaler"] == "own" and "scaling=plant" in proof["said"]


def test_a_whole_model_goes_on_where_the_other_run_ended(pretrained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    simulate(run, "task=reconstruction", f"init={pretrained}", "rounds=1")
    assert manifest(run)["init"]["scope"] == "whole"
    there, began = weights(pretrained, 3), weights(run, 0)
    assert began.keys() == there.keys()
    assert all(np.array_equal(began[name], there[name]) for name in there)


def test_unfrozen_after_a_round_and_resumed_without_the_other_folder(
    pretrained: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(pretrained, source)
    settings = [f"init={source}", "init.freeze_rounds=1", "init.unfrozen_rate=0.3"]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    simulate(straight, *settings, "rounds=3")
    simulate(stopped, *settings, "rounds=1")
    shutil.rmtree(source)
    assert main([f"resume={stopped}", "rounds=3"]) == 0
    for round in range(4):
        a, b = weights(straight, round), weights(stopped, round)
        assert all(np.array_equal(a[name], b[name]) for name in a), round
    name = "lstm.weight_hh_l0"
    rounds = [weights(straight, round)[name] for round in range(4)]
    assert np.array_equal(rounds[0], rounds[1])
    assert not np.array_equal(rounds[1], rounds[2])


def test_serial_and_batched_freeze_alike(tmp_path: Path) -> None:
    settings = ["model=hybrid", *PLAIN, "rounds=2", "init.freeze_rounds=1",
                "init.unfrozen_rate=0.3", "strategy=fedprox"]  # fmt: skip
    for engine in ("serial", "batched"):
        simulate(tmp_path / engine, *settings, f"engine={engine}")
    for round in (1, 2):
        serial, batched = (weights(tmp_path / e, round) for e in ("serial", "batched"))
        for name, array in serial.items():
            np.testing.assert_allclose(batched[name], array, rtol=0, atol=2e-5, err_msg=name)
    for engine in ("serial", "batched"):
        began, frozen, free = (weights(tmp_path / engine, round) for round in range(3))
        encoder = [n for n in began if not n.startswith(("fc1", "output"))]
        assert encoder and all(np.array_equal(began[n], frozen[n]) for n in encoder)
        assert not np.array_equal(frozen["lstm.weight_hh_l0"], free["lstm.weight_hh_l0"])


def test_alone_and_pooled_start_from_the_same_weights(pretrained: Path, tmp_path: Path) -> None:
    """Frozen to the end, a baseline that began elsewhere could not have the encoder."""
    from fedpdm.baselines.networks import train_whole
    from fedpdm.config.compose import compose
    from fedpdm.runs.assembly import baseline_inputs
    from fedpdm.runs.experiment import build

    cfg = compose([*SMALL, "baselines.max_plants=2", f"init={pretrained}", "rounds=2",
                   "init.freeze_rounds=all"])  # fmt: skip
    inputs = baseline_inputs(build(cfg))
    site = inputs.own_site("detroit")
    trained = train_whole(inputs, inputs.alone, site.train, site.validation, ("alone", "detroit"))
    there = weights(pretrained, 3)
    for name, tensor in trained.module.state_dict().items():
        if name.startswith("lstm."):
            assert np.array_equal(tensor.numpy(), there[f"encoder.{name}"])
    assert inputs.scaler is inputs.taken_scaler is not None


# The load proof ----------------------------------------------------------------------------


def lstm(**config: Any) -> ModelWrapper:
    return ModelFactory.create_model("lstm", 5, 2, sequence_length=20, **config)


def checkpoint(model: ModelWrapper) -> Arrays:
    """Return what a run of this model would have, every tensor trained."""
    return {name: array + 0.01 for name, array in model.snapshot().items()}


def test_the_proof_counts_what_was_loaded() -> None:
    there = checkpoint(lstm())
    taken, counts = load(lstm(), there, "lstm", "encoder", "init=run")
    assert counts == {"tensors": 8, "loaded": 8, "different": 8}
    assert set(taken) == {name for name in there if name.startswith("lstm.")}


def renamed(there: Arrays) -> Arrays:
    return {n.replace("lstm.", "rnn.") if "_hh_" in n else n: a for n, a in there.items()}


def test_the_proof_refuses_what_is_not_the_encoder() -> None:
    cases: list[tuple[ModelWrapper, Arrays, str]] = [
        (lstm(num_layers=2), checkpoint(lstm()), "8 of 16 .*not there: lstm.weight_ih_l1"),
        (lstm(), checkpoint(lstm(num_layers=2)), "8 of 16 .*not here: lstm.weight_ih_l1"),
        (lstm(), renamed(checkpoint(lstm())), "not there: lstm.weight_hh_l0"),
        (lstm(hidden_size=32), checkpoint(lstm()), r"lstm.weight_ih_l0 is \(256, 5\) there"),
    ]
    for model, there, said in cases:
        with pytest.raises(ConfigError, match=said):
            load(model, there, "lstm", "encoder", "init=run")
    fresh = lstm()
    with pytest.raises(ConfigError, match="8 of 8 .*0 of them were trained.*untrained: "):
        load(fresh, fresh.snapshot(), "lstm", "encoder", "init=run")
    other = checkpoint(lstm())
    with pytest.raises(ConfigError, match="8 of 8 .*0 of them were trained.*untrained: "):
        load(lstm(), other, "lstm", "encoder", "init=run", other)
    mlp = ModelFactory.create_model("mlp", 5, 2, sequence_length=20)
    with pytest.raises(ConfigError, match="model=mlp does not say what its encoder is"):
        load(mlp, mlp.snapshot(), "mlp", "encoder", "init=run")


class Hundred(nn.Module):
    """A hundred tensors of an encoder."""

    encoder_names = ("body",)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ParameterList([nn.Parameter(nn.init.normal_(nn.Parameter(
            nn.Linear(2, 1).weight.detach()))) for _ in range(100)])  # fmt: skip


@pytest.mark.parametrize(("changed", "enough"), [(79, False), (80, True)])
def test_the_proof_needs_eighty_percent(
    changed: int, enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedpdm.models import registry

    registry.discover()
    monkeypatch.setattr(registry, "_classes", {**registry._classes, "hundred": Hundred})
    model = ModelWrapper(Hundred(), "hundred")
    trained = {name: array + (int(name.removeprefix("body.")) < changed)
               for name, array in model.snapshot().items()}  # fmt: skip
    there = dict(list(checkpoint(model).items())[:changed])
    for offered in (trained, there):  # as initialised; and not there
        fresh = ModelWrapper(Hundred(), "hundred")
        fresh.set_parameters(model.get_parameters())
        if enough:
            counts = load(fresh, offered, "hundred", "encoder", "init=run")[1]
            assert counts["different"] == 80
        else:
            with pytest.raises(ConfigError, match="79 of"):
                load(fresh, offered, "hundred", "encoder", "init=run")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["init=nowhere"], "model.json"),
        (["init=RUN", "init.scope=head"], "init.scope=head"),
        (["init=RUN", "init.scope=whole"], "take its encoder only: init.scope=encoder"),
        (["init=RUN", "model=hybrid"], "lstm.weight_ih_l0 is"),
        (["init=RUN", "model.config.hidden_size=32"], "lstm.weight_ih_l0 is"),
        (["init.freeze_rounds=some"], "init.freeze_rounds=some"),
        (["init.freeze_rounds=1", "model=mlp"], "model=mlp does not say"),
        (["init.unfrozen_rate=0.3", "strategy=scaffold"], "one learning rate"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], said: str, pretrained: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = [argument.replace("RUN", str(pretrained)) for argument in arguments]
    assert main([*SMALL, *given, f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_init_is_short_for_its_run() -> None:
    assert rewrite(["init=runs/a"]) == ["init.run=runs/a"]
    assert rewrite(["init=null,runs/a"]) == ["init.run=null,runs/a"]
