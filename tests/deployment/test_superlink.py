"""Sites behind a real SuperLink: the same bits as in one process, and nothing lost when
a site or the server is killed. Real processes on 127.0.0.1, with TLS and node keys."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf, open_dict

from fedpdm.config.compose import compose
from fedpdm.history import History
from fedpdm.simulate import simulate
from fedpdm.storage import read_json
from fedpdm.testing.federated import same
from tests import mylab
from tests.deployment.forks import ROOT, Template
from tests.deployment.processes import (
    Machine,
    ServerProcess,
    SiteProcess,
    until,
)

SITES = ("gdansk", "lyon", "porto")
HOSTILE = "riga"
# A small network: a SuperLink keeps every array of every message, one by one.
TINY = ("data=files data.window=8 data.stride=2 model=cnn model.config.conv_filters=[4] "
        "model.config.fc_hidden=[8] task.horizon=4 "
        "training.local_epochs=1 deployment.start_timeout=300")  # fmt: skip
TREES = ("data=files data.window=8 data.stride=2 model=gbdt model.config.leaves=3 "
         "model.config.trees_per_round=1 model.config.bins=8 task.horizon=4 rounds=1 "
         "deployment.start_timeout=300")  # fmt: skip

OWN = """# @package _global_
imports: [mylab.strategies, mylab.codec]
travels: no_norm
transforms: {codec: {_target_: mylab.codec.HalfCodec}}
"""
"""A strategy and a transform that remember something at a site, and tensors that stay there."""
NOISE = """# @package _global_
client_mods:
  - {_target_: flwr.clientapp.mod.LocalDpMod, clipping_norm: 1.0, sensitivity: 0.001,
     epsilon: 1.0, delta: 0.1}
"""
IMPORTS = "mylab.strategies,mylab.codec"

LONG = 420
"""Seconds, if the machine is very busy."""


def bring_data(folder: Path, site: str) -> None:
    """Write a site's file, and what its columns mean, into the site's own folder."""
    random = np.random.default_rng((*SITES, HOSTILE).index(site))
    rows = []
    for machine in range(6):
        wear = random.uniform(0, 0.8)
        for day in range(90):
            wear += 0.05
            rows.append((f"M{machine}", day, 60 + 9 * wear + random.normal(), random.normal(),
                         int(wear > 0.8)))  # fmt: skip
            wear = 0.0 if wear >= 1.0 else wear
    names = ["machine", "day", f"{site}_heat", "hum", "fails_soon"]
    pd.DataFrame(rows, columns=names).to_csv(folder / f"{site}.csv", index=False)
    (folder / "site").mkdir()
    (folder / "site" / f"{site}.yaml").write_text(
        f"# @package sites\n{site}:\n  path: {site}.csv\n  machine: machine\n  time: day\n"
        f"  features: {{heat: {site}_heat, humidity: hum}}\n  label: fails_soon\n"
    )


class Scene:
    """The server and three sites, each on a machine of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lab = mylab.write(folder / "lab")
        (self.lab / "hostile.py").write_text((ROOT / "tests" / "toys" / "hostile.py").read_text())
        (self.lab / "mylab" / "codec.py").write_text(
            (ROOT / "tests" / "toys" / "half_codec.py").read_text()
        )
        for name, text in (("own", OWN), ("noise", NOISE)):
            (self.lab / "conf" / "experiment" / f"{name}.yaml").write_text(text)
        self.template = Template(folder / "programs")
        self.server = ServerProcess(folder / "the server", programs=self.template.folder)
        self.server.path.append(self.lab)
        self.supernodes = {
            site: SiteProcess(folder / site, site, self.server, f'imports="{IMPORTS}"')
            for site in SITES
        }
        self.others: list[Machine] = []

    def begin(self) -> None:
        self.server.open()
        for supernode in self.supernodes.values():
            bring_data(supernode.folder, supernode.site)
            supernode.register()
            supernode.connect()

    def end(self) -> None:
        for machine in (*self.supernodes.values(), *self.others, self.server):
            machine.stop()
        self.template.close()

    def serial(self, *overrides: str, sites: tuple[str, ...] = SITES, small: str = TINY) -> Path:
        """Run the same experiment in this process, with all sites' folders at hand."""
        cfg = compose(["site=[]", *small.split(), "engine=serial", "baselines.max_plants=0",
                       *overrides], config_dir=self.lab / "conf")  # fmt: skip
        with open_dict(cfg):
            for site in sites:
                supernode = self.supernodes[site]
                own = OmegaConf.load(supernode.folder / "site" / f"{site}.yaml")[site]
                own.path = str(supernode.folder / own.path)
                cfg.sites[site] = own
        folder = self.folder / f"serial-{len(list(self.folder.iterdir()))}"
        simulate(cfg, folder)
        return folder


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene(tmp_path_factory.mktemp("deployed"))
    try:
        scene.begin()
        yield scene
    finally:
        scene.end()


def weights(folder: Path, rounds: int) -> list[dict[str, np.ndarray[Any, Any]]]:
    with History.open(folder) as history:
        return [history.weights(number) for number in range(rounds + 1)]


def committed(folder: Path, number: int) -> bool:
    return (folder / "rounds" / f"{number:06d}.safetensors").exists()


def trained(folder: Path) -> list[set[str]]:
    """Return who trained in each finished round, from round 1 on."""
    with History.open(folder) as history:
        records = history.rounds()
    return [{s for s, v in r.sites.items() if "examples" in v} for r in records if r.round]


def equal(first: Path, second: Path, rounds: int) -> bool:
    """Return whether two runs have the same weights in every round up to this one."""
    pairs = zip(weights(first, rounds), weights(second, rounds), strict=True)
    return all(same(a, b) for a, b in pairs)


def test_code_that_a_supernode_does_not_import_is_named(scene: Scene) -> None:
    hq, sites = scene.server, ",".join(SITES)
    run = hq.run(overrides=f"{TINY} site=[{sites}] imports=[mylab.strategies,mylab.models]")

    assert hq.finished(run, LONG) == "finished:failed"

    told = next(line for line in hq.shown(run).splitlines() if "the run failed" in line)
    assert "every site was refused" in told
    for site in SITES:
        assert f"{site} does not import mylab.models" in told
    assert "--node-config" in told


def test_server_and_site_are_killed_and_the_result_is_that_of_one_process(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With TLS and keys, and code from outside that remembers something at a site."""
    hq, folder, lyon = scene.server, scene.folder / "interrupted", scene.supernodes["lyon"]
    stranger = SiteProcess(scene.folder / "stranger", "lyon", hq)  # its key is not registered
    plain = SiteProcess(scene.folder / "plain", "lyon", hq)
    scene.others += [stranger, plain]
    stranger.connect()
    plain.connect(insecure=True)
    until("refusals", lambda: "Failed to activate" in stranger.said()
          and "Connection attempt failed" in plain.said(), LONG)  # fmt: skip
    stranger.stop()
    plain.stop()
    assert len(hq.flwr("supernode", "list", "here")["nodes"]) == len(SITES)
    assert "SuperNode ID" not in stranger.said() + plain.said()
    monkeypatch.syspath_prepend(scene.lab)
    chosen = ("rounds=2", "strategy=pulled", "experiment=own", "evaluate.fraction=0.34")
    run = hq.run(overrides=f"--config-dir={scene.lab}/conf {TINY} site=[{','.join(SITES)}] "
                 f"round_timeout=300 {' '.join(chosen)}", run_folder=str(folder))  # fmt: skip
    until("round 1", lambda: committed(folder, 1), LONG)
    hq.stop()
    lyon.stop()
    reached = max(n for n in range(3) if committed(folder, n))
    assert reached < 2 and not (folder / "summary.json").exists()
    hq.open()
    expected = scene.serial(*chosen)  # now, because lyon is not let in at once
    lyon.come_back(LONG)
    run = hq.run(resume=str(folder), overrides=f"imports=[{IMPORTS}]")

    assert hq.finished(run, LONG) == "finished:completed", hq.shown(run)

    assert f"continuing after round {reached}" in hq.shown(run)
    assert equal(folder, expected, 2) and trained(folder) == [set(SITES)] * 2
    ours, theirs = (read_json(f / "summary.json") for f in (folder, expected))
    assert ours["engine"] == "flower" and ours["sites"] == list(SITES)
    assert ours["best_round"] == theirs["best_round"]
    assert ours["data"]["sha256"] == theirs["data"]["sha256"]
    assert ours["test"]["per_site"] == theirs["test"]["per_site"]
    # Nobody may pool: what needs all rows in one place is null.
    assert ours["test"]["global"] is None and set(ours["test"]["baselines"].values()) == {None}
    assert "lyon" in (folder / "report.html").read_text()
    assert {event["site"] for event in ours["events"]} <= {"lyon"}, json.dumps(ours["events"])


@pytest.mark.long
def test_trees_grown_over_the_network_are_those_of_one_process(scene: Scene) -> None:
    hq, folder = scene.server, scene.folder / "trees"
    run = hq.run(overrides=f"{TREES} site=[{','.join(SITES)}]", run_folder=str(folder))
    expected = scene.serial(small=TREES)

    assert hq.finished(run, LONG) == "finished:completed", hq.shown(run)

    assert equal(folder, expected, 1)
    assert (weights(folder, 1)[1]["left"] > 0).any()


@pytest.mark.long
def test_secure_aggregation_of_three_sites_has_the_bits_of_one_process(scene: Scene) -> None:
    hq, folder = scene.server, scene.folder / "secagg"
    chosen = ("rounds=2", "server=secagg", "strategy=scaffold")
    run = hq.run(overrides=f"{TINY} site=[{','.join(SITES)}] {' '.join(chosen)}",
                 run_folder=str(folder))  # fmt: skip
    expected = scene.serial(*chosen)

    assert hq.finished(run, LONG) == "finished:completed", hq.shown(run)

    assert equal(folder, expected, 2) and trained(folder) == [set(SITES)] * 2
    one, two = weights(folder, 2)[1:]
    assert not same(one, two)


@pytest.mark.long
@pytest.mark.parametrize("chosen", [
    "server=ifca strategy=ditto transforms=topk transforms.topk.direction=up",
    "server=cfl server.after=0 server.progress=0 server.epsilon=1 server.gamma=0 strategy=fedper",
    "strategy=apfl transforms=[powersgd,quantise] transforms.powersgd.direction=up "
    "transforms.quantise.direction=down",
], ids=lambda words: words.split()[0])  # fmt: skip
def test_methods_over_the_network_are_those_of_one_process(scene: Scene, chosen: str) -> None:
    hq, folder = scene.server, scene.folder / f"methods {len(list(scene.folder.iterdir()))}"
    words = f"{TINY} rounds=2 {chosen}"
    run = hq.run(overrides=f"{words} site=[{','.join(SITES)}] round_timeout=300",
                 run_folder=str(folder))  # fmt: skip
    expected = scene.serial(small=words)

    assert hq.finished(run, LONG) == "finished:completed", hq.shown(run)

    assert equal(folder, expected, 2) and trained(folder) == [set(SITES)] * 2
    with History.open(folder) as ours, History.open(expected) as theirs:
        models, others = ours.models(2), theirs.models(2)
    assert set(models) == set(others) and all(same(models[n], others[n]) for n in models)


@pytest.mark.long
@pytest.mark.parametrize("chosen", [
    "server=fedbuff server.buffer=2 strategy=ditto transforms=topk transforms.topk.direction=up",
    "server=fedasync strategy=fedper",
], ids=lambda words: words.split()[0])  # fmt: skip
def test_nobody_is_waited_for_and_sites_go_on_from_what_they_remember(
    scene: Scene, chosen: str
) -> None:
    """In which order replies come is chance, so the bits are not those of one process."""
    hq, folder = scene.server, scene.folder / f"nobody {len(list(scene.folder.iterdir()))}"
    run = hq.run(overrides=f"{TINY} site=[{','.join(SITES)}] rounds=6 "
                 f"{chosen}", run_folder=str(folder))  # fmt: skip

    assert hq.finished(run, LONG) == "finished:completed", hq.shown(run)

    counted = [len(sites) for sites in trained(folder)]
    assert len(counted) == 6 and set.union(*trained(folder)) == set(SITES)
    assert set(counted) <= ({1, 2} if "fedbuff" in chosen else {1})
    with History.open(folder) as history:
        records = history.rounds()
    assert [event for record in records for event in record.events] == []


@pytest.mark.long
def test_a_site_is_killed_in_a_run_and_comes_back(scene: Scene) -> None:
    """Goes on with the run of the test before."""
    hq, folder, lyon = scene.server, scene.folder / "interrupted", scene.supernodes["lyon"]
    run = hq.run(resume=str(folder), overrides=f"imports=[{IMPORTS}] rounds=200")
    until("a round after that", lambda: committed(folder, 5), LONG)
    lyon.stop()
    until("a round without lyon", lambda: trained(folder)[-1] == {"gdansk", "porto"}, LONG)
    lyon.come_back(LONG)
    until("a round with lyon", lambda: trained(folder)[-1] == set(SITES), LONG)
    hq.flwr("stop", run, "here")
    last = len(trained(folder)) + 1
    run = hq.run(resume=str(folder), overrides=f"imports=[{IMPORTS}] rounds={last}")

    assert hq.finished(run, LONG) == "finished:completed", hq.shown(run)

    assert len(trained(folder)) == last and trained(folder)[-1] == set(SITES)
    with History.open(folder) as history:
        records, events = history.rounds(), history.events()
    lost = [e for record in records for e in record.events if e["site"] == "lyon"]
    assert lost and lost[0]["kind"] == "site-failed"
    assert not [e for e in lost if "has not got" in e["message"]]
    assert any(e["kind"] == "connected" and e["site"] == "lyon" for e in events)


SHORT = {"duplicate": "refused", "forged": "refused"}
ALL = {"float64": "refused", "giant": "refused", "replay": "timeout", "slow": "timeout",
       "huge": "refused", **SHORT}  # fmt: skip


@pytest.mark.parametrize("kinds", [SHORT, pytest.param(ALL, marks=pytest.mark.long)], ids=len)
def test_a_hostile_site_is_named_and_changes_nothing(scene: Scene, kinds: dict[str, str]) -> None:
    """It sends one kind of rubbish in each round, and text for a threshold; a second one has a
    valid key of its own and says that it is lyon."""
    hq, folder = scene.server, scene.folder / f"hostile run {len(kinds)}"
    hostile = SiteProcess(scene.folder / f"{HOSTILE} {len(kinds)}", HOSTILE, hq,
                          'imports="hostile"', "hostile_supernode.py")  # fmt: skip
    impostor = SiteProcess(scene.folder / f"impostor {len(kinds)}", "lyon", hq)
    scene.others += [hostile, impostor]
    bring_data(hostile.folder, HOSTILE)
    lyon = scene.supernodes["lyon"].folder
    shutil.copytree(lyon / "site", impostor.folder / "site")
    shutil.copy(lyon / "lyon.csv", impostor.folder)
    nodes = hq.flwr("supernode", "list", "here")["nodes"]
    others = " ".join(str(node["node-id"]) for node in nodes if node["status"] == "online")
    hostile.variables = {"HOSTILE": ",".join(kinds), "HOSTILE_OTHERS": others}
    hostile.register()
    impostor.register("impostor")
    hostile.connect()
    impostor.connect()
    chosen = ("scaling=plant", "experiment=noise", f"rounds={len(kinds)}")
    run = hq.run(overrides=f"--config-dir={scene.lab}/conf {TINY} site=[gdansk,lyon,{HOSTILE}] "
                 f"round_timeout=40 {' '.join(chosen)}", run_folder=str(folder))  # fmt: skip
    expected = scene.serial(*chosen, sites=("gdansk", "lyon"))

    assert hq.finished(run, LONG) == "finished:completed", hq.shown(run)
    hostile.stop()
    impostor.stop()

    assert hostile.said().count("again as ") == 1 + len(others.split()), hostile.said()
    assert equal(folder, expected, len(kinds)), "as if it had not been there"
    for each in weights(folder, len(kinds)):
        assert all(np.isfinite(array).all() for array in each.values())
    assert trained(folder) == [{"gdansk", "lyon"}] * len(kinds)
    events = read_json(folder / "summary.json")["events"]
    said = [(e["kind"], e.get("round"), e["site"]) for e in events if "site" in e]
    for number, kind in enumerate(kinds.values(), start=1):
        assert (kind, number, HOSTILE) in said, said
    assert any(kind == "plant-refused" and site == "lyon" for kind, _, site in said)
    assert {site for kind, _, site in said if kind != "plant-refused"} == {HOSTILE}, said
    tested = read_json(folder / "summary.json")["test"]["per_site"]
    assert set(tested) == {"gdansk", "lyon"}
    assert "<script>alert" not in (folder / "report.html").read_text()
