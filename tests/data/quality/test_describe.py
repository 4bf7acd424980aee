"""``data describe`` proposes a yaml that loads as it is, and reads the file as it was meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from fedpdm.data import __main__ as command
from fedpdm.data.quality.describe import describe
from fedpdm.data.rows import Rows
from fedpdm.data.sources.files import FilesSource
from fedpdm.errors import DataError
from tests.data.sources.own_files import machine_tables, plain, valve_rig, wind_farm


def write(
    folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame,
    above: str = "", **csv: Any,
) -> list[str]:  # fmt: skip
    """Write rows and log of ten machines; return their paths."""
    folder.mkdir(exist_ok=True)
    encoding = csv.get("encoding", "utf-8")
    for name, frame in zip(("rows", "log"), plain(11), strict=True):
        text = change(frame).to_csv(index=False, **csv)
        top = above if name == "rows" else ""
        (folder / f"{name}.csv").write_bytes((top + text).encode(encoding))
    return [str(folder / "rows.csv"), str(folder / "log.csv")]


def loaded(text: str, time_unit: str = "days", **options: Any) -> Rows:
    """Return the rows that a proposed yaml gives."""
    assert text.startswith("# @package sites\n")
    (site,) = sites = yaml.safe_load(text)
    given: dict[str, Any] = {"reach": 7.0, "time_unit": time_unit, **options}
    return FilesSource(sites, **given).rows(site)


def unix(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(timestamp=frame["timestamp"].astype("datetime64[ms]").astype("int64"))


def american(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(timestamp=frame["timestamp"].dt.strftime("%m/%d/%Y %I:%M:%S %p"))


def words(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(columns={"asset": "Máquina", "T1": "Temperatur °C"})


def compact(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(timestamp=frame["timestamp"].dt.strftime("%Y%m%d%H%M").astype(object))


FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "semicolons and decimal commas": {"sep": ";", "decimal": ",", "date_format": "%d.%m.%Y %H:%M"},
    "tabs": {"sep": "\t"},
    "bars": {"sep": "|", "date_format": "%Y/%m/%d %H:%M:%S"},
    "unix milliseconds": {"change": unix},
    "american dates": {"change": american},
    "latin 1": {"change": words, "encoding": "cp1252"},
    "utf-16": {"encoding": "utf-16"},
    "lines above": {"above": "Exported by SCADA\nPlant: A; B, C\n\n"},
    "quoted": {"quoting": 1},
    "offsets": {"date_format": "%Y-%m-%dT%H:%M:%S+00:00"},
    "two-digit years": {"date_format": "%d/%m/%y %H:%M"},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_file_gives_the_same_rows(form: str, tmp_path: Path) -> None:
    expected = loaded(describe(write(tmp_path / "plain")))
    assert np.sum(~np.isnan(expected.time_to_failure)) > 1000
    rows = loaded(describe(write(tmp_path / "form", **FORMS[form])))
    np.testing.assert_allclose(rows.time, expected.time)
    np.testing.assert_array_equal(rows.machine, expected.machine)
    np.testing.assert_array_equal(rows.values, expected.values)
    np.testing.assert_allclose(rows.time_to_failure, expected.time_to_failure)


def test_files_may_come_in_any_order(tmp_path: Path) -> None:
    paths = write(tmp_path)
    assert describe(paths) == describe(paths[::-1])


def test_a_log_may_be_empty(tmp_path: Path) -> None:
    paths = write(tmp_path)
    Path(paths[1]).write_text("asset,timestamp,kind\n")
    settings = yaml.safe_load(describe(paths))["rows"]
    assert settings["failures"] == [{"path": paths[1]}]


def test_sentinels_and_words_without_a_reading_become_missing(tmp_path: Path) -> None:
    rows, log = plain(11)
    rows["T1"] = rows["T1"].astype(object)
    rows.loc[::40, "T1"], rows.loc[7::90, "T1"] = -9999, "#VALUE!"
    rows.to_csv(tmp_path / "rows.csv", index=False)
    log.to_csv(tmp_path / "log.csv", index=False)
    text = describe([str(tmp_path / "rows.csv"), str(tmp_path / "log.csv")])
    assert "unsure" in text
    assert np.isnan(loaded(text).values).sum() == 75 + len(range(7, 3000, 90)) - len(
        set(range(0, 3000, 40)) & set(range(7, 3000, 90))
    )


def test_columns_that_teach_nothing_are_left_out(tmp_path: Path) -> None:
    def more(frame: pd.DataFrame) -> pd.DataFrame:
        if "T1" not in frame:
            return frame
        return frame.assign(
            no=range(len(frame)), site="A", note=[f"text {k}" for k in range(len(frame))],
            mode=np.where(frame["T1"] > 65, "full", "eco"),
            pump=np.where(frame["T1"] > 60, "On", "Off"),
        )  # fmt: skip

    text = describe(write(tmp_path, more))
    assert set(loaded(text).features) == {"t1", "mode", "pump"}
    (left_out,) = (line for line in text.splitlines() if "left out" in line)
    assert all(name in left_out for name in ("no (", "site (", "note ("))


def test_strangers_files_load_as_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for make in (valve_rig, machine_tables, wind_farm):
        make(tmp_path)
    rig = loaded(describe(["valve*/*.csv"], "rig"), "hours", reach=0.1)
    assert (len(np.unique(rig.machine)), rig.features) == (30, ("pressure", "volume_flow_raterms"))
    assert rig.label is not None and rig.label.any()
    tables = loaded(describe([f"azure.zip/PdM_{name}.csv" for name in ("telemetry", "failures")]))
    assert tables.features == ("volt", "mode_eco", "mode_full", "mode_idle")
    farm = loaded(describe(["signals.csv", "failures.csv"]))
    assert (~np.isnan(farm.time_to_failure)).any()


def test_the_proposal_passes_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = write(tmp_path, sep=";", decimal=",", date_format="%d.%m.%Y %H:%M")
    assert command.main(["describe", *paths, "--site", "lyon"]) == 0
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "lyon.yaml").write_text(capsys.readouterr().out)
    assert command.main(["check", "--config-dir", str(tmp_path), "data=files", "site=lyon"]) == 0
    assert "3,000 of 10 machines" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n", b"1,2\n3,4\n", b"x,y\n1,2\n3,4\n", b"a,a\n1,2\n",
                b"\x00\xff\xfe\x01" * 9,
                b"time,T1\n2024-01-01,5\n2024-01-02,5\n"],
)  # fmt: skip
def test_a_file_that_says_nothing_is_refused_in_one_sentence(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    assert command.main(["describe", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "rows.csv" in error


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        describe([str(tmp_path / "none.csv")])


def german(frame: pd.DataFrame) -> pd.DataFrame:
    if "T1" in frame:
        return frame.rename(
            columns={"asset": "Anlage", "timestamp": "Zeit", "T1": "Öltemperatur °C"}
        )
    return pd.DataFrame({
        "Nr": range(1, len(frame) + 1), "Anlage": frame["asset"], "Beginn": frame["timestamp"],
        "Ende": frame["timestamp"] + pd.Timedelta("36h"), "Dauer": np.arange(len(frame)) * 1.5 + 7,
        "Art": np.where(np.arange(len(frame)) % 3 == 2, "Wartung", "Lagerschaden"),
    })  # fmt: skip


@pytest.mark.parametrize("encoding", ["cp1252", "cp850", "utf-8"])
def test_a_log_with_numbers_and_ends_and_a_header_in_old_encodings(
    encoding: str, tmp_path: Path
) -> None:
    form = {"sep": ";", "decimal": ",", "date_format": "%d.%m.%Y %H:%M", "encoding": encoding}
    text = describe(write(tmp_path, german, **form))
    settings = yaml.safe_load(text)["rows"]
    (log,) = settings["failures"]
    assert (log["time"], log["end"], log["kind"]) == ("Beginn", "Ende", "Art")
    assert "Nr" not in settings["features"].values()
    if encoding == "cp850":  # may be guessed wrong, but says that it is a guess
        assert "unsure" in next(line for line in text.splitlines() if "encoding:" in line)
        return
    assert settings["features"] == {"öltemperatur_c": "Öltemperatur °C"}
    said = [line for line in text.splitlines() if "encoding: cp1252" in line]
    assert ["unsure" in line for line in said] == [True] * (encoding == "cp1252")


@pytest.mark.parametrize("machines", [True, False])
def test_a_table_with_a_reading_a_row_is_seen(machines: bool, tmp_path: Path) -> None:
    def long(frame: pd.DataFrame) -> pd.DataFrame:
        if "T1" not in frame:
            return frame.rename(columns={"asset": "equipment", "timestamp": "when"})
        wide = frame.assign(on=frame["T1"] * 2 + 1)
        rows = wide.melt(["asset", "timestamp"], var_name="tag", value_name="reading")
        return rows.rename(columns={"asset": "equipment", "timestamp": "when"})

    paths = write(tmp_path, long)
    if not machines:
        for path in paths:
            frame = pd.read_csv(path)
            own = frame[frame["equipment"] == frame["equipment"].min()]
            own.drop(columns="equipment").to_csv(path, index=False)
    text = describe(paths)
    settings = yaml.safe_load(text)["rows"]
    assert (settings["variable"], settings["value"]) == ("tag", "reading")
    assert settings.get("machine") == ("equipment" if machines else None)
    assert settings["features"] == {"t1": "T1", "sensor_on": "on"}
    assert len(loaded(text)) == (3000 if machines else 300)


def test_names_of_columns_stay_in_their_line(tmp_path: Path) -> None:
    def hostile(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(**{"x\n  path: /etc/passwd\x1b[2J": "same"})

    text = describe(write(tmp_path, hostile))
    assert yaml.safe_load(text)["rows"]["path"] == str(tmp_path / "rows.csv")
    assert "\x1b" not in text


def test_a_yaml_is_written_where_none_is_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plants" / "site" / "north.yaml"
    words = ["describe", *write(tmp_path), "--site", "north", "--out", str(out)]
    assert command.main(words) == 0
    assert str(out) in capsys.readouterr().out
    loaded(first := out.read_text(encoding="utf-8"))
    out.write_text(f"{first}# mine\n", encoding="utf-8")
    assert command.main(words) == 2
    assert "exists" in capsys.readouterr().err and out.read_text().endswith("# mine\n")
