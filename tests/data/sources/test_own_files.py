"""What people bring, as it is: read right, or refused with the way out; never silently wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from fedpdm.data.rows import Rows, Split
from fedpdm.data.sources.files import FilesSource
from fedpdm.data.windows import window_ends
from fedpdm.errors import ConfigError, DataError
from fedpdm.simulate import main
from tests.data.sources import own_files
from tests.data.sources.own_files import Tables, settings_in, two_sites

SENTINELS = 0.05


def read(folder: Path, **arguments: Any) -> dict[str, Rows]:
    """Return every site's rows of a folder with yamls."""
    source = FilesSource(settings_in(folder), path=str(folder), reach=7.0, **arguments)
    return {site: source.rows(site) for site in source.sites}


def refused(folder: Path, **arguments: Any) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        read(folder, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rows]:
    return read(two_sites(tmp_path_factory.mktemp("plain")))


def same(found: dict[str, Rows], expected: dict[str, Rows], **tolerance: float) -> None:
    for mine, right in zip(found.values(), expected.values(), strict=True):
        np.testing.assert_allclose(mine.values, right.values, **(tolerance or {"rtol": 1e-12}))
        np.testing.assert_allclose(mine.time, right.time, rtol=1e-12)
        np.testing.assert_array_equal(mine.life, right.life)
        np.testing.assert_array_equal(mine.split, right.split)


# Rewritten values: the same rows ---------------------------------------------------------


def written(how: Any) -> Any:
    def rewrite(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        return rows.assign(T1=rows["T1"].map(how)), log

    return rewrite


@pytest.mark.parametrize(
    ("how", "sep", "keys", "factor"),
    [
        (lambda v: str(v).replace(".", ","), ",", {"decimal": ","}, 1),  # quoted in the file
        (lambda v: str(v).replace(".", ","), ";", {"decimal": ",", "sep": ";"}, 1),
        (lambda v: f"{round(v * 100):,}", ";", {"thousands": ",", "sep": ";"}, 100),
        (lambda v: f"{v * 1e3:,.2f}", ",", {"thousands": ","}, 1000),
        (
            lambda v: f"{v * 1e3:,.2f}".translate(str.maketrans(",.", ".,")),
            ";",
            {"thousands": ".", "decimal": ",", "sep": ";"},
            1000,
        ),
        (lambda v: f" {v} ", ",", {}, 1),
    ],
)
def test_numbers_however_they_are_written(
    tmp_path: Path, expected: dict[str, Rows], how: Any, sep: str, keys: Any, factor: int
) -> None:
    found = read(two_sites(tmp_path, written(how), csv={"sep": sep}, **keys))
    for mine, right in zip(found.values(), expected.values(), strict=True):
        np.testing.assert_allclose(mine.values / factor, right.values, rtol=1e-9)


@pytest.mark.parametrize(
    ("how", "keys", "said"),
    [
        (lambda v: f"{v * 100:,.0f}", {}, "thousands: ','.*decimal: ','"),
        (lambda v: f"{v * 1e5:,.0f}", {}, "'5,902,000'.*5902000.*thousands: ','"),
        (lambda v: str(v).replace(".", ","), {}, "decimal comma: set decimal: ','"),
        (lambda v: f"{v * 100:,.2f}", {}, "thousands: ','"),
        (lambda v: f"{v:.2f}", {"decimal": ","}, "decimal point"),
        (lambda v: "12,34", {"thousands": ","}, "'12,34'"),  # not a group of three
        (lambda v: "fault", {}, r"missing: \['fault'\]"),
    ],
)
def test_numbers_that_could_mean_two_things_are_refused(
    tmp_path: Path, how: Any, keys: Any, said: str
) -> None:
    text = refused(two_sites(tmp_path, written(how), csv={"sep": ";"}, sep=";", **keys))
    assert re.search(said, text), text


def test_what_stands_for_no_reading_can_be_said(tmp_path: Path) -> None:
    def rewrite(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        cells = rows["T1"].astype(object)
        for k, cell in enumerate((-9999, "-9999.0", "-", "#VALUE!", " - ")):
            cells[k] = cell
        return rows.assign(T1=cells), log

    found = read(two_sites(tmp_path, rewrite, missing=[-9999, "-", "#VALUE!"]))
    for rows in found.values():
        assert np.flatnonzero(np.isnan(rows.values[:, 0])).tolist() == [0, 1, 2, 3, 4]


def test_lines_above_the_header_and_blanks_around_names(
    tmp_path: Path, expected: dict[str, Rows]
) -> None:
    two_sites(tmp_path, skip_rows=2)
    for name in ("gdansk", "lyon"):
        path = tmp_path / f"{name}.csv"
        text = path.read_text().replace("timestamp,T1", "timestamp , T1 ", 1)
        path.write_text(f"Export of {name}\nunits: degC\n{text}")
    same(read(tmp_path), expected)
    path.write_text(path.read_text().replace(",78.", ",x78.", 1) + "12M9,2024-12-31,hot\n")
    assert f"line {len(path.read_text().splitlines())}" in refused(tmp_path)


# Units -----------------------------------------------------------------------------------


def fahrenheit(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
    return (rows.assign(T1=rows["T1"] * 9 / 5 + 32) if name == "lyon" else rows), log


def temperature(name: str) -> dict[str, Any]:
    return {"T1": {"column": "T1", "unit": "degF" if name == "lyon" else "degC"}}


def test_units_are_converted_into_the_first_sites(
    tmp_path: Path, expected: dict[str, Rows]
) -> None:
    same(read(two_sites(tmp_path, fahrenheit, features=temperature)), expected, rtol=1e-9)


def test_a_site_alone_can_say_what_it_is_converted_into(
    tmp_path: Path, expected: dict[str, Rows]
) -> None:
    settings = settings_in(two_sites(tmp_path, fahrenheit, features=temperature))["lyon"]
    settings["features"]["T1"]["into"] = "degC"
    source = FilesSource({"lyon": settings}, path=str(tmp_path), reach=7.0)
    np.testing.assert_allclose(source.rows("lyon").values, expected["lyon"].values, rtol=1e-9)
    assert source.units == {"T1": "degC"}
    settings["features"]["T1"]["into"] = "kelvin"
    both = settings_in(tmp_path) | {"lyon": settings}
    with pytest.raises(ConfigError, match="into degC at gdansk and into kelvin at lyon"):
        FilesSource(both)
    settings["features"]["T1"]["into"] = "bar"
    with pytest.raises(ConfigError, match="cannot be converted"):
        FilesSource({"lyon": settings})


# Times -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "key"), [("s", "unix"), ("ms", "unix_ms"), ("us", "unix_us"), ("ns", "unix_ns")]
)
def test_unix_times_are_read_when_said_and_refused_when_not(
    tmp_path: Path, expected: dict[str, Rows], unit: str, key: str
) -> None:
    def rewrite(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        return tuple(  # type: ignore[return-value]
            t.assign(timestamp=t["timestamp"].astype(f"datetime64[{unit}]").astype("int64"))
            for t in (rows, log)
        )

    same(read(two_sites(tmp_path, rewrite, time_format=key)), expected)
    text = refused(two_sites(tmp_path, rewrite))
    assert "looks like Unix" in text and f"time_format: {key} " in text and "np." not in text


def test_numbers_in_days_or_cycles_are_no_unix_times(tmp_path: Path) -> None:
    def rewrite(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        day = pd.Timedelta("1D")
        begin = pd.Timestamp("1900-01-01")
        return tuple(  # type: ignore[return-value]
            t.assign(timestamp=(t["timestamp"] - begin) / day) for t in (rows, log)
        )

    read(two_sites(tmp_path, rewrite))
    read(tmp_path, time_unit="cycles")


def local(zone: str | None, *tables: pd.DataFrame) -> Tables:
    """Return tables whose times, which are in UTC, are as clocks of a zone show them."""
    return tuple(  # type: ignore[return-value]
        t.assign(timestamp=t["timestamp"].dt.tz_localize("UTC").dt.tz_convert(zone)
                 .dt.tz_localize(None)) for t in tables
    )  # fmt: skip


HOURLY = {"machines": 3, "steps": 24 * 320, "freq": "h"}


@pytest.mark.parametrize("order", [["asset", "timestamp"], ["timestamp", "asset"], "reversed"])
def test_local_times_over_both_changes_of_the_clock(tmp_path: Path, order: Any) -> None:
    right = read(two_sites(tmp_path / "utc", made=HOURLY), time_unit="hours")

    def rewrite(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        rows = rows[::-1] if order == "reversed" else rows.sort_values(order, kind="stable")
        return local("Europe/Warsaw", rows, log)

    folder = two_sites(tmp_path / "local", rewrite, made=HOURLY, time_zone="Europe/Warsaw")
    found = read(folder, time_unit="hours")
    for mine, true in zip(found.values(), right.values(), strict=True):
        np.testing.assert_array_equal(mine.time, true.time)
        np.testing.assert_array_equal(mine.values, true.values)


def test_local_times_without_a_zone_are_refused_with_the_key(tmp_path: Path) -> None:
    folder = two_sites(tmp_path, lambda name, *t: local("Europe/Warsaw", *t), made=HOURLY)
    text = refused(folder, time_unit="hours")
    assert "time_zone" in text and "duplicates" not in text


def test_a_time_that_no_clock_shows_is_refused_with_its_line(tmp_path: Path) -> None:
    def rewrite(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        when = rows["timestamp"].dt.strftime("%Y-%m-%d %H:%M")
        return rows.assign(timestamp=when.str.replace("2024-03-31 00:00", "2024-03-31 02:30")), log

    text = refused(two_sites(tmp_path, rewrite, time_zone="Europe/Warsaw"))
    assert "'2024-03-31 02:30'" in text and "at line 92" in text
    assert "Europe/Varsovie is not known" in refused(
        two_sites(tmp_path / "b", time_zone="Europe/Varsovie")
    )


def zoned_rows(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
    when = rows["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%S+00:00")
    return rows.assign(timestamp=when), local("Europe/Warsaw", log)[0]


def test_a_zone_on_one_side_only_is_never_guessed(
    tmp_path: Path, expected: dict[str, Rows]
) -> None:
    text = refused(two_sites(tmp_path, zoned_rows))
    assert "gdansk_log.csv" in text and "sites.gdansk.failures.time_zone" in text
    same(read(two_sites(tmp_path, zoned_rows, time_zone="Europe/Warsaw")), expected)

    def mixed(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        when = rows["timestamp"].astype(str)
        when[5] = "2024-01-06T00:00:00+01:00"
        return rows.assign(timestamp=when), log

    text = refused(two_sites(tmp_path, mixed))
    assert "time zone in some rows" in text and "line 7" in text


# Machines, gaps, logs --------------------------------------------------------------------


def test_ids_written_as_floats_are_the_same_ids(tmp_path: Path, expected: dict[str, Rows]) -> None:
    def rewrite(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        ids = (t["asset"].str.replace("M", "0").astype(int) for t in (rows, log))
        return rows.assign(asset=next(ids).astype(float)), log.assign(asset=next(ids))

    same(read(two_sites(tmp_path, rewrite)), expected)


def test_no_window_spans_a_long_gap(tmp_path: Path, expected: dict[str, Rows]) -> None:
    def rewrite(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        out = (rows["timestamp"] > "2024-02-10") & (rows["timestamp"] < "2024-03-06")
        return rows[~out & (rows["timestamp"].dt.day_of_week < 5)], log  # weekends are no gaps

    def longest(rows: Rows) -> float:
        ends, _ = window_ends(rows, 14, 1, np.ones(len(rows), dtype=bool))
        assert len(ends) > 300
        return float((rows.time[ends] - rows.time[ends - 13]).max())

    two_sites(tmp_path, rewrite)
    assert [longest(rows) for rows in read(tmp_path).values()] == [19, 19]  # over three weekends
    assert min(longest(rows) for rows in read(tmp_path, max_gap=1000).values()) > 40
    for rows in expected.values():
        assert (np.diff(rows.time) <= rows.max_gap).all()
    assert "data.max_gap=0 must" in refused(tmp_path, max_gap=0)
    assert "gap of more than 0.5 days" in refused(tmp_path, max_gap=0.5)


def test_a_site_whose_log_is_empty_has_healthy_rows_only(tmp_path: Path) -> None:
    folder = two_sites(
        tmp_path, lambda name, rows, log: (rows, log.head(0 if name == "lyon" else 99))
    )
    source = FilesSource(settings_in(folder), path=str(folder), reach=7.0)
    assert np.isnan(source.rows("lyon").time_to_failure).all()
    assert any("lyon" in w and "healthy rows only" in w for w in source.warnings)


def test_failures_long_after_the_rows_are_none_that_the_rows_show(tmp_path: Path) -> None:
    def later(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        return rows, log.assign(timestamp=log["timestamp"] + pd.Timedelta(days=3650))

    assert "no failure at any site" in refused(two_sites(tmp_path, later))


def test_an_event_that_stands_twice_counts_once(tmp_path: Path, expected: dict[str, Rows]) -> None:
    found = read(two_sites(tmp_path, lambda name, rows, log: (rows, pd.concat([log, log]))))
    for mine, right in zip(found.values(), expected.values(), strict=True):
        np.testing.assert_array_equal(mine.time_to_failure, right.time_to_failure)
        assert len(np.unique(mine.life)) == len(np.unique(right.life))


def test_ids_that_differ_in_case_alone_are_said(tmp_path: Path) -> None:
    def mixed(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        odd = np.arange(len(rows)) % 2 == 1
        return rows.assign(asset=np.where(odd, rows["asset"].str.lower(), rows["asset"])), log

    folder = two_sites(tmp_path, mixed)
    source = FilesSource(settings_in(folder), path=str(folder), reach=7.0)
    source.rows("lyon")
    assert any("'12M0' and '12m0'" in said for said in source.warnings)


def test_sites_may_be_called_by_numbers(tmp_path: Path) -> None:
    assert list(read(two_sites(tmp_path, names=("1000", "2000")))) == ["1000", "2000"]
    settings = {int(name): own for name, own in settings_in(tmp_path).items()}
    source = FilesSource(settings, path=str(tmp_path))  # type: ignore[arg-type]
    assert source.sites == ("1000", "2000")


def test_rows_between_a_failure_and_the_end_of_its_repair_are_left_out(
    tmp_path: Path, expected: dict[str, Rows]
) -> None:
    def rewrite(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        end = (log["timestamp"] + pd.Timedelta("60h")).astype(str)
        end[0] = "-"
        return rows, log.assign(back=end)

    def log(name: str) -> dict[str, Any]:
        return {"path": f"{name}_log.csv", "end": "back"}

    found = read(two_sites(tmp_path, rewrite, failures=log, missing="-"))
    for name, right in expected.items():
        mine = found[name]
        failures = own_files.plain(11 if name == "gdansk" else 12)[1]
        day = (failures["timestamp"] - pd.Timestamp(0)) / pd.Timedelta("1D")
        still = np.zeros(len(right), dtype=bool)
        for asset, begin in list(zip(failures["asset"], day, strict=True))[1:]:
            inside = (right.time > begin) & (right.time < begin + 2.5)
            still |= (right.machine == asset) & inside
        assert still.sum() > 2 * len(failures) - 8
        np.testing.assert_array_equal(mine.time, right.time[~still])
        np.testing.assert_array_equal(mine.time_to_failure, right.time_to_failure[~still])

    def backwards(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        return rows, log.assign(back=log["timestamp"] - pd.Timedelta("60h"))

    assert "before the event, at line 2" in refused(two_sites(tmp_path, backwards, failures=log))


def test_several_logs_count_together(tmp_path: Path, expected: dict[str, Rows]) -> None:
    def rewrite(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        log[5:].to_csv(tmp_path / f"{name}_more.csv", index=False)
        service = pd.DataFrame({"asset": rows["asset"][:1], "timestamp": ["2024-01-10"]})
        service.to_csv(tmp_path / f"{name}_service.csv", index=False)
        return rows, log[:5]

    folder = two_sites(tmp_path, rewrite, failures=lambda n: [f"{n}_log.csv", f"{n}_more.csv"])
    same(read(folder), expected)
    folder = two_sites(
        tmp_path,
        rewrite,
        failures=lambda n: {"path": [f"{n}_log.csv", f"{n}_more.csv"]},
        maintenance=lambda n: f"{n}_service.csv",
    )
    for name, rows in read(folder).items():
        first = rows.time < rows.time[0] + 9.5
        own = rows.machine == rows.machine[0]
        assert np.isnan(rows.time_to_failure[own & first]).all(), name
        other = ~own
        np.testing.assert_array_equal(
            rows.time_to_failure[other], expected[name].time_to_failure[other]
        )


# Where rows lie --------------------------------------------------------------------------


def test_one_file_for_all_sites(tmp_path: Path, expected: dict[str, Rows]) -> None:
    parts = [own_files.plain(seed) for seed in (11, 12)]
    names = ("gdansk", "lyon")
    for k, kind in enumerate(("all", "log")):
        frames = [t[k].assign(plant=name) for t, name in zip(parts, names, strict=True)]
        frames = [f.assign(asset=f["asset"].str[2:]) for f in frames]  # the same ids at both
        pd.concat(frames).to_csv(tmp_path / f"{kind}.csv", index=False)
    base = {"path": "all.csv", "machine": "asset", "time": "timestamp", "features": ["T1"]}
    sites = {n: base | {"failures": "log.csv", "where": {"plant": n}} for n in names}
    source = FilesSource(sites, path=str(tmp_path), reach=7.0)
    same({name: source.rows(name) for name in names}, expected)
    sites["lyon"]["where"] = {"plant": "paris"}
    with pytest.raises(DataError, match="plant=paris; column 'plant' holds gdansk, lyon"):
        FilesSource(sites, path=str(tmp_path)).rows("lyon")


@pytest.mark.parametrize("form", ["list", "glob", "zip", "member", "gz", "long"])
def test_the_same_rows_from_any_form(tmp_path: Path, expected: dict[str, Rows], form: str) -> None:
    keys: dict[str, Any] = {}

    def rewrite(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        halves = {f"{name}-a.csv": rows[:1234], f"{name}-b.csv": rows[1234:]}
        if form in ("zip", "member"):
            import zipfile

            with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
                for part, frame in halves.items():
                    archive.writestr(f"x/{part}", frame.to_csv(index=False))
                archive.writestr("__MACOSX/._x.csv", b"\0")
                archive.writestr("readme.md", "no table")
        for part, frame in halves.items():
            frame.to_csv(tmp_path / part, index=False)
        rows.to_csv(tmp_path / f"{name}.txt.gz", index=False)
        if form == "long":
            rows = rows.rename(columns={"T1": "hot"}).assign(cold=1.5)
            rows = rows.melt(["asset", "timestamp"], var_name="tag", value_name="reading")
        return rows, log

    paths = {
        "list": lambda n: [f"{n}-a.csv", f"{n}-b.csv"],
        "glob": "{}-[ab].csv",
        "zip": "{}.zip",
        "member": lambda n: [f"{n}.zip/x/{n}-a.csv", f"{n}.zip/*b.csv"],
        "gz": "{}.txt.gz",
    }
    if form == "long":
        keys = {"variable": "tag", "value": "reading", "features": {"T1": "hot"}}
    else:
        path = paths[form]
        keys = {"path": path if callable(path) else lambda n: path.format(n)}  # type: ignore[attr-defined]
    same(read(two_sites(tmp_path, rewrite, **keys)), expected)


def test_forms_that_cannot_be_read(tmp_path: Path) -> None:
    two_sites(tmp_path)
    for path, said in (
        ("none*.csv", "no file matches"),
        (["gdansk.csv", "nowhere.csv"], "does not exist"),
        ("bad.zip", "is damaged"),
        ("bad.zip/x.csv", "is damaged"),
        ("site", "is a folder"),
        ([], "path is missing"),
    ):
        (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 no archive")
        settings = settings_in(tmp_path)
        settings["gdansk"]["path"] = path
        with pytest.raises((DataError, ConfigError), match=said):
            FilesSource(settings, path=str(tmp_path)).rows("gdansk")


def test_a_bad_cell_in_one_of_many_files_is_named_with_its_file(tmp_path: Path) -> None:
    own_files.valve_rig(tmp_path)
    path = tmp_path / "valve2" / "3.csv"
    lines = path.read_text().splitlines()
    lines[4] = re.sub(";[^;]*;", ";stuck;", lines[4], count=1)
    path.write_text("\n".join(lines))
    assert "'stuck', at line 5 of valve2/3;" in refused(tmp_path, time_unit="minutes")


def test_files_that_write_numbers_in_two_ways_are_joined(tmp_path: Path) -> None:
    """One file has groups of thousands, in the other every number is short."""
    two_sites(tmp_path)
    settings = {"path": ["a.csv", "b.csv"], "time": "t", "features": ["T1"], "label": "y",
                "sep": ";", "decimal": ",", "thousands": "."}  # fmt: skip
    for name, cell in (("a", "{},5"), ("b", "1.{},5")):
        lines = [f"2024-01-{day:02d};{cell.format(100 + day)};{day % 2}" for day in range(1, 21)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["t;T1;y", *lines]))
    rows = FilesSource({"x": settings}, path=str(tmp_path), window=2).rows("x")
    right = [*np.arange(101.5, 121), *np.arange(1101.5, 1121)]
    np.testing.assert_array_equal(rows.values[:, 0], right)


def test_ids_and_categories_that_the_yaml_writes_as_floats(tmp_path: Path) -> None:
    def rewrite(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        return rows.assign(plant=2.0, mode=np.arange(len(rows)) % 2.0), log

    features = {"T1": "T1", "mode": {"column": "mode", "values": [0.0, 1.0]}}
    found = read(two_sites(tmp_path, rewrite, where={"plant": 2.0}, features=features))
    np.testing.assert_array_equal(found["lyon"].values[:4, 1], [0, 1, 0, 1])


def test_long_tables_that_contradict_themselves(tmp_path: Path) -> None:
    def rewrite(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        long = rows.melt(["asset", "timestamp"], var_name="tag", value_name="reading")
        return pd.concat([long, long[:1]]), log

    keys = {"variable": "tag", "value": "reading"}
    text = refused(two_sites(tmp_path, rewrite, **keys))
    assert "'T1' twice for one machine and time at line 3002" in text
    text = refused(two_sites(tmp_path, rewrite, **keys, features=["T2"]))
    assert "'T2' (feature 'T2') is missing; found: T1" in text
    assert "variable is missing" in refused(two_sites(tmp_path, value="reading"))


# Categories ------------------------------------------------------------------------------


def test_words_become_numbers_that_sites_agree_on(tmp_path: Path) -> None:
    kinds = {"gdansk": ["idle", "run", "fault"], "lyon": ["arret", "marche", "panne"]}

    def rewrite(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        state = np.array(kinds[name])[np.arange(len(rows)) % 3].astype(object)
        state[7] = None
        return rows.assign(state=state, door=np.where(rows["T1"] > 65, "ON", "off")), log

    def features(name: str) -> dict[str, Any]:
        values: Any = kinds[name]
        if name == "lyon":  # in another order, and with other words for the same
            values = dict(zip(["fault", "run", "idle"], values[::-1], strict=True))
        return {"T1": "T1", "state": {"column": "state", "values": values}, "door": "door",
                "warm": {"column": "door2", "values": ["off", "ON"]}}  # fmt: skip

    def twice(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        rows, log = rewrite(name, rows, log)
        return rows.assign(door2=rows["door"]), log

    folder = two_sites(tmp_path, twice, features=features)
    source = FilesSource(settings_in(folder), path=str(folder), reach=7.0)
    assert source.features == ("T1", "state_idle", "state_run", "state_fault", "door", "warm")
    assert source.categorical == ("state_idle", "state_run", "state_fault", "warm")
    for name in source.sites:
        values = source.rows(name).values
        assert np.isnan(values[7, 1:4]).all() and np.isnan(values).sum() == 3
        np.testing.assert_array_equal(values[:6, 1:4], np.tile(np.eye(3), (2, 1)))
        np.testing.assert_array_equal(values[:, 4], values[:, 0] > 65)
        np.testing.assert_array_equal(values[:, 4], values[:, 5])
    settings = settings_in(folder)
    settings["lyon"]["features"]["state"]["values"]["idle"] = "stop"
    with pytest.raises(DataError, match="holds 'arret', which is no category, at line 2"):
        FilesSource(settings, path=str(folder)).rows("lyon")
    settings["lyon"]["features"]["state"]["values"] = ["idle", "run"]
    with pytest.raises(ConfigError, match="values fault, idle, run at gdansk and idle, run at l"):
        FilesSource(settings)
    settings["lyon"]["features"]["state"]["values"] = ["idle"]
    with pytest.raises(ConfigError, match="two or more categories"):
        FilesSource(settings)
    settings["lyon"]["features"]["state"]["values"] = yaml.safe_load("[off, on]")
    with pytest.raises(ConfigError, match="in quotes"):
        FilesSource(settings)


# Runs ------------------------------------------------------------------------------------


def precision(folder: Path, *words: str) -> float:
    """Train on the sites of a folder and return the average precision over all their rows."""
    run = folder / "run"
    sites = ",".join(settings_in(folder))
    code = main(["--config-dir", str(folder), "data=files", f"data.path={folder}",
                 f"site={sites}", "model=mlp", "rounds=5", "baselines.max_plants=0",
                 f"hydra.run.dir={run}", *words])  # fmt: skip
    assert code == 0
    summary = json.loads((run / "summary.json").read_text())
    return float(summary["test"]["global"]["average_precision"])


def sentinel(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
    draw = np.random.default_rng(11 if name == "gdansk" else 12)
    return rows.assign(T1=rows["T1"].where(draw.random(len(rows)) >= SENTINELS, -9999)), log


def test_rewritten_values_score_the_same(tmp_path: Path) -> None:
    scores = {
        "plain": precision(two_sites(tmp_path / "plain")),
        "offset": precision(two_sites(tmp_path / "offset", written(lambda v: v + 5e6))),
        "sentinel": precision(two_sites(tmp_path / "sentinel", sentinel, missing=[-9999])),
        "fahrenheit": precision(two_sites(tmp_path / "f", fahrenheit, features=temperature)),
    }
    print(" ".join(f"{case}={score:.4f}" for case, score in scores.items()))  # shown by -rP
    assert scores["plain"] > 0.8
    assert max(scores.values()) - min(scores.values()) < 0.02, scores


def test_the_page_on_own_data_has_the_strangers_yamls(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "bring-your-own-data.md"
    blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    shown = [yaml.safe_load(block) for block in blocks]
    for stranger in (own_files.valve_rig, own_files.machine_tables, own_files.wind_farm):
        stranger(tmp_path / stranger.__name__)
        name, settings = next(iter(settings_in(tmp_path / stranger.__name__).items()))
        assert {name: settings} in shown


@pytest.mark.parametrize("stranger", ["valve_rig", "machine_tables", "wind_farm"])
def test_a_strangers_site_needs_one_short_yaml(
    tmp_path: Path, stranger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    getattr(own_files, stranger)(tmp_path)
    for path in (tmp_path / "site").glob("*.yaml"):
        assert len(path.read_text().splitlines()) <= 15
    words = {"valve_rig": ["data.time_unit=minutes", "task.horizon=5"]}.get(stranger, [])
    assert precision(tmp_path, "rounds=2", *words) > 0.2
    said = capsys.readouterr()
    if stranger == "wind_farm":
        assert "end of its repair" in said.out + said.err
    rows = read(tmp_path, time_unit="minutes" if words else "days")
    if stranger == "valve_rig":
        machines = np.unique(rows["rig"].machine)
        assert len(machines) == 30 and "valve2/3" in machines
    if stranger == "machine_tables":
        for name, first in (("model3", 0), ("model4", 8)):
            own = rows[name]
            assert set(own.machine) == {str(k) for k in range(first, first + 8)}
            np.testing.assert_array_equal(own.values[:, 1], own.machine.astype(int) + 2)
        log = own_files.plain(21, machines=16, steps=240)[1]
        day = (log["timestamp"] - pd.Timestamp(0)) // pd.Timedelta("1D")
        for asset, when in zip(log["asset"].str[3:], day, strict=True):
            own = rows["model3" if int(asset) < 8 else "model4"]
            at = (own.machine == asset) & (own.time == when)
            assert own.time_to_failure[at].tolist() == [0.0]
    if stranger == "wind_farm":
        own = rows["farm"]
        assert np.nanmin(own.time_to_failure) == 15 / 24  # the hour of Lisbon is taken off
        assert set(own.values[:, 1]) == {0.0, 1.0}
        assert (own.split == Split.HELDOUT).any()


def test_a_feature_that_yaml_takes_for_true_is_refused_with_the_way_out() -> None:
    block = {"path": "a.csv", "time": "t", "label": "y"}
    for features in (yaml.safe_load("{on: T1, T2: T2}"), yaml.safe_load("[off, T2]")):
        with pytest.raises(ConfigError, match="'on'"):
            FilesSource({"a": {**block, "features": features}})
    assert FilesSource({"a": {**block, "features": {"on": "T1"}}}).features == ("on",)


def test_sites_that_spell_a_switch_differently_are_told_what_to_write(tmp_path: Path) -> None:
    def words(name: str, rows: pd.DataFrame, log: pd.DataFrame) -> Tables:
        on, off = ("EIN", "AUS") if name == "gdansk" else ("TRUE", "FALSE")
        return rows.assign(fan=np.where(rows["T1"] > 62, on, off)), log

    def features(name: str) -> dict[str, Any]:
        spelt: dict[str, Any] = {"column": "fan", "values": {"off": "AUS", "on": "EIN"}}
        return {"T1": "T1", "fan": spelt if name == "gdansk" else "fan"}

    two_sites(tmp_path, words, features=features)
    sites = settings_in(tmp_path)
    with pytest.raises(ConfigError) as raised:
        FilesSource(sites, path=str(tmp_path))
    (proposed,) = re.findall(r"values: (\{.*\}) at lyon", str(raised.value))
    sites["lyon"]["features"]["fan"] = {"column": "fan", "values": yaml.safe_load(proposed)}
    source = FilesSource(sites, path=str(tmp_path))
    for name in sites:
        rows = source.rows(name)
        np.testing.assert_array_equal(rows.values[:, 1], rows.values[:, 0] > 62)


@pytest.mark.parametrize(
    ("unit", "step", "noted"),
    [("hours", 1 / 24, True), ("hours", 0.25, True), ("days", 1 / 24, False), ("hours", 1, False),
     ("hours", 0.0123456, False)],
)  # fmt: skip
def test_a_spreadsheets_dates_are_not_read_as_hours_without_a_word(
    unit: str, step: float, noted: bool, tmp_path: Path
) -> None:
    times = 45231.25 + np.arange(400) * step if step < 1 else 45231.0 + np.arange(400)
    frame = pd.DataFrame({"t": times, "x": np.sin(times), "y": (np.arange(400) % 40 > 35) * 1})
    frame.to_csv(tmp_path / "a.csv", index=False)
    block = {"path": "a.csv", "time": "t", "features": ["x"], "label": "y"}
    source = FilesSource({"a": block}, path=str(tmp_path), time_unit=unit)
    source.rows("a")
    assert any("spreadsheet" in text for text in source.warnings) == noted


def test_a_missing_file_names_the_folder_that_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    block = {"path": "raw/a.csv", "time": "t", "features": ["x"], "label": "y"}
    with pytest.raises(DataError, match=re.escape(f"({tmp_path})")):
        FilesSource({"a": block}).rows("a")
