"""The catalogue of methods: every option is in it, says what it does, and where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedpdm.catalogue.methods import GROUPS, ORDINARY, Method, find, methods
from fedpdm.catalogue.page import page_of
from fedpdm.config.command_line import options
from fedpdm.errors import ConfigError
from fedpdm.strategies.__main__ import main

ALL = list(methods())
PAGES = Path(__file__).resolve().parents[2] / "docs" / "methods"


def test_every_option_is_a_method() -> None:
    for group in GROUPS:
        listed = {method.name for method in ALL if method.group == group}
        assert listed == set(options(group)) - ORDINARY


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.override)
def test_a_method_explains_itself(method: Method) -> None:
    assert 20 < len(method.line) < 160 and "@" not in method.line
    assert method.targets, "its yaml names a class"
    page = page_of(method)
    assert method.override in page and method.document in page
    paper = re.search(r"(19|20)\d\d", method.document + " ".join(method.header))
    assert paper or method.group in ("attack", "server") or method.name in OWN


OWN = {"fedavg_weighted", "finetune", "outlier_detection", "local"}
"""Methods of no single paper."""


@pytest.mark.parametrize(("name", "where"), [
    ("fedavg", "-"), ("fedprox", "sites"), ("scaffold", "both"), ("krum", "server"),
    ("fedadam", "server"), ("ditto", "sites"), ("fedbn", "sites"), ("moon", "sites"),
    ("topk", "both"), ("fedbuff", "server"), ("secagg", "both"),
])  # fmt: skip
def test_it_says_who_works_differently(name: str, where: str) -> None:
    assert find(name).where == where


def test_costs_are_those_of_the_classes() -> None:
    assert [c for c in find("scaffold").costs if c.startswith(("up", "down"))] == [
        "down: one model more", "up: one model more"
    ]  # fmt: skip
    assert find("fedavg").costs == []


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(f" {method.name} " in out for method in ALL)
    assert main(["strategy=scaffold"]) == 0
    assert "Karimireddy" in capsys.readouterr().out
    assert main(["scafold"]) == 2
    assert "did you mean scaffold?" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        find("nothing")
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "mine.yaml").write_text(
        "# Mine: the mean of halves.\n_target_: flwr.serverapp.strategy.FedAvg\n"
    )
    assert main([f"--config-dir={tmp_path}"]) == 0
    assert "Mine: the mean of halves" in capsys.readouterr().out


def test_every_method_has_its_page() -> None:
    """``python -m benchmarks.methods --show`` writes them."""
    assert {page.stem for page in PAGES.glob("*.md")} == {m.name for m in ALL} | {"README"}
    for method in ALL:
        page = (PAGES / f"{method.name}.md").read_text()
        assert page.startswith(page_of(method).rstrip()), "write the pages again"


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.override)
def test_a_page_says_when_to_use_a_method_and_what_it_costs(method: Method) -> None:
    if method.group != "attack":
        assert re.search(r"(?i)\buse\b|\bsuits\b", method.document)
        says = r"(?i)cost|memory|bytes|remember|message|travels"
        assert method.costs or re.search(says, method.document)
