"""Incremental retraining: first months, then ``init=RUN`` on later ones, with drift shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fedpdm.data.rows import Split
from fedpdm.federation import Federation
from fedpdm.predict import main as predict
from fedpdm.runs.drift import MUCH, NAME, reference
from fedpdm.simulate import main as simulate
from fedpdm.tasks import Failure
from fedpdm.testing.tiny import TinySource
from tests.promote.toy_sites import SENSORS, rows, write_sites

SMALL = ("data=files", "data.window=9", "model=trend", "rounds=1", "training.local_epochs=1",
         "baselines.max_plants=0", "evaluate.bootstrap=0", "engine=serial",
         "site=north,south")  # fmt: skip


def run(sites: Path, folder: Path, *words: str) -> Path:
    assert simulate(["--config-dir", str(sites), f"data.path={sites}", *SMALL, *words,
                     f"hydra.run.dir={folder}"]) == 0  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("drift")
    return run(write_sites(home / "sites"), home / "first")


def later(folder: Path) -> Path:
    """Later months: at north as before, at south sensor s3 reads higher."""
    write_sites(folder)
    for seed, name in ((70, "north"), (71, "south")):
        frame = rows(name, seed)
        frame["s3"] += 1.5 * (name == "south")
        frame.to_csv(folder / f"{name}.csv", index=False)
    return folder


def test_a_run_on_new_months_shows_what_drifted(first: Path, tmp_path: Path) -> None:
    run(later(tmp_path / "sites"), tmp_path / "second", f"init={first}")
    drift = json.loads((tmp_path / "second" / "summary.json").read_text())["drift"]
    assert drift["since"] == "first" and set(drift["per_site"]) == {"north", "south"}
    quiet, moved = (drift["per_site"][name]["readings"] for name in ("north", "south"))
    assert set(quiet) == set(moved) == set(SENSORS)
    assert all(each["psi"] < MUCH for each in quiet.values())
    assert [name for name, each in moved.items() if each["psi"] > MUCH] == ["s3"]
    assert next(iter(moved)) == "s3" and moved["s3"]["ks"] > 0.4
    scores = [drift["per_site"][name]["scores"]["risk"] for name in ("north", "south")]
    assert all(0 <= each["ks"] <= 1 for each in scores)
    page = (tmp_path / "second" / "report.html").read_text()
    assert 'id="drift"' in page and page.index("s3", page.index('id="drift"')) > 0
    assert 'id="drift"' not in (first / "report.html").read_text()


def test_new_files_are_compared_with_the_training(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = later(tmp_path / "sites")
    words = ["--site", "north", "--drift", "--out", str(tmp_path / "out.csv")]
    for name, drifted in (("north", []), ("south", ["s3"])):
        assert predict([str(first), str(sites / f"{name}.csv"), *words]) == 0
        lines = capsys.readouterr().out.partition("drift from")[2].splitlines()
        found = [line.split(":")[0].strip() for line in lines if line.endswith("much")]
        assert [sensor for sensor in found if sensor in SENSORS] == drifted


def test_with_history_drift_is_of_the_sensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = run(write_sites(tmp_path / "sites"), tmp_path / "old", "features=history")
    new = run(later(tmp_path / "later"), tmp_path / "new", "features=history", f"init={old}")
    drift = json.loads((new / "summary.json").read_text())["drift"]["per_site"]["south"]
    assert set(drift["readings"]) == set(SENSORS) and next(iter(drift["readings"])) == "s3"
    capsys.readouterr()
    words = ["--site", "south", "--drift", "--out", str(tmp_path / "out.csv")]
    assert predict([str(old), str(tmp_path / "later" / "south.csv"), *words]) == 0
    assert "s3" in capsys.readouterr().out.partition("drift from")[2].splitlines()[1]


def test_a_model_is_not_taken_over_by_a_run_with_other_sensors(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many inputs, but not the same: the shapes fit, the meaning does not."""
    sites = write_sites(tmp_path / "sites")
    base = [*SMALL, "--config-dir", str(sites), f"data.path={sites}", "without=[s1]"]
    assert simulate([*base, f"hydra.run.dir={tmp_path / 'one'}"]) == 0
    base[-1] = "without=[s2]"
    words = [*base, f"init={tmp_path / 'one'}", f"hydra.run.dir={tmp_path / 'two'}"]
    assert simulate(words) == 2
    assert "s2, s1" in capsys.readouterr().err and not (tmp_path / "two").exists()


def test_a_site_without_validation_windows_keeps_readings_alone() -> None:
    source = TinySource({"a": {"machines": 6}}, window=12)
    federation = Federation(source, Failure(4.0))
    site = federation.site("a", federation.moments("a").scaler())
    for count in (0, 5):
        kept = reference(federation, [site], {"a": {Split.VALIDATION: np.zeros(count)}})
        assert set(kept) == {"readings/a", "scores/a"} - ({"scores/a"} if count == 0 else set())


def test_an_altered_or_missing_reference_is_refused(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    words = [str(copy), str(first.parent / "sites" / "north.csv"), "--drift", "--site", "north",
             "--out", str(tmp_path / "out.csv")]  # fmt: skip
    content = bytearray((copy / NAME).read_bytes())
    content[-1] ^= 1
    (copy / NAME).write_bytes(content)
    assert predict(words) == 2 and NAME in capsys.readouterr().err
    (copy / NAME).unlink()
    assert predict(words) == 2 and "keeps no readings" in capsys.readouterr().err
    assert predict([word for word in words if word != "--drift"]) == 0
