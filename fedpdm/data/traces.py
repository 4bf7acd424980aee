"""Traces that a pipeline leaves in the rows when it works before the split.

A scaler fitted on all rows leaves means of 0 and deviations of 1 over all rows; one fitted on
training rows leaves them over those. SMOTE (Chawla et al. 2002) puts new rows on straight lines
between two real ones, where a real row in three or more dimensions never lies; if such a row is
in the test part, or was made of one, the split came too late. Rows copied to balance classes
are found again on both sides of a cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.copies import row_hashes
from fedpdm.data.rows import Bools, Floats, Ints, Rows, Split
from fedpdm.errors import LeakError
from fedpdm.keys import numpy_generator

SPLITS = (Split.TRAIN, Split.VALIDATION, Split.TEST, Split.HELDOUT, Split.UNUSED)
WORDS = ("training", "validation", "test", "held-out", "purged")
EXACT = 1e-5  # means and deviations are 0 and 1 to so much, in float32, too
ENOUGH = 0.2  # share of a class's rows, above what is usual in the data, that makes a case


@dataclass(frozen=True)
class Sums:
    """Counts, sums and extremes of readings by split: six (5, F) arrays."""

    site: str
    count: Floats
    total: Floats
    squares: Floats
    least: Floats
    most: Floats
    inner: Floats
    """Readings strictly between 0 and 1."""

    @staticmethod
    def of(site: str, rows: Rows) -> Sums:
        """Return the sums of a plant's rows."""
        shape = (len(SPLITS), rows.values.shape[1])
        count, total, squares, inner = (np.zeros(shape) for _ in range(4))
        least, most = np.full(shape, np.inf), np.full(shape, -np.inf)
        for k, split in enumerate(SPLITS):
            part = rows.values[rows.split == split]
            if len(part) == 0:
                continue
            known = ~np.isnan(part)
            filled = np.where(known, part, 0.0)
            count[k], total[k], squares[k] = known.sum(0), filled.sum(0), (filled**2).sum(0)
            least[k] = np.where(known, part, np.inf).min(0)
            most[k] = np.where(known, part, -np.inf).max(0)
            inner[k] = ((filled > 0) & (filled < 1)).sum(0)
        return Sums(site, count, total, squares, least, most, inner)

    @staticmethod
    def together(parts: list[Sums]) -> Sums:
        """Return the sums of several plants."""
        return Sums(
            "all plants",
            count=np.sum([p.count for p in parts], axis=0),
            total=np.sum([p.total for p in parts], axis=0),
            squares=np.sum([p.squares for p in parts], axis=0),
            least=np.min([p.least for p in parts], axis=0),
            most=np.max([p.most for p in parts], axis=0),
            inner=np.sum([p.inner for p in parts], axis=0),
        )


def require_scaled_on_training(plants: list[Sums]) -> list[str]:
    """Refuse rows that were standardised over more than training rows; warn of 0-to-1 scaling.

    Raises:
        LeakError: names the plant and the parts that the scaler has seen.
    """
    warnings = []
    pooled = [Sums.together(plants)] if len(plants) > 1 else []
    for sums in (*plants, *pooled):
        present = [k for k in range(len(SPLITS)) if sums.count[k].any()]
        if standardised(sums, [0]):
            continue
        for size in range(len(present), 0, -1):
            for parts in combinations(present, size):
                names = " and ".join(WORDS[k] for k in parts)
                if parts != (0,) and standardised(sums, list(parts)):
                    raise LeakError(
                        f"{sums.site}: every feature has mean 0 and deviation 1 over {names} rows, "
                        "so a scaler was fitted on rows that are not for training; hand over raw "
                        "readings (fedpdm scales by training rows), or fit it on training rows"
                    )
                if parts != (0,) and stretched(sums, list(parts)) and not stretched(sums, [0]):
                    warnings.append(
                        f"{sums.site}: every feature runs from exactly 0 to exactly 1 over {names} "
                        "rows but not over training rows; if it was scaled, fit the scaler on "
                        "training rows only"
                    )
                    return warnings
    return warnings


def standardised(sums: Sums, parts: list[int]) -> bool:
    """Return whether all features that vary have mean 0 and deviation 1 over these splits."""
    count = sums.count[parts].sum(0)
    if count.min(initial=np.inf) < 10:
        return False
    mean = sums.total[parts].sum(0) / count
    variance = sums.squares[parts].sum(0) / count - mean**2
    varies = variance > 1e-12 * np.maximum(mean**2, 1e-12)
    if not varies.any():
        return False
    deviation = np.sqrt(variance[varies])
    unbiased = deviation * np.sqrt(count[varies] / (count[varies] - 1))
    unit = (np.abs(deviation - 1) < EXACT) | (np.abs(unbiased - 1) < EXACT)
    return bool(unit.all() and (np.abs(mean[varies]) < EXACT).all())


def stretched(sums: Sums, parts: list[int]) -> bool:
    """Return whether all features that vary run from exactly 0 to exactly 1 over these splits."""
    least, most = sums.least[parts].min(0), sums.most[parts].max(0)
    varies = most > least
    exact = (np.abs(least) < 1e-9) & (np.abs(most - 1) < 1e-9)
    several = np.sum(varies & (sums.inner[parts].sum(0) > 0)) >= 2
    return bool(varies.any() and several and exact[varies].all())


def require_untouched(site: str, rows: Rows, look_at: int = 100) -> None:
    """Refuse single rows that were copied or interpolated across a cut.

    Args:
        site: the plant.
        rows: its rows, each without neighbours in time.
        look_at: so many rows of each class are drawn to be looked at for interpolation.

    Raises:
        LeakError: names the plant, a row and the way out.
    """
    training = rows.split == Split.TRAIN
    evaluated = ~training & (rows.split != Split.UNUSED)
    if rows.label is None or not (evaluated.any() and training.any()):
        return
    hashes = row_hashes(rows.values)
    copied = evaluated & np.isin(hashes, hashes[training])
    kinds = np.unique(rows.label)
    members = [np.flatnonzero((rows.label == k) & (rows.split != Split.UNUSED)) for k in kinds]
    size = np.array([len(m) for m in members])
    repeated = np.array([copied[m].sum() for m in members])
    looked = np.array([evaluated[m].sum() for m in members])
    if (k := _suspect(repeated, looked, size)) is not None:
        row = members[k][np.argmax(copied[members[k]])]
        raise LeakError(
            f"{site}: {repeated[k]} of {looked[k]} rows of class {kinds[k]} for validation and "
            f"test (for example {rows.machine[row]}) stand in the "
            "training part, too: rows were copied before the split; split first, and resample "
            "training rows only (training.resample)"
        )
    between = [interpolated(rows.values[m], evaluated[m], look_at) for m in members]
    found = np.array([b.sum() for b in between])
    if (k := _suspect(found, np.minimum(size, look_at), size)) is not None:
        row = members[k][np.argmax(between[k])]
        raise LeakError(
            f"{site}: at least {found[k]} rows of class {kinds[k]} (for example "
            f"{rows.machine[row]}) lie exactly on a line between two others across the split: "
            "rows were interpolated (SMOTE) before it; split first, and resample training rows "
            "only (training.resample)"
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


def interpolated(values: Floats, evaluated: Bools, look_at: int) -> Bools:
    """Return (R,) which of the rows drawn lie between two others, not all three in training.

    A row p lies on the line from a to b if the directions from p to a and to b are opposite.
    Directions are sorted by one random projection, and only neighbours there are compared.
    """
    found = np.zeros(len(values), dtype=bool)
    known = ~np.isnan(values).any(axis=1)
    scale = values[known].std(axis=0) if known.any() else np.zeros(values.shape[1])
    if np.sum(scale > 0) < 3 or known.sum() < 10:
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
        found[p] = _between(away / distance[:, None], axis, evaluated[others], bool(evaluated[p]))
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
