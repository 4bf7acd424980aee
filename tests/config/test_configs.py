"""Every option composes and makes its object; every override does something."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from fedpdm.config.command_line import groups, options, rewrite
from fedpdm.config.compose import compose
from fedpdm.errors import ConfigError, UserError
from fedpdm.evaluation.protocol import Costs
from fedpdm.runs.experiment import build
from fedpdm.simulate import help_text

EVERY = [(group, option) for group in groups() for option in options(group)]


@pytest.mark.parametrize(("group", "option"), EVERY, ids=lambda value: value)
def test_every_option_composes(group: str, option: str) -> None:
    choice = f"site=[{option}]" if group == "site" else f"{group}={option}"
    extra = ["data=files"] if option == "example_plant" else []
    OmegaConf.resolve(compose([choice, *extra]) if extra else chosen(choice).copy())


@cache
def chosen(option: str) -> DictConfig:
    return compose([option])


OWN = {
    "program": "program_decoder",
    "reconstruction": "masked_autoencoder",
    "anomaly": "masked_autoencoder",
}
"""Tasks that one model is made for."""


def pairs() -> Iterator[Any]:
    """Yield every model with every task; one network and one task are met by all each time."""
    for model, task in itertools.product(options("model"), options("task")):
        often = task == "failure" or model == "mlp" or OWN.get(task) == model
        yield (model, task) if often else pytest.param(model, task, marks=pytest.mark.long)


@pytest.mark.parametrize(("model", "task"), [*pairs()])
def test_every_model_and_task_builds_on_the_fleet(model: str, task: str) -> None:
    cfg = chosen(f"model={model}").copy()
    for block in ("task", "evaluate", "baselines"):  # that a task's yaml sets
        cfg[block] = chosen(f"task={task}")[block]
    needs, taken = OWN.get(task, model), model in OWN.values() and OWN.get(task) != model
    if task == "operation" or needs != model or taken:
        with pytest.raises(UserError, match=r"data=milling|model=|task="):
            build(cfg)
        return
    experiment = build(cfg)
    assert experiment.task.outputs == experiment.model["num_classes"]


@pytest.mark.parametrize("strategy", options("strategy"))
def test_every_strategy_yaml_has_a_target_and_a_share(strategy: str) -> None:
    node = chosen(f"strategy={strategy}").strategy
    assert instantiate(node).fraction_train == node.fraction_train == 1.0


def test_source_training_settings_reach_the_run() -> None:
    expected = {"cnn": (32, 5e-4, None), "lstm": (16, 5e-4, 1.0), "hybrid": (16, 1e-3, 1.0)}
    for model, (batch, rate, clip) in expected.items():
        settings = build(compose([f"model={model}"])).settings
        assert (settings.batch_size, settings.learning_rate, settings.clip_norm) == (
            batch, rate, clip,
        )  # fmt: skip
        assert settings.weight_decay == 1e-4 and settings.local_epochs == 3
        assert (settings.step_size, settings.gamma) == (10, 0.5)
    assert build(compose(["training.batch_size=5"])).settings.batch_size == 5
    assert build(compose([])).rounds == 10


def test_defaults_are_those_of_the_contract() -> None:
    cfg = compose([])
    assert list(cfg.sites) == ["detroit", "houston"]
    assert cfg.data["_target_"].endswith("FleetSource") and cfg.task["_target_"].endswith("Failure")
    assert cfg.model.model_type == "lstm" and cfg.strategy["_target_"].endswith("FedAvg")
    assert cfg.engine["_target_"].endswith("Auto")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("site=detroit,houston", "site=[detroit,houston]"),
        ("site=houston", "site=[houston]"),
        ("site=[a,b],[c]", "site=[a,b],[c]"),
        ("site=[]", "site=[]"),
        ("strategy=fedavg,fedprox", "strategy=fedavg,fedprox"),
        ("sites.a.machines=3", "sites.a.machines=3"),
        ("sites.a.costs.missed=3", "++sites.a.costs.missed=3"),
        ("sites.a.costs={missed: 3}", "++sites.a.costs={missed: 3}"),
        ("+sites.a.costs.missed=3", "+sites.a.costs.missed=3"),
        ("clock.sites.a.speed=0.1", "++clock.sites.a.speed=0.1"),
        ("~sites.a.costs", "~sites.a.costs"),
        ("-m", "-m"),
    ],
)
def test_only_a_list_of_sites_is_rewritten(given: str, expected: str) -> None:
    assert rewrite([given]) == [expected]


def test_one_site_can_be_edited_and_replicas_are_lazy() -> None:
    experiment = build(
        compose(["site=detroit,houston", "sites.houston.machines=5", "replicas=400"])
    )
    assert len(experiment.federation.sites) == 800
    assert len(set(experiment.federation.rows("houston-400").machine)) == 5
    assert len(experiment.federation._rows) == 1, "no other site was made"


def test_one_site_s_alarms_cost_what_is_said_and_the_site_must_exist() -> None:
    experiment = build(compose(["sites.houston.costs.missed=500", "evaluate.costs.inspection=2"]))
    policy = experiment.protocol.policy
    assert policy.costs_of("houston") == Costs(missed=500.0, false_alarm=1.0, inspection=2.0)
    assert policy.costs_of("detroit") == Costs(inspection=2.0)
    with pytest.raises(ConfigError, match="no site huston; did you mean houston"):
        compose(["sites.huston.costs.missed=500"])
    with pytest.raises(ConfigError, match="weekend"):
        compose(["sites.houston.cost=5"])


@pytest.mark.parametrize("value", ["none", "null", "[]"])
def test_baselines_that_are_not_wanted_are_switched_off_by_their_keys(value: str) -> None:
    with pytest.raises(ConfigError, match=r"baselines\.controls=\[\] or baselines\.max_plants=0"):
        compose([f"baselines={value}"])


def test_a_researchers_own_options_are_found(tmp_path: Path) -> None:
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "mine.yaml").write_text("_target_: flwr.serverapp.strategy.FedAvg\n")
    assert "mine" in options("strategy", ["--config-dir", str(tmp_path)])
    assert "mine" in help_text(["--config-dir", str(tmp_path)])


def test_help_names_every_group_and_option() -> None:
    text = help_text()
    for group, option in EVERY:
        assert group in text and option in text
    assert max(len(line) for line in text.splitlines()) < 140


def test_an_unknown_key_suggests_the_right_one() -> None:
    with pytest.raises(ConfigError, match="did you mean rounds"):
        compose(["round=3"])


def test_the_sites_of_a_command_are_those_of_the_run() -> None:
    """An experiment that sets up four sites of ours leaves out those that are not chosen."""
    assert [*compose(["experiment=homeiq", "site=detroit"]).sites] == ["detroit"]
    assert [*compose(["experiment=homeiq"]).sites] == ["detroit", "houston", "leeds", "nagoya"]
    kept = compose(["experiment=homeiq", "site=leeds"]).sites.leeds
    assert kept.assets.fan == 3, "what the experiment says of it holds"


@pytest.mark.parametrize(
    "words",
    [
        ["task=anomaly", "training.resample=oversample"],
        ["task=anomaly", "objective=focal"],
        ["model=gbdt", "training.amp=true"],
        ["model=gbdt", "training.augment.jitter=0.1"],
        ["experiment=gcode_encoder", "training.augment.jitter=0.1"],
        ["features=both", "training.augment.time_warp=0.1"],
        ["model=mixer_hybrid", "model.config.freeze_encoder=true", "init.freeze_rounds=3"],
    ],
)
def test_options_that_would_cancel_each_other_are_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError):
        build(compose(words))


def test_each_task_of_an_experiment_brings_its_model() -> None:
    assert compose(["experiment=homeiq"]).model.model_type == "lstm"
    cfg = compose(["experiment=homeiq", "task=anomaly"])
    assert cfg.model.model_type == "masked_autoencoder"
    assert build(compose(["training.augment=null"])).objective.stacks


def test_the_head_is_what_gives_the_output() -> None:
    """A reconstruction layer that was registered after it is no head."""
    experiment = build(compose(["experiment=gcode_encoder", "travels=head"]))
    assert experiment.parts.shared
    assert all(name.startswith("output.") for name in experiment.parts.shared)
