"""Privacy as a command line chooses it: what is refused, written, counted and withheld."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any, cast

import pytest
from flwr.app import Context, RecordDict
from flwr.serverapp import Grid

from fedpdm.config.command_line import options
from fedpdm.config.compose import compose
from fedpdm.deployment.server import serve
from fedpdm.errors import ConfigError, FedPdmError, HistoryError
from fedpdm.history import History
from fedpdm.privacy.base import sentence
from fedpdm.runs.experiment import build
from fedpdm.runs.folder import stored_run
from fedpdm.simulate import simulate

TINY = [
    "model=mlp", "rounds=2", "replicas=2", "sites.detroit.machines=3", "sites.houston.machines=3",
    "data.days=150", "baselines.controls=[]", "evaluate.bootstrap=0", "engine=serial",
    "training.local_epochs=1",
]  # fmt: skip
KINDS = [kind for kind in options("privacy") if kind != "none"]


def run(folder: Path, *overrides: str) -> dict[str, Any]:
    simulate(compose([*TINY, *overrides]), folder)
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_runs_and_says_what_it_guarantees(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run(tmp_path, f"privacy={kind}", "privacy.epsilon=8")
    found, manifest = summary["privacy"], json.loads((tmp_path / "manifest.json").read_text())
    assert 7.9 < found["epsilon"] <= 8.0 and found["target_epsilon"] == 8.0
    assert found["delta"] == 1e-5 and found["undone"] == 0 and found["rounds"] == 2
    assert manifest["privacy"].items() <= found.items()
    assert summary["best_round"] == 2 and summary["validation"]["best"] is None
    assert summary["options"]["scaling"] == "plant"
    shown = " ".join(capsys.readouterr().out.split())
    page = html.unescape((tmp_path / "report.html").read_text())
    for text in (shown, page):
        assert found["protects"] in text and found["against"] in text
        assert all(words in text for words in found["not_covered"])
    with History.open(tmp_path) as history:
        for record in history.rounds()[1:]:
            assert record.metrics["train_loss"] is None
            assert all(s.get("examples", 1) == 1 and not s.get("validation")
                       for s in record.sites.values())  # fmt: skip


def test_without_privacy_nothing_is_said(tmp_path: Path) -> None:
    assert run(tmp_path, "rounds=1")["privacy"] is None
    assert "privacy" not in json.loads((tmp_path / "manifest.json").read_text())


def test_rounds_that_were_taken_back_are_counted(tmp_path: Path) -> None:
    given = ["privacy=central", "privacy.epsilon=null", "privacy.noise_multiplier=2"]
    once = run(tmp_path, *given)["privacy"]
    with History.open(tmp_path) as history:
        history.rollback(1, by="person", reason="a test")
    cfg, folder = stored_run([f"resume={tmp_path}"])
    simulate(cfg, folder, resumed=True)
    again = json.loads((tmp_path / "summary.json").read_text())["privacy"]
    assert (once["releases"], again["releases"], again["undone"]) == (2, 3, 1)
    assert again["epsilon"] > once["epsilon"]
    assert "taken back and counted" in sentence(again)


def test_a_budget_is_settled_for_the_rounds_that_a_run_began_with(tmp_path: Path) -> None:
    run(tmp_path, "privacy=central", "rounds=1")
    cfg, folder = stored_run([f"resume={tmp_path}", "rounds=3"])
    with pytest.raises(HistoryError, match="noise_multiplier"):
        simulate(cfg, folder, resumed=True)


def test_a_run_of_given_noise_may_be_made_longer(tmp_path: Path) -> None:
    given = ["privacy=local", "privacy.epsilon=null", "privacy.noise_multiplier=9", "rounds=1"]
    before = run(tmp_path, *given)["privacy"]["epsilon"]
    cfg, folder = stored_run([f"resume={tmp_path}", "rounds=2"])
    assert simulate(cfg, folder, resumed=True)["privacy"]["epsilon"] > before


def planned(*overrides: str) -> dict[str, Any]:
    privacy = build(compose([*TINY, *overrides])).privacy
    assert privacy is not None
    return privacy.plan()


def test_no_noise_is_no_protection() -> None:
    plan = planned(
        "privacy=central", "privacy.epsilon=null", "privacy.noise_multiplier=0", "privacy.clip=null"
    )
    assert plan["planned_epsilon"] is None and "protects nobody" in sentence(plan)


def test_amplification_is_that_of_the_sampling() -> None:
    given = ["privacy=central", "privacy.epsilon=null", "privacy.noise_multiplier=1.5"]
    half = [*given, "strategy.fraction_train=0.5"]
    poisson, fixed = planned(*half), planned(*half, "server=synchronous")
    assert (poisson["sampling"], fixed["sampling"]) == ("poisson", "fixed")
    assert poisson["planned_epsilon"] < fixed["planned_epsilon"]
    assert planned(*given)["planned_epsilon"] > poisson["planned_epsilon"]
    local = [word.replace("central", "local") for word in half]
    assert planned(*local)["sampling"] == "none"


def test_what_is_not_covered_is_named() -> None:
    open_ = planned("privacy=central", "scaling=federated", "privacy.validation=reported")
    closed = planned("privacy=central")
    assert open_["leaves"]["sums of rows for the shared scaler"] == "not covered"
    assert open_["leaves"]["validation losses and metrics"] == "not covered"
    assert closed["leaves"]["validation losses and metrics"] == "withheld"
    assert len(open_["not_covered"]) == len(closed["not_covered"]) + 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["privacy=central", "strategy=fedmedian"], "every single update"),
        (["privacy=central", "strategy=fednova"], "counts every site once"),
        (["privacy=central", "strategy=scaffold", "strategy.fraction_train=0.5"], "count them"),
        (["privacy=local", "model=gbdt"], "trained by gradients"),
        (["privacy=local", "strategy=qfedavg"], "counts every site once"),
        (["privacy=dpsgd", "strategy=scaffold"], "number of steps"),
        (["privacy=central", "model=cnn"], "travels=no_norm"),
        (["privacy=dpsgd", "model=cnn"], "mixes the windows"),
        (["privacy=dpsgd", "training.augment.mixup=0.4"], "mixup"),
        (["privacy=dpsgd", "training.resample=oversample"], "training.resample"),
        (["privacy=dpsgd", "engine=batched"], "stack"),
        (["privacy=central", "client_mods=[fixedclipping_mod]"], "client_mods"),
        (["privacy=central", "privacy.noise_multiplier=1"], "exclude each other"),
        (["privacy=central", "privacy.epsilon=null"], "exclude each other"),
        (["privacy=central", "privacy.epsilon=-1"], "privacy.epsilon"),
        (["privacy=central", "privacy.delta=0.5"], "below 1/4"),
        (["privacy=central", "privacy.clip=null"], "bounds nothing"),
        (["privacy=dpsgd", "privacy.sampling_rate=2"], "sampling_rate"),
        (["privacy=central_adaptive", "privacy.count_noise=0.1"], "count_noise"),
        (["privacy=central_adaptive", "privacy.quantile=0"], "quantile"),
    ],
)
def test_what_cannot_work_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(compose([*TINY, *overrides]))


@pytest.mark.parametrize(
    "overrides",
    [
        ["privacy=central", "model=cnn", "travels=no_norm"],
        ["privacy=central", "strategy=scaffold"],
        ["privacy=central", "strategy=fedprox"],
        ["privacy=local", "strategy=fedmedian", "replicas=3"],
        ["privacy=dpsgd", "strategy=fedprox", "model=lstm"],
    ],
)
def test_what_goes_together_is_built(overrides: list[str]) -> None:
    assert build(compose([*TINY, *overrides])).privacy is not None


def test_under_a_superlink_it_is_refused_before_anybody_is_waited_for() -> None:
    context = Context(1, 1, {}, RecordDict(), {"overrides": "privacy=local model=mlp"})
    with pytest.raises(ConfigError, match="every supernode"):
        serve(cast(Grid, None), context)


def test_a_folder_with_other_noise_is_named() -> None:
    from fedpdm.runs.privacy import refuse_other_noise

    privacy = build(compose([*TINY, "privacy=central"])).privacy
    assert privacy is not None
    refuse_other_noise(privacy.plan(), privacy, "run")
    with pytest.raises(FedPdmError, match="delta"):
        refuse_other_noise(privacy.plan() | {"delta": 1e-9}, privacy, "run")
