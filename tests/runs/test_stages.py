"""``init.pretrain=[…]``: both stages in one command are the two commands, also when killed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpdm.config.command_line import rewrite
from fedpdm.config.stages import first_stage
from fedpdm.errors import ConfigError
from fedpdm.history import History
from fedpdm.simulate import main
from fedpdm.sweep import held
from fedpdm.wire.records import Arrays

DATA = [
    "site=detroit,houston", "sites.detroit.machines=8", "sites.houston.machines=8",
    "data.days=120", "baselines.max_plants=0", "evaluate.bootstrap=0", "training.local_epochs=1",
    "engine=serial",
]  # fmt: skip
SMALL = [*DATA, "rounds=2", "model.config.hidden_size=8"]
SECOND = ["init.freeze_rounds=1", "init.unfrozen_rate=0.5"]
FIRST = ["task=reconstruction", "+model.config.settings.hidden_size=8", "rounds=3"]
PRETRAIN = f"init.pretrain=[{','.join(FIRST)}]"
COMMITS = 4
"""Of the first stage: round 0 and three more."""


def weights(folder: Path) -> list[Arrays]:
    with History.open(folder) as history:
        return [history.weights(record.round) for record in history.rounds()]


def same(one: Path, other: Path) -> bool:
    pairs = zip(weights(one), weights(other), strict=True)
    return all(a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)
               for a, b in pairs)  # fmt: skip


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages") / "whole"
    assert main([*SMALL, *SECOND, PRETRAIN, f"hydra.run.dir={folder}"]) == 0
    return folder


def test_one_command_is_the_two_commands(whole: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([*DATA, *FIRST, f"hydra.run.dir={first}"]) == 0
    assert main([*SMALL, *SECOND, f"init={first}", f"hydra.run.dir={second}"]) == 0
    assert same(whole / "pretraining", first) and same(whole, second)
    one, two = read(whole / "manifest.json")["init"], read(second / "manifest.json")["init"]
    apart = {"run", "said", "cost"}
    assert {k: v for k, v in one.items() if k not in apart} == {
        k: v for k, v in two.items() if k not in apart
    }


def test_the_first_stage_is_a_run_whose_cost_is_said(whole: Path) -> None:
    there, here = read(whole / "pretraining/summary.json"), read(whole / "summary.json")
    assert there["task"] == "reconstruction" and (whole / "pretraining/report.html").exists()
    assert there["init"] is None and here["init"]["run"] == "pretraining"
    cost = here["init"]["cost"]
    assert cost["bytes"] == there["bytes"] and cost["rounds"] == 3
    assert cost["seconds"] == there["seconds"]["total"]
    said = read(whole / "manifest.json")["init"]["said"]
    assert f"{sum(cost['bytes'].values()) / 1e6:.3g} MB in 3 rounds" in said
    assert said in (whole / "report.html").read_text().replace("&#39;", "'")


class Killed(BaseException):
    """The end of a process that nothing catches."""


@pytest.mark.parametrize("commits", [2, COMMITS + 1])
def test_a_kill_in_either_stage_is_continued_by_the_same_resume(
    whole: Path, tmp_path: Path, commits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, left, commit = tmp_path / "run", [commits], History.commit

    def dying(self: History, *arguments: Any, **named: Any) -> Any:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return commit(self, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(History, "commit", dying)
        with pytest.raises(Killed):
            main([*SMALL, *SECOND, PRETRAIN, f"hydra.run.dir={folder}"])
    # Its first stage is nobody else's: neither a new run nor another one may take it over.
    assert main([*SMALL, f"hydra.run.dir={folder}"]) == 2
    assert main([f"resume={folder}"]) == 0
    assert same(folder, whole) and same(folder / "pretraining", whole / "pretraining")
    kept = {"seconds", "processor_seconds", "init"}
    a, b = ({k: v for k, v in read(f / "summary.json").items() if k not in kept}
            for f in (folder, whole))  # fmt: skip
    assert a == b


def test_a_sweep_goes_on_with_the_stage_that_it_was_in(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["-m", *SMALL, *SECOND, PRETRAIN, "seed=42", f"hydra.sweep.dir={tmp_path / 'all'}"]
    commit = History.commit

    def dying(self: History, record: Any, *arguments: Any, **named: Any) -> Any:
        if record.round == 2:
            raise Killed
        return commit(self, record, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(History, "commit", dying)
        with pytest.raises(Killed):
            main(command)
    assert not held(tmp_path / "all/0")
    assert main(command) == 0
    assert same(tmp_path / "all/0", whole)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([PRETRAIN, "strategy=fedprox", "strategy.proximal_mu=-1"], "proximal_mu"),
        ([PRETRAIN, "init.freeze_rounds=soon"], "init.freeze_rounds"),
        ([PRETRAIN, "model.config.hidden_size=9"], "shapes"),
        ([PRETRAIN, "model=cnn"], "encoder_names"),
        ([PRETRAIN, "model=gbdt"], "init.pretrain"),
        ([PRETRAIN, "task.horizon=9999"], "task.horizon"),
        ([PRETRAIN, "init=somewhere"], "init.pretrain"),
        (["init.pretrain=[task=nonsense]"], "first stage"),
        (["init.pretrain=[task=reconstruction,round=3]"], "'round'"),
        (["init.pretrain=[task=reconstruction,model.config.share=7]"], "share"),
        (["init.pretrain=[task=reconstruction,init.scope=whole]"], "init.scope"),
        (["init.pretrain=reconstruction"], "list of overrides"),
        (["pretraining={rounds:3}"], "init.pretrain"),
    ],
)
def test_a_mistake_in_either_stage_is_refused_before_anything_is_trained(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main([*DATA, "rounds=2", *arguments, f"hydra.run.dir={folder}"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not folder.exists()


def test_a_kill_between_the_stages_leaves_the_first_one_as_it_is(
    whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole / "pretraining", folder / "pretraining")
    shutil.copy(whole / "config.yaml", folder)
    assert main([f"resume={folder}"]) == 0
    assert same(folder, whole) and same(folder / "pretraining", whole / "pretraining")


def test_the_config_between_the_stages_is_data(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    (folder / "pretraining").mkdir(parents=True)
    (folder / "pretraining/manifest.json").write_text(
        (whole / "pretraining/manifest.json").read_text()
    )
    config = (whole / "config.yaml").read_text()
    target = "fedpdm.tasks.Reconstruction"
    assert config.count(target) == 1
    (folder / "config.yaml").write_text(config.replace(target, "os.system"))
    assert main([f"resume={folder}"]) == 2
    assert "_target_=os.system" in capsys.readouterr().err
    (folder / "config.yaml").write_text(config.replace("share: 0.15", "share: 0.5"))
    os.link(whole / "pretraining/config.yaml", folder / "pretraining/config.yaml")
    assert main([f"resume={folder}"]) == 2


def test_a_stage_takes_over_what_it_does_not_choose() -> None:
    command = rewrite([
        "site=a", "seed=3", "model=hybrid", "model.config.x=1", "+objective.gamma=1",
        "task.horizon=3", "data.days=9", "experiment=moola", "init.scope=encoder", "promote=true",
    ])  # fmt: skip
    kept = [word for word in command if word.split("=")[0] in ("site", "seed", "data.days")]
    assert first_stage(command, ["rounds=1"])[-1] == "rounds=1"
    assert {"model=hybrid", "experiment=moola"} <= set(first_stage(command, ["rounds=1"]))
    assert first_stage(command, ["task=rul"]) == [*kept, "experiment=moola", "task=rul"]
    assert first_stage(command, ["experiment=x"]) == [*kept, "experiment=x"]
    with pytest.raises(ConfigError):
        first_stage(command, ["hydra.run.dir=x"])


def test_items_of_the_list_need_no_quotes() -> None:
    assert rewrite(["init.pretrain=[a=1, b.c={d:[1,2]},'e=2']"]) == [
        """init.pretrain=["a=1","b.c={d:[1,2]}",'e=2']"""
    ]
    assert rewrite(["init.pretrain=[a=1],null,[b=2,c=3]"]) == [
        'init.pretrain=["a=1"],null,["b=2","c=3"]'
    ]
