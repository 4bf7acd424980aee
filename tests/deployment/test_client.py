"""A site reads its own file from its own folder, and says what is wrong with its start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import Context, Message, RecordDict
from omegaconf import OmegaConf

from fedpdm.deployment.client import DeployedSiteApp, Whereabouts, site_config
from fedpdm.deployment.envelope import (
    DESCRIBE_QUERY,
    ENVELOPE,
    TEST_QUERY,
    Description,
    Envelope,
    result_in,
)
from fedpdm.deployment.server import Order, composed, sites_of
from fedpdm.errors import ConfigError, HistoryError
from fedpdm.runs.experiment import build
from fedpdm.wire.flower import become_server
from fedpdm.wire.records import ARRAYS, CONFIG, arrays_in, config_record, to_record
from tests.data.sources.own_files import Tables, two_sites
from tests.mylab import write


def ask(node_config: dict[str, Any], settings: str, kind: str, **content: Any) -> Message:
    become_server()
    site = content.pop("site", "")
    envelope = Envelope(settings, site).record()
    message = Message(RecordDict({ENVELOPE: envelope, **content}), 5, kind)
    return DeployedSiteApp()(message, Context(1, 5, node_config, RecordDict(), {}))


FLEET = ("site=[detroit,pune] data.days=150 data.step_hours=24 data.window=8 model=mlp "
         "sites.pune.machines=4 sites.detroit.machines=4").split()  # fmt: skip


def test_a_site_describes_and_tests_itself_and_sends_numbers_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    cfg = composed(FLEET)
    text = OmegaConf.to_yaml(cfg)
    described = Description.of(ask({"site": "pune"}, text, DESCRIBE_QUERY).content)
    assert described.site == "pune" and described.window == 8 and described.shape["rows"] > 0
    numbered = ask({"partition-id": 1, "num-partitions": 2}, text, DESCRIBE_QUERY)
    assert Description.of(numbered.content) == described

    arrays = to_record(build(cfg).initial)
    tested = result_in(ask({"site": "pune"}, text, TEST_QUERY, **{ARRAYS: arrays}).content)
    assert set(tested) == {"threshold", "validation", "test", "heldout", "details"}
    assert all(not isinstance(v, list | dict) for v in tested["test"].values())


@pytest.mark.parametrize("writable", [True, False])
def test_names_of_machines_stay_at_the_site_which_gets_its_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, writable: bool
) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    place = tmp_path / "fedpdm" / "inspect"
    if not writable:
        place.parent.mkdir()
        place.write_text("a file where the folder should be")
    cfg = composed([*FLEET, "report.locale=de"])
    arrays = to_record(build(cfg).initial)
    reply = ask({"site": "pune"}, OmegaConf.to_yaml(cfg), TEST_QUERY, **{ARRAYS: arrays})
    counts = result_in(reply.content)["details"]["inspect"]
    assert set(counts) == {"machines", "alarms"} and 0 <= counts["alarms"] <= counts["machines"]
    assert "pune-m00" not in str(reply.content)
    said = capsys.readouterr().err
    if not writable:
        assert "no list of machines" in said
        return
    listed, page = pd.read_csv(place / "pune.csv"), (place / "pune.html").read_text("utf-8")
    assert str(place / "pune.html") in said
    assert len(listed) == counts["machines"] and listed["risk"].is_monotonic_decreasing
    assert listed["alarm"].sum() == counts["alarms"]
    assert listed["machine"].str.startswith("pune-m00").all()
    assert all(name in page for name in listed["machine"])
    assert re.search(r"<td[^>]*>0,\d{3}</td>", page), "written as the run's locale asks"


@pytest.mark.parametrize(
    ("node_config", "site", "words"),
    [
        ({}, "", "does not say which site it is"),
        ({"site": "paris"}, "", "none of this run's sites: it has detroit, pune"),
        ({"partition-id": 2}, "", "set num-supernodes to 2"),
        ({"sit": "pune"}, "", "sit=… means nothing"),
        ({"site": "pune"}, "detroit", "this supernode is pune, not detroit"),
    ],
)
def test_a_site_says_what_is_wrong_with_its_start(
    node_config: dict[str, Any], site: str, words: str
) -> None:
    text = OmegaConf.to_yaml(composed(FLEET))
    reply = ask(node_config, text, DESCRIBE_QUERY, site=site)
    assert reply.has_error() and words in reply.error.reason


def test_a_supernode_runs_no_code_that_a_message_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sent.py").write_text("raise SystemExit('a message was obeyed')")
    monkeypatch.syspath_prepend(tmp_path)
    for cfg, words in (
        (composed([*FLEET, "imports=[sent]"]), "--node-config 'imports=\"sent\"'"),
        (composed([*FLEET, "strategy._target_=sent.Thing"]), "_target_=sent.Thing"),
        (composed([*FLEET, "task._target_=os.system"]), "_target_=os.system"),
    ):
        reply = ask({"site": "pune"}, OmegaConf.to_yaml(cfg), DESCRIBE_QUERY)
        assert reply.has_error() and words in reply.error.reason


def test_a_supernode_imports_what_it_names_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(write(tmp_path))
    start = {"site": "pune", "imports": "mylab.strategies"}
    own = ["imports=[mylab.strategies]", "+strategy.pull=0.3"]
    cfg = composed([*FLEET, *own, "strategy._target_=mylab.strategies.Pulled"])
    text = OmegaConf.to_yaml(cfg)
    assert "imports=" in str(ask({"site": "pune"}, text, DESCRIBE_QUERY).error.reason)
    assert not ask(start, text, DESCRIBE_QUERY).has_error()
    missing = ask({**start, "imports": "nobody"}, text, DESCRIBE_QUERY)
    assert missing.has_error() and "mylab.strategies" in missing.error.reason
    gone = ask({**start, "imports": "mylab.strategies,nobody"}, text, DESCRIBE_QUERY)
    assert gone.has_error() and "no module 'nobody'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("machine,day,heat,fails\nSECRET,1,SECRET,0\n", "SECRET"),
        ("machine,day,wrong,fails\nSECRET,1,2,0\n", "heat"),
        (None, "lyon.csv"),
    ],
)
def test_what_is_in_a_sites_files_and_where_they_lie_stays_there(
    content: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "me.yaml").write_text(
        "lyon: {path: lyon.csv, machine: machine, time: day, features: {heat: heat}, label: fails}"
    )
    if content is not None:
        (tmp_path / "lyon.csv").write_text(content)
    text = OmegaConf.to_yaml(composed(["data=files", "site=[lyon]", "data.window=8"]))
    start = {"site": "lyon", "data": str(tmp_path), "config": str(tmp_path / "me.yaml")}
    reply = ask(start, text, DESCRIBE_QUERY)
    assert reply.has_error()
    kind, number, *rest = reply.error.reason.split()
    assert (kind, " ".join(rest)) == ("DataError", "see the log of this site's supernode")
    log = capsys.readouterr().err
    assert f"error {number[:-1]}: DataError: " in log and words in log


@pytest.mark.parametrize(
    "config",
    [
        "",
        "[" * 10_000,
        "seed: 1",
        "- a",
        "x" * 3_000_000,
        "data: {_target_: os.system}",
        "a: &a [*a]",
    ],
)
@pytest.mark.parametrize("kind", [DESCRIBE_QUERY, "train"])
def test_a_hostile_server_gets_one_short_refusal(config: str, kind: str) -> None:
    reply = ask({"site": "pune"}, config, kind)
    assert reply.has_error() and len(reply.error.reason) < 300


def test_arrays_that_are_not_the_models_are_refused_by_the_site() -> None:
    text = OmegaConf.to_yaml(composed(FLEET))
    wrong = to_record({"huge": np.zeros((3000, 3000), np.float32)})
    for kind in (TEST_QUERY, "train"):
        told = config_record(server_round=1, attempt=0)
        reply = ask({"site": "pune"}, text, kind, **{ARRAYS: wrong, CONFIG: told})
        assert reply.has_error() and len(reply.error.reason) < 300


def test_headquarters_needs_no_yaml_of_sites_with_files() -> None:
    cfg = composed(["data=files", "site=[gdansk,lyon]"])
    assert sites_of(cfg) == ("gdansk", "lyon")
    with pytest.raises(ConfigError, match="site=gdansk does not exist"):
        composed(["data=fleet", "site=[gdansk]"])


def test_a_site_has_its_own_folder_columns_and_device(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "lyon.yaml").write_text("# @package sites\nlyon: {path: l.csv, time: t}\n")
    text = OmegaConf.to_yaml(composed(["data=files", "site=[gdansk,lyon]", "data.path=/hq"]))
    start = {"site": "lyon", "data": str(tmp_path), "device": "cuda:1"}
    cfg = site_config(text, Whereabouts.of(start))
    assert (cfg.data.path, cfg.device, cfg.sites.lyon.path) == (str(tmp_path), "cuda:1", "l.csv")
    assert list(cfg.sites) == ["gdansk", "lyon"]


def test_what_looks_odd_in_readings_stays_in_the_sites_own_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def sentinel(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        rows.loc[::20, "T1"] = -9999
        return rows, log

    two_sites(tmp_path, sentinel)
    text = OmegaConf.to_yaml(composed(["data=files", "site=[gdansk,lyon]", "model=mlp"]))
    reply = ask({"site": "lyon", "data": str(tmp_path)}, text, DESCRIBE_QUERY)
    assert reply.has_content()
    assert "missing: [-9999]" in capsys.readouterr().err
    assert "9999" not in str(reply.content)


@pytest.mark.parametrize("content", ["porto: {path: x.csv}\n", "lyon: [\n", "- lyon\n"])
def test_a_yaml_that_does_not_describe_the_site_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "me.yaml").write_text(content)
    text = OmegaConf.to_yaml(composed(["data=files", "site=[lyon]"]))
    start = Whereabouts.of({"site": "lyon", "config": str(tmp_path / "me.yaml")})
    with pytest.raises(ConfigError, match=r"^lyon: .*me\.yaml"):
        site_config(text, start)


def test_what_flwr_run_asks_for(tmp_path: Path) -> None:
    order = Order.of({"overrides": "site=[pune] rounds=3", "run-folder": str(tmp_path / "a")})
    assert (order.cfg.rounds, order.folder, order.resumed) == (3, tmp_path / "a", False)
    assert Order.of({"overrides": ""}).folder.parent == Path("runs")
    with pytest.raises(HistoryError, match="there is no run in this folder"):
        Order.of({"resume": str(tmp_path)})
    with pytest.raises(ConfigError, match="leave run-folder="):
        Order.of({"resume": str(tmp_path), "run-folder": "elsewhere"})


RUN, FIRST, SECOND = "0" * 32, "000001-1", "000002-2"


class Supernode:
    """A site that trains with SCAFFOLD, in a process of its own for each message."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FLWR_HOME", str(home))
        self.files = home / "fedpdm"
        cfg = composed([*FLEET, "strategy=scaffold", "training.local_epochs=1"])
        self.text, self.initial = OmegaConf.to_yaml(cfg), build(cfg).initial

    def train(self, version: str, base: str = "", best: str = "", run: str = RUN) -> Any:
        """Return what the site sends of its control, or the reason why it sends none."""
        become_server()
        told = config_record(server_round=int(version[:6]), attempt=0, scaffold=True)
        zeros = {name: np.zeros_like(array) for name, array in self.initial.items()}
        content = RecordDict({
            ENVELOPE: Envelope(self.text, "pune", run, base, version, best).record(),
            ARRAYS: to_record(self.initial), "control": to_record(zeros), CONFIG: told,
        })  # fmt: skip
        context = Context(1, 5, {"site": "pune"}, RecordDict(), {})
        reply = DeployedSiteApp()(Message(content, 5, "train"), context)
        assert not len(context.state), "what a site remembers is not Flower's to keep"
        if reply.has_error():
            return reply.error.reason
        return {n: a.tobytes() for n, a in arrays_in(reply.content, "control").items()}


def test_a_round_starts_from_what_was_kept_after_the_version_that_the_server_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Supernode(tmp_path, monkeypatch)
    first = site.train(FIRST)
    assert site.train(FIRST) == first, "it was new before round 1"
    second = site.train(SECOND, FIRST)
    assert second != first
    assert site.train("000002-3", FIRST) == second, "again, after a rollback or a crash"
    assert site.train("000003-4", SECOND, FIRST) != second, "round 3 starts from what round 2 left"
    site.train("000004-5", "000003-4", best=FIRST)
    site.train("000005-6", "000004-5", best=FIRST)
    kept = [path.stem for path in sorted(next(site.files.iterdir()).iterdir())]
    assert kept == [FIRST, "000004-5", "000005-6"], "the best, the base, and the new one"


@pytest.mark.parametrize("how", ["gone", "flipped", "another round's", "another run's", "a link"])
def test_a_memory_that_is_not_the_rounds_is_refused_and_never_taken_for_none(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Supernode(tmp_path, monkeypatch)
    site.train(FIRST)
    site.train(SECOND, FIRST)
    one, two = sorted(next(site.files.iterdir()).iterdir())
    content = bytearray(two.read_bytes())
    two.unlink()
    if how == "flipped":
        content[len(content) // 2] ^= 1
        two.write_bytes(content)
    elif how == "another round's":
        one.rename(two)
    elif how == "another run's":
        site.train(FIRST, run="1" * 32)
        site.train(SECOND, FIRST, run="1" * 32)
        other = next(p for p in site.files.iterdir() if p.name.startswith("1"))
        (other / two.name).rename(two)
    elif how == "a link":
        two.symlink_to(one)
    reason = site.train("000003-4", SECOND)
    assert "pune has not got what it kept after round 2" in reason
    assert str(tmp_path) not in reason
    assert f"{two}" in capsys.readouterr().err


@pytest.mark.parametrize("run", ["", "../../canary", "0" * 31])
def test_a_server_names_no_folder_of_a_site(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Supernode(tmp_path / "home", monkeypatch)
    assert "ConfigError" in site.train(FIRST, run=run)
    assert "ConfigError" in site.train(FIRST, "../../canary")
    assert not list(tmp_path.rglob("*"))
