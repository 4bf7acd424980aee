"""The contract of a data source: what windows, splits, partitions and reports rely on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedpdm.data.rows import Rows, Split
from fedpdm.data.sources.base import Source


def check_data_source(build: Callable[[], Source]) -> None:
    """Check that a data set keeps its contract.

    Checked are: sites that are listed once each; columns of one length and of the declared
    features; times that ascend within a machine; labels that are no negative times; splits
    that follow each other in time on each machine, with held-out machines apart; the same
    bytes in whatever order sites are read; no machine at two sites, unless declared.

    Args:
        build: makes a new data set, as its yaml would. Every site is read twice.

    Raises:
        AssertionError: says in one sentence what is broken, with site and machine.
    """
    source = build()
    sites = source.sites
    if not sites or len(set(sites)) != len(sites):
        listed = ", ".join(sites) or "none"
        raise AssertionError(f"sites must list at least one site, each once; it lists {listed}")
    rows = {site: source.rows(site) for site in sites}
    other = build()
    for site in reversed(sites):
        if other.rows(site).sha256() != rows[site].sha256():
            raise AssertionError(
                f"{site}: read again in another order its rows differ: draw random numbers from "
                "fedpdm.seeding with the seed and the site's name"
            )
        _check_columns(site, source, rows[site])
        _check_machines(site, rows[site])
    if source.shares_machines or source.local_machines:
        return
    seen: dict[str, str] = {}
    for site in sites:
        for machine in np.unique(rows[site].machine).tolist():
            if machine in seen:
                raise AssertionError(
                    f"machine {machine} is at {seen[machine]} and at {site}: give it to one of "
                    "them, or declare shares_machines or local_machines"
                )
            seen[machine] = site


def _check_columns(site: str, source: Source, rows: Rows) -> None:
    if rows.features != source.features:
        raise AssertionError(
            f"{site}: its rows have the features {rows.features}, the source says {source.features}"
        )
    count = len(rows)
    if rows.values.shape != (count, len(rows.features)):
        raise AssertionError(f"{site}: values have shape {rows.values.shape}, not (R, features)")
    columns = {
        name: getattr(rows, name)
        for name in ("machine", "time", "life", "time_to_failure", "observed", "split", "condition")
    }
    columns |= rows.groups | ({} if rows.label is None else {"label": rows.label})
    wrong = [name for name, column in columns.items() if column.shape != (count,)]
    if wrong:
        raise AssertionError(f"{site}: {', '.join(wrong)} must have one value for each row")
    splits = {int(split) for split in Split}
    for breach, what in (
        ((rows.time_to_failure < 0).any(), "time_to_failure must be 0 or more"),
        (not (rows.observed >= 0).all(), "observed must be 0 or more"),
        (np.isinf(rows.values).any(), "readings may be NaN, never infinite"),
        (not np.isfinite(rows.time).all(), "times must be finite"),
        (not set(rows.split.tolist()) <= splits, "split must hold values of data.rows.Split"),
        (((rows.condition < 0) | (rows.condition >= source.conditions)).any(),
         f"condition must be 0 … {source.conditions - 1}"),
    ):  # fmt: skip
        if breach:
            raise AssertionError(f"{site}: {what}")


def _check_machines(site: str, rows: Rows) -> None:
    begins = np.flatnonzero(np.append(True, rows.machine[1:] != rows.machine[:-1]))
    if len(begins) != len(np.unique(rows.machine)):
        raise AssertionError(f"{site}: rows must be sorted by machine, each machine in one block")
    for part in np.split(np.arange(len(rows)), begins[1:]):
        machine, split = rows.machine[part[0]], rows.split[part]
        used = split[split != Split.UNUSED]
        for breach, what in (
            ((np.diff(rows.time[part]) <= 0).any(), "its times do not ascend"),
            ((np.diff(rows.life[part]) < 0).any(), "its lives do not ascend"),
            (len(set((used == Split.HELDOUT).tolist())) > 1,
             "it is held out and in another split as well"),
            ((np.diff(used) < 0).any(),
             "training rows must come before validation rows, and those before test rows"),
        ):  # fmt: skip
            if breach:
                raise AssertionError(f"{site}, machine {machine}: {what}")
