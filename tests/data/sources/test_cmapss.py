"""C-MAPSS: on engines of our own making everywhere, on the real files where they are there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fedpdm.data.partition import ByCondition, ByMachine, ByType, Natural
from fedpdm.data.rows import Rows, Split
from fedpdm.data.sources import cmapss
from fedpdm.data.sources.cmapss import CONDITIONS, SET_POINTS, CmapssSource, read_subset
from fedpdm.data.windows import window_ends
from fedpdm.errors import ConfigError, DataError

TRAIN_LIVES = (5, 8, 6, 7, 9, 5)
TEST_LENGTHS = (3, 6, 2, 4, 5)
LEFT = (10, 0, 125, 7, 30)


def table(lengths: tuple[int, ...], points: np.ndarray, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    lines = []
    for unit, length in enumerate(lengths, start=1):
        for cycle in range(1, length + 1):
            point = points[draw.integers(len(points))] + draw.uniform(-0.002, 0.002, 3)
            sensors = [float(number) + unit / 100 for number in range(1, 22)]
            cells = [unit, cycle, *point.round(4), *sensors]
            lines.append(" ".join(f"{cell:g}" for cell in cells) + "  ")
    return lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """FD001 and FD002 in NASA's format with 6 training and 5 test engines."""
    place = tmp_path / "cmapss"
    place.mkdir()
    for subset, points in (("FD001", SET_POINTS[:1]), ("FD002", SET_POINTS)):
        for kind, lengths, seed in (("train", TRAIN_LIVES, 1), ("test", TEST_LENGTHS, 2)):
            text = "\n".join(table(lengths, points, seed)) + "\n"
            (place / f"{kind}_{subset}.txt").write_text(text)
        (place / f"RUL_{subset}.txt").write_text("".join(f"{left} \n" for left in LEFT))
    return tmp_path


def source(path: Path, count: int = 2, **options: object) -> CmapssSource:
    given: dict[str, object] = {
        "sites": {}, "partition": ByMachine(count), "seed": 1, "verify": False, "window": 4,
    }  # fmt: skip
    return CmapssSource(path=str(path), **(given | options))  # type: ignore[arg-type]


def whole(made: CmapssSource) -> dict[str, Rows]:
    """Every engine's rows, by its id, over all sites."""
    found: dict[str, Rows] = {}
    for site in made.sites:
        rows = made.rows(site)
        for machine in np.unique(rows.machine):
            assert machine not in found, f"{machine} belongs to two sites"
            found[str(machine)] = rows.take(rows.machine == machine)
    return found


def test_every_engine_belongs_to_one_site_with_all_its_rows(folder: Path) -> None:
    engines = whole(source(folder))
    lengths = {f"train-{k:03d}": n for k, n in enumerate(TRAIN_LIVES, 1)}
    lengths |= {f"test-{k:03d}": n for k, n in enumerate(TEST_LENGTHS, 1)}
    assert {name: len(rows) for name, rows in engines.items()} == lengths
    for rows in engines.values():
        assert rows.time.tolist() == list(range(1, len(rows) + 1))


def test_training_engine_fails_on_its_last_row_and_test_engine_after_its_given_life(
    folder: Path,
) -> None:
    for name, rows in whole(source(folder)).items():
        left = 0 if name.startswith("train") else LEFT[int(name[-3:]) - 1]
        assert rows.time_to_failure.tolist() == [left + k for k in range(len(rows))][::-1]


def test_official_test_engines_are_the_test_set_and_no_site_trains_on_what_it_validates(
    folder: Path,
) -> None:
    made = source(folder)
    for site in made.sites:
        rows = made.rows(site)
        by_split = {split: set(rows.machine[rows.split == split]) for split in Split}
        assert all(name.startswith("test") for name in by_split[Split.TEST])
        training, validation = by_split[Split.TRAIN], by_split[Split.VALIDATION]
        assert training and validation and not training & validation
        assert all(name.startswith("train") for name in training | validation)
        assert not by_split[Split.UNUSED] | by_split[Split.HELDOUT]


def test_sensors_are_chosen_by_number(folder: Path) -> None:
    chosen = source(folder)
    assert len(chosen.features) == 14 and {"sensor_02", "sensor_21"} <= set(chosen.features)
    assert source(folder, features="aged").features == ("cycle", *chosen.features)
    everything = source(folder, features="all")
    assert len(everything.features) == 24
    for made in (chosen, everything):
        for name, rows in whole(made).items():
            unit = int(name[-3:])
            for feature, column in zip(rows.features, rows.values.T, strict=True):
                if feature.startswith("sensor"):
                    np.testing.assert_allclose(column, int(feature[-2:]) + unit / 100)


def test_short_test_engines_give_one_padded_window_and_none_is_lost(folder: Path) -> None:
    engines = whole(source(folder))
    for rows in engines.values():
        ends, padded = window_ends(rows, 4, 1, np.ones(len(rows), dtype=bool))
        assert len(ends) == max(1, len(rows) - 3)
        assert padded.any() == (len(rows) < 4)
        assert len(rows) - 1 in ends
    assert {n for n, rows in engines.items() if len(rows) < 4} == {"test-001", "test-003"}


def test_operating_condition_is_the_nearest_set_point(folder: Path) -> None:
    made = source(folder, subset="FD002", features="all")
    assert made.conditions == 6 and source(folder).conditions == 1
    seen = set()
    for site in made.sites:
        rows = made.rows(site)
        np.testing.assert_allclose(rows.values[:, :3], SET_POINTS[rows.condition], atol=0.003)
        seen |= set(rows.condition.tolist())
    assert seen == set(range(6))


def test_conditions_can_be_left_out_of_the_scaling_and_deal_rows_all_the_same(
    folder: Path,
) -> None:
    told, untold = (
        source(folder, subset="FD002", features="benchmark", partition=ByCondition(), conditions=c)
        for c in (True, False)
    )
    assert untold.features == ("cycle", *source(folder, features="all").features)
    assert (told.conditions, untold.conditions) == (6, 1) and untold.operating is None
    assert told.sites == untold.sites and len(told.sites) == 6
    for number, site in enumerate(told.sites):
        assert np.array_equal(told.rows(site).values, untold.rows(site).values)
        assert set(told.rows(site).condition.tolist()) == {number}
        assert set(untold.rows(site).condition.tolist()) == {0}


def test_settings_far_from_every_set_point_are_refused(folder: Path) -> None:
    path = folder / "cmapss/train_FD002.txt"
    lines = path.read_text().splitlines()
    cells = lines[3].split()
    lines[3] = " ".join([*cells[:2], "30.2", *cells[3:]])
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"30\.2.*none of the 6 .*data\.subset"):
        source(folder, subset="FD002").rows("plant-01")


def test_same_seed_same_bytes_in_any_order_and_another_seed_other_sites(folder: Path) -> None:
    one, other = source(folder), source(folder)
    backwards = {site: other.rows(site).sha256() for site in other.sites[::-1]}
    assert {site: one.rows(site).sha256() for site in one.sites} == backwards
    assert {s: source(folder, seed=2).rows(s).sha256() for s in one.sites} != backwards


def test_given_names_become_the_sites(folder: Path) -> None:
    named = source(folder, sites={"houston": {}, "detroit": {}}, partition=ByMachine())
    assert named.sites == ("houston", "detroit") and len(whole(named)) == 11


def test_several_subsets_keep_their_engines_apart_and_share_their_conditions(
    folder: Path,
) -> None:
    both = source(folder, subset=["FD002", "FD001"], partition=ByType("subset"))
    assert both.sites == ("FD001", "FD002") and both.conditions == 6
    engines = whole(both)
    assert len(engines) == 2 * (len(TRAIN_LIVES) + len(TEST_LENGTHS))
    alone = whole(source(folder, subset="FD002"))
    for name, rows in alone.items():
        joined = engines[f"FD002-{name}"]
        assert np.array_equal(joined.values, rows.values)
        assert np.array_equal(joined.condition, rows.condition)
        assert set(joined.groups["subset"]) == {"FD002"}
    assert set(both.rows("FD001").condition.tolist()) == {0}
    same = source(folder, subset=["FD001", "FD002"], partition=ByType("subset"))
    assert all(same.rows(s).sha256() == both.rows(s).sha256() for s in both.sites)


def test_files_are_read_when_first_needed_and_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    original = cmapss.read_table
    monkeypatch.setattr(
        cmapss, "read_table", lambda path, *rest: read.append(path) or original(path, *rest)
    )
    made = source(folder)
    assert not read
    for site in made.sites * 2:
        made.rows(site)
    assert sorted(path.name for path in read) == ["test_FD001.txt", "train_FD001.txt"]


def spoil(folder: Path, how: str) -> Path:
    train, _, left = (folder / f"cmapss/{k}_FD001.txt" for k in ("train", "test", "RUL"))
    lines = train.read_text().splitlines()
    cells = lines[6].split()

    def put(column: int, text: str) -> None:
        train.write_text("\n".join([*lines[:6], " ".join([*cells[:column], text, *cells[column + 1 :]]), *lines[7:]]))  # fmt: skip # noqa: E501

    match how:
        case "text":
            put(7, "n/a")
        case "not finite":
            put(7, "inf")
        case "cycle missing":
            train.write_text("\n".join(lines[:6] + lines[7:]))
        case "unit missing":
            train.write_text("\n".join(lines[:5] + lines[13:]))
        case "cut off in a line":
            train.write_text("\n".join(lines)[:-40])
        case "column less in every line":
            train.write_text("\n".join(" ".join(line.split()[:-1]) for line in lines))
        case "blank line":
            train.write_text("\n".join([*lines[:6], "", *lines[6:]]))
        case "empty":
            train.write_text("")
        case "packed":
            train.write_bytes(b"PK\x03\x04\xff" * 99)
        case "absent":
            train.unlink()
        case "one life short":
            left.write_text("1\n2\n3\n4\n")
        case "negative life":
            left.write_text("1\n2\n3\n4\n-5\n")
        case "word for a life":
            left.write_text("1\n2\n3\nfour\n5\n")
    return left if "life" in how else train


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("text", r"column 'sensor_03' holds 'n/a', .* at line 7"),
        ("not finite", r"column 'sensor_03' holds .*'inf', at line 7"),
        ("cycle missing", r"line 7: unit 2, cycle 3 does not continue"),
        ("unit missing", r"line 6: unit 3, cycle 1 does not continue"),
        ("cut off in a line", r"line 40: \d+ columns where there must be 26"),
        ("column less in every line", r"line 1: 25 columns where there must be 26"),
        ("blank line", r"line 7: 0 columns"),
        ("empty", r"is empty"),
        ("packed", r"is not a text file"),
        ("absent", r"is not there; fetch it with 'python -m fedpdm\.data fetch cmapss"),
        ("one life short", r"each of the 5 engines of test_FD001\.txt, but holds 4"),
        ("negative life", r"at least 0.* from -5"),
        ("word for a life", r"column 'RUL' holds text, 'four', at line 4"),
    ],
)
def test_damaged_file_is_refused_by_name_and_place(folder: Path, how: str, message: str) -> None:
    path = spoil(folder, how)
    with pytest.raises(DataError, match=message) as raised:
        source(folder).rows("plant-01")
    assert str(path) in str(raised.value)


def test_file_with_another_number_of_rows_than_published_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"test_FD001\.txt has 20 rows.* has 13,096.*fetch"):
        source(folder, verify=True).rows("plant-01")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subset": "FD005"}, r"data\.subset=FD005.*FD001, FD002, FD003 or FD004"),
        ({"features": "some"}, r"data\.features=some.*informative, aged, all or benchmark"),
        ({"subset": ["FD001", "FD007"]}, r"data\.subset=FD007 is unknown"),
        ({"subset": ["FD001", "FD001"]}, r"must name each subset once"),
        ({"subset": []}, r"must name each subset once"),
        ({"pad": "none"}, r"data\.pad=none is unknown; choose short or all"),
        ({"window": 0}, r"data\.window=0"),
        ({"window": None}, r"data\.window=None"),
        ({"stride": -1}, r"data\.stride=-1"),
        ({"validation_fraction": 1.0}, r"data\.validation_fraction=1\.0"),
    ],
)
def test_option_out_of_range_is_refused_before_anything_is_read(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        source(tmp_path, **options)


def test_more_sites_than_engines_and_no_partition_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="7 sites .* has 6"):
        source(folder, count=7).sites  # noqa: B018
    with pytest.raises(ConfigError, match=r"partition=machine partition\.sites=10"):
        source(folder, partition=Natural()).sites  # noqa: B018


# Engines shorter than a window of 30, and rows with RUL <= 30, 60, 90 in train and test files.
FACTS = {
    "FD001": (100, 100, 0, (0.150, 0.296, 0.441), (0.025, 0.095, 0.197)),
    "FD002": (260, 259, 6, (0.150, 0.295, 0.440), (0.032, 0.105, 0.213)),
    "FD003": (100, 100, 0, (0.125, 0.247, 0.368), (0.018, 0.069, 0.160)),
    "FD004": (249, 248, 11, (0.126, 0.248, 0.370), (0.021, 0.075, 0.154)),
}


@pytest.mark.parametrize("subset", CONDITIONS)
def test_real_subset_has_its_published_counts(
    data_folder: Path, subset: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = CmapssSource(
        sites={}, partition=ByMachine(10), seed=1, subset=subset, path=str(data_folder)
    )
    trained, tested, short, train_rates, test_rates = FACTS[subset]
    rows = [made.rows(site) for site in made.sites]
    assert not caplog.records, "the published files must not be called altered"
    engines = {split: [set(r.machine[r.split == split]) for r in rows] for split in Split}
    assert sum(map(len, engines[Split.TEST])) == tested
    assert sum(map(len, engines[Split.TRAIN] + engines[Split.VALIDATION])) == trained
    windows = padded = last = 0
    for part in rows:
        test = part.take(part.split == Split.TEST)
        ends, short_ones = window_ends(test, 30, 1, np.ones(len(test), dtype=bool))
        last += len(set(test.machine[ends]))
        windows, padded = windows + len(ends), padded + int(short_ones.sum())
        assert set(part.condition.tolist()) == set(range(CONDITIONS[subset]))
    assert (last, padded) == (tested, short)
    for splits, rates in (
        ((Split.TRAIN, Split.VALIDATION), train_rates),
        ((Split.TEST,), test_rates),
    ):
        left = np.concatenate([r.time_to_failure[np.isin(r.split, splits)] for r in rows])
        assert [round(float(np.mean(left <= h)), 3) for h in (30, 60, 90)] == list(rates)


def test_real_fd001_has_8255_windows_of_50_and_8262_with_the_seven_short_engines(
    data_folder: Path,
) -> None:
    rows = read_subset(*(data_folder / f"cmapss/{k}_FD001.txt" for k in ("train", "test", "RUL")))
    test = rows.take(rows.split == Split.TEST)
    ends, padded = window_ends(test, 50, 1, np.ones(len(test), dtype=bool))
    assert (len(ends), int(padded.sum())) == (8262, 7)
    positive = test.time_to_failure[ends[~padded]] <= 30
    assert len(positive) == 8255 and round(float(positive.mean()), 3) == 0.040


def test_real_file_with_one_altered_digit_is_reported_and_a_cut_one_refused(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "cmapss"
    place.mkdir()
    for kind in ("train", "test", "RUL"):
        shutil.copyfile(data_folder / f"cmapss/{kind}_FD001.txt", place / f"{kind}_FD001.txt")
    path = place / "test_FD001.txt"
    content = path.read_text()
    path.write_text(content.replace("643.02", "643.03", 1))
    source(tmp_path, count=10, verify=True).rows("plant-01")
    assert f"{path} is not the published file" in caplog.text
    path.write_text("\n".join(content.splitlines()[:-1]))
    with pytest.raises(DataError, match="has 13,095 rows"):
        source(tmp_path, count=10, verify=True).rows("plant-01")
