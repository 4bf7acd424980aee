"""Shuffled labels go to other windows, come back with the seed, and show the leaks they claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from fedpdm.data.leakage.label_shuffle import LabelShuffle
from fedpdm.data.rows import Bools, Floats, Split
from fedpdm.data.windows import Windows
from fedpdm.errors import ConfigError
from fedpdm.evaluation.summary_sections import shuffled
from fedpdm.federation import Site
from fedpdm.report.summary_text import shuffled as told
from fedpdm.tasks import Failure

MACHINES, STEPS = 20, 50
KINDS = pytest.mark.parametrize("kind", ["windows", "rotated"])
Parts = Mapping[Split, Windows]


def fleet(single: bool = False) -> Windows:
    """Machines of sensors that move slowly; each ends in ten failing windows.

    With ``single``, every row is a machine of its own, as in data without times.
    """
    random = np.random.default_rng(0)
    count = MACHINES * STEPS
    y = np.tile(np.arange(STEPS) >= STEPS - 10, MACHINES).astype(np.int64)
    number = np.arange(count) if single else np.repeat(np.arange(MACHINES), STEPS)
    x = np.cumsum(random.normal(size=(MACHINES, STEPS, 8)), axis=1)
    return Windows(
        x=x.reshape(count, 8).astype(np.float32), y=y, truth=y.astype(float),
        machine=np.array([f"m{k}" for k in number]),
        time=np.tile(np.arange(STEPS, dtype=float), MACHINES),
        padded=np.zeros(count, dtype=bool), last=np.zeros(count, dtype=bool),
    )  # fmt: skip


def cut(windows: Windows, training: Bools) -> Parts:
    return {Split.TRAIN: windows.take(training), Split.TEST: windows.take(~training)}


def by_machine(windows: Windows) -> Parts:
    return cut(windows, np.arange(len(windows)) < len(windows) // 2)


def neighbours(windows: Windows) -> Parts:
    return cut(windows, np.random.default_rng(1).random(len(windows)) < 0.7)


def copies(windows: Windows) -> Parts:
    return {Split.TRAIN: windows, Split.TEST: windows}


def renamed(windows: Windows) -> Parts:
    """Whole machines, or single rows, stand in the test a second time under another name."""
    names = np.array([f"copy of {name}" for name in windows.machine])
    return {Split.TRAIN: windows, Split.TEST: Windows(**{**vars(windows), "machine": names})}


def scored(parts: Parts, shuffle: LabelShuffle) -> dict[str, float]:
    """Return the check's numbers for a model that recognises what it has seen."""
    dealt = shuffle(parts, "pune")
    train, test = dealt[Split.TRAIN], dealt[Split.TEST]
    model = KNeighborsClassifier(1).fit(train.x, train.y)
    scores: Floats = model.predict_proba(test.x)[:, 1]
    sites = [Site("pune", dealt)]
    found: dict[str, float] = shuffled({"pune": {Split.TEST: scores}}, sites, Failure(10), shuffle)[
        "global"
    ]
    return found


@KINDS
@pytest.mark.parametrize("single", [False, True])
def test_inputs_and_shares_stay_and_labels_move(kind: str, single: bool) -> None:
    parts = neighbours(fleet(single))
    found = LabelShuffle(kind, 1)(parts, "pune")
    for split, part in found.items():
        np.testing.assert_array_equal(part.x, parts[split].x)
        assert (part.y != parts[split].y).any()
        np.testing.assert_array_equal(part.truth, part.y)  # still of one window
        if kind == "windows":
            assert part.y.sum() == parts[split].y.sum()
    assert sum(part.y.sum() for part in found.values()) == 10 * MACHINES
    again = LabelShuffle(kind, 1)(parts, "pune")
    np.testing.assert_array_equal(again[Split.TEST].y, found[Split.TEST].y)
    assert (LabelShuffle(kind, 2)(parts, "pune")[Split.TRAIN].y != found[Split.TRAIN].y).any()


def test_rotated_labels_keep_their_runs_over_all_parts() -> None:
    whole = fleet()
    moved = LabelShuffle("rotated", 3)(neighbours(whole), "pune")
    found = Windows.concatenate(list(moved.values()))
    turns = set()
    for machine in np.unique(found.machine):
        own = found.take(found.machine == machine)
        y = own.y[np.argsort(own.time)]
        assert y.sum() == 10
        assert np.abs(np.diff(np.r_[y, y[0]])).sum() == 2  # one run, seen as a ring
        turns.add(y.tobytes())
    assert len(turns) > MACHINES // 2  # each machine draws for itself


@pytest.mark.parametrize("leak", [neighbours, copies, renamed])
def test_windows_seen_in_training_show_with_rotated_labels_only(
    leak: Callable[[Windows], Parts],
) -> None:
    parts = leak(fleet())
    found = scored(parts, LabelShuffle("rotated", 5))
    assert found["value"] > 3 * found["prevalence"]
    assert found["value"] > found["high"] and not found["within"] and found["p"] < 0.01
    blind = scored(parts, LabelShuffle("windows", 5))
    assert blind["within"] and blind["value"] < 1.5 * blind["prevalence"]


@pytest.mark.parametrize("leak", [copies, renamed])
def test_copies_of_single_rows_show_with_rotated_labels(leak: Callable[[Windows], Parts]) -> None:
    found = scored(leak(fleet(single=True)), LabelShuffle("rotated", 5))
    assert found["value"] == pytest.approx(1) and not found["within"]


@KINDS
@pytest.mark.parametrize("single", [False, True])
def test_without_a_leak_the_score_is_chance(kind: str, single: bool) -> None:
    found = scored(by_machine(fleet(single)), LabelShuffle(kind, 5))
    assert found["within"] and found["value"] < 1.5 * found["prevalence"]


@KINDS
def test_a_label_among_the_sensors_shows_with_neither(kind: str) -> None:
    """Sensors stay with their windows: guards and gates look for this, not the shuffle."""
    whole = fleet()
    told = np.c_[whole.x, 100 * whole.y].astype(np.float32)
    assert scored(by_machine(Windows(**{**vars(whole), "x": told})), LabelShuffle(kind, 5))[
        "within"
    ]


@KINDS
def test_empty_parts_and_sites_pass(kind: str) -> None:
    whole = fleet()
    nothing = whole.take(np.zeros(len(whole), dtype=bool))
    found = LabelShuffle(kind, 1)({Split.TRAIN: whole, Split.TEST: nothing}, "pune")
    assert found[Split.TRAIN].y.sum() == 10 * MACHINES and len(found[Split.TEST]) == 0
    assert len(LabelShuffle(kind, 1)({Split.TRAIN: nothing}, "pune")[Split.TRAIN]) == 0


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("windows", 0.1, ("no leak of this kind shows", "shuffle_labels=rotated only")),
        ("rotated", 0.1, ("no leak of this kind shows", "copies, overlaps or neighbours")),
        ("windows", 0.3, ("above chance: something may leak", "test labels that reach")),
        ("rotated", 0.01, ("below chance, which no leak explains", "never shows this way")),
    ],
)
def test_the_report_claims_what_the_kind_can_show(
    kind: str, value: float, words: tuple[str, ...]
) -> None:
    whole = {"value": value, "low": 0.05, "high": 0.2, "within": 0.05 <= value <= 0.2}
    said = told({"test": {"shuffled": {"kind": kind, "global": whole}}})
    assert said is not None
    for part in words:
        assert part in said


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="shuffle_labels=rows is unknown; choose windows"):
        LabelShuffle("rows", 1)
