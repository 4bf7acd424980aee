"""Methods over the deployment path: clusters, personal models, asynchronous servers, compression.

Sites in this process, started anew for every run: what they remember is in their files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict

from fedpdm.config.compose import compose
from fedpdm.deployment.server import serve
from fedpdm.errors import ConfigError
from fedpdm.history import History
from fedpdm.server.base import models_of
from fedpdm.simulate import simulate
from fedpdm.testing.federated import same
from tests.deployment import test_hostile_sites as sites

TINY = sites.TINY.replace(" strategy=fedadam", "")
SAME = {
    "ifca": "server=ifca strategy=ditto transforms=topk transforms.topk.direction=up "
            "transforms.topk.share=0.1",
    "cfl": "server=cfl server.after=0 server.progress=0 server.epsilon=1 server.gamma=0 "
           "strategy=fedper",
    "flhc": "server=flhc server.after=1 strategy=fedala",
    "finetune": "strategy=finetune transforms=sign faults.nan=pune@2",
    "knnper": "strategy=knnper",
    "apfl": "strategy=apfl transforms=quantise",
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites.deployed, "POLL_SECONDS", 0.05)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))


@pytest.mark.parametrize("name", [
    name if name == "ifca" else pytest.param(name, marks=pytest.mark.long) for name in SAME
])  # fmt: skip
def test_a_deployed_run_that_was_stopped_is_one_in_one_process(name: str, tmp_path: Path) -> None:
    words = f"{TINY} {SAME[name]}"
    sites.go(**{"overrides": words, "run-folder": f"{tmp_path}/deployed"})
    sites.go(resume=f"{tmp_path}/deployed", overrides="rounds=3")
    given = [*words.split(), "rounds=3", "engine=serial", "baselines.max_plants=0"]
    expected = simulate(compose(given), tmp_path / "one")
    with History.open(tmp_path / "deployed") as run, History.open(tmp_path / "one") as serial:
        for number in range(4):
            (ours, where), (theirs, there) = (models_of(h, number) for h in (run, serial))
            assert where == there and set(ours) == set(theirs)
            assert all(same(ours[cluster], theirs[cluster]) for cluster in ours)
            assert same(run.weights(number), serial.weights(number))
        assert [r.metrics for r in run.rounds()] == [r.metrics for r in serial.rounds()]
    found = json.loads((tmp_path / "deployed" / "summary.json").read_text())["test"]["per_site"]
    for site, theirs in expected["test"]["per_site"].items():  # each with its own model
        assert found[site]["brier"] == pytest.approx(theirs["brier"], abs=1e-6)
        assert found[site]["average_precision"] == pytest.approx(theirs["average_precision"])


LATE = {
    "buffer": "server=fedbuff server.buffer=2 strategy=ditto transforms=topk "
              "transforms.topk.direction=up transforms.topk.share=0.1",
    "twice": "server=fedbuff server.buffer=5 strategy=finetune",
    "single": "server=fedasync strategy=fedper transforms=sign transforms.sign.direction=up",
}  # fmt: skip


@pytest.mark.parametrize("name", [
    name if name == "buffer" else pytest.param(name, marks=pytest.mark.long) for name in LATE
])  # fmt: skip
def test_a_site_goes_on_from_what_it_remembers_of_an_older_version(
    name: str, tmp_path: Path
) -> None:
    """An update that counts in a later version than the one for which its site worked."""
    words = f"{TINY} rounds=4 {LATE[name]}"
    sites.go(**{"overrides": words, "run-folder": f"{tmp_path}/run"})
    sites.go(resume=f"{tmp_path}/run", overrides="rounds=6")
    with History.open(tmp_path / "run") as history:
        records = history.rounds()
        assert [event for record in records for event in record.events] == []
        assert any("kept" in said for record in records for said in record.sites.values())
        trained = {s for r in records for s, said in r.sites.items() if "examples" in said}
    assert len(records) == 7 and trained == set(sites.SITES)
    for site in sites.SITES:
        files = sites.kept_by(site, tmp_path)
        assert 1 <= len(files) <= 5, "what no round can start from any more goes"


REFUSED: dict[str, tuple[str, str]] = {
    "noise that everybody can draw": ("privacy=central privacy.epsilon=9", "hide nothing"),
    "simulated time": ("clock=virtual server=fedbuff", "use clock=wall"),
    "attackers": ("attack=sign_flip attack.sites=[pune]", "simulation"),
    "a federation for each model": ("sites.pune.models=[lstm]", "a run of its own"),
    "a site that never takes part": ("newcomers.sites=[pune]", "start no supernode"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_only_a_simulation_can_do_says_so(name: str, tmp_path: Path) -> None:
    words, reason = REFUSED[name]
    nodes: Any = sites.Nodes(lambda message, reply: reply)
    asked = {"overrides": f"{TINY} {words}", "run-folder": f"{tmp_path}/run"}
    with pytest.raises(ConfigError, match=reason):
        serve(nodes, Context(1, 0, {}, RecordDict(), asked))
    assert not (tmp_path / "run").exists()
