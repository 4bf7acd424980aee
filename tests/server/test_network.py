"""When sites are on, and what comes of a message: counted, and in closed form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpdm.config.compose import compose
from fedpdm.errors import ConfigError
from fedpdm.report.sections.simulated import said
from fedpdm.server.availability import DAY, Trace, diurnal, read_trace
from fedpdm.server.network import SimulatedNetwork
from fedpdm.simulate import main, simulate

SITES = ["a", "b"]


def network(**settings: Any) -> SimulatedNetwork:
    made = SimulatedNetwork(**settings)
    made.prepare(SITES, 3, lambda examples: examples, None)
    return made


def test_a_trace_comes_again_and_an_interval_may_cross_its_end() -> None:
    trace = Trace({"a": [(10.0, 20.0), (50.0, 60.0)], "b": [(0.0, 5.0), (90.0, 100.0)]}, 100.0)
    assert [trace.next_on("a", t) for t in (0.0, 15.0, 20.0, 60.0, 230.0)] == [
        10.0, 15.0, 50.0, 110.0, 250.0
    ]  # fmt: skip
    assert [trace.off("a", t) for t in (10.0, 55.0, 355.0)] == [20.0, 60.0, 360.0]
    assert trace.off("b", 95.0) == 105.0 and trace.off("b", 102.0) == 105.0
    assert Trace({"a": [(0.0, 9.0)]}, 9.0).off("a", 4.0) == math.inf


@pytest.mark.parametrize("hours", [1.0, 12.0, 23.0])
def test_diurnal_sites_are_on_for_their_hours(hours: float) -> None:
    names = [f"p{n}" for n in range(20)]
    trace = diurnal(names, hours, 7)
    times = np.arange(0, 2 * DAY, 300.0)
    share = [np.mean([trace.next_on(site, t) == t for t in times]) for site in names]
    assert share == pytest.approx([hours / 24] * 20, abs=0.01)
    assert diurnal(["p0"], 24.0, 7).off("p0", 5.0) == math.inf


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("site,on\na,1\n", "off"), ("site,on,off\na,1,2\n", "site b"),
        ("site,on,off\na,2,1\nb,1,2\n", "line 2"), ("site,on,off\na,x,1\nb,1,2\n", "line 2"),
        ("site,on,off\na,1,5\na,4,6\nb,1,2\n", "overlap"), ("site,on,off\na,1,nan\n", "line 2"),
        ("site,on,off\na,1\n", "line 2"), ("", "column"),
    ],
)  # fmt: skip
def test_a_trace_that_is_none_is_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_trace(tmp_path / "trace.csv", SITES)


def test_durations_in_closed_form() -> None:
    made = network(
        step_seconds=2.0, bandwidth=100.0, latency=1.0, sites={"b": {"speed": 0.5, "latency": 3.0}}
    )
    fate = made.fate("a", (1,), 10.0, 0.0, (200, 500), 7)
    assert (fate.free, fate.arrives) == (10 + 1 + 2 + 14, 27 + 1 + 5)
    assert made.fate("a", (1,), 10.0, 20.0, (200, 500), 7).arrives == 20 + 14 + 6
    assert made.fate("b", (1,), 10.0, 0.0, (200, 500), 7).arrives == 10 + 3 + 2 + 28 + 3 + 5
    assert fate.copy is None and fate.gives_up is None


def test_a_site_that_drops_out_is_given_up_after_its_last_sign_of_life() -> None:
    made = network(step_seconds=1.0, dropout=0.4, heartbeat_interval=5.0, heartbeat_timeout=12.0)
    fates = [made.fate("a", (n,), 0.0, 0.0, (0, 0), 100) for n in range(2000)]
    lost = [fate for fate in fates if fate.arrives is None]
    assert len(lost) / 2000 == pytest.approx(0.4, abs=0.03)
    for fate in lost:
        assert fate.gives_up is not None and 7.0 <= fate.gives_up - fate.free <= 12.0
        assert fate.gives_up % 5.0 == pytest.approx(2.0)


def test_shares_of_slow_sites_late_replies_copies_and_stragglers() -> None:
    names = [f"p{n}" for n in range(30)]
    made = SimulatedNetwork(
        bandwidth=None, latency=0.0, slow_share=0.1, late=0.2, duplicate=0.3, delay=50.0,
        straggle_share=0.25,
    )  # fmt: skip
    made.prepare(names, 3, lambda examples: examples, None)
    one = [made.fate(site, (0,), 0.0, 0.0, (0, 0), 1).free for site in names]
    assert sum(time >= 10.0 for time in one) >= 3
    many = [made.fate("p0", (n,), 0.0, 0.0, (0, 0), 1) for n in range(3000)]
    waits = np.array([fate.arrives - fate.free for fate in many if fate.arrives is not None])
    assert np.mean(waits > 0) == pytest.approx(0.2, abs=0.03)
    assert waits[waits > 0].mean() == pytest.approx(50.0, rel=0.15)
    assert np.mean([fate.copy is not None for fate in many]) == pytest.approx(0.3, abs=0.03)
    times = [fate.free for fate in many]
    assert np.mean(np.array(times) > min(times)) == pytest.approx(0.25, abs=0.03)


def test_a_site_that_goes_off_loses_its_work(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("site,on,off\na,0,50\nb,60,100\n")
    made = network(
        bandwidth=None, latency=0.0, availability=str(tmp_path / "trace.csv"),
        heartbeat_interval=10.0, heartbeat_timeout=10.0,
    )  # fmt: skip
    assert made.fate("a", (0,), 0.0, 0.0, (0, 0), 49).arrives == 49.0
    assert made.fate("a", (0,), 0.0, 0.0, (0, 0), 51).gives_up == 60.0
    assert made.fate("b", (0,), 0.0, 0.0, (0, 0), 30).arrives == 90.0


RUN = [
    "site=detroit,houston", "replicas=2", "rounds=3", "model=mlp", "model.config.hidden=[4]",
    "data.days=200", "training.local_epochs=1", "baselines.max_plants=0", "evaluate.bootstrap=0",
    "sites.detroit.machines=6", "sites.houston.machines=6", "engine=serial",
]  # fmt: skip


def test_a_run_says_its_simulated_time(tmp_path: Path) -> None:
    chosen = ["clock=virtual", "server=fedbuff", "server.buffer=2", "clock.dropout=0.2",
              "clock.sites.houston-001.speed=0.1"]  # fmt: skip
    summary = simulate(compose([*RUN, *chosen]), tmp_path / "run")
    found = summary["simulated"]
    counts = found["messages"]
    assert found["seconds"] >= found["best_round"]["seconds"] > 0 and found["bytes"] > 0
    assert counts["sent"] == counts["received"] + counts["timed_out"] + counts["under_way"]
    assert f"{counts['sent']} messages" in str(said(summary))
    page = (tmp_path / "run" / "report.html").read_text()
    assert 'id="simulated"' in page
    head = (tmp_path / "run" / "metrics.csv").read_text().partition("\n")[0].split(",")
    assert {"simulated_seconds", "messages_bytes", "bytes_up", "staleness"} <= set(head)


@pytest.mark.parametrize(
    "chosen",
    [
        ["server=fedbuff", "history.keep=2"], ["server=fedbuff", "strategy=scaffold"],
        ["server=fedasync", "strategy=fedmedian"], ["server=fedbuff", "strategy=fednova"],
        ["server=deadline"], ["clock=virtual", "clock.sites.bergen.speed=1"],
        ["clock=virtual", "clock.latency=x"], ["clock=virtual", "clock.speed=2"],
        ["clock=virtual", "clock.availability=nowhere.csv"],
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_is_written(
    chosen: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, *chosen, f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    assert not (tmp_path / "run").exists()
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
