"""Sites that take no part: nothing is learnt from them, and they are tested all the same."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedpdm.config.compose import compose
from fedpdm.data.rows import Split
from fedpdm.errors import ConfigError
from fedpdm.evaluation.scoring import predict, score
from fedpdm.history import History
from fedpdm.history.schemas import Summary
from fedpdm.report.table import print_summary
from fedpdm.runs.experiment import build
from fedpdm.runs.reopened import reopen
from fedpdm.simulate import simulate
from fedpdm.testing.federated import same

TINY = [
    "rounds=2", "training.local_epochs=1", "model=mlp", "evaluate.bootstrap=0", "data.days=160",
    "engine=serial", "baselines.controls=[hgb_alone]", "newcomers.epochs=4",
]  # fmt: skip


def run(folder: Path, *overrides: str, sites: str) -> dict[str, Any]:
    machines = [f"sites.{site}.machines=4" for site in sites.split(",")]
    return simulate(compose([f"site=[{sites}]", *machines, *TINY, *overrides]), folder)


def test_a_newcomer_is_tested_and_nothing_is_learnt_from_it(tmp_path: Path) -> None:
    found = run(tmp_path / "a", "newcomers.sites=[pune]", sites="detroit,houston,pune")
    run(tmp_path / "b", sites="detroit,houston")
    with History.open(tmp_path / "a") as mine, History.open(tmp_path / "b") as theirs:
        assert same(mine.weights(), theirs.weights()), "neither weights nor the scaler know of it"
        assert set(mine.rounds()[-1].sites) == {"detroit", "houston"}
    assert found["sites"] == ["detroit", "houston"]
    assert set(found["newcomers"]) == {"zero_shot", "fine_tuned", "hgb_alone"}
    again = reopen(tmp_path / "a")
    federation, device = again.experiment.federation, again.experiment.device
    site = federation.site("pune", federation._scaler[0])
    module = again.models("pune")
    shared = score(predict(module, [site], federation.task, device), [site], federation.task,
                   Split.TEST)  # fmt: skip
    assert found["newcomers"]["zero_shot"]["per_site"] == shared["per_site"]
    tuned = found["newcomers"]["fine_tuned"]["per_site"]["pune"]
    assert tuned["n"] == shared["per_site"]["pune"]["n"] and tuned != shared["per_site"]["pune"]
    said = StringIO()
    print_summary(found, tmp_path / "a", Console(file=said, width=200))
    assert "pune took no part" in said.getvalue()
    assert Summary.read((tmp_path / "a" / "summary.json").read_bytes(), tmp_path)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("[boston]", "no site 'boston'"),
        ("[detroit,houston]", "none is left to train"),
        ("houston", "must be a list"),
    ],
)
def test_newcomers_that_cannot_be_are_refused(named: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(compose(["site=detroit,houston", f"newcomers.sites={named}"]))
