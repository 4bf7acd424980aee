"""Values that nobody thought of, for every key of ``conf/``: one sentence, or a valid run."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from fedpdm.config.command_line import groups, options
from fedpdm.config.compose import compose
from fedpdm.config.schema import conf_dir
from fedpdm.config.values import resolved, rooted
from fedpdm.simulate import main
from tests.test_surface import ROOT

QUICK = [
    "site=detroit,houston", "rounds=1", "model=mlp", "model.config.hidden=[4]", "data.days=200",
    "training.local_epochs=1", "baselines.max_plants=0", "evaluate.bootstrap=0",
    "training.batch_size=256", "sites.detroit.machines=6", "sites.houston.machines=6",
]  # fmt: skip
"""A run of a second, for values that turn out to be valid."""

VALUES = ["abc", "-1", "0", "1.5", "nan", "-inf", "1e300", "1000000000000", "-0.001", "''", "null",
          "true", "[]", "[1,x]", "[0]", "[null]", "{a: 1}", "münchen", "a b", "no", "../x",
          "'x\ny'", "9" * 400, "w" * 5000, "'${rounds}'"]  # fmt: skip

SKIP = {"hydra", "defaults", "resume", "imports", "address", "uri"}
"""Keys that are no values of a run; and ``ray``'s cluster and MLflow's server, elsewhere."""


def leaves(block: Any, place: str = "") -> Iterator[str]:
    """Yield the dotted keys of a config block, of blocks inside, too."""
    for key, value in block.items():
        if key in SKIP:
            continue
        yield f"{place}{key}"
        if isinstance(value, dict) and not str(key).startswith("_"):
            yield from leaves(value, f"{place}{key}.")


def keys() -> list[tuple[list[str], str]]:
    """Return every key of ``conf/``, with the choice that it needs."""
    whole: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "config.yaml"), resolve=False)
    found = [([], key) for key in leaves(whole)]
    for group in groups():
        if group == "site":
            found += [([], f"sites.houston.{key}") for key in leaves(site_keys())]
        if group in ("experiment", "debug", "site"):
            continue
        for option in options(group):
            if option in ("ai4i", "cmapss", "files", "npz", "mlflow", "tensorboard"):
                continue  # need data or packages
            raw: Any = OmegaConf.to_container(
                OmegaConf.load(conf_dir() / group / f"{option}.yaml"), resolve=False
            )
            inside = raw.get(group, raw) if "_target_" not in raw else raw
            choice = [f"{group}={option}"]
            found += [(choice, f"{group}.{key}") for key in leaves(inside)]
    return [*found, *(([], group) for group in groups() if group != "experiment")]


def site_keys() -> Any:
    """Return the settings of a generated site."""
    raw: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "site" / "houston.yaml"))
    return raw["houston"]


def cases(number: int, seed: int = 11) -> list[list[str]]:
    """Return so many command lines, each with one odd value, every key about as often."""
    draw = random.Random(seed)
    every, result = keys(), []
    while len(result) < number:
        draw.shuffle(every)
        for choice, key in every:
            value = draw.choice(VALUES)
            before = [o for o in QUICK if o.split("=")[0] != key and not clash(o, choice)]
            result.append([*before, *choice, f"{key}={value}"])
    return result[:number]


def clash(override: str, choice: list[str]) -> bool:
    """Return whether an override of the quick run is of a model or data that a case replaces."""
    return any(
        override.startswith(parts) and any(c.startswith(f"{group}=") for c in choice)
        for group, parts in {"model": ("model",), "data": ("data.", "site")}.items()
    )


def judge(case: list[str], code: int, said: str, folder: Path) -> None:
    """Hold what a command said and left against the promise."""
    if code == 0:
        return
    assert code == 2, said
    key, choice = case[-1].split("=")[0].lstrip("+"), case[-2]
    assert said.startswith("error: ") and said.count("\n") == 1, said
    assert "Traceback" not in said and len(said) < 1000
    block, _, last = key.rpartition(".")
    shown = {key, last, f"{key.split('.')[0]}=", choice or key, block or key}
    assert any(word in said for word in shown), said
    assert not [file for file in folder.rglob("*") if file.is_file()], "nothing half-written"


SAMPLE = cases(30)
LONG = cases(400, seed=12)


def label(case: list[str]) -> str:
    return case[-1].encode("ascii", "backslashreplace").decode()[:60]


@pytest.mark.parametrize(
    "case",
    [*SAMPLE, *(pytest.param(case, marks=pytest.mark.long) for case in LONG)],
    ids=lambda case: label(case),
)
def test_any_value_is_refused_in_one_sentence_or_works(
    case: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    begun = time.process_time()
    code = main(case)
    assert time.process_time() - begun < 10
    judge(case, code, capsys.readouterr().err, tmp_path)


@pytest.mark.parametrize(
    "case",
    [SAMPLE[0], *(pytest.param(case, marks=pytest.mark.long) for case in LONG[:20])],
    ids=lambda case: label(case),
)
def test_so_it_is_as_a_command(case: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fedpdm.simulate", *case], cwd=tmp_path, capture_output=True,
        text=True, timeout=100, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    judge(case, done.returncode, done.stderr, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["strategy=fedadam", "strategy.beta_1=1"], ["strategy.beta_1=1", "below 1"]),
        (["strategy=fedadam", "strategy.eta=nan"], ["strategy.eta=nan"]),
        (["strategy=fedyogi", "strategy.tau=0"], ["strategy.tau=0", "above 0"]),
        (["strategy=fedyogi", "strategy.tau=null"], ["strategy.tau=None"]),
        (["strategy=fedavgm", "strategy.server_learning_rate=nan"], ["server_learning_rate=nan"]),
        (["strategy=qfedavg", "strategy.q=nan"], ["strategy.q=nan"]),
        (["model.config.dropout_rate=nan"], ["model.config.dropout_rate=nan"]),
        (["model=cnn", "model.config.conv_filters=[0]"], ["conv_filters", "at least 1"]),
        (["model.config.fc_hidden=0"], ["fc_hidden", "at least 1"]),
        (["history=null"], ["history is a block"]),
        (["site=null"], ["site=null"]),
        (["rounds=1000000000000"], ["years", "rounds"]),
        (["data.days=10000000"], ["GiB", "data.days"]),
        (["sites.detroit.machines=100000"], ["GiB", "machines"]),
        (["partition=time", "partition.sites=1000000000000"], ["partition.sites", "rows"]),
        (["engine=ray", "engine.workers=1000000000000"], ["GiB", "engine.workers"]),
        (["engine=auto", "engine.workers=1000000"], ["GiB", "engine.workers"]),
        (["replicas=1000000"], ["replicas", "at the very least"]),
        (["model=mlp", "model.config.hidden=[1000000000]"], ["GiB", "model.config"]),
        (["split=/dev/zero"], ["/dev/zero", "no file"]),
        (["site=münchen"], ["site=münchen does not exist"]),
    ],
    ids=lambda value: " ".join(value).encode("ascii", "replace").decode()[:50],
)
def test_what_was_found(
    arguments: list[str], says: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code = main(arguments)
    said = capsys.readouterr().err
    judge(["", *arguments], code, said, tmp_path)
    assert code == 2
    assert all(word in said for word in says), said


@pytest.mark.parametrize("name", ["no", "on", "1000", "münchen"])
def test_a_site_may_have_a_name_that_yaml_takes_for_something_else(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / f"{name}.yaml").write_text(f"# @package sites\n{name}: {{machines: 6}}\n")
    cfg = compose([f"site=detroit,{name}"], tmp_path)
    assert list(cfg.sites) == ["detroit", name]


def test_paths_of_a_run_do_not_depend_on_where_it_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = rooted(resolved(compose(["data.path=mine/ü", "split=runs/x"])))
    assert (cfg.data.path, cfg.split) == (str(tmp_path / "mine/ü"), str(tmp_path / "runs/x"))
    assert rooted(resolved(compose([]))).data.path is None


def test_a_reader_that_stops_ends_a_command_quietly() -> None:
    words = f"{sys.executable} -m fedpdm simulate --help; echo $? >&2"
    done = subprocess.run(
        ["bash", "-c", f"({words}) | true"], capture_output=True, text=True, cwd=ROOT
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
