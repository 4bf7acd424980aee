"""Every guard fires on a planted leak, names it, and is silent on sound data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from fedpdm.config.compose import compose
from fedpdm.config.values import make
from fedpdm.data.leakage import checks as guards
from fedpdm.data.normalise import Moments, Scaler, moments
from fedpdm.data.rows import Rows, Split
from fedpdm.data.sources.base import Source
from fedpdm.data.splits.saved_split import split_file
from fedpdm.errors import LeakError
from fedpdm.federation import Federation
from fedpdm.runs.sources import build_source
from fedpdm.tasks import Failure
from fedpdm.testing.tiny import TinySource

TRAIN, VALIDATION, TEST, HELDOUT = (
    int(s) for s in (Split.TRAIN, Split.VALIDATION, Split.TEST, Split.HELDOUT)
)
SITES = {"a": {"machines": 8}, "b": {"machines": 8}}
Leak = Callable[[Rows, str], Rows]


class Leaking(TinySource):
    """The sites of ``TinySource``, with a leak that ``spoil`` puts into site b (or all)."""

    def __init__(self, spoil: Leak, everywhere: bool = False, **options: Any) -> None:
        super().__init__(SITES, **options)
        self.spoil, self.everywhere = spoil, everywhere

    def rows(self, site: str) -> Rows:
        rows = super().rows(site)
        return self.spoil(rows, site) if self.everywhere or site == "b" else rows


def check(source: Source, reach: float = 4.0) -> list[str]:
    return guards.check(source, source.sites, source.rows, reach)


def with_split(rows: Rows, split: np.ndarray) -> Rows:
    return replace(rows, split=split.astype(np.int8))


def random_split(rows: Rows, site: str) -> Rows:
    return with_split(rows, np.random.default_rng(1).choice(3, len(rows), p=[0.6, 0.2, 0.2]))


def validation_first(rows: Rows, site: str) -> Rows:
    late = rows.time >= np.median(rows.time)
    return with_split(rows, np.where(late, TRAIN, VALIDATION))


def test_inside_training(rows: Rows, site: str) -> Rows:
    middle = (rows.time > 40) & (rows.time < 60)
    return with_split(rows, np.where(middle, TEST, TRAIN))


test_inside_training.__test__ = False  # type: ignore[attr-defined]


def no_purge(rows: Rows, site: str) -> Rows:
    return with_split(rows, np.digitize(rows.time, [72, 96]))


def half_held_out(rows: Rows, site: str) -> Rows:
    own = rows.machine == "b-0"
    return with_split(rows, np.where(own & (rows.time > 60), HELDOUT, TRAIN))


def shuffled(rows: Rows, site: str) -> Rows:
    """As the reference system: rows are shuffled by the split, then windows are cut."""
    return rows.take(np.random.default_rng(0).permutation(len(rows)))


def shuffled_in_machine(rows: Rows, site: str) -> Rows:
    order = np.lexsort((np.random.default_rng(0).random(len(rows)), rows.machine))
    return rows.take(order)


@pytest.mark.parametrize(
    ("leak", "message"),
    [
        (random_split, r"b, machine b-\d: its rows change \d+ times.*random split.*by_time"),
        (validation_first, r"b, machine b-0: validation begins at 0 hours, before the last row "
                           r"for training at 119"),
        (test_inside_training, r"test begins at 41 hours, before the last row for training at 119"),
        (no_purge, r"b: training rows of machine b-0 know.*at 71 hours looks 4.5 hours ahead, and "
                   r"a later part begins at 72"),
        (half_held_out, r"b: machine b-0 is held out, but some of its rows"),
        (shuffled, r"b: the rows of machine b-\d do not lie together.*sort rows"),
        (shuffled_in_machine, r"b: row \d+ of machine b-0 \(time .* is earlier than the one"),
    ],
)  # fmt: skip
def test_splits_that_do_not_follow_time_are_refused(leak: Leak, message: str) -> None:
    with pytest.raises(LeakError, match=message):
        check(Leaking(leak), reach=4.5)


def test_single_rows_without_neighbours_may_be_split_at_random() -> None:
    class Parts(TinySource):
        def rows(self, site: str) -> Rows:
            rows = random_split(super().rows(site), site)
            ids = np.array([f"{site}{k:05d}" for k in range(len(rows))])
            return replace(rows, machine=ids, life=np.zeros(len(rows), dtype=np.int64))

    assert check(Parts(SITES, window=None), reach=0.0) == []


def test_a_machine_at_two_sites_is_refused_unless_the_partition_shares_it() -> None:
    class Twice(TinySource):
        def rows(self, site: str) -> Rows:
            rows = super().rows(site)
            name = np.where(rows.machine == f"{site}-3", "pump-3", rows.machine)
            return replace(rows, machine=name)

    with pytest.raises(LeakError, match=r"machine pump-3 is at a and at b.*partition=condition"):
        check(Twice(SITES))
    shared = Twice(SITES)
    shared.shares_machines = True
    assert check(shared) == []
    local = Twice(SITES)
    local.local_machines = True
    assert check(local) == []


def test_a_shared_machine_is_of_one_split_at_every_site() -> None:
    class Torn(TinySource):
        shares_machines = True

        def rows(self, site: str) -> Rows:
            rows = TinySource({"a": {"machines": 8}}).rows("a")
            own = rows.take(rows.time % 2 == (site == "b"))  # every second row each
            split = np.where(own.machine == "a-2", TEST if site == "b" else TRAIN, TRAIN)
            return with_split(own, split)

    with pytest.raises(LeakError, match=r"sites together, machine a-2: test begins at 1 hours"):
        check(Torn(SITES))


class Between(TinySource):
    """Site a trains on the first 100 rows of shared machines, site b tests the rest."""

    shares_machines = True
    gap = 0

    def rows(self, site: str) -> Rows:
        rows = TinySource({"a": {"machines": 4, "rows": 160}}, reach=30.0).rows("a")
        early = rows.time < 100 - self.gap
        own = rows.take(early if site == "a" else (rows.time >= 100) & (rows.time < 129))
        return with_split(own, np.full(len(own), TRAIN if site == "a" else TEST))


def test_labels_must_not_look_into_what_another_site_judges() -> None:
    message = (
        r"sites together: training rows of machine a-0 know.*label at 99 hours looks 30 hours "
        r"ahead, and a later part begins at 100"
    )
    with pytest.raises(LeakError, match=message):
        check(Between(SITES), reach=30.0)
    apart = Between(SITES)
    apart.gap = 30
    assert check(apart, reach=30.0) == []


def test_an_edited_split_file_cannot_test_the_end_of_shared_training_engines(
    data_folder: Path, tmp_path: Path
) -> None:
    overrides = ["data=cmapss", "data.subset=FD002", "partition=condition", "task=rul"]
    cfg = compose(overrides)
    task = make(cfg.task, "task")
    sound = build_source(cfg, task, 1)

    def edited(site: str) -> Rows:
        rows = sound.rows(site)
        training = np.isin(rows.split, (TRAIN, VALIDATION))
        late = rows.time_to_failure < 20
        first = site in sound.sites[:3]
        split = np.where(late, -1, TRAIN) if first else np.where(late, TEST, -1)
        return with_split(rows, np.where(training, split, rows.split))

    split_file(sound, sound.sites, edited).write(tmp_path)
    given = build_source(compose([*overrides, f"split={tmp_path}"]), task, 1)
    with pytest.raises(LeakError, match=r"sites together: training rows of machine train-"):
        check(given, task.reach)
    split_file(sound, sound.sites, sound.rows).write(tmp_path)
    again = build_source(compose([*overrides, f"split={tmp_path}"]), task, 1)
    assert check(again, task.reach) == []


def tail_tested(rows: Rows, site: str) -> Rows:
    judged = np.isin(rows.machine, rows.machine[rows.split == TRAIN])
    late = judged & (rows.split == -1) & (rows.time > 97)
    return with_split(rows, np.where(late, TEST, rows.split))


def test_a_part_that_ends_in_failures_only_is_refused() -> None:
    message = r"b: \d+ rows within 20 hours of the end of the record \(119\) are known only because"
    source = Leaking(tail_tested, reach=20.0)
    with pytest.raises(LeakError, match=message):
        check(source, reach=20.0)
    assert check(TinySource(SITES, reach=20.0), reach=20.0) == []
    labelled = lambda r, s: replace(tail_tested(r, s), label=np.zeros(len(r), np.int64))  # noqa: E731
    assert check(Leaking(labelled, reach=20.0), reach=20.0) == []


def test_one_series_under_two_names_is_refused() -> None:
    class Copied(TinySource):
        def rows(self, site: str) -> Rows:
            rows = super().rows(site)
            if site == "b":  # from time 50 on, machine b-5 is machine a-2 under another name
                other = super().rows("a")
                late = (rows.machine == "b-5") & (rows.time >= 50)
                same = (other.machine == "a-2") & (other.time >= 50)
                values = rows.values.copy()
                values[late] = other.values[same]
                rows = replace(rows, values=values)
            return rows

    with pytest.raises(LeakError, match=r"machine a-2 at a .* and machine b-5 at b .*same 5 rows"):
        check(Copied(SITES))
    shared = Copied(SITES)
    shared.shares_machines = True  # allows a machine under its own id only
    with pytest.raises(LeakError, match="a-2"):
        check(shared)


def overlapping_windows(rows: Rows, site: str) -> Rows:
    """A common mistake: cut overlapping windows first, then split the windows at random."""
    starts = [k for k in range(0, 100, 4)]
    one = rows.take(rows.machine == f"{site}-0")
    index = np.concatenate([np.arange(s, s + 16) for s in starts])
    windows = np.repeat([f"{site}-window-{k:03d}" for k in range(len(starts))], 16)
    split = np.repeat(np.random.default_rng(0).choice(3, len(starts)), 16)
    return with_split(replace(one.take(index), machine=windows), split)


def test_overlapping_windows_that_were_split_at_random_are_refused() -> None:
    with pytest.raises(LeakError, match=r"machine b-window-\d+ at b .*windows that overlap"):
        check(Leaking(overlapping_windows))
    same_part = Leaking(lambda r, s: with_split(overlapping_windows(r, s), np.zeros(400)))
    assert check(same_part) == [], "copies inside the training part are no leak"


def test_machines_that_stand_still_are_no_copies_of_each_other() -> None:
    class Idle(TinySource):
        def rows(self, site: str) -> Rows:
            rows = super().rows(site)
            return replace(rows, values=np.round(rows.values * 0) + (rows.time % 2)[:, None])

    assert check(Idle(SITES)) == []


@pytest.mark.parametrize("reading", [0.0, np.nan])
def test_a_few_still_or_empty_rows_are_no_copies(reading: float) -> None:
    class Paused(TinySource):
        def rows(self, site: str) -> Rows:
            rows = super().rows(site)
            values = rows.values.copy()
            values[rows.time == 20] = values[(rows.time > 30) & (rows.time < 37)] = reading
            return replace(rows, values=values)

    assert check(Paused(SITES)) == []


def scaled(fit_on: Callable[[Rows], np.ndarray], scaler: Any) -> Leak:
    def spoil(rows: Rows, site: str) -> Rows:
        chosen = rows.values[fit_on(rows)]
        return replace(rows, values=scaler.fit(chosen).transform(rows.values))

    return spoil


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((TRAIN, VALIDATION, TEST, HELDOUT, -1), "test and held-out and purged"),
        ((TRAIN, VALIDATION, TEST, HELDOUT), "training and validation and test and held-out"),
        ((TRAIN, TEST), "training and test"),
        ((HELDOUT,), "held-out"),
    ],
)
def test_a_scaler_that_was_fitted_on_other_rows_is_refused(
    parts: tuple[int, ...], said: str
) -> None:
    spoil = scaled(lambda rows: np.isin(rows.split, parts), StandardScaler())
    source = Leaking(spoil)
    with pytest.raises(LeakError, match=f"b: every feature has mean 0.* {said} rows"):
        check(source)


def test_a_scaler_that_was_fitted_on_training_rows_is_welcome() -> None:
    for scaler in (StandardScaler(), MinMaxScaler()):
        spoil = scaled(lambda rows: rows.split == TRAIN, scaler)
        assert check(Leaking(spoil, everywhere=True)) == []


def test_a_scaler_over_the_rows_of_all_sites_is_refused() -> None:
    parts = TinySource(SITES)
    everything = np.concatenate([parts.rows(s).values[parts.rows(s).split >= 0] for s in SITES])
    scaler = StandardScaler().fit(everything)
    spoil = lambda rows, site: replace(rows, values=scaler.transform(rows.values))  # noqa: E731
    with pytest.raises(LeakError, match="all sites: every feature has mean 0"):
        check(Leaking(spoil, everywhere=True))


def test_a_0_to_1_scaling_over_all_rows_is_flagged() -> None:
    def spoil(rows: Rows, site: str) -> Rows:
        values = rows.values.copy()
        values[rows.split == TEST] *= 1.5  # the extremes are outside training
        return scaled(lambda r: r.split >= 0, MinMaxScaler())(replace(rows, values=values), site)

    (warning,) = check(Leaking(spoil))
    assert warning.startswith("b: every feature runs from exactly 0 to exactly 1 over training and")


class Table(Source):
    """Single labelled rows, resampled before or after they are split."""

    name, time_unit, features, window, stride = "table", "rows", tuple("abcd"), None, 1

    def __init__(self, how: str, discrete: bool = False) -> None:
        self.how, self.discrete = how, discrete

    @property
    def sites(self) -> tuple[str, ...]:
        return ("a",)

    def rows(self, site: str) -> Rows:
        from imblearn.over_sampling import SMOTE, RandomOverSampler

        draw = np.random.default_rng(7)
        y = (draw.random(600) < 0.15).astype(np.int64)
        x = draw.normal(size=(600, 4)) + y[:, None]
        x = np.round(x) if self.discrete else x
        split = draw.choice(3, 600, p=[0.6, 0.2, 0.2])
        sampler = {"smote": SMOTE(random_state=0), "copies": RandomOverSampler(random_state=0)}
        kind, _, when = self.how.partition(" ")
        if when == "before":
            x, y = sampler[kind].fit_resample(x, y)
            split = draw.choice(3, len(x), p=[0.6, 0.2, 0.2])
        elif when == "after":
            train = split == TRAIN
            more, labels = sampler[kind].fit_resample(x[train], y[train])
            x, y = np.concatenate([more, x[~train]]), np.concatenate([labels, y[~train]])
            split = np.concatenate([np.zeros(len(more), dtype=np.int64), split[~train]])
        count = len(x)
        return Rows(
            features=self.features, values=x, machine=np.array([f"{k:05d}" for k in range(count)]),
            time=np.arange(count, dtype=float), life=np.zeros(count, dtype=np.int64),
            time_to_failure=np.full(count, np.nan), observed=np.zeros(count),
            split=split.astype(np.int8), condition=np.zeros(count, dtype=np.int64), label=y,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("smote before", r"a: at least \d+ rows of class 1 .*interpolated \(SMOTE\) before it"),
        (
            "copies before",
            r"a: \d+ of \d+ rows of class 1 .*copied before the split",
        ),
    ],
)
def test_resampling_before_the_split_is_refused(how: str, message: str) -> None:
    with pytest.raises(LeakError, match=message + ".*split first"):
        check(Table(how), reach=0.0)


@pytest.mark.parametrize("how", ["nothing", "smote after", "copies after"])
def test_resampling_of_training_rows_after_the_split_is_welcome(how: str) -> None:
    assert check(Table(how), reach=0.0) == []


def test_data_of_few_discrete_values_repeats_without_a_leak() -> None:
    assert check(Table("nothing", discrete=True), reach=0.0) == []


def test_smote_kept_in_single_precision_is_still_found() -> None:
    class Single(Table):
        def rows(self, site: str) -> Rows:
            rows = super().rows(site)
            return replace(rows, values=rows.values.astype(np.float32).astype(np.float64))

    with pytest.raises(LeakError, match="SMOTE"):
        check(Single("smote before"), reach=0.0)


def test_sums_behind_a_scaler_that_count_other_rows_are_refused() -> None:
    rows = TinySource(SITES).rows("a")
    guards.require_training_sums("a", rows, moments(rows, 1))
    everything = moments(replace(rows, split=np.zeros(len(rows), dtype=np.int8)), 1)
    with pytest.raises(LeakError, match=r"a: the scaler counts 960 readings of a .* have \d+ with"):
        guards.require_training_sums("a", rows, everything)


def test_sums_of_as_many_other_rows_are_refused() -> None:
    rows = TinySource(SITES).rows("a")
    training = np.flatnonzero(rows.split == TRAIN)
    others = np.flatnonzero(rows.split != TRAIN)[:50]
    seen = np.full(len(rows), -1, dtype=np.int8)
    seen[others] = seen[training[: len(training) - len(others)]] = TRAIN
    with pytest.raises(LeakError, match=r"a: the scaler counts (\d+) readings.* have \1 with"):
        guards.require_training_sums("a", rows, moments(replace(rows, split=seen), 1))


def test_a_shared_scaler_that_is_not_of_the_training_rows_is_refused() -> None:
    federation = Federation(TinySource(SITES), Failure(4.0))
    parts = [federation.moments(site) for site in SITES]
    scaler = (parts[0] + parts[1]).scaler()
    heard: list[Scaler] = []
    guards.checked_scaler(lambda: scaler, heard.append)(scaler)
    guards.checked_scaler(lambda: None, heard.append)(scaler)
    assert heard == [scaler, scaler]
    wrong = [parts[0].scaler(), Scaler(scaler.mean, scaler.scale * 1.01)]
    for other in wrong:
        with pytest.raises(LeakError, match="the shared scaler has mean .* made of other rows"):
            guards.checked_scaler(lambda: scaler, heard.append)(other)
    assert len(heard) == 2, "nobody hears of a scaler that is refused"


def test_windows_made_outside_training_are_refused() -> None:
    federation = Federation(TinySource(SITES), Failure(4.0))
    site = federation.site("a", federation.moments("a").scaler())
    marked = {
        split: replace(part, made=np.arange(len(part)) < 3) for split, part in site.windows.items()
    }
    training_only = {**site.windows, Split.TRAIN: marked[Split.TRAIN]}
    guards.require_real("a", training_only)
    for split, word in ((Split.VALIDATION, "validation"), (Split.HELDOUT, "held-out")):
        with pytest.raises(LeakError, match=rf"a: 3 of \d+ {word} windows are made"):
            guards.require_real("a", {**training_only, split: marked[split]})


def refused(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose a run around a source of one's own and look at its data, as every run does."""
    from fedpdm.runs.experiment import build
    from fedpdm.runs.look import look_at_data

    look_at_data(build(compose(["task.horizon=4"]), source))


def test_every_run_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    for leak in (random_split, overlapping_windows):
        with pytest.raises(LeakError):
            refused(Leaking(leak), monkeypatch)

    class ScalesOnEverything(Federation):
        def moments(self, name: str) -> Moments:
            rows = self.rows(name)
            return moments(replace(rows, split=np.zeros(len(rows), dtype=np.int8)), 1)

    monkeypatch.setattr("fedpdm.runs.sources.Federation", ScalesOnEverything)
    with pytest.raises(LeakError, match="the scaler counts"):
        refused(TinySource(SITES), monkeypatch)


SHIPPED: Mapping[str, list[str]] = {
    "fleet": [],
    "ai4i": ["data=ai4i"],
    "ai4i stratified": ["data=ai4i", "data.split=stratified"],
    "ai4i dirichlet": ["data=ai4i", "partition=dirichlet"],
    "cmapss": ["data=cmapss"],
    "cmapss iid": ["data=cmapss", "partition=iid"],
    "cmapss quantity": ["data=cmapss", "partition=quantity", "partition.sites=5"],
    "cmapss time": ["data=cmapss", "partition=time"],
    "cmapss time rul": ["data=cmapss", "partition=time", "task=rul"],
    **{f"fedcmapss_{task}": [f"experiment=fedcmapss_{task}"] for task in "acde"},
}


@pytest.mark.parametrize("overrides", SHIPPED.values(), ids=SHIPPED.keys())
def test_guards_are_silent_on_what_we_ship(data_folder: Any, overrides: list[str]) -> None:
    cfg = compose(overrides)
    task = make(cfg.task, "task")
    source = build_source(cfg, task, 1)
    rows = {site: source.rows(site) for site in source.sites}
    assert guards.check(source, source.sites, rows.__getitem__, task.reach) == []
