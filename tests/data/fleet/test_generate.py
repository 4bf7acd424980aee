"""A fleet as files: read back it is the same run, and nothing half-written is ever left."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpdm.config.compose import compose
from fedpdm.data.__main__ import main
from fedpdm.data.fleet import generate as generating
from fedpdm.data.fleet.generate import Made, generate
from fedpdm.data.fleet.source import FleetSource
from fedpdm.errors import ConfigError, DataError, FedPdmError
from fedpdm.federation import Federation
from fedpdm.runs.experiment import build
from fedpdm.simulate import main as simulate

SITES = ("detroit", "turin")
OPTIONS = [
    "data.days=100", "sites.detroit.machines=5", "sites.turin.machines=6",
    "data.heterogeneity.feature_shift=0.5", "data.step_hours=12", "sites.turin.service_days=40",
    "sites.turin.scenarios={progressive: 2, sudden: 1, communication: 3}",
]  # fmt: skip


@pytest.fixture(scope="module", params=[False, True], ids=["parquet", "csv"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("fleet") / "out"
    return generate(folder, SITES, seed=3, overrides=OPTIONS, csv=request.param)


def federation(*more: str, task: str = "failure") -> Federation:
    site = f"site={','.join(SITES)}"
    return build(compose([site, "seed=3", f"task={task}", *OPTIONS, *more])).federation


def source_of(built: Federation) -> FleetSource:
    assert isinstance(built.source, FleetSource)
    return built.source


@pytest.mark.parametrize("task", ["failure", "horizons"])
def test_reading_the_files_gives_the_same_windows_and_splits(made: Made, task: str) -> None:
    fresh, read = federation(task=task), federation(f"data.path={made.folder}", task=task)
    for site in SITES:
        one, two = fresh.rows(site), read.rows(site)
        assert one.sha256() == two.sha256()
        np.testing.assert_array_equal(one.life, two.life)
        scaler = fresh.moments(site).scaler()
        mine, theirs = fresh.site(site, scaler).windows, read.site(site, scaler).windows
        for split, windows in mine.items():
            for name, column in vars(windows).items():
                np.testing.assert_array_equal(column, getattr(theirs[split], name))
        truth, back = source_of(fresh).latent(site), source_of(read).latent(site)
        for name, column in vars(truth).items():
            np.testing.assert_array_equal(column, getattr(back, name), name)


@pytest.mark.parametrize("made", [False], ids=["parquet"], indirect=True)
def test_the_run_on_the_files_is_the_run_without_them(made: Made, tmp_path: Path) -> None:
    summaries: list[dict[str, Any]] = []
    for number, more in enumerate(([], [f"data.path={made.folder}"])):
        run = tmp_path / str(number)
        common = ["model=mlp", "rounds=1", "baselines.max_plants=0", f"hydra.run.dir={run}"]
        site = f"site={','.join(SITES)}"
        assert simulate([site, "seed=3", *OPTIONS, *common, *more]) == 0
        summaries.append(json.loads((run / "summary.json").read_text()))
    for key in ("test", "bytes", "data"):
        assert summaries[0][key] == summaries[1][key]


def test_the_summary_counts_what_is_there(made: Made) -> None:
    summary = json.loads((made.folder / "summary.json").read_text())
    built = source_of(federation(f"data.path={made.folder}"))
    other = source_of(federation(f"data.path={made.folder}", "seed=99"))
    assert built.facts == other.facts, "days are those of the files, whatever the run's seed"
    for site, profile in summary["plants"].items():
        rows = built.rows(site)
        assert profile["rows"] == len(rows) and profile["machines"] == len(np.unique(rows.machine))
        assert profile["failures"] == sum(profile["by_mode"].values()) > 0
        assert profile["missing"] == pytest.approx(np.isnan(rows.values).mean())
    assert summary["plants"]["turin"]["maintenance"] > 0
    assert set(summary["files"]) == {
        str(path.relative_to(made.folder)) for path in made.folder.rglob("*") if path.is_file()
    } - {"summary.json"}
    assert summary["gates"]["failed"] == 0 and summary["gates"]["passed"] >= 10
    assert not [name for name in summary["files"] if "wear" in name]
    assert f"data.path={made.folder}" in made.command and OPTIONS[3] in made.command


def test_the_truth_lies_apart(made: Made) -> None:
    for path in (made.folder / "plants").iterdir():
        head = path.read_bytes()
        assert b"vibration_rms_mm_s" in head and b"wear" not in head and b"scenario" not in head


def test_the_seed_gives_the_bytes_at_any_wall_clock(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    csv = any(name.startswith("plants/") and name.endswith("csv") for name in made.summary["files"])
    again = generate(tmp_path / "again", SITES, seed=3, overrides=OPTIONS, csv=csv)
    for path in made.folder.rglob("*.*"):
        twin = again.folder / path.relative_to(made.folder)
        assert path.read_bytes() == twin.read_bytes(), path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["sites.detroit.machines=6"], r"sites\.detroit\.machines=6, but .* generated with 5"),
        (["data.missing=0.1"], r"data\.missing=0\.1, but .* generated with 0\.02"),
        (["data.heterogeneity.feature_shift=0"], r"data\.heterogeneity\.feature_shift=0"),
        (["site=detroit,turin,pune"], "has no site pune; there are detroit, turin"),
    ],
)
def test_settings_that_the_files_do_not_have_are_refused_by_key(
    made: Made, change: list[str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        federation(f"data.path={made.folder}", *change)


def test_files_that_were_changed_are_refused(made: Made, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(made.folder, copy)
    (path,) = (copy / "plants").glob("detroit.*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"detroit: .*not as it was generated"):
        federation(f"data.path={copy}").rows("detroit")
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        federation(f"data.path={copy}").rows("detroit")
    (copy / "summary.json").write_text("{")
    with pytest.raises(DataError, match=r"summary\.json cannot be read"):
        federation(f"data.path={copy}")
    with pytest.raises(DataError, match="holds no summary.json"):
        federation(f"data.path={tmp_path}")


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["generate", *arguments])
    return code, capsys.readouterr().err


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sites", "atlantis"], "site=atlantis does not exist"),
        (["--sites", ""], "names no site"),
        (["--days", "20"], "--days 20 is too short"),
        (["--seed", "-1"], "--seed -1"),
        (["model=cnn"], "model=cnn has no effect"),
        (["data.path=here"], "need not be generated"),
        (["data.prevalence=2"], "data.prevalence=2 must be"),
        (["data.mising=0.1"], "did you mean missing?"),
        (["+data.mising=0.1"], "data=fleet has no setting data.mising; there are concept_drift"),
        (["+data.reach=3"], "+data.reach=3: how far labels look is the task's matter"),
        (["+data.sites=3"], "+data.sites=3: sites are named with --sites"),
        (["++data.seed=3"], "++data.seed=3: the seed is given with --seed"),
        (["data._target_=os.system"], "data._target_=os.system: only data=fleet"),
        (["data.task_defaults=null"], "data.task_defaults=null: what is predicted"),
        (["--days", "1e9"], "detroit: 8e+10 rows (20 machines, 1e+09 days) need about"),
        (["data.days=1e9", "data.prevalence=0.05"], "detroit: 2.56e+11 rows"),
        (["sites.detroit.machines=1000000000000"], "lower --days or sites.NAME.machines"),
        (["--days", "1e308"], "larger than a computer can count with"),
        (["replicas=10000000"], "replicas=10000000 makes 10,000,000 sites"),
        (["sites.detroit.modes={rust: 1}"], "rust"),
        (["data.days=50", "data.missing=0.6"], "gate 'readings' failed at detroit: "),
        (["--days", "40", "sites.detroit.machines=1"], "gate 'failures' failed at detroit: "),
    ],
)
def test_mistakes_are_told_in_a_sentence_and_leave_nothing(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--sites", "detroit", "--out", str(tmp_path / "out"), *arguments]
    code, told = command(capsys, *arguments)
    assert code == 2 and says in told and told.startswith("error: ") and told.count("\n") == 1
    assert left(tmp_path) == []


def test_what_alarms_cost_is_no_matter_of_the_data(tmp_path: Path) -> None:
    small = ["sites.detroit.costs.missed=500"]
    made = generate(tmp_path / "out", ("detroit",), 60, 1, small)
    federation_of = build(compose(["site=detroit", "seed=1", "data.days=60", *small,
                                   f"data.path={made.folder}"])).federation  # fmt: skip
    assert len(federation_of.rows("detroit")) == made.summary["total"]["rows"]


def test_an_existing_folder_is_not_touched_and_no_folder_below_a_file_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    code, told = command(capsys, "--out", str(tmp_path / "out"))
    assert code == 2 and "exists already" in told and left(tmp_path / "out") == []
    (tmp_path / "file").touch()
    code, told = command(capsys, "--out", str(tmp_path / "file" / "out"))
    assert code == 2 and "cannot be written to" in told
    assert left(tmp_path) == ["file", "out"]


@pytest.mark.parametrize(
    "fault", [OSError(28, "No space left on device"), MemoryError(), KeyboardInterrupt()]
)
def test_what_breaks_off_leaves_nothing(
    fault: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = generating.write_site, []

    def breaks(*arguments: Any) -> list[str]:
        calls.append(arguments)
        if len(calls) == 2:
            raise fault
        return write(*arguments)

    monkeypatch.setattr(generating, "write_site", breaks)
    with pytest.raises(KeyboardInterrupt if isinstance(fault, KeyboardInterrupt) else ConfigError):
        generate(tmp_path / "out", ("detroit", "houston"), 60, 1, ["sites.detroit.machines=3"])
    assert len(calls) == 2 and left(tmp_path) == []


def test_who_stops_it_is_told_that_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*arguments: Any) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(generating, "write_site", stopped)
    code, told = command(capsys, "--days", "60", "--out", str(tmp_path / "out"))
    assert code == 130 and told == "stopped; nothing is left\n" and left(tmp_path) == []


def test_sigterm_leaves_nothing_half_written(tmp_path: Path) -> None:
    words = ["generate", "--days", "4000", "--out", str(tmp_path / "out")]
    with subprocess.Popen([sys.executable, "-m", "fedpdm.data", *words]) as process:
        try:
            deadline = time.monotonic() + 60
            while not left(tmp_path) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert left(tmp_path)[0].startswith(".out-")
            time.sleep(0.2)
            process.terminate()
            assert process.wait(60) == 143
        finally:
            process.kill()
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    ["a,b c", "it's [1]", "2024", "null", 'say "x"', "${seed}", "k=v", "back\\", "plain-1.0"],
)
def test_the_printed_command_reads_any_folder(name: str) -> None:
    printed = generating._train(name, ["detroit"], 3, [])
    words = shlex.split(printed)[3:]
    assert compose(words).data.path == name
    assert name != "plain-1.0" or words[1] == "data.path=plain-1.0"


def test_a_gate_that_no_option_explains_is_our_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = FleetSource.labelled

    def another(self: FleetSource, site: str, *rest: Any) -> Any:
        return read(self, site, *rest[:2], rest[2] + np.random.default_rng().normal(), *rest[3:])

    monkeypatch.setattr(FleetSource, "labelled", another)
    with pytest.raises(FedPdmError, match="'reproducible' failed at detroit") as caught:
        generate(tmp_path / "out", ("detroit",), 60)
    assert caught.value.exit_code == 1 and left(tmp_path) == []


def test_the_command_says_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main(["generate", "--sites", "detroit", "--days", "60", "--out", out]) == 0
    said = capsys.readouterr().out
    assert f"python -m fedpdm.simulate data=fleet data.path={out} site=detroit seed=42" in said
    assert "rows a minute" in said and "gates: 7 passed, 1 skipped" in said
