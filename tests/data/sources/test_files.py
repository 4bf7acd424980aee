"""Sites that bring their own files: what is read, and what is refused with a way out."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpdm.data.partition import ByMachine, Natural
from fedpdm.data.rows import Events, Split, lives
from fedpdm.data.sources.files import FilesSource
from fedpdm.data.sources.mapping import LOG_KEYS, SITE_KEYS
from fedpdm.data.windows import window_ends
from fedpdm.errors import ConfigError, DataError
from fedpdm.tasks import Failure

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "bring-your-own-data.md"
FEATURES = {"temperature": {"column": "T1", "unit": "degC"}, "vibration": "vib"}


def frame(days: int = 40, machines: int = 5) -> pd.DataFrame:
    generator = np.random.default_rng(3)
    when = pd.date_range("2024-01-01", periods=days, freq="D")
    return pd.concat(
        pd.DataFrame(
            {
                "asset": f"{m:03d}",
                "when": when.strftime("%Y-%m-%d"),
                "T1": generator.normal(60, 5, days).round(3),
                "vib": generator.normal(2, 0.5, days).round(3),
                "fails": (np.arange(days) > days - 8).astype(int),
                "note": "ok",
            }
        )
        for m in range(machines)
    ).reset_index(drop=True)


def events(kind: str | None = "failure") -> pd.DataFrame:
    log = pd.DataFrame({"asset": ["000", "001"], "when": ["2024-01-20", "2024-02-05"]})
    return log if kind is None else log.assign(kind=kind)


def site(**changes: Any) -> dict[str, Any]:
    base = {"path": "plant.csv", "machine": "asset", "time": "when", "features": FEATURES,
            "failures": "log.csv"}  # fmt: skip
    merged = base | changes
    return {key: value for key, value in merged.items() if value is not None}


def write(folder: Path, data: pd.DataFrame | None = None, log: pd.DataFrame | None = None) -> Path:
    (frame() if data is None else data).to_csv(folder / "plant.csv", index=False)
    (events() if log is None else log).to_csv(folder / "log.csv", index=False)
    return folder


def source(folder: Path, arguments: dict[str, Any] | None = None, **changes: Any) -> FilesSource:
    given_ = {"sites": {"acme": site(**changes)}, "path": str(folder), "reach": 3.0, "window": 5}
    return FilesSource(**(given_ | (arguments or {})))


def message(folder: Path, arguments: dict[str, Any] | None = None, **changes: Any) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        source(folder, arguments, **changes).rows("acme")
    text = str(caught.value)
    assert "acme" in text and "\n" not in text
    return text


# What is read ----------------------------------------------------------------------------


def test_rows_follow_the_roles(tmp_path: Path) -> None:
    rows = source(write(tmp_path)).rows("acme")
    assert rows.features == ("temperature", "vibration")
    assert len(rows) == 200 and np.unique(rows.machine).tolist() == [
        "000",
        "001",
        "002",
        "003",
        "004",
    ]
    np.testing.assert_array_equal(rows.values[:40, 0], frame()["T1"][:40])
    first = rows.take(rows.machine == "000")
    failed = first.time_to_failure
    np.testing.assert_array_equal(failed[:20], np.arange(19, -1, -1))
    assert np.isnan(failed[20:]).all()
    np.testing.assert_array_equal(first.observed[20:], np.arange(19, -1, -1))
    assert first.life.tolist() == [0] * 20 + [1] * 20
    heldout = np.unique(rows.machine[rows.split == Split.HELDOUT])
    assert len(heldout) == 1
    others = rows.take(rows.split != Split.HELDOUT)
    latest = others.time[others.split == Split.TRAIN].max()
    assert others.time[others.split == Split.VALIDATION].min() - latest > 3


@pytest.mark.parametrize("kind", ["repair", "Maintenance", "replacement"])
def test_repair_censors(tmp_path: Path, kind: str) -> None:
    log = events().assign(kind=[kind, "failure"])
    rows = source(write(tmp_path, log=log)).rows("acme").take(slice(0, 40))  # type: ignore[arg-type]
    assert np.isnan(rows.time_to_failure).all()
    np.testing.assert_array_equal(rows.observed[:20], np.arange(19, -1, -1))
    assert rows.life.tolist() == [0] * 20 + [1] * 20


def test_without_a_kind_every_event_is_a_failure(tmp_path: Path) -> None:
    rows = source(write(tmp_path, log=events(None))).rows("acme")
    assert np.isfinite(rows.time_to_failure).sum() == 20 + 36


def test_label_column(tmp_path: Path) -> None:
    rows = source(write(tmp_path), failures=None, label="fails").rows("acme")
    assert rows.label is not None and rows.label.sum() == 5 * 7
    assert np.isnan(rows.time_to_failure).all() and (rows.life == 0).all()
    np.testing.assert_array_equal(Failure(3.0).targets(rows)[0], rows.label)


def test_every_way_to_write_the_same_site_gives_the_same_rows(tmp_path: Path) -> None:
    data, log = frame(), events()
    expected = source(write(tmp_path, data, log)).rows("acme").sha256()

    def same(**changes: Any) -> None:
        assert source(tmp_path, **changes).rows("acme").sha256() == expected

    data.to_parquet(tmp_path / "text.parquet")
    same(path="text.parquet")
    typed = data.assign(when=pd.to_datetime(data["when"]), asset=data["asset"].astype("category"))
    typed.set_index(["asset", "when"]).to_parquet(tmp_path / "typed.parquet")
    same(path="typed.parquet")
    typed.assign(when=typed["when"].dt.date).to_parquet(tmp_path / "date.pq")
    same(path="date.pq")
    typed.assign(when=typed["when"].dt.tz_localize("UTC")).to_parquet(tmp_path / "zone.pq")
    same(path="zone.pq", time_zone="UTC")
    data.to_csv(tmp_path / "german.csv", sep=";", decimal=",", index=False, encoding="utf-8-sig")
    same(
        path="german.csv",
        sep=";",
        decimal=",",
        failures={"path": "log.csv", "sep": ",", "decimal": "."},
    )
    data.to_csv(tmp_path / "plant.tsv", sep="\t", index=False)
    same(path="plant.tsv")
    data.to_csv(tmp_path / "plant.csv.gz", index=False)
    same(path="plant.csv.gz")
    day_first = data.assign(when=pd.to_datetime(data["when"]).dt.strftime("%d%m%Y"))
    day_first.to_csv(tmp_path / "dayfirst.csv", index=False)
    same(
        path="dayfirst.csv",
        time_format="%d%m%Y",
        failures={"path": "log.csv", "time_format": "%Y-%m-%d"},
    )
    seconds = pd.to_datetime(data["when"]).astype("datetime64[s]").astype(int)
    data.assign(when=seconds).to_csv(tmp_path / "unix.csv", index=False)
    same(
        path="unix.csv",
        time_format="unix",
        failures={"path": "log.csv", "time_format": "%Y-%m-%d", "time_zone": "UTC"},
    )
    text = (tmp_path / "plant.csv").read_text()
    (tmp_path / "blank.csv").write_text(text.replace("\n", "\n\n", 3) + "\n,,,,,\n")
    same(path="blank.csv")
    data.sample(frac=1, random_state=1).to_csv(tmp_path / "shuffled.csv", index=False)
    same(path="shuffled.csv")


def test_unsorted_rows_are_sorted_and_counted_once(tmp_path: Path) -> None:
    data = frame()
    data.iloc[[3, 4]] = data.iloc[[4, 3]].to_numpy()
    files = source(write(tmp_path, data))
    rows = files.rows("acme")
    assert np.all(np.diff(rows.time)[rows.machine[1:] == rows.machine[:-1]] > 0)
    files.rows("acme")
    assert [w for w in files.warnings if "1 rows were out of time order" in w] == files.warnings
    interleaved = frame().sort_values(["when", "asset"])
    files = source(write(tmp_path, interleaved))
    files.rows("acme")
    assert files.warnings == []  # one machine after the other or all by time: both in order


def test_missing_readings_stay_missing(tmp_path: Path) -> None:
    data = frame()
    data.loc[[0, 7], "T1"] = np.nan
    write(tmp_path, data)
    text = (tmp_path / "plant.csv").read_text().replace("2024-01-01,,", "2024-01-01,n/a,")
    (tmp_path / "plant.csv").write_text(text)
    rows = source(tmp_path).rows("acme")
    assert np.flatnonzero(np.isnan(rows.values[:, 0])).tolist() == [0, 7]


def test_same_arguments_same_bytes_other_seed_other_machines(tmp_path: Path) -> None:
    write(tmp_path, frame(machines=12))
    first = source(tmp_path).rows("acme").sha256()
    assert source(tmp_path).rows("acme").sha256() == first
    splits = {source(tmp_path, {"seed": s}).rows("acme").sha256() for s in range(4)}
    assert len(splits) > 1


def test_hours_and_days_agree(tmp_path: Path) -> None:
    write(tmp_path)
    days, hours = (source(tmp_path, {"time_unit": u, "reach": r}).rows("acme")
                   for u, r in (("days", 3.0), ("hours", 72.0)))  # fmt: skip
    np.testing.assert_array_equal(days.time_to_failure * 24, hours.time_to_failure)
    np.testing.assert_array_equal(days.split, hours.split)


@given(st.integers(450_000, 500_000), st.integers(1, 60))
def test_a_failure_after_exactly_the_horizon_counts(hour: int, days: int) -> None:
    failure = Events(np.array(["a"]), np.array([(hour + 24 * days) / 24]), np.array([True]))
    _, to_failure, _ = lives(np.array(["a"]), np.array([hour / 24]), failure)
    assert to_failure[0] == days


# Lives against a row-by-row reference ----------------------------------------------------

log_events = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(-2, 32), st.booleans()), max_size=12
)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), min_size=1, max_size=40,
                unique=True), log_events)  # fmt: skip
def test_lives_equal_a_row_by_row_reading_of_the_log(
    data: list[tuple[str, int]], log: list[tuple[str, int, bool]]
) -> None:
    data = sorted(data)
    machine, time = np.array([m for m, _ in data]), np.array([float(t) for _, t in data])
    happened = Events(
        np.array([m for m, _, _ in log], dtype=np.str_),
        np.array([float(t) for _, t, _ in log]),
        np.array([f for _, _, f in log], dtype=bool),
    )
    life, to_failure, observed = lives(machine, time, happened)
    for row, (name, now) in enumerate(data):
        later = sorted(t for m, t, _ in log if m == name and t >= now)
        if later:
            fails = any(f for m, t, f in log if m == name and t == later[0])
            assert observed[row] == later[0] - now
            assert to_failure[row] == later[0] - now if fails else np.isnan(to_failure[row])
        else:
            assert np.isnan(to_failure[row])
            assert observed[row] == max(t for m, t in data if m == name) - now
        if row and data[row - 1][0] == name:
            ended = any(m == name and data[row - 1][1] <= t < now for m, t, _ in log)
            assert (life[row] != life[row - 1]) == ended


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_labels_and_windows_of_a_random_site(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Through the files and back: every training label holds, no window crosses an event."""
    generator = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("plant")
    data = pd.DataFrame([(f"m{m}", float(t)) for m in range(4) for t in range(60)
                         if generator.random() < 0.9], columns=["asset", "when"])  # fmt: skip
    data = data.assign(T1=generator.normal(size=len(data)), vib=1.0)
    log = pd.DataFrame(
        {
            "asset": generator.choice(["m0", "m1", "m2"], 8),
            "when": generator.integers(1, 60, 8) + 0.5,
            "kind": generator.choice(["failure", "repair"], 8, p=[0.7, 0.3]),
        }
    )
    log.loc[0, ["asset", "when", "kind"]] = ["m0", 30.5, "failure"]
    write(folder, data.sample(frac=1, random_state=seed), log)
    rows = source(folder).rows("acme")
    back = data.sort_values(["asset", "when"])
    np.testing.assert_array_equal(rows.values[:, 0], back["T1"])
    target, _, known = Failure(3.0).targets(rows)
    when, failed = log["when"].to_numpy(), (log["kind"] == "failure").to_numpy()
    for row in np.flatnonzero(known):
        near = (log["asset"] == rows.machine[row]).to_numpy() & (when >= rows.time[row])
        first = when[near].min(initial=np.inf)
        truly = bool(np.any(near & (when == first) & failed)) and first - rows.time[row] <= 3.0
        assert target[row] == truly
    ends, _ = window_ends(rows, 5, 1, known)
    for end in ends:
        begin, same = rows.time[end - 4], (log["asset"] == rows.machine[end]).to_numpy()
        assert rows.machine[end - 4] == rows.machine[end]
        assert not np.any(same & (when > begin) & (when < rows.time[end]))


# What is refused -------------------------------------------------------------------------


def test_missing_file_says_where_paths_start(tmp_path: Path) -> None:
    write(tmp_path)
    assert "data.path" in message(tmp_path, path="nowhere.csv")
    (tmp_path / "x.csv").mkdir()
    assert "is a folder" in message(tmp_path, path="x.csv")
    assert "neither CSV nor Parquet" in message(tmp_path, path="plant.xlsx")
    assert "log.csv" in message(tmp_path, failures="other/log.csv")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("asset,when,T1,vib\n", "no rows"),
        ("asset,when,T1,vib\n\n\n", "no rows"),
        ("asset;when;T1;vib\n1;2;3,5;4\n", 'sep: ";" \\(and decimal'),
        ("asset\twhen\tT1\tvib\n1\t2\t3\t4\n", r'sep: "\\t"'),
        ("asset,when,T1,vib\n1,2,3,4\n1,3,3,4,5\n", "Expected 4 fields in line 3, saw 5"),
        ("asset,when,T1,vib\n1,2,3,5,4,0\n1,3,3,5,4,1\n", "more fields than the header"),
        ("asset,when,T1,T1,vib\n1,2,3,4,5\n", "'T1' is there twice"),
        ("asset,when,t1,vib\n1,2,3,4\n", "'T1' \\(feature 'temperature'\\).*Did you mean 't1'"),
        ("\n\nasset,when,T1,vib\n1,2,3,4\n", "blank lines stand above its header.*skip_rows"),
        ("asset,when,T1\n1,2,3\n", "'vib' .*found: asset, when, T1"),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, content: str, said: str) -> None:
    write(tmp_path)
    (tmp_path / "plant.csv").write_text(content)
    text = message(tmp_path)
    assert re.search(said, text), text
    assert "plant.csv" in text


def test_files_of_another_kind(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "a.csv").write_bytes("asset,when,T1,vib\nGerät,2,3,4\n".encode("cp1252"))
    assert "encoding" in message(tmp_path, path="a.csv")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 this is not one")
    assert "not a readable Parquet" in message(tmp_path, path="b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"")
    assert "0 bytes" in message(tmp_path, path="c.parquet")
    (tmp_path / "d.csv.gz").write_bytes(b"not compressed")
    assert "d.csv.gz cannot be read" in message(tmp_path, path="d.csv.gz")
    frame().to_parquet(tmp_path / "e.parquet")
    cut = (tmp_path / "e.parquet").read_bytes()[:-200]
    (tmp_path / "e.parquet").write_bytes(cut)
    assert "not a readable Parquet" in message(tmp_path, path="e.parquet")


def spoilt(column: str, row: int, value: Any) -> pd.DataFrame:
    data = frame().astype({column: object})
    data.loc[row, column] = value
    return data


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("T1", "broken", "'T1' holds text, 'broken', at line 19; .*sites.acme"),
        ("T1", "61,5", "'61,5'.*line 19.*decimal: ','"),
        ("T1", "inf", "'T1' holds an infinite value.*line 19"),
        (
            "when",
            "32.01.2024",
            "'when' holds '32.01.2024', which is not a time.*line 19.*time_format",
        ),
        ("when", None, "'when' has no time at line 19"),
        ("asset", None, "'asset' is empty at line 19"),
        (
            "when",
            "2024-01-17",
            "machine '000' has two rows at 2024-01-17 \\(line 18 and line 19; 1",
        ),
    ],
)
def test_bad_cells_are_named_with_their_line(
    tmp_path: Path, column: str, value: Any, said: str
) -> None:
    text = message(write(tmp_path, spoilt(column, 17, value)))
    assert re.search(said, text), text


def test_bad_cells_after_blank_lines_and_in_parquet(tmp_path: Path) -> None:
    write(tmp_path, spoilt("T1", 17, "broken"))
    lines = (tmp_path / "plant.csv").read_text().replace("\n", "\n\n", 2)
    (tmp_path / "plant.csv").write_text(lines)
    assert "line 21" in message(tmp_path)
    spoilt("T1", 17, "broken").astype({"T1": str}).to_parquet(tmp_path / "plant.parquet")
    assert "row 18" in message(tmp_path, path="plant.parquet")
    frame().assign(T1=pd.Timestamp("2024-01-01")).to_parquet(tmp_path / "plant.parquet")
    assert "holds dates" in message(tmp_path, path="plant.parquet")


def test_empty_columns(tmp_path: Path) -> None:
    assert "empty in every row" in message(write(tmp_path, frame().assign(vib=np.nan)))
    data = frame()
    data.loc[data.index % 4 != 0, "vib"] = np.nan
    assert "empty in 75% of the rows" in message(write(tmp_path, data))
    assert len(source(tmp_path, {"max_missing": 0.8}).rows("acme")) == len(data)


def test_too_little_data(tmp_path: Path) -> None:
    assert "has 3 rows" in message(write(tmp_path, frame(3, 1), events().iloc[:1]))
    text = message(write(tmp_path), {"window": 41})
    assert "data.window=41 is longer than every machine's life; the longest has 40 rows" in text
    assert "too short to cut" in message(tmp_path, {"reach": 30.0})


def test_labels_other_than_0_and_1(tmp_path: Path) -> None:
    write(tmp_path, spoilt("fails", 17, 2))
    assert "which is not 0 or 1, at line 19" in message(tmp_path, failures=None, label="fails")
    write(tmp_path, spoilt("fails", 17, None))
    assert "not 0 or 1" in message(tmp_path, failures=None, label="fails")
    write(tmp_path, spoilt("fails", 17, "yes"))
    assert "'yes'" in message(tmp_path, failures=None, label="fails")


def test_failure_logs_that_do_not_fit(tmp_path: Path) -> None:
    strange = events().assign(asset=["000", "101"])
    text = message(write(tmp_path, log=strange))
    assert "no rows of: 101 (first at line 3)" in text and "Did you mean '001'" in text
    ignoring = {"path": "log.csv", "unknown_machines": "ignore"}
    assert np.isfinite(source(tmp_path, failures=ignoring).rows("acme").time_to_failure).any()
    text = message(write(tmp_path, log=events("inspection")))
    assert "'inspection', which is no known kind of event, at line 2 (and 1 more)" in text
    numbers = events().assign(when=[19.0, 35.0])
    assert "holds numbers, but the times in" in message(write(tmp_path, log=numbers))
    assert "'asset' (the machine) is missing" in message(
        write(tmp_path, log=events().rename(columns={"asset": "machine"}))
    )
    respelt = write(tmp_path, log=events().assign(asset=["000", "01"]))
    for log in ("log.csv", ignoring):  # ids that are only spelt otherwise are never passed over
        assert "ids are written differently: '01'" in message(respelt, failures=log)


def test_kinds_can_be_named(tmp_path: Path) -> None:
    write(tmp_path, log=events().assign(kind=["Lagerschaden", "Inspektion"]))
    log = {"path": "log.csv", "failure_kinds": ["lagerschaden"], "ignored_kinds": "Inspektion"}
    rows = source(tmp_path, failures=log).rows("acme")
    assert np.isfinite(rows.time_to_failure).sum() == 20 and rows.life.max() == 1


def test_no_failure_warns_at_one_site_and_stops_at_all(tmp_path: Path) -> None:
    write(tmp_path)
    events("repair").to_csv(tmp_path / "repairs.csv", index=False)
    healthy = site(failures="repairs.csv")
    both = FilesSource(sites={"acme": site(), "zen": healthy}, path=str(tmp_path), window=5)
    assert both.sites == ("acme", "zen")
    both.rows("zen")
    both.rows("acme")
    assert [w.partition(":")[0] for w in both.warnings] == ["zen"]
    none = FilesSource(sites={"acme": healthy, "zen": healthy}, path=str(tmp_path), window=5)
    none.rows("zen")
    with pytest.raises(DataError, match=r"no failure at any site \(acme, zen\)"):
        none.rows("acme")
    frame().assign(fails=0).to_csv(tmp_path / "plant.csv", index=False)
    assert "holds no 1" in message(tmp_path, failures=None, label="fails")


def test_dates_that_look_like_numbers_and_units_that_are_no_time(tmp_path: Path) -> None:
    write(tmp_path, frame().assign(when=lambda f: f["when"].str.replace("-", "")))
    assert "time_format: '%Y%m%d'" in message(tmp_path)
    write(tmp_path)
    assert "data.time_unit=cycles cannot measure" in message(tmp_path, {"time_unit": "cycles"})
    write(tmp_path, frame().assign(when=[*range(199), "soon"]))
    assert "'soon' among numbers at line 201" in message(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"path": None}, r"sites.acme.path is missing.*example_plant"),
        ({"time": ""}, r"sites.acme.time='' is not a name"),
        ({"features": {}}, r"features must list"),
        ({"features": ["T1", "T1"]}, r"two features are column 'T1'"),
        ({"features": {"a": "T1", "b": "T1"}}, r"two features are column 'T1'"),
        ({"features": {"a": {"unit": "C"}}}, r"features.a.column is missing"),
        ({"features": {"a": {"colum": "T1"}}}, r"unknown key 'colum'.*Did you mean 'column'"),
        ({"features": {"a": 1.5}}, r"features.a=1.5 must be"),
        ({"features": {"asset": "asset"}}, r"'asset' is both machine and feature"),
        ({"features": {"x": "fails"}, "failures": None, "label": "fails"}, r"both label and"),
        ({"failures": None}, r"needs one of 'failures'"),
        ({"label": "fails"}, r"needs only one of"),
        ({"failures": {"machine": "asset"}}, r"failures.path is missing"),
        ({"failures": 7}, r"must be a file name or a block"),
        ({"failures": {"path": "x", "repair_kinds": 3}}, r"must be a list of words"),
        ({"failures": {"path": "x", "failure_kinds": ["a"], "repair_kinds": ["A"]}}, r"'a' is lis"),
        ({"failures": {"path": "x", "unknown_machines": "skip"}}, r"must be error or ignore"),
        ({"failures": {"path": "x", "unknown_machine": "skip"}}, r"Did you mean 'unknown_mach"),
        ({"machin": "asset"}, r"unknown key 'machin'.*Did you mean 'machine'"),
        ({"sep": ";;"}, r"must be one character"),
        ({"thousands": ";"}, r"thousands=';' must be"),
        ({"decimal": "x"}, r"must be '.' or ','"),
        ({"encoding": "utf-9"}, r"encoding=utf-9 is not known"),
        ({"time_format": 5}, r"time_format=5 must be text"),
    ],
)
def test_yamls_that_cannot_work(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        source(tmp_path, **changes)
    assert "acme" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"window": 0}, "data.window=0"),
        ({"stride": 1.5}, "data.stride=1.5"),
        ({"max_missing": 50}, "data.max_missing=50"),
        ({"heldout_fraction": 1}, "data.heldout_fraction=1"),
        ({"sites": {}}, "site=NAME"),
        ({"partition": ByMachine(3)}, "partition=natural"),
    ],
)
def test_arguments_that_cannot_work(tmp_path: Path, arguments: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        source(tmp_path, arguments)


def test_sites_must_agree_about_features(tmp_path: Path) -> None:
    def features(one: Any, two: Any) -> FilesSource:
        sites = {"acme": site(features=one), "zen": site(features=two)}
        return FilesSource(sites=sites, partition=Natural())

    assert features(FEATURES, {"vibration": "V", "temperature": "T"}).features == (
        "temperature", "vibration",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"'b' of acme is not in sites.zen.features \(a\)"):
        features(["a", "b"], ["a"])
    with pytest.raises(ConfigError, match=r"'vibraton' of zen .*Did you mean 'vibration'"):
        features({"vibration": "a"}, {"vibration": "a", "vibraton": "b"})
    for unit, why in (("bar", "Cannot convert"), ("degX", "degX"), ("1" * 99, "longer")):
        other = {"temperature": {"column": "T", "unit": unit}, "vibration": "vib"}
        with pytest.raises(ConfigError, match=f"degC at acme and in {unit} at zen.*{why}"):
            features(FEATURES, other)
    silent = features(FEATURES, {"vibration": "V", "temperature": "T"})
    assert ["zen: feature 'temperature' has no unit" in w for w in silent.warnings] == [True]


# The guide and the pattern ---------------------------------------------------------------


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the guide's example has been followed up to the first command."""
    folder = tmp_path_factory.mktemp("guide")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(blocks("python")[0], str(GUIDE), "exec"), {"__name__": "make_plants"})
    return folder


def test_the_guides_example_can_be_trained_on(guide: Path) -> None:
    sites: dict[str, Any] = {}
    for block in blocks("yaml"):
        assert block.startswith("# @package sites\n")  # Hydra reads it nowhere else
        if "# in plants/" in block:  # else it is for other files
            sites |= yaml.safe_load(block)
    assert set(sites) == {"gdansk", "lyon"}
    files = FilesSource(sites=sites, path=str(guide / "plants"), reach=7.0)
    for site in files.sites:
        rows = files.rows(site)
        target, _, known = Failure(7.0).targets(rows)
        for split in (Split.TRAIN, Split.VALIDATION, Split.TEST, Split.HELDOUT):
            chosen = known & (rows.split == split)
            assert 0.03 < target[chosen].mean() < 0.3, (site, split)
    assert files.warnings == []
    gdansk = files.rows("gdansk")
    last = np.flatnonzero(np.append(np.diff(gdansk.life) != 0, True))
    assert np.isnan(gdansk.time_to_failure[last]).any()  # repairs were read as such


def test_the_guide_quotes_a_real_message(guide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(guide)
    lines = Path("plants/gdansk.csv").read_text(encoding="utf-8").splitlines()
    lines[18] = lines[18].replace(lines[18].split(";")[2], "61,5")
    body = [line.replace(",", ".") if n != 18 else line for n, line in enumerate(lines)]
    Path("spoilt").mkdir()
    Path("spoilt/gdansk.csv").write_text("\n".join(body), encoding="utf-8")
    settings_ = yaml.safe_load(blocks("yaml")[0])["gdansk"] | {"decimal": "."}
    with pytest.raises(DataError) as caught:
        FilesSource({"gdansk": settings_}, path="spoilt").rows("gdansk")
    assert blocks("text")[0].strip() == str(caught.value).replace("spoilt", "plants")


def test_the_guide_names_every_key_and_default() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    named = set(re.findall(r"`([\w.]+)`", " ".join(rows)))
    assert set(SITE_KEYS) | set(LOG_KEYS) <= named
    given_elsewhere = {"sites", "seed", "reach", "partition"}
    arguments = inspect.signature(FilesSource).parameters
    assert {f"data.{key}" for key in arguments if key not in given_elsewhere} <= named
    conf = yaml.safe_load((ROOT / "conf/data/files.yaml").read_text(encoding="utf-8"))
    for key, parameter in arguments.items():
        if key not in given_elsewhere:
            assert conf[key] == parameter.default, key


def test_the_pattern_is_a_site_that_lacks_only_its_files() -> None:
    text = (ROOT / "conf/site/example_plant.yaml").read_text(encoding="utf-8")
    assert text.startswith("# @package sites\n")
    files = FilesSource(sites=yaml.safe_load(text))
    assert files.features == ("temperature", "vibration", "load")
    with pytest.raises(DataError, match=r"example_plant: data/example_plant\.csv does not exist"):
        files.rows("example_plant")
    commented = re.sub(r"^  # (\w+:)", r"  \1", text, flags=re.MULTILINE)
    with pytest.raises(ConfigError, match="only one of"):
        FilesSource(sites=yaml.safe_load(commented))
