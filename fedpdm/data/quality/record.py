"""What was understood of a site's data, and which of it a model will not see."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedpdm.data.quality.sensors import place_of, sentinels, targets, without
from fedpdm.data.rows import Bools, Rows, Split, machine_slices
from fedpdm.data.sources.readers import header, parts_of
from fedpdm.data.sources.readings import columns_of
from fedpdm.data.sources.times import SECONDS
from fedpdm.data.windows import longest_step

Lines = list[tuple[str, str]]
"""What a line is about, and what it says."""

PARTS = {
    Split.TRAIN: "training",
    Split.VALIDATION: "validation",
    Split.TEST: "test",
    Split.HELDOUT: "held-out machines",
}
_DATES_FROM, _DATES_TO = 946_684_800, 2_524_608_000  # 2000 to 2050, in seconds


def understood(source: Any, rows: Rows, horizon: float, shape: Mapping[str, Any]) -> Lines:
    """Return what a site's rows, sensors, failures and windows were taken to be.

    Args:
        source: the data set.
        rows: R rows of the site.
        horizon: how long before a failure a row counts as positive.
        shape: what ``Federation.shape`` says of the site.
    """
    place = place_of(source, shape["site"])
    lines = [("files", place.files)] if place.files else []
    machines = machine_slices(rows.machine)
    of = "each by itself" if len(machines) == len(rows) else f"of {len(machines):,} machines"
    lines.append(("rows", f"{len(rows):,} {of}, {_span(source, rows)}"))
    lines += _steps(source, rows)
    units = getattr(source, "units", {})
    for number, name in enumerate(rows.features):
        values = rows.values[:, number]
        clean = without(values, sentinels(values, rows.machine))
        low, high = np.nanquantile(clean, (0.01, 0.99))
        unit = f" {units[name]}" if name in units else ""
        column = f"{place.column(name)}, " if place.files else ""  # else the name is all there is
        extent = f"mostly {low:.4g} to {high:.4g}" if low < high else f"mostly {low:.4g}"
        text = f"{column}{extent}{unit}"
        empty = np.isnan(values).mean()
        lines.append((name, text + (f", {empty:.1%} empty" if empty else "")))
    lines.append(("failures", _failures(rows, horizon)))
    shares = shape["prevalence"] or {}
    counted = [
        f"{PARTS[split]} {shape['windows'][key]:,}"
        + (f" ({share:.1%} before a failure)" if (share := shares.get(key)) is not None else "")
        for split in PARTS
        if (key := split.name.lower()) in shape["windows"]
    ]
    return [*lines, ("windows" if source.window else "model inputs", ", ".join(counted))]


def dropped(source: Any, site: str, rows: Rows, horizon: float) -> Lines:
    """Return which columns and rows no model sees.

    Args:
        source: the data set.
        site: whose.
        rows: R rows of the site.
        horizon: how long before a failure a row counts as positive.
    """
    lines: Lines = []
    if unused := unused_columns(source, site):
        more = f" and {len(unused) - 20} more" if len(unused) > 20 else ""
        lines.append(("columns", f"not named in the yaml: {', '.join(unused[:20])}{more}"))
    purged = rows.split == Split.UNUSED
    unknown = ~targets(rows, horizon)[1] & ~purged
    if purged.any():
        lines.append(("rows", f"{int(purged.sum()):,} near the cuts between training, validation "
                      "and test: their label looks across a cut"))  # fmt: skip
    if unknown.any():
        lines.append(("rows", f"{int(unknown.sum()):,} of which it is unknown whether a failure "
                      f"follows within {horizon:g} {source.time_unit}"))  # fmt: skip
    return lines


def unused_columns(source: Any, site: str) -> list[str]:
    """Return the columns of a site's sensor files that its yaml does not name."""
    inner = getattr(source, "inner", source)
    mapping = getattr(inner, "mappings", {}).get(site)
    if mapping is None:
        return []
    paths = [Path(path).expanduser() for path in mapping.paths]
    folder = inner.folder
    parts = parts_of([path if folder is None else folder / path for path in paths], site)
    named = {*columns_of(mapping), *(mapping.long or ())}
    found = dict.fromkeys(name.strip() for p in parts for name in header(p, mapping.dialect))
    return [name for name in found if name not in named]


def _span(source: Any, rows: Rows) -> str:
    """Return from when to when the rows are."""
    first, last = float(rows.time.min()), float(rows.time.max())
    seconds = SECONDS.get(source.time_unit, 0)
    if all(_DATES_FROM < t * seconds < _DATES_TO for t in (first, last)):
        dates = pd.to_datetime([first * seconds, last * seconds], unit="s").round("s")
        return f"from {dates[0]:%Y-%m-%d %H:%M} to {dates[1]:%Y-%m-%d %H:%M} UTC"
    return f"from {first:g} to {last:g} {source.time_unit}"


def _steps(source: Any, rows: Rows) -> Lines:
    """Return how far apart the rows of machines are, and where they have gaps."""
    steps = {m: np.diff(rows.time[part]) for m, part in machine_slices(rows.machine).items()}
    steps = {m: step for m, step in steps.items() if len(step)}
    if not steps:
        return []
    usual = np.array([np.median(step) for step in steps.values()])
    unit = source.time_unit
    text = f"a row every {np.median(usual):.4g} {unit}"
    if usual.max() > 1.5 * usual.min():
        slow, fast = list(steps)[int(usual.argmax())], list(steps)[int(usual.argmin())]
        text += (
            f"; machines differ: from {usual.min():.4g} ('{fast}') to {usual.max():.4g} ('{slow}')"
        )
    lines = [("sampling", text)]
    limit = source.max_gap or longest_step(rows.machine, rows.time, source.window)
    gaps = [(float(s), m) for m, step in steps.items() for s in step[step > limit]]
    if gaps:
        longest, machine = max(gaps)
        lines.append(("gaps", f"{len(gaps):,} of more than {limit:.4g} {unit}, the longest "
                      f"{longest:.4g} (machine '{machine}'); no window spans them"))  # fmt: skip
    return lines


def _failures(rows: Rows, horizon: float) -> str:
    """Return how many failures each part of the record sees."""
    positive, known = targets(rows, horizon)
    shown = positive & known
    if rows.label is not None:
        counts = [f"{PARTS[s]} {int((shown & (rows.split == s)).sum()):,}" for s in PARTS]
        return f"rows labelled 1: {', '.join(counts)}"
    counts = [f"{PARTS[s]} {_lives(rows, shown & (rows.split == s)):,}" for s in PARTS]
    return f"{_lives(rows, ~np.isnan(rows.time_to_failure)):,}: {', '.join(counts)}"


def _lives(rows: Rows, here: Bools) -> int:
    """Return of how many lives rows are."""
    return len({*zip(rows.machine[here].tolist(), rows.life[here].tolist(), strict=True)})
