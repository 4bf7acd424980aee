"""What a config says and nothing reads is refused, wherever it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.serverapp.strategy import FedAvg

from fedpdm.config.command_line import rewrite
from fedpdm.config.compose import compose
from fedpdm.config.schema import arguments_of, located
from fedpdm.config.values import make
from fedpdm.errors import ConfigError
from fedpdm.runs.experiment import build
from fedpdm.runs.folder import stored_run
from fedpdm.simulate import main
from fedpdm.strategies.scaffold import Scaffold
from fedpdm.strategies.wrappers import unwrap

UNREAD = [
    ("roundz: 3", "roundz", "rounds"),
    ("evaluate: {treshold: cost}", "evaluate.treshold", "threshold"),
    ("evaluate: {costs: {mised: 3}}", "evaluate.costs.mised", "missed"),
    ("training: {learning_rat: 1}", "training.learning_rat", "learning_rate"),
    ("baselines: {training: {batchsize: 3}}", "baselines.training.batchsize", "batch_size"),
    ("baselines: {alone: {rouns: 3}}", "baselines.alone.rouns", "rounds"),
    ("model: {trainin: {}}", "model.trainin", "training"),
    ("model: {training: {learning_rat: 1}}", "model.training.learning_rat", "learning_rate"),
    ("monitor: {rolback: true}", "monitor.rolback", "rollback"),
    ("faults: {nann: houston@1}", "faults.nann", "nan"),
    ("deployment: {start_timout: 1}", "deployment.start_timout", "start_timeout"),
]
NO_ARGUMENT = [
    ("engine: {wrkers: 3}", "engine.wrkers", "workers"),
    ("strategy: {fraction_trian: 1}", "strategy.fraction_trian", "fraction_train"),
    ("task: {horzon: 3}", "task.horzon", "horizon"),
    ("data: {dayz: 3}", "data.dayz", "days"),
    ("features: {mod: raw}", "features.mod", "mode"),
    ("partition: {alpha: 1}", "partition.alpha", "none"),
    ("server: {rate: 1}", "server.rate", "none"),
    ("tracker: {_target_: fedpdm.trackers.mlflow.MLflow, urii: x}", "tracker.urii", "uri"),
    ("travels: {_target_: fedpdm.models.policy.Named, patern: []}", "travels.patern", "patterns"),
    (
        "strategy: {_target_: fedpdm.strategies.scaffold.Scaffold, server_learning_rat: 1}",
        "strategy.server_learning_rat", "server_learning_rate",
    ),
    (
        "transforms: {mine: {_target_: tests.toys.clip_and_noise.ClipAndNoise, bond: 1}}",
        "transforms.mine.bond", "bound",
    ),
]  # fmt: skip


def own(folder: Path, text: str) -> str:
    """Write an experiment of somebody's own, and return the option that finds it."""
    (folder / "experiment").mkdir()
    (folder / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    return f"--config-dir={folder}"


@pytest.mark.parametrize(("text", "key", "right"), UNREAD)
def test_a_key_that_nothing_reads_is_refused(
    text: str, key: str, right: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"{key}\b.*\b{right}\b"):
        compose([own(tmp_path, text), "experiment=mine"])


@pytest.mark.parametrize(("text", "key", "right"), [*UNREAD[:3], *NO_ARGUMENT])
def test_the_command_refuses_it_without_a_traceback_or_a_folder(
    text: str, key: str, right: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    words = [own(tmp_path, text), "experiment=mine", "model=mlp", f"hydra.run.dir={folder}"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert key in said and right in said and not folder.exists()


def test_a_sweep_a_config_changed_in_python_and_a_stored_one_are_checked(tmp_path: Path) -> None:
    option = own(tmp_path, "monitor: {rolback: true}")
    words = ["-m", "experiment=mine", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    assert main([option, *words]) == 2
    assert not list(tmp_path.glob("sweep/*/*"))
    cfg = compose([])
    cfg.history = {"kep": 3}
    with pytest.raises(ConfigError, match=r"history\.kep.*keep"):
        build(cfg)
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "config.yaml").write_text("roundz: 3\n")
    with pytest.raises(ConfigError, match=r"roundz.*rounds"):
        stored_run([f"resume={tmp_path}"])


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("fedpdm.strategies.scaffold.Scafold", r"fedpdm\.strategies\.scaffold .*Scaffold\?"),
        ("fedpdm.strategies.scafold.Scaffold", r"no module 'fedpdm\.strategies\.scafold'"),
        ("no_such_lab.Drift", "no module 'no_such_lab'"),
        ("Drift", "dotted path"),
    ],
)
def test_what_is_missing_of_a_class_is_named(path: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"strategy: .*{said}"):
        located(path, "strategy")
    for key in ("strategy", "engine"):
        with pytest.raises(ConfigError, match=f"{key}: .*{said}"):
            build(compose([f"{key}={{_target_: {path}}}"]))


def test_a_class_takes_what_its_bases_take_only_if_it_hands_it_on() -> None:
    class Closed(FedAvg):
        def __init__(self, mine: int) -> None:
            super().__init__()

    class Free:
        def __init__(self, **settings: int) -> None: ...

    class Nothing: ...

    names, anything = arguments_of(Scaffold)
    assert {"server_learning_rate", "fraction_train"} <= names and not anything
    assert arguments_of(Closed) == ({"mine"}, False)
    assert arguments_of(Free) == (set(), True)
    assert arguments_of(Nothing) == (set(), False)


def test_a_key_beside_those_of_the_yaml_is_added_with_a_plus() -> None:
    with pytest.raises(ConfigError, match=r"\+strategy\.min_train_nodes="):
        compose(["strategy.min_train_nodes=3"])
    assert compose(["+strategy.min_train_nodes=3"]).strategy.min_train_nodes == 3


def test_flags_and_overrides_come_in_any_order() -> None:
    mixed = ["hydra.run.dir=x", "--config-dir", "own", "strategy=mine", "-m", "seed=0,1", "~task"]
    assert rewrite(mixed) == [
        "--config-dir", "own", "-m", "hydra.run.dir=x", "strategy=mine", "seed=0,1", "~task",
    ]  # fmt: skip


def test_a_block_takes_the_place_of_the_chosen_option() -> None:
    inner = "strategy: {_target_: flwr.serverapp.strategy.FedAdam, eta: 0.3}"
    kind = "flwr.serverapp.strategy.DifferentialPrivacyServerSideFixedClipping"
    rest = "noise_multiplier: 0.1, clipping_norm: 1.0, num_sampled_clients: 2"
    cfg = compose(["strategy=fedprox", f"strategy={{_target_: {kind}, {inner}, {rest}}}"])
    outer, held = unwrap(build(cfg).strategy)
    assert type(outer).__name__ == kind.rpartition(".")[2]
    assert vars(held)["eta"] == 0.3 and "fraction_train" not in cfg.strategy
    assert compose(["engine={workers: 3}"]).engine == {**compose([]).engine, "workers": 3}


@pytest.mark.parametrize(
    "block", ["task", "strategy", "partition", "objective", "travels", "tracker", "engine",
              "transforms.mine", "server"],
)  # fmt: skip
def test_a_class_of_another_kind_is_refused_before_there_is_a_folder(
    block: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "{_target_: fractions.Fraction}"
    word = block.replace("transforms.mine", "+transforms.mine")
    assert main([f"{word}={other}", f"hydra.run.dir={tmp_path}/run"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"error: {block}") and "fractions.Fraction is no " in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("block", ["strategy", "transforms.mine", "objective"])
def test_what_a_function_makes_of_another_kind_is_refused(block: str) -> None:
    with pytest.raises(ConfigError, match=f"^{block}: uuid.UUID is no "):
        make({"_target_": "uuid.uuid4"}, block)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["strategy=fedavg,fedprox"], "-m"),
        (["--config-dir=a", "--config-dir=b"], "twice"),
        (["data.days=3", "data={_target_: fedpdm.data.fleet.source.FleetSource}"], "whole"),
    ],
)
def test_other_slips_name_the_way_out(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        Path(name).mkdir()
    assert main(words) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
