"""AI4I 2020: on rows of our own making everywhere, on the real file where it is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedpdm.data.partition import ByMachine, ByType, Iid, Partition
from fedpdm.data.rows import Split
from fedpdm.data.sources import ai4i
from fedpdm.data.sources.ai4i import Ai4iSource, physical_rules, read_ai4i, stratified_split
from fedpdm.errors import ConfigError, DataError

HEADER = (
    "UDI,Product ID,Type,Air temperature [K],Process temperature [K],Rotational speed [rpm],"
    "Torque [Nm],Tool wear [min],Machine failure,TWF,HDF,PWF,OSF,RNF"
)


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """A file of the published shape, header first; values are made up."""
    draw = np.random.default_rng(7)
    kind = draw.choice(list("LMH"), 10_000, p=[0.6, 0.3, 0.1])
    air = draw.normal(300, 2, 10_000).round(1)
    wear = draw.integers(0, 240, 10_000)
    torque = draw.normal(40, 10, 10_000).round(1).clip(4)
    failure = (draw.random(10_000) < 0.03).astype(int)
    return [HEADER] + [
        f"{k + 1},{kind[k]}{k},{kind[k]},{air[k]},{air[k] + 10:.1f},{1300 + k % 500},{torque[k]},"
        f"{wear[k]},{failure[k]},0,0,0,0,0"
        for k in range(10_000)
    ]


def write(folder: Path, lines: list[str], ending: str = "\r\n", mark: bytes = b"") -> Path:
    path = folder / "ai4i2020" / "ai4i2020.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(mark + (ending.join(lines) + ending).encode())
    return path


def source(path: Path, partition: Partition | None = None, **options: object) -> Ai4iSource:
    given: dict[str, object] = {"sites": {}, "partition": partition or ByType(), "seed": 1}
    return Ai4iSource(path=str(path), **(given | options))  # type: ignore[arg-type]


def test_features_are_the_nine_of_the_source_and_one_more_for_physics(
    tmp_path: Path, lines: list[str]
) -> None:
    write(tmp_path, lines)
    plain, physics = source(tmp_path), source(tmp_path, features="physics")
    assert len(plain.features) == 9 and physics.features[:9] == plain.features
    assert len(physics.features) == 10
    for made in (plain, physics):
        rows = made.rows("L")
        assert rows.features == made.features and rows.values.shape[1] == len(made.features)


def test_failure_modes_and_product_id_do_not_reach_the_features(
    tmp_path: Path, lines: list[str]
) -> None:
    def leak(line: str) -> str:
        udi, _, *cells = line.split(",")
        return ",".join([udi, f"FAILS{cells[6]}", *cells[:7], *[cells[6]] * 5])

    before = read_ai4i(write(tmp_path, lines), ai4i.FEATURES["physics"])
    leaking = [HEADER, *map(leak, lines[1:])]
    after = read_ai4i(write(tmp_path, leaking), ai4i.FEATURES["physics"])
    assert leaking != lines and before.sha256() == after.sha256()


def test_derived_features_by_hand(tmp_path: Path, lines: list[str]) -> None:
    row = "1,H1,H,300.0,310.5,1500,40.0,100,1,0,0,0,0,0"
    rows = read_ai4i(write(tmp_path, [HEADER, row, *lines[2:]]), ai4i.FEATURES["physics"])
    power = 40 * 1500 * 2 * np.pi / 60
    expected = [10.5, 1500, 300, 310.5, power, 40, 100, 40 / 1500, 2, 4000]
    np.testing.assert_allclose(rows.values[0], expected)
    assert rows.label is not None and rows.label[0] == 1


def test_splits_follow_the_row_number(tmp_path: Path, lines: list[str]) -> None:
    rows = read_ai4i(write(tmp_path, lines))
    udi = {split: rows.time[rows.split == split] for split in Split}
    assert (udi[Split.TRAIN].min(), udi[Split.TRAIN].max()) == (1, 5999)
    assert (udi[Split.VALIDATION].min(), udi[Split.VALIDATION].max()) == (6000, 7499)
    assert (udi[Split.TEST].min(), udi[Split.TEST].max()) == (7500, 10_000)
    assert sum(map(len, udi.values())) == 10_000


@pytest.mark.parametrize(
    ("partition", "sites", "expected"),
    [
        (ByType(), {}, ("L", "M", "H")),
        (ByType(), {"a": {}, "b": {}, "c": {}}, ("a", "b", "c")),
        (Iid(4), {}, ("plant-01", "plant-02", "plant-03", "plant-04")),
        (ByMachine(), {"detroit": {}, "houston": {}}, ("detroit", "houston")),
    ],
)
def test_sites_divide_the_file(
    tmp_path: Path, lines: list[str], partition: Partition, sites: dict, expected: tuple[str, ...]
) -> None:
    write(tmp_path, lines)
    made = source(tmp_path, partition, sites=sites)
    assert made.sites == expected
    udi = np.concatenate([made.rows(site).time for site in made.sites])
    assert sorted(udi) == list(range(1, 10_001))
    for site in made.sites:
        assert (np.diff(made.rows(site).time) > 0).all()


def test_order_of_lines_line_ends_mark_and_spelling_do_not_matter(
    tmp_path: Path, lines: list[str]
) -> None:
    usual = read_ai4i(write(tmp_path, lines, mark=b"\xef\xbb\xbf"))
    renamed = HEADER.replace(" [K]", "").replace("Machine failure", "Machine_failure")
    shuffled = [lines[k] for k in 1 + np.random.default_rng(0).permutation(10_000)]
    other = read_ai4i(write(tmp_path, [renamed, *shuffled], ending="\n"))
    assert usual.sha256() == other.sha256()
    assert usual.groups["type"].tolist() == other.groups["type"].tolist()


def test_file_is_read_when_first_needed_and_once(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(ai4i, "read_ai4i", lambda p, f: read.append(p) or read_ai4i(p, f))
    made = source(tmp_path)
    assert not read
    write(tmp_path, lines)
    for site in made.sites * 2:
        made.rows(site)
    assert len(read) == 1


def replaced(lines: list[str], number: int, old: str, new: str) -> list[str]:
    assert old in lines[number]
    return [*lines[:number], lines[number].replace(old, new, 1), *lines[number + 1 :]]


def spoiled(lines: list[str], how: str) -> list[str] | bytes:
    cells = lines[41].split(",")
    put = lambda k, text: [*lines[:41], ",".join([*cells[:k], text, *cells[k + 1 :]]), *lines[42:]]  # noqa: E731
    return {
        "text in a numeric column": lambda: put(6, "high"),
        "no cell": lambda: put(6, ""),
        "not finite": lambda: put(3, "nan"),
        "negative": lambda: put(5, "-1500"),
        "unknown type": lambda: put(2, "X"),
        "label 2": lambda: put(8, "2"),
        "short line": lambda: [*lines[:41], "41,L41,L", *lines[42:]],
        "missing column": lambda: replaced(lines, 0, "Torque [Nm],", "Torsion,"),
        "cut off": lambda: lines[:5000],
        "same row twice": lambda: [*lines[:-1], lines[1]],
        "header only": lambda: lines[:1],
        "empty": lambda: b"",
        "packed": lambda: b"PK\x03\x04\xff\xfe" * 20,
    }[how]()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "text in a numeric column",
            r"'Torque \[Nm\]' holds text, 'high', at line 42.*fetch",
        ),
        ("no cell", r"column 'Torque \[Nm\]' holds '', .* at line 42"),
        ("not finite", r"column 'Air temperature \[K\]' holds 'nan', .* at line 42"),
        ("negative", r"column 'Rotational speed \[rpm\]' holds '-1500', .* at line 42"),
        ("unknown type", r"column 'Type' holds 'X'.*L, M or H.* at line 42"),
        ("label 2", r"column 'Machine failure' holds '2'.*0 or 1.* at line 42"),
        ("short line", r"column 'Air temperature \[K\]' holds '', .* at line 42"),
        ("missing column", r"column 'Torque \[Nm\]' .* is missing; found: UDI.*Torsion"),
        ("cut off", r"has 4,999 rows.* has 10,000"),
        ("same row twice", r"column 'UDI' must hold 1 to 10000 once each"),
        ("header only", r"has 0 rows"),
        ("empty", r"is empty"),
        ("packed", r"is not a text file"),
    ],
)
def test_damaged_file_is_refused_by_name_and_place(
    tmp_path: Path, lines: list[str], how: str, message: str
) -> None:
    content = spoiled(lines, how)
    path = write(tmp_path, content if isinstance(content, list) else [])
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        source(tmp_path).rows("L")
    assert str(path) in str(raised.value)


def test_absent_file_says_where_it_belongs_and_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ai4i2020\.csv is not there.*fedpdm\.data fetch ai4i"):
        source(tmp_path).rows("L")


@pytest.mark.parametrize("below", ["", "ai4i2020", "ai4i2020/ai4i2020.csv"])
def test_path_may_lead_to_the_data_folder_its_folder_or_the_file(
    tmp_path: Path, lines: list[str], below: str
) -> None:
    write(tmp_path, lines)
    assert len(source(tmp_path / below).sites) == 3


def test_environment_names_the_data_folder(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, lines)
    monkeypatch.setenv("FEDPDM_DATA", str(tmp_path))
    assert Ai4iSource(sites={}, partition=ByType(), seed=1).sites == ("L", "M", "H")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 30}, r"data\.window=30.*null"),
        ({"reach": 30.0}, r"no times of failure.*task=failure"),
        ({"features": "everything"}, r"data\.features=everything.*source or physics"),
    ],
)
def test_option_without_meaning_is_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        source(tmp_path, **options)


def test_unknown_site_is_refused_with_those_that_exist(tmp_path: Path, lines: list[str]) -> None:
    write(tmp_path, lines)
    with pytest.raises(ConfigError, match="no site 'X'; there are L, M, H"):
        source(tmp_path).rows("X")


@pytest.mark.parametrize(
    ("row", "fails"),
    [
        ("L,300.0,310.0,1500,40.0,100", False),
        ("L,300.0,308.5,1379,40.0,100", True),  # heat: difference 8.5 and slow
        ("L,300.0,308.5,1380,40.0,100", False),
        ("L,300.0,308.7,1379,40.0,100", False),
        ("L,300.0,310.0,1400,20.0,100", True),  # 2,932 W
        ("L,300.0,310.0,1500,60.0,100", True),  # 9,425 W
        ("L,300.0,310.0,1500,50.0,220", False),  # strain of exactly 11,000
        ("L,300.0,310.0,1500,50.0,221", True),
        ("M,300.0,310.0,1500,50.0,221", False),
        ("M,300.0,310.0,1500,50.0,241", True),
        ("H,300.0,310.0,1500,50.0,241", False),
        ("H,300.0,310.0,1500,52.0,251", True),
    ],
)
def test_physical_rules_at_their_limits(
    tmp_path: Path, lines: list[str], row: str, fails: bool
) -> None:
    rows = read_ai4i(write(tmp_path, [HEADER, f"1,X,{row},0,0,0,0,0,0", *lines[2:]]))
    assert physical_rules(rows)[0] == fails


def test_altered_values_are_reported_and_used(
    tmp_path: Path, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, lines)
    read_ai4i(path)
    assert f"{path} is not the published file" in caplog.text


def test_real_file_has_its_published_counts(
    data_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = source(data_folder)
    rows = read_ai4i(data_folder / "ai4i2020/ai4i2020.csv")
    assert not caplog.records, "the published file must not be called altered"
    assert rows.label is not None and rows.label.sum() == 339
    assert made.sites == ("L", "M", "H")
    assert [len(made.rows(site)) for site in made.sites] == [6000, 2997, 1003]
    shares = [100 * made.rows(site).label.mean() for site in made.sites]
    np.testing.assert_allclose(shares, [3.92, 2.77, 2.09], atol=0.005)
    high = made.rows("H")
    assert high.label is not None and not high.label[high.split == Split.TEST].any()
    per_2000 = [int(part.sum()) for part in np.split(rows.label, 5)]
    assert per_2000 == [52, 49, 154, 45, 39]


def test_reformatted_copy_of_the_real_file_counts_as_the_published_one(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (data_folder / "ai4i2020/ai4i2020.csv").read_text("utf-8-sig")
    copy = write(tmp_path, text.replace("Machine failure", "Machine_failure").splitlines(), "\n")
    original = read_ai4i(data_folder / "ai4i2020/ai4i2020.csv")
    assert read_ai4i(copy).sha256() == original.sha256()
    assert not caplog.records


def test_three_rules_alone_reach_precision_1_and_recall_847(data_folder: Path) -> None:
    made = source(data_folder)
    flagged, failed = (
        np.concatenate(columns)
        for columns in zip(
            *((made.rules(rows), rows.label == 1) for rows in map(made.rows, made.sites)),
            strict=True,
        )
    )
    assert (flagged & failed).sum() == flagged.sum() == 287
    assert round((flagged & failed).sum() / failed.sum(), 3) == 0.847


@pytest.fixture(scope="module")
def labelled() -> tuple[np.ndarray, np.ndarray]:
    """Labels and types in the shares of the real file: 339 failures, 21 of them of type H."""
    kind = np.repeat(["L", "M", "H"], [6000, 2997, 1003])
    label = np.zeros(10_000, dtype=np.int64)
    for first, count in ((0, 235), (6000, 83), (8997, 21)):
        label[first : first + count] = 1
    order = np.random.default_rng(0).permutation(10_000)
    return label[order], kind[order]


def test_every_row_is_tested_in_exactly_one_of_five_folds(
    labelled: tuple[np.ndarray, np.ndarray],
) -> None:
    splits = np.stack([stratified_split(*labelled, fold) for fold in range(5)])
    assert np.array_equal((splits == Split.TEST).sum(axis=0), np.ones(10_000))
    assert set(np.unique(splits)) == {Split.TRAIN, Split.VALIDATION, Split.TEST}


def test_folds_hold_failures_and_types_in_equal_shares(
    labelled: tuple[np.ndarray, np.ndarray],
) -> None:
    label, kind = labelled
    for fold in range(5):
        split = stratified_split(label, kind, fold)
        assert abs(int((split == Split.TEST).sum()) - 2000) <= 1
        assert abs(int((split == Split.VALIDATION).sum()) - 1000) <= 1
        for one in "LMH":
            of_kind = (kind == one) & (label == 1)
            tested = int((split[of_kind] == Split.TEST).sum())
            assert abs(tested - of_kind.sum() / 5) < 1
            assert abs(int((split[of_kind] == Split.VALIDATION).sum()) - of_kind.sum() / 10) <= 1


def test_folds_do_not_hang_on_the_runs_seed(tmp_path: Path, lines: list[str]) -> None:
    write(tmp_path, lines)
    first, second = (
        source(tmp_path, split="stratified", fold=3, seed=seed).rows("M").split for seed in (0, 9)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, source(tmp_path, split="stratified").rows("M").split)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"split": "random"}, "data.split=random is unknown; choose forward or stratified"),
        ({"split": "stratified", "fold": 5}, "data.fold=5 must be a whole number from 0 to 4"),
        ({"split": "stratified", "fold": True}, "data.fold=True must be a whole number"),
        ({"fold": 2}, "data.fold=2 says nothing with data.split=forward"),
    ],
)
def test_folds_that_cannot_be(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Ai4iSource(sites={}, partition=ByType(), seed=0, **options)  # type: ignore[arg-type]
