"""The parts of the speed benchmark that compute: plans, medians, goals, tables. No timings."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.speed import contenders, measure, plot, report, results, scale, targets, work

ROOT = Path(__file__).resolve().parent.parent


def load_run() -> Any:
    spec = importlib.util.spec_from_file_location("bench_run", ROOT / "benchmarks" / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = load_run()


def measured(
    contender: str, seconds: list[float], model: str = "cnn", sites: int = 100, repeat: int = 0,
    **more: Any,
) -> dict[str, Any]:  # fmt: skip
    return {
        "model": model, "plants": sites, "contender": contender, "repeat": repeat,
        "device": "cpu", "round_seconds": seconds, "process_seconds": sum(seconds) + 1,
        "peak_bytes": 3 * 2**20, "train_loss": [0.7, 0.6], **more,
    }  # fmt: skip


# The work ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", work.MODELS)
def test_every_model_takes_its_data_and_starts_with_the_same_weights(model: str) -> None:
    import torch

    x, y = work.site_data(model, 3)
    again, _ = work.site_data(model, 3)
    other, _ = work.site_data(model, 4)
    assert x.dtype == np.float32 and x.shape[0] == len(y) == 100
    assert np.array_equal(x, again) and not np.array_equal(x, other)
    assert set(np.unique(y)) == {0, 1}
    first, second = work.build_model(model), work.build_model(model)
    assert first.eval()(torch.from_numpy(x)).shape == (100, 2)
    for name, tensor in first.get_parameters().items():
        assert torch.equal(tensor, second.get_parameters()[name])


def test_the_mlp_is_the_one_of_the_design() -> None:
    assert work.build_model("mlp").num_parameters == 2978


def test_the_bare_loop_learns(tmp_path: Path) -> None:
    from benchmarks.speed import floor

    stamps, losses = floor.run(work.Work("floor", "mlp", 3, 12))
    assert len(stamps) == 13 and stamps == sorted(stamps)
    assert losses[-1] < losses[0] - 0.05
    work.write_result(tmp_path / "result.json", [1.0, 1.5, 3.0], losses, extra=1)
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored["round_seconds"] == [0.5, 1.5] and stored["extra"] == 1


def test_an_engine_does_the_same_work_as_the_bare_loop(tmp_path: Path) -> None:
    from benchmarks.speed import engines, floor

    engines.run(work.Work("serial", "mlp", 3, 6), tmp_path / "result.json")
    stored = json.loads((tmp_path / "result.json").read_text())
    _, losses = floor.run(work.Work("floor", "mlp", 3, 6))
    assert len(stored["round_seconds"]) == 6
    assert stored["bytes_up"] > 3 * 4 * 2978
    # Batches are drawn differently, so the losses are near and not the same.
    assert stored["train_loss"] == pytest.approx(losses, rel=0.05)


def test_sites_of_the_benchmark_travel_without_their_data() -> None:
    import pickle

    from benchmarks.speed.engines import BenchFederation
    from fedpdm.data.normalise import Scaler

    federation = BenchFederation("cnn", 2)
    scaler = Scaler(np.zeros((1, 14)), np.ones((1, 14)))
    site = federation.site("plant-00001", scaler)
    sent = pickle.dumps(federation)
    assert len(sent) < 2000
    again = pickle.loads(sent).site("plant-00001", scaler)
    assert np.array_equal(again.train.x, site.train.x) and len(again.validation) == 0


# Plan and store ---------------------------------------------------------------------------


def test_contenders_take_turns_and_finished_runs_are_left_out() -> None:
    cells = [("cnn", 10), ("mlp", 2)]
    everything = list(run.plan(cells, ["a", "b"], 2, set()))
    assert everything[:4] == [
        ("cnn", 10, "a", 0), ("cnn", 10, "b", 0), ("cnn", 10, "a", 1), ("cnn", 10, "b", 1),
    ]  # fmt: skip
    done = {everything[0], everything[5]}
    assert list(run.plan(cells, ["a", "b"], 2, done)) == [k for k in everything if k not in done]


def test_cells_from_the_command_line() -> None:
    assert run.parse_cells("cnn:100,lstm:7", False) == [("cnn", 100), ("lstm", 7)]
    assert run.parse_cells("mlp", False) == [("mlp", n) for n in (2, 10, 100, 1000)]
    assert len(run.parse_cells(None, False)) == 16
    for wrong in ("gru:10", "cnn:0", "cnn:x"):
        with pytest.raises(SystemExit, match=wrong):
            run.parse_cells(wrong, False)


def test_gpu_contenders_take_part_only_on_a_gpu() -> None:
    cpu, cuda = contenders.chosen(None, "cpu"), contenders.chosen(None, "cuda")
    assert {"floor", "serial", "flower", "pfl1", "pfl2"} <= set(cpu)
    assert "floor-cuda" in cuda and not set(cpu) & set(cuda)
    assert set(contenders.chosen(None, "both")) == {*cpu, *cuda}
    assert contenders.chosen(["flower", "floor"], "cpu") == ["floor", "flower"]
    assert "floor-default" not in cpu


def test_a_run_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "speed.jsonl"
    whole = measured("floor", [3.0, 1.0])
    failed = {k: whole[k] for k in ("model", "plants", "repeat")} | {
        "contender": "ray", "device": "cpu", "failed": "no such engine",
    }  # fmt: skip
    path.write_text(f"{json.dumps(whole)}\n{json.dumps(failed)}\n" + json.dumps(whole)[:40])
    runs = results.read_runs(path)
    assert results.done(runs) == {("cnn", 100, "floor", 0)}
    assert results.read_runs(tmp_path / "none.jsonl") == []
    entries = {e["contender"]: e for e in results.summarise(runs)}
    assert entries["ray"]["failed"] == "no such engine"


# Medians ----------------------------------------------------------------------------------


def test_medians_over_later_rounds_then_over_turns() -> None:
    runs = [
        measured("floor", [100.0, 1.0, 2.0, 9.0], repeat=0),
        measured("floor", [100.0, 4.0, 4.0, 4.0], repeat=1),
        measured("floor", [100.0, 3.0, 3.0, 3.0], repeat=2),
    ]
    (entry,) = results.summarise(runs)
    assert entry["round_seconds"] == 3.0
    assert entry["round_seconds_of_repeats"] == [2.0, 4.0, 3.0]
    assert entry["first_round_seconds"] == 100.0
    assert entry["rounds"] == 4
    # Measured again: the later run of the same turn counts.
    (entry,) = results.summarise([*runs, measured("floor", [1.0, 8.0], repeat=0)])
    assert entry["round_seconds_of_repeats"] == [8.0, 4.0, 3.0]


@given(
    st.lists(st.floats(0.001, 100), min_size=1, max_size=8),
    st.floats(0.001, 1000),
)
def test_the_first_round_never_counts(later: list[float], first: float) -> None:
    assert results.per_round([first, *later]) == results.per_round([0.0, *later])


def test_a_contender_that_did_other_work_is_named() -> None:
    runs = [
        measured("floor", [1.0, 1.0], train_loss=[0.60]),
        measured("ray", [1.0, 1.0], train_loss=[0.62]),
        measured("pfl1", [1.0, 1.0], train_loss=[0.69]),
        measured("flower", [1.0, 1.0], train_loss=[float("nan")]),
    ]
    found = results.disagreements(results.summarise(runs))
    assert [line.split(": ")[1].split()[0] for line in found] == ["pfl1", "flower"]


# Goals ------------------------------------------------------------------------------------


def entry(contender: str, seconds: float, model: str = "cnn", sites: int = 100) -> dict[str, Any]:
    return results.summarise([measured(contender, [9.0, seconds], model, sites)])[0]


def test_goals_are_ratios_of_what_was_measured() -> None:
    goals = targets.goals(
        [
            entry("flower", 2.5), entry("ray", 0.8), entry("serial", 1.2), entry("floor", 1.0),
            entry("pfl1", 1.0), entry("pfl2", 0.9), entry("serial-cuda", 5.0),
            entry("batched-cuda", 0.1), entry("auto", 1.2),
        ]
    )  # fmt: skip
    by = {(g.number, g.what): g for g in goals}
    flower = by[1, "100 sites, cnn: a round, times as fast as Flower"]
    assert flower.measured == pytest.approx(3.125) and flower.met is False  # asked: 7
    better = by[1, "100 sites, cnn: a round, times as fast as pfl-research"]
    assert better.measured == pytest.approx(0.9 / 0.8) and better.met is False
    auto = by[3, "100 sites, cnn: whole process, auto over the best engine"]
    assert auto.measured == pytest.approx(11.2 / 10.8) and auto.met
    gpu = by[7, "100 sites, cnn, one GPU: batched against serial"]
    assert gpu.measured == pytest.approx(50) and gpu.met
    missing = by[1, "100 sites, mlp: a round, times as fast as pfl-research"]
    assert missing.measured is None and missing.met is None
    text = targets.as_text(goals)
    assert "MISSED" in text and "not measured" in text and "≤ 1.15" in text


# Tables and plot --------------------------------------------------------------------------


def test_the_table_shows_the_better_pfl_and_the_quickest_in_bold() -> None:
    entries = [entry("floor", 0.5), entry("pfl1", 0.4), entry("pfl2", 0.25), entry("flower", 12.3)]
    lines = report.table(entries, report.COLUMNS).splitlines()
    assert lines[0] == "| model | sites | bare loop | Flower, 2 actors | pfl-research |"
    assert lines[2:] == ["| cnn | 100 | 0.50 | 12 | **0.25** |"]


def test_whole_processes_are_compared_by_their_own_time() -> None:
    slow = entry("pfl2", 0.25) | {"process_seconds": 20.0}
    table = report.process_table([entry("pfl1", 0.4), slow])
    assert table.splitlines()[2] == "| cnn | 100 | 10 s, 3 MB |"


@pytest.mark.parametrize(
    ("value", "text"), [(0.00981, "0.0098"), (0.0451, "0.045"), (0.449, "0.45"), (1.34, "1.3")]
)
def test_seconds_keep_two_digits(value: float, text: str) -> None:
    assert report.seconds(value) == text


def test_the_page_is_written_only_between_its_marks(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("# Title\nno marks\n")
    assert not report.write_page(path, "table")
    assert path.read_text() == "# Title\nno marks\n"
    path.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    assert report.write_page(path, "new") and report.write_page(path, "newer")
    assert path.read_text() == f"before\n{report.BEGIN}\nnewer\n{report.END}\nafter\n"


def test_what_is_written_is_what_the_tables_are_made_of(tmp_path: Path) -> None:
    machine = {"processor": "some CPU, 2 cores", "gpu": "some GPU", "python": "3.11"}
    cpu = measured("serial", [9.0, 0.5], commit="abc", bytes_up=500_000, bytes_down=700_000)
    cuda = measured("serial-cuda", [9.0, 0.2], commit="abc") | {"device": "cuda"}
    run.write([cpu, cuda], machine, {"ours": {"torch": "2.13"}}, tmp_path)
    found = run.load(tmp_path)
    text = report.section(*found)
    assert "| cnn | 100 | **0.50** |" in text and "| cnn | 100 | **0.20** |" in text
    assert "10 s, 3 MB" in text and "in a round: cnn 5 and 7 kB." in text
    assert "some CPU, 2 cores; PyTorch 2.13" in text and "some GPU; PyTorch 2.13" in text


def test_the_speed_table_is_that_of_the_result_files() -> None:
    cpu, cuda = run.load(run.RESULTS)
    assert report.section(cpu, cuda) in (ROOT / report.PAGE).read_text("utf-8")


def test_the_plot_is_the_same_for_the_same_numbers(tmp_path: Path) -> None:
    entries = [entry("serial", 0.1 * n, sites=n) for n in (2, 10)] + [entry("floor", 0.1)]
    for name in ("a.svg", "b.svg"):
        plot.draw(entries, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert plot.points(entries, "cnn", ("serial",)) == [(2, 0.2), (10, 1.0)]
    assert set(plot.STYLES) == set(report.COLUMNS)


# Processes --------------------------------------------------------------------------------


def running(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_memory_of_children_counts_and_nothing_is_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_file = tmp_path / "pid"
    child = (
        f"import os, pathlib, time; b = b'x' * {60 * 2**20}\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(600)"
    )
    parent = (
        "import pathlib, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)\n"
        f"while not pathlib.Path({str(pid_file)!r}).exists(): time.sleep(0.05)\n"
        "time.sleep(1.5)"
    )
    monkeypatch.setattr(measure, "PATIENCE", 0.5)
    done = measure.run_watched([sys.executable, "-c", parent], 120, {})
    assert done.returncode == 0
    assert done.peak_bytes is not None and 60 * 2**20 < done.peak_bytes < 300 * 2**20
    pid = int(pid_file.read_text())
    deadline = time.monotonic() + 60  # a killed process takes a moment to give its memory back
    while running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_an_interrupted_benchmark_ends_its_contender(tmp_path: Path) -> None:
    contender = f"""
import os, pathlib, time
pathlib.Path({str(tmp_path / "mark")!r}).write_text(os.environ[{measure.MARK!r}])
time.sleep(60)"""
    (tmp_path / "bench.py").write_text(f"""
import runpy, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from benchmarks.speed.measure import run_watched
module = runpy.run_path({str(ROOT / "benchmarks" / "run.py")!r})
signal.signal(signal.SIGTERM, module["stop"])
run_watched([sys.executable, "-c", {contender!r}], 60, {{}})
""")
    inputs = subprocess.Popen([sys.executable, str(tmp_path / "bench.py")])
    deadline = time.monotonic() + 60
    while not (mark := tmp_path / "mark").exists() or not mark.read_text():
        assert inputs.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    assert measure.marked(mark.read_text())
    inputs.terminate()
    assert inputs.wait(30) == 143
    assert measure.marked(mark.read_text()) == []


def test_what_a_contender_cannot_do_is_said_in_its_own_words() -> None:
    hydra = "Traceback …\n  raise\nomegaconf.errors.ConfigAttributeError: no 'x'\n    full_key: x\n"
    assert measure.last_words(hydra) == "omegaconf.errors.ConfigAttributeError: no 'x'"
    bad = [sys.executable, "-c", "raise SystemExit('no such engine')"]
    assert measure.measure(bad, "{}", 20) == {"failed": "no such engine"}
    slow = [sys.executable, "-c", "import time; time.sleep(30)"]
    assert measure.measure(slow, "{}", 0.3) == {"failed": "not done after 0 s"}


def test_scale_asks_for_the_sites_and_fits_a_line(tmp_path: Path) -> None:
    command = scale.command("mlp", 10_000, 0.05, 10, tmp_path, ["seed=7"])
    assert "replicas=2500" in command and "strategy.fraction_train=0.05" in command
    assert command[-1] == "seed=7"
    with pytest.raises(SystemExit, match="multiple of 4"):
        scale.command("mlp", 10, 0.05, 10, tmp_path, [])
    fit = scale.line_fit([100, 200, 500], [1.5, 2.5, 5.5])
    assert fit == pytest.approx({"slope": 0.01, "intercept": 0.5, "r_squared": 1.0})
    assert scale.line_fit([1, 2, 3, 4], [1, 3, 2, 4])["r_squared"] == pytest.approx(0.64)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    assert scale.disk(tmp_path) == 5


def test_the_command_answers_for_itself() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/run.py", "--cells", "gru:2", "--contenders", "nobody"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1 and "nobody is unknown" in done.stderr
