"""Finds traces of preprocessing before the split: scaling, SMOTE, mixing, copied rows.

A scaler fitted on all rows leaves means of 0 and deviations of 1 over all rows, or over all rows
of each machine; one fitted on training rows leaves them over those. SMOTE (Chawla et al. 2002)
puts new rows on straight lines between two real ones, where a real row in three or more
dimensions never lies; if such a row is in the test part, or was made of one, the split came too
late. So do whole machines that were mixed out of two. Rows copied to balance classes are found
again on both sides of a cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.leakage.duplicates import row_hashes
from fedpdm.data.normalise import Moments
from fedpdm.data.rows import Bools, Floats, Ints, Rows, Split
from fedpdm.errors import LeakError
from fedpdm.seeding import numpy_generator

SPLITS = (Split.TRAIN, Split.VALIDATION, Split.TEST, Split.HELDOUT, Split.UNUSED)
WORDS = ("training", "validation", "test", "held-out", "purged")
EXACT = 1e-5  # means and deviations are 0 and 1 to so much, in float32, too
LEAST = 10  # readings of a feature, below which its mean and deviation say nothing
MOMENTS = 8  # times at which machines are compared with mixtures of two others
OFTEN = 10  # rows of a series that stand there more often are a state, and no copies
ENOUGH = 0.2  # share of a class's rows, above what is usual in the data, that makes a case

TOGETHER: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("count", "total", "squares", "inner"), np.sum),
    "least": np.min,
    "most": np.max,
    "step": np.max,
    "few": np.any,
}
"""How the sums of several sites become those of all."""


@dataclass(frozen=True)
class ReadingSums:
    """Counts, sums and extremes of readings by split: six (5, F) arrays, and two (F,)."""

    site: str
    count: Floats
    total: Floats
    squares: Floats
    least: Floats
    most: Floats
    inner: Floats
    """Readings strictly between 0 and 1."""
    step: Floats
    """What readings were rounded to; 0 where they were not."""
    few: Bools
    """Whether a rounded feature has few values, whose rounding does not average out."""

    @staticmethod
    def of(site: str, rows: Rows) -> ReadingSums:
        """Return the sums of a site's rows."""
        values, place = rows.values, rows.split.astype(np.int64) % len(SPLITS)  # purged ones last
        inside = [place == k for k in range(len(SPLITS))]
        sums = Moments.of(values, place, len(SPLITS))
        low, high = (np.where(np.isnan(values), end, values) for end in (np.inf, -np.inf))
        between = (values > 0) & (values < 1)
        return ReadingSums(
            site,
            sums.count,
            sums.total,
            sums.squares,
            np.stack([low[part].min(axis=0, initial=np.inf) for part in inside]),
            np.stack([high[part].max(axis=0, initial=-np.inf) for part in inside]),
            np.stack([between[part].sum(axis=0) for part in inside]),
            *rounding(values),
        )

    @staticmethod
    def together(parts: list[ReadingSums]) -> ReadingSums:
        """Return the sums of several sites."""
        together = {
            name: how([getattr(part, name) for part in parts], axis=0)
            for name, how in TOGETHER.items()
        }
        return ReadingSums("all sites", **together)


def require_scaled_on_training(sites: list[ReadingSums]) -> list[str]:
    """Refuse rows that were standardised over more than training rows; warn of 0-to-1 scaling.

    Every site is looked at for the first before any is for the second.

    Raises:
        LeakError: names the site and the parts that the scaler has seen.
    """
    pooled = [ReadingSums.together(sites)] if len(sites) > 1 else []
    for sums in (*sites, *pooled):
        if (parts := _seen_by(standardised, sums)) is not None:
            raise LeakError(
                f"{sums.site}: every feature has mean 0 and deviation 1 over {_named(parts)} rows, "
                "so a scaler was fitted on rows that are not for training; hand over raw "
                "readings (fedpdm scales by training rows), or fit it on training rows"
            )
    warnings: list[str] = []
    for sums in (*sites, *pooled):
        again = sums.site == "all sites" and bool(warnings)  # said of the sites already
        if not again and (parts := _seen_by(stretched, sums)) is not None:
            warnings.append(
                f"{sums.site}: every feature runs from exactly 0 to exactly 1 over {_named(parts)} "
                "rows but not over training rows; if it was scaled, fit the scaler on "
                "training rows only"
            )
    return warnings


def _seen_by(
    test: Callable[[ReadingSums, list[int]], bool], sums: ReadingSums
) -> tuple[int, ...] | None:
    """Return the most splits over which ``test`` holds, or None; none if it does over training."""
    present = [k for k in range(len(SPLITS)) if sums.count[k].any()]
    if test(sums, [0]) or standardised(sums, [0]):
        return None
    for size in range(len(present), 0, -1):
        for parts in combinations(present, size):
            if parts != (0,) and test(sums, list(parts)):
                return parts
    return None


def _named(parts: tuple[int, ...]) -> str:
    return " and ".join(WORDS[k] for k in parts)


def standardised(sums: ReadingSums, parts: list[int]) -> bool:
    """Return whether all features that vary have mean 0 and deviation 1 over these splits."""
    count, total, squares = (p[parts].sum(0) for p in (sums.count, sums.total, sums.squares))
    return bool(_unit(count, total, squares, sums.step, sums.few))


def _unit(count: Floats, total: Floats, squares: Floats, step: Floats, few: Bools) -> Bools:
    """Return (...) whether features (..., F) that vary all have mean 0 and deviation 1.

    Rounding to ``step`` moves a reading by 0.29 steps (uniform), a mean of n of them by so much
    over the root of n, and a deviation by as much and a bias of step² / 24.
    """
    n = np.maximum(count, 2.0)
    mean = total / n
    variance = squares / n - mean**2
    varies = variance > 1e-12 * np.maximum(mean**2, 1e-12)
    # A single rounded feature of about 0 and 1 may be so by chance, several never are.
    step = np.where(varies.sum(axis=-1, keepdims=True) >= 2, step, 0.0)
    slack = EXACT + np.where(few, step / 2, 4 * 0.29 * step / np.sqrt(n) + step**2 / 24)
    deviation = np.sqrt(np.maximum(variance, 0.0))
    unbiased = deviation * np.sqrt(n / (n - 1))
    unit = (np.abs(deviation - 1) < slack) | (np.abs(unbiased - 1) < slack)
    unit &= np.abs(mean) < slack
    enough = count.min(axis=-1, initial=np.inf) >= LEAST
    return np.asarray(enough & varies.any(axis=-1) & (unit | ~varies).all(axis=-1))


def rounding(values: Floats) -> tuple[Floats, Bools]:
    """Return (F,) what readings (R, F) were rounded to, 0 if not, and (F,) if they are few.

    Only 2, 3 and 4 decimals are told: more change no mean, fewer leave too little to tell by.
    """
    features = values.shape[1]
    step, few = np.zeros(features), np.zeros(features, dtype=bool)
    for f in range(features):
        known = values[~np.isnan(values[:, f]), f]
        for digits in (2, 3, 4):
            tens = known * 10.0**digits
            if (np.abs(tens - np.round(tens)) < 1e-3).all():  # so much in float32
                step[f] = 10.0**-digits
                break
        few[f] = step[f] > 0 and len(np.unique(known[:1000])) < 30
    return step, few


def require_machines_unscaled(site: str, rows: Rows, starts: Ints) -> None:
    """Refuse machines of which each was standardised over all its rows.

    Only machines with training rows and later ones are looked at: one that is in a single part
    may be scaled by what is known of it at its end.

    Args:
        site: the site.
        rows: its rows, machine by machine.
        starts: where each machine begins.

    Raises:
        LeakError: most machines have mean 0 and deviation 1, and not over their training rows.
    """
    training = rows.split == Split.TRAIN
    evaluated = ~training & (rows.split != Split.UNUSED)
    cut = np.logical_or.reduceat(training, starts) & np.logical_or.reduceat(evaluated, starts)
    cut &= np.diff(np.r_[starts, len(rows)]) >= LEAST
    if cut.sum() < 2:  # a site with one machine is looked at as a site
        return
    found = rounding(rows.values)

    def scaled(chosen: Bools) -> Bools:
        known = ~np.isnan(rows.values) & chosen[:, None]
        filled = np.where(known, rows.values, 0.0)
        parts = (known.astype(np.float64), filled, filled**2)
        count, total, squares = (np.add.reduceat(part, starts) for part in parts)
        return _unit(count, total, squares, *found)

    caught = cut & scaled(np.ones(len(rows), dtype=bool))
    if caught.any():
        caught &= ~scaled(training)
    if caught.sum() >= max(2, cut.sum() / 2):
        raise LeakError(
            f"{site}: {int(caught.sum())} of {int(cut.sum())} machines (for example "
            f"{rows.machine[starts][caught][0]}) have mean 0 and deviation 1 of every feature over "
            "all their rows, so a scaler was fitted on each machine's rows that are not for "
            "training; hand over raw readings (fedpdm scales by training rows), or fit it on "
            "training rows"
        )


def stretched(sums: ReadingSums, parts: list[int]) -> bool:
    """Return whether all features that vary run from exactly 0 to exactly 1 over these splits."""
    least, most = sums.least[parts].min(0), sums.most[parts].max(0)
    varies = most > least
    exact = (np.abs(least) < 1e-9) & (np.abs(most - 1) < 1e-9)
    several = np.sum(varies & (sums.inner[parts].sum(0) > 0)) >= 2
    return bool(varies.any() and several and exact[varies].all())


def require_untouched(site: str, rows: Rows, reach: float, look_at: int = 100) -> None:
    """Refuse single rows that were copied or interpolated across a cut.

    Args:
        site: the site.
        rows: its rows, each a model's input by itself.
        reach: rows that fail within it are a class of their own where the data has no labels.
        look_at: so many rows of each class are drawn to be looked at for interpolation.

    Raises:
        LeakError: names the site, a row and the way out.
    """
    training = rows.split == Split.TRAIN
    evaluated = ~training & (rows.split != Split.UNUSED)
    if not (evaluated.any() and training.any()):
        return
    label = rows.label if rows.label is not None else rows.time_to_failure <= reach
    hashes = row_hashes(rows.values)
    still = np.r_[False, (hashes[1:] == hashes[:-1]) & (rows.machine[1:] == rows.machine[:-1])]
    copied = evaluated & ~still & np.isin(hashes, hashes[training])
    if len(np.unique(rows.machine)) < len(rows):
        # A machine comes back to states of few readings (off, saturated); copies are few each.
        _, value, times = np.unique(hashes, return_inverse=True, return_counts=True)
        copied &= times[value] <= OFTEN
    kinds = np.unique(label)
    members = [np.flatnonzero((label == k) & (rows.split != Split.UNUSED)) for k in kinds]
    size = np.array([len(m) for m in members])
    # A machine that is off repeats one row or two; copies are of many.
    several = np.array([len(np.unique(hashes[m][copied[m]])) > 2 for m in members])
    repeated = np.array([copied[m].sum() for m in members]) * several
    looked = np.array([evaluated[m].sum() for m in members])
    if (k := _suspect(repeated, looked, size)) is not None:
        row = members[k][np.argmax(copied[members[k]])]
        raise LeakError(
            f"{site}: {repeated[k]} of {looked[k]} rows of class {int(kinds[k])} for validation "
            f"and test (for example of machine {rows.machine[row]}) stand in the "
            "training part, too: rows were copied before the split; split first, and resample "
            "training rows only (training.resample)"
        )
    draw = numpy_generator(0, "rows compared")  # of a class of very many rows, not all
    members = [draw.permutation(m)[:10_000] for m in members]
    between = [interpolated(rows.values[m], evaluated[m], look_at) for m in members]
    found = np.array([b.sum() for b in between])
    if (k := _suspect(found, np.minimum(size, look_at), size)) is not None:
        row = members[k][np.argmax(between[k])]
        raise LeakError(
            f"{site}: at least {found[k]} rows of class {int(kinds[k])} (for example of machine "
            f"{rows.machine[row]}) lie exactly on a line between two others across the split: "
            "rows were interpolated (SMOTE) before it; split first, and resample training rows "
            "only (training.resample)"
        )


def require_measured(site: str, rows: Rows, starts: Ints, look_at: int = 100) -> None:
    """Refuse machines that are an exact mixture of two others, not all three for training.

    Machines are compared at a few times that most of them share, about their own means, so that
    counters which differ by a constant are no mixtures. Machines with a gap there are left out.

    Args:
        site: the site.
        rows: its rows, machine by machine.
        starts: where each machine begins.
        look_at: so many machines are drawn to be looked at.

    Raises:
        LeakError: names the site, a machine and the way out.
    """
    machines, features = len(starts), rows.values.shape[1]
    if machines < LEAST or features < 3:
        return
    times, count = np.unique(rows.time, return_counts=True)
    common = times[count >= 0.9 * count.max()]
    if len(common) < MOMENTS:
        return
    chosen = common[np.linspace(0, len(common) - 1, MOMENTS).astype(int)]
    place = np.minimum(np.searchsorted(chosen, rows.time), MOMENTS - 1)
    there = np.flatnonzero(chosen[place] == rows.time)
    owner = np.searchsorted(starts, there, side="right") - 1
    series = np.full((machines, MOMENTS, features), np.nan)
    series[owner, place[there]] = rows.values[there]
    series -= series.mean(axis=1, keepdims=True)
    used = (rows.split != Split.UNUSED) & (rows.split != Split.TRAIN)
    evaluated = np.logical_or.reduceat(used, starts)
    found = interpolated(series.reshape(machines, -1), evaluated, look_at, least=2 * MOMENTS)
    if found.any():
        raise LeakError(
            f"{site}: machine {rows.machine[starts][found][0]} lies exactly between two others at "
            f"all of {MOMENTS} times and not all three are for training only: it was mixed out of "
            "them before the split; bring measured machines, and let fedpdm split them"
        )


def _suspect(found: Ints, looked: Ints, size: Ints) -> int | None:
    """Return the class with far more findings than the largest ones have, or None.

    Data of few discrete values repeats, and lies on lines, in all classes alike. Resampling
    leaves the class alone that was the largest: it still is, or the others equal it.
    """
    rate = found / np.maximum(looked, 1)
    usual = rate[size >= 0.8 * size.max()].min()
    case = (rate > usual + ENOUGH) & (found > 2)
    return int(np.argmax(case)) if case.any() else None


def interpolated(values: Floats, evaluated: Bools, look_at: int, least: int = 3) -> Bools:
    """Return (R,) which of the rows drawn lie between two others, not all three in training.

    A row p lies on the line from a to b if the directions from p to a and to b are opposite, and
    so in at least ``least`` dimensions: rounded rows that differ in few often do by chance.
    Directions are sorted by one random projection, and only neighbours there are compared.
    """
    found = np.zeros(len(values), dtype=bool)
    known = ~np.isnan(values).any(axis=1)
    scale = values[known].std(axis=0) if known.any() else np.zeros(values.shape[1])
    if np.sum(scale > 0) < least or known.sum() < LEAST:
        return found
    points = (values[:, scale > 0] - values[known][:, scale > 0].mean(0)) / scale[scale > 0]
    generator = numpy_generator(0, "interpolated rows")
    axis = generator.normal(size=points.shape[1])
    usable = np.flatnonzero(known)
    for p in generator.permutation(usable)[:look_at]:
        others = usable[usable != p]
        away = points[others] - points[p]
        distance = np.sqrt((away**2).sum(axis=1))
        others, away, distance = (a[distance > 1e-6] for a in (others, away, distance))
        directions = away / distance[:, None]
        told = (np.abs(directions) > 1e-6).sum(axis=1) >= least
        found[p] = _between(directions[told], axis, evaluated[others][told], bool(evaluated[p]))
    return found


def _between(directions: Floats, axis: Floats, evaluated: Bools, self_evaluated: bool) -> bool:
    shadow = directions @ axis
    order: Ints = np.argsort(np.abs(shadow))
    for step in (1, 2, 3):
        a, b = order[:-step], order[step:]
        near = (np.abs(shadow[a] + shadow[b]) < 1e-5) & (shadow[a] * shadow[b] < 0)
        if not self_evaluated:
            near &= evaluated[a] | evaluated[b]
        gap: NDArray[np.float64] = np.abs(directions[a[near]] + directions[b[near]]).max(
            axis=1, initial=0
        )
        if (gap < 1e-5).any():
            return True
    return False
