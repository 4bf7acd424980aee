"""Scoring new files: equal to what training saw, and clear about what cannot be scored."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from fedpdm.data.normalise import moments
from fedpdm.data.rows import Split
from fedpdm.data.sources.cmapss import OPERATING
from fedpdm.data.sources.files import FilesSource
from fedpdm.errors import ConfigError, DataError, FedPdmError, HistoryError, ModelError
from fedpdm.federation import Federation
from fedpdm.history import History, RoundRecord
from fedpdm.models import ModelFactory
from fedpdm.predict import load_predictor, machines, main
from fedpdm.seeding import torch_seeded
from fedpdm.storage import write_tensors
from fedpdm.tasks import Failure
from fedpdm.training.objective import outputs

FEATURES = ("temperature", "vibration")
WINDOW = 6
SITES = {
    "acme": {"path": "acme.csv", "machine": "asset", "time": "when", "label": "fails",
             "features": {"vibration": "vib", "temperature": {"column": "T1", "unit": "degC"}}},
    "zen": {"path": "zen.csv", "machine": "id", "time": "t", "label": "y", "sep": ";",
            "decimal": ",", "features": {"temperature": "Temp", "vibration": "Vib"}},
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [8]},
    "lstm": {"hidden_size": 4, "fc_hidden": 8},
}


def make_run(folder: Path, rounds: int = 2, kind: str = "mlp", **changes: Any) -> Path:
    """A run folder as the command leaves it, made by hand; round n has weights of seed n."""
    folder.mkdir(parents=True, exist_ok=True)
    card = {
        "schema": 1,
        "model_type": kind,
        "config": MODELS[kind],
        "input_dim": 2,
        "num_classes": 2,
        "sequence_length": WINDOW,
        "features": list(FEATURES),
        "window": WINDOW,
        "conditions": 1,
        "task": {"_target_": "fedpdm.tasks.Failure", "horizon": 7, "name": "failure"},
        "data": {"name": "files", "time_unit": "days"},
        "scaling": "federated",
        "best_round": 1,
        "threshold": 0.5,
        "sites": SITES,
    } | changes
    with History.create(folder) as history:
        for number in range(rounds + 1):
            metrics = {"average_precision": [0.1, 0.4, 0.3][number]}
            record = RoundRecord(number, history.attempt, (), metrics, {}, 0, 0, 0.0, (), "now")
            history.commit(record, weights(card, number), {}, {})
    scopes = ["federated"] if card["scaling"] == "federated" else list(card["sites"])
    scaler: dict[str, Any] = {}
    for shift, scope in enumerate(scopes):
        shape = (card["conditions"], card["input_dim"])
        scaler[f"{scope}/mean"] = np.full(shape, 50.0 + shift)
        scaler[f"{scope}/scale"] = np.full(shape, 10.0)
    write_tensors(folder / "scaler.safetensors", scaler)
    (folder / "model.json").write_text(json.dumps(card))
    return folder


def model(card: dict[str, Any], seed: int) -> Any:
    with torch_seeded(seed, "model"):
        return ModelFactory.create_model(
            card["model_type"], card["input_dim"], card["num_classes"],
            sequence_length=card["sequence_length"], **card["config"],
        )  # fmt: skip


def weights(card: dict[str, Any], seed: int) -> dict[str, Any]:
    return {name: value.numpy() for name, value in model(card, seed).get_parameters().items()}


def card_of(run: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((run / "model.json").read_text())
    return card


def change(run: Path, **changes: Any) -> None:
    (run / "model.json").write_text(json.dumps(card_of(run) | changes))


def acme(days: int = 20, machines: int = 3) -> pd.DataFrame:
    generator = np.random.default_rng(5)
    return pd.concat(
        pd.DataFrame(
            {
                "asset": f"{m:02d}",
                "when": pd.date_range("2024-03-01", periods=days, freq="D").strftime("%Y-%m-%d"),
                "T1": generator.normal(55, 10, days).round(2),
                "vib": generator.normal(45, 10, days).round(2),
            }
        )
        for m in range(machines)
    ).reset_index(drop=True)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def fails(run: Path, *arguments: str) -> str:
    """The command's one sentence, after exit code 2."""
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert main([str(run), *arguments]) == 2
    text = said.getvalue()
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


# What is scored --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mlp", "lstm"])
def test_risk_is_the_models_on_windows_cut_by_hand(tmp_path: Path, kind: str) -> None:
    run = make_run(tmp_path / "run", kind=kind)
    data = acme()
    scored = load_predictor(run, site="acme").score(data.sample(frac=1, random_state=0))
    assert len(scored) == 3 * (20 - WINDOW + 1)
    scaled = ((data[["T1", "vib"]].to_numpy() - 50) / 10).astype(np.float32)
    x = np.stack([scaled[m * 20 + e - WINDOW : m * 20 + e]
                  for m in range(3) for e in range(WINDOW, 21)])  # fmt: skip
    truth = torch.softmax(outputs(model(card_of(run), 1).module, torch.from_numpy(x)).double(), 1)
    np.testing.assert_allclose(scored["risk"], truth[:, 1], rtol=1e-6)
    assert scored["machine"].tolist() == [f"{m:02d}" for m in range(3) for _ in range(15)]
    assert scored["time"].tolist()[:2] == ["2024-03-06", "2024-03-07"]
    assert not scored["padded"].any()
    middle = float(truth[:, 1].median())
    alarm = load_predictor(run, site="acme", threshold=middle).score(data)["alarm"]
    np.testing.assert_array_equal(alarm, truth[:, 1] >= middle)


def test_scores_equal_those_of_the_evaluation(tmp_path: Path) -> None:
    """Training and scoring read, scale and cut the same file in the same way."""
    data = acme(60).assign(fails=lambda f: (f.index % 7 == 0).astype(int))
    data.loc[data.index % 11 == 3, "T1"] = np.nan
    data.to_csv(tmp_path / "acme.csv", index=False)
    source = FilesSource({"acme": SITES["acme"]}, path=str(tmp_path), window=WINDOW, reach=2)
    federation = Federation(source, Failure(2.0))
    rows = federation.rows("acme")
    scaler = moments(rows, 1).scaler()
    run = make_run(tmp_path / "run", features=list(source.features), scaling="plant",
                   sites={"acme": SITES["acme"]})  # fmt: skip
    write_tensors(
        run / "scaler.safetensors", {"acme/mean": scaler.mean, "acme/scale": scaler.scale}
    )
    windows = federation.site("acme", scaler).windows[Split.HELDOUT]
    predictor = load_predictor(run)
    output = outputs(predictor.model.module, torch.from_numpy(windows.x))
    scored = predictor.score(predictor.read(tmp_path / "acme.csv"))
    mine = scored[scored["machine"].isin(windows.machine)]
    assert len(mine) == len(windows) > 0
    np.testing.assert_allclose(mine["risk"], predictor.task.scores(output), rtol=1e-6)


def test_short_machines_are_padded_and_told(run: Path) -> None:
    data = acme().drop(index=range(23, 40))  # machine 01 keeps three rows
    scored = load_predictor(run, site="acme").score(data)
    short = scored[scored["machine"] == "01"]
    assert short["padded"].tolist() == [True] and short["time"].tolist() == ["2024-03-03"]
    filled = pd.concat([data[20:21]] * 3 + [data[20:23]])
    filled["when"] = range(6)
    other = load_predictor(run, site="acme").score(filled)
    np.testing.assert_allclose(other["risk"], short["risk"], rtol=1e-6)
    assert not other["padded"].any()


def test_missing_readings_take_the_last_known_one(run: Path) -> None:
    data, predictor = acme(), load_predictor(run, site="acme")
    gap, filled = data.copy(), data.copy()
    gap.loc[8, "T1"], filled.loc[8, "T1"] = np.nan, data.loc[7, "T1"]
    pd.testing.assert_frame_equal(predictor.score(gap), predictor.score(filled))


def test_later_rows_do_not_change_earlier_scores(run: Path) -> None:
    predictor, data = load_predictor(run, site="acme"), acme()
    early = predictor.score(data[data["when"] <= "2024-03-12"]).set_index(["machine", "time"])
    late = predictor.score(data).set_index(["machine", "time"]).loc[early.index]
    np.testing.assert_allclose(early["risk"], late["risk"], rtol=1e-6)


def test_the_chosen_round_unless_another_is_asked_for(run: Path) -> None:
    best, second = load_predictor(run), load_predictor(run, round=2)
    assert (best.round, second.round) == (1, 2)
    for predictor in (best, second):
        for name, value in weights(card_of(run), predictor.round).items():
            np.testing.assert_array_equal(predictor.model.get_parameters()[name], value)
    assert second.notes == ("the threshold was chosen for round 1, not for round 2",)
    change(run, best_round=None, threshold=None)
    unfinished = load_predictor(run)
    assert unfinished.round == 1 and "not finished" in unfinished.notes[0]


def test_sites_own_columns_and_formats(run: Path, tmp_path: Path) -> None:
    data = acme()
    predictor = load_predictor(run, site="acme")
    expected = predictor.score(data)
    data.to_parquet(tmp_path / "new.parquet")
    pd.testing.assert_frame_equal(
        predictor.score(predictor.read(tmp_path / "new.parquet")), expected
    )
    german = data.rename(columns={"asset": "id", "when": "t", "T1": "Temp", "vib": "Vib"})
    german.to_csv(tmp_path / "new.csv", sep=";", decimal=",", index=False)
    zen = load_predictor(run, site="zen")
    pd.testing.assert_frame_equal(zen.score(zen.read(tmp_path / "new.csv")), expected)
    plain = load_predictor(run)  # two mappings and no --site: the run's own names
    names = {"asset": "machine", "when": "time", "T1": "temperature", "vib": "vibration"}
    pd.testing.assert_frame_equal(plain.score(data.rename(columns=names)), expected)
    change(run, sites={"acme": SITES["acme"], "twin": SITES["acme"] | {"path": "twin.csv"}})
    pd.testing.assert_frame_equal(load_predictor(run).score(data), expected)


def test_each_sites_own_scaling(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", scaling="plant")
    first, second = (load_predictor(run, site=name) for name in ("acme", "zen"))
    assert first.scaler.mean[0, 0] == 50 and second.scaler.mean[0, 0] == 51
    assert "say whose data this is with --site (acme, zen)" in fails(run, "x.csv")


def test_single_rows_need_neither_machine_nor_time(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", window=None, sequence_length=None, sites={},
                   data={"name": "ai4i", "time_unit": "operations"})  # fmt: skip
    data = acme().rename(columns={"T1": "temperature", "vib": "vibration"})
    scored = load_predictor(run).score(data[list(FEATURES)])
    assert scored["time"].tolist() == list(range(1, 61))
    x = torch.tensor(((data[list(FEATURES)].to_numpy() - 50) / 10).astype(np.float32))
    expected = torch.softmax(outputs(model(card_of(run), 1).module, x).double(), 1)[:, 1]
    np.testing.assert_array_equal(scored["risk"], expected)
    named = load_predictor(run).score(data.rename(columns={"asset": "machine"}))
    assert sorted(named["risk"]) == sorted(scored["risk"]) and named["machine"].nunique() == 3


def test_horizons_and_remaining_life(tmp_path: Path) -> None:
    run = make_run(tmp_path / "h", threshold=None, num_classes=3,
                   task={"name": "horizons", "horizons": [7, 14, 30.5]})  # fmt: skip
    predictor = load_predictor(run, site="acme", threshold=0.4)
    scored = predictor.score(acme())
    risks = scored[["risk_7", "risk_14", "risk_30.5"]].to_numpy()
    assert np.all(np.diff(risks, axis=1) >= 0)
    np.testing.assert_array_equal(scored["alarm"], scored["risk_7"] >= 0.4)
    run = make_run(tmp_path / "rul", threshold=None, num_classes=1,
                   task={"name": "rul", "cap": 60})  # fmt: skip
    predictor = load_predictor(run, site="acme", threshold=10)
    scored = predictor.score(acme())
    assert scored["remaining_life"].between(0, 60).all()
    np.testing.assert_array_equal(scored["alarm"], scored["remaining_life"] <= 10)
    silent = load_predictor(run, site="acme")
    assert silent.score(acme())["alarm"].isna().all() and "--threshold" in silent.notes[0]


def test_a_sites_own_threshold_and_calibrated_risks(tmp_path: Path) -> None:
    plain = make_run(tmp_path / "plain")
    risk = load_predictor(plain, site="acme").score(acme())["risk"].to_numpy()
    run = make_run(tmp_path / "run", threshold=0.5, thresholds={"acme": 0.25},
                   calibration={"method": "temperature", "temperature": 2.0})  # fmt: skip
    scored = load_predictor(run, site="acme").score(acme())
    odds = np.log(risk / (1 - risk)) / 2
    np.testing.assert_allclose(scored["risk"], 1 / (1 + np.exp(-odds)), atol=1e-5)
    assert (scored["threshold"] == 0.25).all()
    np.testing.assert_array_equal(scored["alarm"], scored["risk"] >= 0.25)
    given = load_predictor(run, site="acme", threshold=0.4).score(acme())
    assert (given["threshold"] == 0.4).all()
    change(run, calibrations={"acme": {"method": "temperature", "temperature": 1.0}})
    again = load_predictor(run, site="acme").score(acme())["risk"]
    np.testing.assert_allclose(again, risk, atol=1e-5)
    change(run, calibrations={}, calibration={"method": "guess"})
    with pytest.raises(HistoryError, match="damaged"):
        load_predictor(run, site="acme")


def test_isotonic_risks_and_intervals_of_remaining_life(tmp_path: Path) -> None:
    corners = [{"said": [0.0, 1.0], "calibrated": [0.0, 0.5]}]
    plain = load_predictor(make_run(tmp_path / "plain"), site="acme").score(acme())
    run = make_run(tmp_path / "run", calibration={"method": "isotonic", "corners": corners})
    scored = load_predictor(run, site="acme").score(acme())
    np.testing.assert_allclose(scored["risk"], plain["risk"] / 2, atol=1e-5)
    run = make_run(tmp_path / "rul", threshold=None, num_classes=1,
                   task={"name": "rul", "cap": 60},
                   interval={"level": 0.9, "factor": 0.2, "cap": 60.0, "machines": 12})  # fmt: skip
    scored = load_predictor(run, site="acme").score(acme())
    life = scored["remaining_life"]
    np.testing.assert_allclose(scored["low"], np.clip(life - 0.2 * (life + 12), 0, 60))
    np.testing.assert_allclose(scored["high"], np.clip(life + 0.2 * (life + 12), 0, 60))


def test_operating_conditions_of_cmapss(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", conditions=6, sites={}, threshold=None,
                   operating=vars(OPERATING))  # fmt: skip
    means = np.arange(12.0).reshape(6, 2)
    write_tensors(run / "scaler.safetensors",
                  {"federated/mean": means, "federated/scale": np.ones((6, 2))})  # fmt: skip
    data = acme().rename(columns={"asset": "machine", "T1": "temperature", "vib": "vibration"})
    data["time"] = np.tile(np.arange(1, 21), 3)
    with pytest.raises(DataError, match=r"'setting_1' .*operating condition.* is missing"):
        load_predictor(run).score(data)
    data = data.assign(setting_1=20.003, setting_2=0.7, setting_3=100.0)
    scored = load_predictor(run).score(data)
    change(run, conditions=1, operating=None)
    write_tensors(run / "scaler.safetensors",
                  {"federated/mean": means[2:3], "federated/scale": np.ones((1, 2))})  # fmt: skip
    np.testing.assert_array_equal(scored["risk"], load_predictor(run).score(data)["risk"])
    change(run, conditions=6)
    write_tensors(run / "scaler.safetensors",
                  {"federated/mean": means, "federated/scale": np.ones((6, 2))})  # fmt: skip
    with pytest.raises(ConfigError, match="6 operating conditions"):
        load_predictor(run)


def test_a_machine_is_in_alarm_since_the_unbroken_run_began() -> None:
    scored = pd.DataFrame(
        {
            "machine": list("aaaabbc"),
            "time": [1, 2, 3, 4, 1, 2, 1],
            "risk": [0.9, 0.1, 0.8, 0.7, 0.9, 0.2, 0.9],
            "padded": False,
        }
    )
    scored["alarm"] = pd.array(scored["risk"] >= 0.5, dtype="boolean")
    lines = machines(scored, "risk").set_index("machine")
    assert lines["time"].to_dict() == {"a": 4, "b": 2, "c": 1}
    assert lines["risk"].to_dict() == {"a": 0.7, "b": 0.2, "c": 0.9}
    assert lines["alarm"].to_dict() == {"a": True, "b": False, "c": True}
    assert lines["since"].to_dict() == {"a": 3, "b": None, "c": 1}


# The command -----------------------------------------------------------------------------


def test_command_writes_scores_and_prints_machines(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    acme().to_csv("week.csv", index=False)
    assert main([str(run), "week.csv", "--site", "acme", "--threshold", "0"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("ALARM") == 3 and "2024-03-06" in shown and "week-scores.csv" in shown
    written = pd.read_csv("week-scores.csv", dtype={"machine": str})
    assert list(written) == ["machine", "time", "risk", "padded", "threshold", "alarm"]
    expected = load_predictor(run, site="acme", threshold=0.0).score(acme())
    np.testing.assert_allclose(written["risk"], expected["risk"], rtol=1e-12)
    assert written["alarm"].all() and (written["threshold"] == 0).all()
    assert main([str(run), "week.csv", "--site", "acme", "--out", str(tmp_path / "o.csv")]) == 0
    assert not list(tmp_path.glob("*.tmp"))
    acme().assign(vib=np.nan).to_csv("week.csv", index=False)
    assert main([str(run), "week.csv", "--site", "acme"]) == 0
    assert "note: column 'vib' has no reading at all" in capsys.readouterr().err


def test_the_machines_are_written_as_a_list_and_as_a_page(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    acme(60, 3).assign(asset=lambda rows: "<b>" + rows["asset"].astype(str)).to_csv("w.csv")
    assert main([str(run), "w.csv", "--site", "acme", "--html", "w.html"]) == 0
    listed = pd.read_csv("w-machines.csv")
    assert listed["risk"].is_monotonic_decreasing and len(listed) == 3
    assert (listed["action"].eq("inspect now") == listed["alarm"]).all()
    assert listed["why"].str.contains("temperature|vibration").any()
    text = Path("w.html").read_text("utf-8")
    assert "&lt;b&gt;" in text and "<b>" not in text
    assert re.findall(r"\b(?:src|href)=\"(?!data:)", text) == []


@pytest.mark.parametrize("way", ["option", "run"])
def test_a_page_is_german_if_it_or_the_run_asks_for_it_and_a_table_never(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if way == "run":
        run = make_run(tmp_path / "german", locale="de")
    acme(60, 3).to_csv("w.csv")
    asked = ["--locale", "de"] if way == "option" else []
    assert main([str(run), "w.csv", "--site", "acme", "--html", "w.html", *asked]) == 0
    page, table = Path("w.html").read_text("utf-8"), Path("w-machines.csv").read_text("utf-8")
    last = pd.read_csv("w-machines.csv")["time"].iloc[0]
    assert re.search(r">0,\d+<", page) and not re.search(r">0\.\d+<", page)
    assert re.search(r",0\.\d+,", table)
    assert f">{pd.Timestamp(last):%d.%m.%Y %H:%M}" in page
    assert main([str(run), "w.csv", "--site", "acme", "--html", "w.html", "--locale", "en"]) == 0
    assert re.search(r">0\.\d+<", Path("w.html").read_text("utf-8"))


@pytest.mark.parametrize("options", [["--out", "week.csv"], ["--html", "week-machines.csv"]])
def test_no_output_replaces_the_data(run: Path, tmp_path: Path, options: list[str],
                                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    acme().to_csv("week-machines.csv", index=False)
    before = Path("week-machines.csv").read_bytes()
    assert "is the file with the data" in fails(
        run, "week-machines.csv", "--site", "acme", *options
    )
    assert Path("week-machines.csv").read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_the_site_whose_columns_a_file_has_is_named(run: Path, tmp_path: Path) -> None:
    acme().to_csv(tmp_path / "week.csv", index=False)
    assert "--site acme" in fails(run, str(tmp_path / "week.csv"))
    assert "--site acme" in fails(run, str(tmp_path / "week.csv"), "--site", "zen")


def test_more_machines_than_fit_the_screen(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acme(7, 60).to_csv(tmp_path / "many.csv", index=False)
    assert main([str(run), str(tmp_path / "many.csv"), "--site", "acme", "--out",
                 str(tmp_path / "o.csv")]) == 0  # fmt: skip
    assert "20 more machines" in capsys.readouterr().out


def test_folders_that_are_no_finished_run(run: Path, tmp_path: Path) -> None:
    assert "is not a fedpdm run" in fails(tmp_path / "nowhere", "x.csv")
    assert "is not a fedpdm run" in fails(tmp_path, "x.csv")
    assert "no finished round 9; there are: 0, 1, 2" in fails(run, "x.csv", "--round", "9")
    empty = make_run(tmp_path / "empty", rounds=0, best_round=None)
    assert f"resume={empty}" in fails(empty, "x.csv")
    (run / "scaler.safetensors").unlink()
    assert "is not finished" in fails(run, "x.csv")


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    stored = run / "rounds" / "000001.safetensors"
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(content)
    assert "000001" in fails(run, "x.csv")
    assert load_predictor(run, round=2).round == 2
    stored.write_bytes(content[: len(content) // 2])
    assert "000001" in fails(run, "x.csv")
    run = make_run(tmp_path / "b")
    (run / "scaler.safetensors").write_bytes(b"nothing")
    assert "scaler.safetensors is damaged" in fails(run, "x.csv")
    run = make_run(tmp_path / "c")
    (run / "model.json").write_text("{")
    assert "model.json cannot be read" in fails(run, "x.csv")
    (run / "model.json").write_text("[]")
    assert "model.json is damaged" in fails(run, "x.csv")
    (run / "model.json").write_text('{"task": {"name": "failure", "horizon": 7}}')
    assert "model.json is damaged" in fails(run, "x.csv")
    run = make_run(tmp_path / "d")
    change(run, task={"name": "magic", "_target_": "os.system"})
    assert "task 'magic' (os.system) is not known" in fails(run, "x.csv")


def test_weights_of_another_model(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    change(run, config={"hidden": [9]})
    with pytest.raises(ModelError, match="shape"):
        load_predictor(run)
    run = make_run(tmp_path / "other")
    change(run, input_dim=3, features=["a", "b", "c"], model_type="lstm", config={})
    with pytest.raises(ModelError):
        load_predictor(run)
    run = make_run(tmp_path / "scaler")
    three = np.ones((1, 3))
    write_tensors(run / "scaler.safetensors", {"federated/mean": three, "federated/scale": three})
    with pytest.raises(HistoryError, match="of another run"):
        load_predictor(run)


def test_arguments_that_cannot_work(run: Path, tmp_path: Path) -> None:
    acme().to_csv(tmp_path / "new.csv", index=False)
    new = str(tmp_path / "new.csv")
    text = fails(run, new, "--site", "acmee")
    assert "there are acme, zen." in text and "Did you mean 'acme'" in text
    assert "between 0 and 1" in fails(run, new, "--threshold", "1.5")
    assert "write --imports mylab" in fails(run, new, "imports=mylab")
    assert "choose another name" in fails(run, new, "--site", "acme", "--out", new)
    assert "cannot be written" in fails(run, new, "--site", "acme", "--out", "/nowhere/o.csv")
    text = fails(run, new)
    assert "column 'machine' (the machine) is missing; found: asset, when, T1, vib." in text
    assert "does not exist" in fails(run, str(tmp_path / "none.csv"), "--site", "acme")
    assert pd.read_csv(new).shape == acme().shape


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: f.drop(columns="vib"), "'vib' \\(feature 'vibration'\\) is missing.*--site"),
        (lambda f: f.assign(vib="high"), "'vib' holds text, 'high', at line 2 \\(and 59 more"),
        (lambda f: f.assign(T1=np.inf), "infinite"),
        (lambda f: f.assign(when="2024-03-01"), "two rows at 2024-03-01 \\(line 2 and line 3"),
        (lambda f: f.assign(when="yesterday"), "'yesterday', which is not a time"),
        (lambda f: f.iloc[:0], "no rows"),
    ],
)
def test_files_that_cannot_be_scored(run: Path, tmp_path: Path, spoil: Any, said: str) -> None:
    spoil(acme()).to_csv(tmp_path / "new.csv", index=False)
    text = fails(run, str(tmp_path / "new.csv"), "--site", "acme")
    assert re.search(said, text), text
    with pytest.raises(FedPdmError):
        load_predictor(run, site="acme").score(spoil(acme()))


def test_the_guide_from_files_to_alarms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/bring-your-own-data.md as a reader follows it, with one round of a small model."""
    root = Path(__file__).parents[1]
    text = (root / "docs" / "bring-your-own-data.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    python, yamls, commands = ([b for kind, b in blocks if kind == language]
                               for language in ("python", "yaml", "bash"))  # fmt: skip
    monkeypatch.chdir(tmp_path)
    exec(compile(python[0], "make_plants.py", "exec"), {})
    (tmp_path / "plants" / "site").mkdir(parents=True)
    for block in yamls:
        # Other forms of files are shown beside the guide's own example.
        if name := re.search(r"# in (plants/site/\w+\.yaml)", block):
            (tmp_path / name[1]).write_text(block, encoding="utf-8")
    small = "model=mlp rounds=1 baselines.max_plants=0 hydra.run.dir=runs/NAME_OF_THE_RUN"

    def follow(command: str) -> str:
        program, option, module, *arguments = command.split()
        assert (program, option) == ("python", "-m")
        assert importlib.import_module(module).main(arguments) == 0
        return capsys.readouterr().out

    follow(f"{commands[0].strip()} {small}")
    assert "last time" in follow(commands[1].strip())
    scored = pd.read_csv(tmp_path / "scores.csv")
    said = re.search(r"per machine and time: `([^`]*)`", text)
    assert said is not None and list(scored) == said[1].split(", ")
    assert scored["machine"].nunique() == 10 and scored["risk"].between(0, 1).all()
    assert (scored["threshold"] > 0).all() and set(scored["alarm"]) <= {True, False}
    exec(compile(python[1], str(tmp_path), "exec"), {})
    assert "risk" in capsys.readouterr().out
