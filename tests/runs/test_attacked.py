"""An attacked run says so everywhere; a backdoor is measured against a clean control."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from rich.console import Console

from fedpdm.config.compose import compose
from fedpdm.config.values import resolved
from fedpdm.deployment.client import Refused, Whereabouts, allow
from fedpdm.deployment.server import serve
from fedpdm.errors import ConfigError
from fedpdm.history import History
from fedpdm.promote.evidence import collect
from fedpdm.report.table import print_summary
from fedpdm.runs.experiment import build
from fedpdm.runs.run import Run
from fedpdm.testing.federated import same

SITES = (
    "site=[detroit,houston,nagoya,pune]",
    *(f"sites.{site}.machines=6" for site in ("detroit", "houston", "nagoya", "pune")),
)
COMMON = (
    *SITES, "model=mlp", "engine=batched", "rounds=4", "baselines.max_plants=0",
    "evaluate.bootstrap=0", "data.stride=14", "seed=5",
)  # fmt: skip
BACKDOOR = ("attack=backdoor", "attack.boost=4")


def ran(folder: Path, *overrides: str) -> tuple[dict[str, Any], str]:
    """Return a run's summary, and what it said."""
    text = io.StringIO()
    cfg = resolved(compose([*COMMON, *overrides]))
    console = Console(file=text, width=300)
    summary = Run(build(cfg), cfg, folder, console).execute()
    print_summary(summary, folder, console)
    return summary, text.getvalue()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Any]]:
    folder = tmp_path_factory.mktemp("attacked")
    yield {
        "folder": folder,
        "clean": ran(folder / "clean"),
        "control": ran(folder / "control", *BACKDOOR, "attack.sites=[]"),
        "attacked": ran(folder / "attacked", *BACKDOOR, "attack.sites=[pune]"),
    }


def test_it_is_said_on_the_screen_in_the_summary_and_in_the_report(
    runs: Mapping[str, Any],
) -> None:
    summary, text = runs["attacked"]
    assert text.count("ATTACKED ON PURPOSE") == 2, "before the first round and at the end"
    stored = json.loads((runs["folder"] / "attacked" / "summary.json").read_text())
    assert stored["attack"] == summary["attack"]
    assert stored["attack"]["sites"] == ["pune"] and stored["attack"]["name"] == "backdoor"
    assert stored["attack"]["settings"]["boost"] == 4
    assert [e["kind"] for e in stored["events"][:2]] == ["attack", "warning"]
    report = (runs["folder"] / "attacked" / "report.html").read_text()
    assert "ATTACKED ON PURPOSE" in report
    clean, quiet = runs["clean"]
    assert clean["attack"] is None and clean["events"] == []
    assert "attacked on purpose" not in quiet.lower()
    assert "ATTACKED" not in (runs["folder"] / "clean" / "report.html").read_text()


def test_the_control_has_the_clean_run_s_bits(runs: Mapping[str, Any]) -> None:
    weights = []
    for name in ("clean", "control"):
        with History.open(runs["folder"] / name) as history:
            weights.append(history.weights())
    assert same(*weights)
    assert runs["control"][0]["test"] == runs["clean"][0]["test"]
    assert "control of backdoor attacks" in runs["control"][1]


def test_the_trigger_works_in_the_attacked_run_and_not_in_the_control(
    runs: Mapping[str, Any],
) -> None:
    attacked, control = (runs[name][0]["attack"]["backdoor"] for name in ("attacked", "control"))
    assert attacked["windows"] == control["windows"] > 50
    assert attacked["success"] > max(0.9, control["success"] + 0.15)
    assert attacked["success"] > attacked["without_trigger"] + 0.2


def test_an_attacked_model_is_not_promoted(runs: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match="attacked on purpose"):
        collect(runs["folder"] / "attacked")


def test_no_attack_is_made_under_a_superlink() -> None:
    cfg = resolved(compose([*SITES, "attack=sign_flip"]))
    here = Whereabouts("pune", None, None, None, None)
    with pytest.raises(Refused, match="simulation only"):
        allow(cfg, here)
    allow(resolved(compose([*SITES])), here)

    asked = {"overrides": "attack=label_flip site=[pune,detroit]"}
    with pytest.raises(ConfigError, match="simulation only"):
        serve(None, Context(0, 0, {}, RecordDict(), asked))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["attack=sign_flip", "attack.sites=[paris]"], "paris"),
        (["attack=sign_flip", "attack.strength=0"], "attack.strength"),
        (["attack=backdoor", "features=statistics"], "features=raw"),
        (["attack=backdoor", "attack.target=both"], "attack.target"),
        (["attack=label_flip", "model=gbdt", "server=boosting"], "attack"),
        (["strategy=fltrust", "attack=scaling", "attack.sites=[detroit]"], "strategy.root"),
        (["strategy=fltrust", "strategy.root=paris"], "strategy.root=paris"),
    ],
)
def test_what_cannot_work_is_refused_before_the_run(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(resolved(compose([*COMMON, *overrides])))
