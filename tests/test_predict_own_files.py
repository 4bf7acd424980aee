"""Predict reads what training read: the same forms, units, words and gaps."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedpdm.predict import load_predictor
from fedpdm.predict import main as predict
from fedpdm.simulate import main
from tests.data.sources import own_files
from tests.data.sources.own_files import Tables, plain, settings_in, two_sites


def trained(folder: Path, *words: str) -> Path:
    sites = ",".join(settings_in(folder))
    run = folder / "run"
    assert main(["--config-dir", str(folder), "data=files", f"data.path={folder}", f"site={sites}",
                 "model=mlp", "rounds=1", "baselines.max_plants=0", f"hydra.run.dir={run}",
                 *words]) == 0  # fmt: skip
    return run


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sites: one logs degrees Celsius, the other Fahrenheit, thousands, words and sentinels."""

    def rewrite(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        state = np.where(np.arange(len(rows)) % 3 == 0, "idle", "run")
        rows = rows.assign(state=state, fan=np.where(rows["T1"] > 62, "on", "off"))
        if name == "lyon":
            high = (rows["T1"] * 9 / 5 + 32).round(3) + 1000
            rows["T1"] = high.map("{:,.3f}".format)
            rows.loc[5, "T1"] = "-"
            rows["state"] = rows["state"].map({"idle": "arret", "run": "marche"})
        else:
            rows["T1"] = (rows["T1"] + 1000 / 1.8).round(6)
        return rows, log

    def features(name: str) -> dict[str, Any]:
        words = {"idle": "arret", "run": "marche"} if name == "lyon" else ["idle", "run"]
        return {"heat": {"column": "T1", "unit": "degF" if name == "lyon" else "degC"},
                "state": {"column": "state", "values": words}, "fan": "fan"}  # fmt: skip

    def thousands(name: str) -> str | None:
        return "," if name == "lyon" else None

    folder = tmp_path_factory.mktemp("sites")
    return two_sites(folder, rewrite, features=features, thousands=thousands, missing=["-"])


@pytest.fixture(scope="module")
def run(sites: Path) -> Path:
    return trained(sites, "data.max_gap=9")


def test_a_site_is_scored_in_its_own_units_and_words(sites: Path, run: Path) -> None:
    lyon, gdansk = (load_predictor(run, site=site) for site in ("lyon", "gdansk"))
    raw = pd.read_csv(sites / "lyon.csv")
    celsius = (pd.to_numeric(raw["T1"].str.replace(",", ""), errors="coerce") - 32) / 1.8
    plain_words = raw.assign(T1=celsius, state=raw["state"].map({"arret": "idle", "marche": "run"}))
    mine = lyon.score(lyon.read(sites / "lyon.csv"))
    np.testing.assert_allclose(mine["risk"], gdansk.score(plain_words)["risk"], rtol=1e-5)


def test_the_command_scores_a_site_with_words_and_shows_ids_as_they_are(
    sites: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pd.read_csv(sites / "lyon.csv").assign(state="", asset="\x1b[2JM1\u202e").head(20)
    rows.to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "scores.csv"
    words = [str(run), str(tmp_path / "new.csv"), "--site", "lyon", "--out", str(out)]
    assert predict(words) == 0
    shown = capsys.readouterr()
    assert "'state' has no reading" in shown.err
    assert "\\x1b[2JM1\\u202e" in shown.out and not {"\x1b", "\u202e"} & {*shown.out}
    assert set(pd.read_csv(out)["machine"]) == {"\x1b[2JM1\u202e"}  # for joins it stays


def test_a_pattern_and_an_archive_are_read_like_one_file(
    sites: Path, run: Path, tmp_path: Path
) -> None:
    predictor = load_predictor(run, site="gdansk")
    whole = predictor.score(predictor.read(sites / "gdansk.csv"))
    rows = pd.read_csv(sites / "gdansk.csv")
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
        for k, part in enumerate((rows[:777], rows[777:])):
            part.to_csv(tmp_path / f"part{k}.csv", index=False)
            archive.writestr(f"part{k}.csv", part.to_csv(index=False))
    for path in ("part?.csv", "new.zip", "new.zip/part*.csv"):
        pd.testing.assert_frame_equal(predictor.score(predictor.read(tmp_path / path)), whole)


def test_no_scored_window_spans_a_gap(sites: Path, run: Path) -> None:
    predictor = load_predictor(run, site="gdansk")
    assert predictor.max_gap == 9
    rows = pd.read_csv(sites / "gdansk.csv")
    day = pd.to_datetime(rows["timestamp"])
    gap = rows[(day < "2024-05-01") | (day > "2024-05-12")]
    scored = predictor.score(gap)
    when = pd.to_datetime(scored["time"])
    after = scored[(when > "2024-05-12") & (when < "2024-05-20")]
    assert len(after) == 0  # each of these windows would begin before the gap
    short = rows[(day < "2024-05-01") | (day > "2024-05-08")]
    assert len(predictor.score(short)) > len(scored)


def test_files_without_a_column_of_machines_and_shared_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_files.valve_rig(tmp_path / "rig")
    rig = load_predictor(trained(tmp_path / "rig", "data.time_unit=minutes", "task.horizon=5"))
    one = rig.score(rig.read(tmp_path / "rig" / "valve1" / "3.csv"))
    every = rig.score(rig.read(tmp_path / "rig" / "valve1" / "*.csv"))
    assert set(every["machine"]) == {str(k) for k in range(15)}
    own = every[every["machine"] == "3"]
    np.testing.assert_array_equal(one["risk"], own["risk"])
    assert set(one["machine"]) == {"3"}
    monkeypatch.chdir(tmp_path)
    for pattern, out in (("*.csv", "all"), ("1*.csv", "1")):
        assert predict([str(tmp_path / "rig/run"), f"rig/valve1/{pattern}"]) == 0
        assert (tmp_path / f"{out}-scores.csv").is_file()

    def long(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        rows = rows.assign(T2=rows["T1"] * 2)
        rows = rows.melt(["asset", "timestamp"], var_name="tag", value_name="reading")
        return pd.concat([rows.assign(plant=name), rows.assign(plant="other")]), log

    folder = two_sites(
        tmp_path / "long", long, variable="tag", value="reading", features=["T2", "T1"],
        where=lambda name: {"plant": name},
    )  # fmt: skip
    predictor = load_predictor(trained(folder), site="lyon")
    scored = predictor.score(predictor.read(folder / "lyon.csv"))
    wide = predictor.score(pd.read_csv(folder / "lyon.csv"))
    pd.testing.assert_frame_equal(scored, wide)
    assert scored["machine"].nunique() == plain(12)[0]["asset"].nunique()
