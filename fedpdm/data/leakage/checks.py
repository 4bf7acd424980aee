"""Leakage checks of every run: what would make a score too good is refused, with the reason.

Every run looks at the rows of its sites before it trains (``check``):

- rows of a machine lie in the order of time, and its splits follow one another: training,
  validation, test. A random split of a time series is refused: neighbours are nearly copies.
- a label does not look across a cut into a later split of its site, nor, where sites share
  machines, into rows of its machine that another site has in a later split; nor does a label
  that the data gives look further ahead than the task says;
- no part holds the end of a record, where only rows that fail are known;
- a held-out machine is held out entirely;
- no machine is at two sites, unless the partition shares machines (then a machine is of one
  split everywhere, or cut in time at the same moments), and no series of readings stands
  under two names (``fedpdm.data.leakage.duplicates``);
- nothing was scaled, oversampled or interpolated before the split
  (``fedpdm.data.leakage.preprocessing``);
- windows made by resampling are in the training part only, and the sums behind the scaler, and
  the scaler that sites are sent, are those of training rows only.

Rules from ``Kaufman et al., "Leakage in Data Mining", TKDD 6(4) 2012`` and from defects of
published systems.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fedpdm.data.leakage.duplicates import Fingerprints, fingerprints, require_no_copies
from fedpdm.data.leakage.preprocessing import (
    WORDS,
    ReadingSums,
    require_machines_unscaled,
    require_measured,
    require_scaled_on_training,
    require_untouched,
)
from fedpdm.data.normalise import Moments, Scaler
from fedpdm.data.rows import Bools, Floats, Ints, Rows, Split, Strings
from fedpdm.data.sources.base import Source
from fedpdm.data.windows import Windows
from fedpdm.errors import LeakError

ORDER = (Split.TRAIN, Split.VALIDATION, Split.TEST)


@dataclass(frozen=True)
class MachineParts:
    """The machines of a site: ids, and first and last time of each split, (M, 4) each."""

    site: str
    ids: Strings
    first: Floats
    last: Floats
    switches: Ints
    """(M,) how often the split changes along a machine's rows."""


def check(
    source: Source, names: Iterable[str], rows: Callable[[str], Rows], reach: float
) -> list[str]:
    """Refuse sites whose rows leak; return warnings of what only looks like it.

    Args:
        source: the data set.
        names: the sites to look at.
        rows: gives a site's rows.
        reach: how far past a row its label looks, in the data's time unit.

    Raises:
        LeakError: names site, machine, rows or times, and the way out.
    """
    machines: list[MachineParts] = []
    prints: list[Fingerprints] = []
    sums: list[ReadingSums] = []
    warnings: list[str] = []
    names = list(names)
    for name in names:
        own = rows(name)
        if len(own) == 0:
            continue
        starts = machine_starts(name, own)
        machines.append(of_machines(name, own, starts))
        if not source.shares_machines:
            require_order(machines[-1], source.time_unit)
        require_labels_apart(machines[-1], reach, source.time_unit, shared=False)
        require_decided(name, own, reach, source.time_unit)
        warnings += require_label_reach(name, own, starts, reach, source.time_unit)
        look_at = max(20, 100 // len(names))
        if source.window is None:
            require_untouched(name, own, reach, look_at)
        else:
            require_measured(name, own, starts, look_at)
        require_machines_unscaled(name, own, starts)
        prints.append(fingerprints(name, own, starts, source.window is None))
        sums.append(ReadingSums.of(name, own))
    if source.shares_machines:
        together = joined(machines)
        require_order(together, source.time_unit)
        require_labels_apart(together, reach, source.time_unit, shared=True)
    elif not source.local_machines:
        require_one_owner(machines)
    require_no_copies(prints, source.shares_machines)
    warnings += require_scaled_on_training(sums)
    return warnings


def machine_starts(site: str, rows: Rows) -> Ints:
    """Return the position of the first row of each machine.

    Raises:
        LeakError: rows are not sorted by machine and time, so windows would mix moments.
    """
    change = np.r_[True, rows.machine[1:] != rows.machine[:-1]]
    starts = np.flatnonzero(change)
    ids, count = np.unique(rows.machine[starts], return_counts=True)
    if (count > 1).any():
        raise LeakError(
            f"{site}: the rows of machine {ids[count > 1][0]} do not lie together, so windows "
            "would be cut from shuffled rows; sort rows by machine and time"
        )
    back = ~change[1:] & (np.diff(rows.time) < 0)
    if back.any():
        row = int(np.argmax(back)) + 1
        raise LeakError(
            f"{site}: row {row} of machine {rows.machine[row]} (time {rows.time[row]:g}) is "
            f"earlier than the one before it ({rows.time[row - 1]:g}), so windows would be cut "
            "from shuffled rows; sort rows by machine and time, and split afterwards"
        )
    return starts


def of_machines(site: str, rows: Rows, starts: Ints) -> MachineParts:
    """Return what is known of a site's machines."""
    first, last = np.empty((len(starts), 4)), np.empty((len(starts), 4))
    for split in (*ORDER, Split.HELDOUT):
        inside = rows.split == split
        first[:, split] = np.minimum.reduceat(np.where(inside, rows.time, np.inf), starts)
        last[:, split] = np.maximum.reduceat(np.where(inside, rows.time, -np.inf), starts)
    used = np.flatnonzero(rows.split != Split.UNUSED)
    change = np.zeros(len(rows), dtype=np.int64)
    change[used[1:]] = rows.split[used[1:]] != rows.split[used[:-1]]
    change[starts] = 0
    return MachineParts(site, rows.machine[starts], first, last, np.add.reduceat(change, starts))


def joined(sites: list[MachineParts]) -> MachineParts:
    """Return the machines that sites share, each once, over all its rows."""
    ids, index = np.unique(np.concatenate([p.ids for p in sites]), return_inverse=True)
    first, last = np.full((len(ids), 4), np.inf), np.full((len(ids), 4), -np.inf)
    switches = np.zeros(len(ids), dtype=np.int64)
    np.minimum.at(first, index, np.concatenate([p.first for p in sites]))
    np.maximum.at(last, index, np.concatenate([p.last for p in sites]))
    np.maximum.at(switches, index, np.concatenate([p.switches for p in sites]))
    return MachineParts("sites together", ids, first, last, switches)


def require_order(machines: MachineParts, unit: str) -> None:
    """Refuse machines whose training, validation and test rows do not follow one another."""
    seen = np.isfinite(machines.first)
    mixed = seen[:, Split.HELDOUT] & seen[:, : Split.HELDOUT].any(axis=1)
    if mixed.any():
        raise LeakError(
            f"{machines.site}: machine {machines.ids[mixed][0]} is held out, but some of its rows "
            "are for training, validation or test; hold out whole machines"
        )
    for before, after in ((0, 1), (0, 2), (1, 2)):
        wrong = machines.last[:, before] >= machines.first[:, after]
        if not wrong.any():
            continue
        k = int(np.argmax(wrong))
        place = f"{machines.site}, machine {machines.ids[k]}"
        earlier, later = WORDS[before], WORDS[after]
        if machines.switches[k] > 2:
            raise LeakError(
                f"{place}: its rows change {machines.switches[k]} times between {earlier} and "
                f"{later}: a random split of a time series, in which neighbouring rows are nearly "
                "copies; split by time (fedpdm.data.splits.cuts.by_time) or by whole machines"
            )
        raise LeakError(
            f"{place}: {later} begins at {machines.first[k, after]:g} {unit}, before the last row "
            f"for {earlier} at {machines.last[k, before]:g}; a machine's {earlier} rows must all "
            f"lie before its {later} rows, or the whole machine in one of them"
        )


def require_labels_apart(machines: MachineParts, reach: float, unit: str, shared: bool) -> None:
    """Refuse training and validation rows whose label looks into a later part.

    Machines that are cut by time share the cuts of their site's calendar, so the first row of a
    later part, of any machine, must lie past the label. Machines that sites share (``shared``)
    may be cut at moments of their own: each is compared with itself, over all sites. Whole
    machines in one split have no cut and pass.
    """
    begin = machines.first[:, :3]
    cut = np.isfinite(begin).sum(axis=1) > 1
    if reach <= 0 or not cut.any():
        return
    for split in ORDER[:2]:
        later = begin[:, split + 1 :].min(axis=1)
        if not shared:
            later[:] = later.min()
        across = looks_past(machines.last[:, split] + reach, later)
        if across.any():
            k = int(np.argmax(across))
            known, remedy = (
                ("is judged at another site", "put a shared machine in one part at all sites, or "
                 f"leave {reach:g} {unit} between the parts")
                if shared else
                ("comes after the cut", "leave rows out before the cut "
                 "(fedpdm.data.splits.cuts.by_time does), or lower task.horizon")
            )  # fmt: skip
            raise LeakError(
                f"{machines.site}: {WORDS[split]} rows of machine {machines.ids[k]} know what "
                f"{known}: the label at {machines.last[k, split]:g} {unit} looks {reach:g} {unit} "
                f"ahead, and a later part begins at {later[k]:g}; {remedy}"
            )


def looks_past(end: Floats, later: Floats | float) -> Bools:
    """Return where a label's end lies past the begin of a later part, rounding errors apart."""
    return np.asarray(end > later + 1e-9 * np.maximum(1.0, np.abs(later)))


def require_decided(site: str, rows: Rows, reach: float, unit: str) -> None:
    """Refuse parts with rows at the end of the record, of which only those that fail are known."""
    censored = np.isnan(rows.time_to_failure)
    if reach <= 0 or rows.label is not None or not censored.any():
        return
    end = max(float(rows.time.max()), float((rows.time + rows.observed)[censored].max()))
    tail = (rows.split != Split.UNUSED) & (end - rows.time < reach)
    unknown = tail & censored & (rows.observed < reach)
    positive = tail & ~censored
    if unknown.any() and positive.any():
        k = int(np.argmax(positive))
        raise LeakError(
            f"{site}: {int(positive.sum())} rows within {reach:g} {unit} of the end of the record "
            f"({end:g}) are known only because they fail (the first: {WORDS[rows.split[k]]} row of "
            f"machine {rows.machine[k]} at {rows.time[k]:g}), and {int(unknown.sum())} beside them "
            "are not known, so failures would be too frequent; leave the whole stretch out "
            "(fedpdm.data.splits.cuts.by_time does), or lower task.horizon"
        )


def require_label_reach(site: str, rows: Rows, starts: Ints, reach: float, unit: str) -> list[str]:
    """Refuse labels of the data that look further ahead than ``reach``; warn if they may.

    A label that looks 30 days ahead is 1 for 30 days before each failure. So where the stretches
    of 1 are longer than the task's horizon and mostly of one length, labels look as far, and rows
    before a cut know what comes after it. Where the stretches differ in length they may also say
    that a fault is present. Without a horizon the data is said to tell of the present, and one
    length is only worth a warning.

    Args:
        site: the site.
        rows: its rows, machine by machine.
        starts: where each machine begins.
        reach: how far labels are said to look, in the data's time unit.
        unit: its name.

    Raises:
        LeakError: at least three stretches, and half of all, are of one length beyond ``reach``.
    """
    if rows.label is None or not len(rows):
        return []
    training = rows.split == Split.TRAIN
    judged = (rows.split == Split.VALIDATION) | (rows.split == Split.TEST)
    cut = np.logical_or.reduceat(training, starts) & np.logical_or.reduceat(judged, starts)
    if not cut.any():  # whole machines in one part: no label looks into another
        return []
    one, zero = training & (rows.label == 1), training & (rows.label == 0)
    new = np.zeros(len(rows) + 1, dtype=bool)  # a machine begins here
    new[starts], new[-1] = True, True
    begins = np.flatnonzero(one & (new[:-1] | ~np.r_[False, one[:-1]]))
    ends = np.flatnonzero(one & (new[1:] | ~np.r_[one[1:], False]))
    # Whole stretches only: after a 0, and up to a 0 or to the end of a machine that failed.
    whole = ~new[begins] & zero[begins - 1] & (new[ends + 1] | np.r_[zero, False][ends + 1])
    length = (rows.time[ends] - rows.time[begins])[whole]
    if len(length) < 3:
        return []
    step = float(np.median(np.diff(rows.time)[~new[1:-1]]))
    usual = float(np.quantile(length, 0.5, method="lower"))  # one that there is
    alike = np.abs(length - usual) <= 1.5 * step
    if usual <= 1.1 * reach + 2 * step:
        return []
    steady = alike.sum() >= max(3, len(length) / 2)
    # The first row of a stretch lies up to a step after its label could begin.
    ahead = f"{length[alike].max() + step:g}"
    if steady and reach > 0:
        raise LeakError(
            f"{site}: labels look about {ahead} {unit} ahead ({int(alike.sum())} of "
            f"{len(length)} stretches of 1 in training rows are that long), but task.horizon="
            f"{reach:g} leaves out only {reach:g} {unit} before a cut, so training rows know what "
            f"comes after it; set task.horizon={ahead}"
        )
    if steady or reach > 0:
        known = f"longer than task.horizon={reach:g}" if reach > 0 else "and task.horizon is null"
        return [
            f"{site}: labels stay 1 for {usual:g} {unit}, {known}; if they look ahead, "
            f"set task.horizon={ahead}, so that none looks across a cut"
        ]
    return []


def require_one_owner(sites: list[MachineParts]) -> None:
    """Refuse a machine that belongs to two sites."""
    owner: dict[str, str] = {}
    for site in sites:
        for machine in site.ids.tolist():
            if (other := owner.setdefault(machine, site.site)) != site.site:
                raise LeakError(
                    f"machine {machine} is at {other} and at {site.site}, so one site could be "
                    "tested on what another trains on; give each machine to one site, or use a "
                    "partition that shares machines on purpose (partition=condition)"
                )


def require_training_sums(
    site: str, rows: Rows, sums: Moments, codes: Collection[str] = ()
) -> None:
    """Refuse sums behind a scaler that are of other rows than the site's training rows.

    They are worked out here by themselves, so that a mistake in ``fedpdm.data.normalise`` shows.
    Features among ``codes`` are not scaled, and pass.
    """
    training = rows.values[rows.split == Split.TRAIN]
    count = np.sum(~np.isnan(training), axis=0)
    total, squares = np.nansum(training, axis=0), np.nansum(training**2, axis=0)
    features = training.shape[1]
    counted, summed, squared = (
        part.sum(axis=0)[:features] for part in (sums.count, sums.total, sums.squares)
    )
    size = np.sqrt(count * squares)  # a sum may cancel to nothing, this does not
    off = (counted != count) | (np.abs(summed - total) > 1e-9 * size)
    off |= np.abs(squared - squares) > 1e-9 * squares
    spread = np.nansum((training - total / np.maximum(count, 1)) ** 2, axis=0)
    beside = np.abs(sums.pooled().spread[0, :features] - spread)  # seen at a large offset, too
    off |= beside > 1e-6 * spread + 1e-24 * squares
    off &= ~np.isin(rows.features, list(codes))
    if off.any():
        k = int(np.argmax(off))
        seen, own = max(counted[k], 1), max(count[k], 1)
        raise LeakError(
            f"{site}: the scaler counts {counted[k]:g} readings of {rows.features[k]} with mean "
            f"{summed[k] / seen:g} and mean square {squared[k] / seen:g}, but the training rows "
            f"have {count[k]} with {total[k] / own:g} and {squares[k] / own:g}: it has seen other "
            "rows; fit it on training rows only (fedpdm.data.normalise.moments)"
        )


def checked_scaler(
    expected: Callable[[], Scaler | None], then: Callable[[Scaler], None]
) -> Callable[[Scaler], None]:
    """Return what hears of the shared scaler and compares it before it tells ``then``.

    Args:
        expected: gives the scaler of the sums that ``require_training_sums`` has seen.
        then: called with a scaler that is the same.
    """

    def hear(scaler: Scaler) -> None:
        require_training_scaler(scaler, expected())
        then(scaler)

    return hear


def require_training_scaler(scaler: Scaler, expected: Scaler | None) -> None:
    """Refuse a shared scaler other than that of the sites' training rows.

    Raises:
        LeakError: a mean or a deviation differs, so the server made it of something else.
    """
    if expected is None:
        return
    unit = np.where(expected.scale > 0, expected.scale, np.maximum(np.abs(expected.mean), 1.0))
    off = np.abs(scaler.mean - expected.mean) > 1e-6 * unit
    off |= np.abs(scaler.scale - expected.scale) > 1e-6 * unit
    if off.any():
        k, f = np.argwhere(off)[0]
        raise LeakError(
            f"the shared scaler has mean {scaler.mean[k, f]:g} and deviation "
            f"{scaler.scale[k, f]:g} of input {f} (condition {k}), the sites' training rows "
            f"{expected.mean[k, f]:g} and {expected.scale[k, f]:g}: it was made of other rows; "
            "make it of the sums that sites send (fedpdm.data.normalise.Moments.scaler)"
        )


def require_real(site: str, windows: Mapping[Split, Windows]) -> None:
    """Refuse windows made by resampling or augmentation outside the training part."""
    for split, part in windows.items():
        made = part.made
        if split != Split.TRAIN and made is not None and made.any():
            raise LeakError(
                f"{site}: {int(made.sum())} of {len(part)} {WORDS[split]} windows are made "
                "by resampling; resample training windows only, after the split"
            )
