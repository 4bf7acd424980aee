"""The report on training and data: rounds, events, bytes, time, data shape, origin, terms."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from fedpdm.evaluation.wording import EVENTS, MISSING, metric, number, percent, size
from fedpdm.report import curves
from fedpdm.report.gain_table import GainTable, part_of
from fedpdm.report.plots import LABELLED
from fedpdm.report.sections import Page, register_section
from fedpdm.server.round_metrics import further_metrics
from fedpdm.storage import flatten

Record = Mapping[str, Any]

SHOWN_ABOVE = frozenset({"schema", "seed", "git_commit"})
"""Keys of the manifest that the page shows already."""
SHORTEST = 0.05
"""Seconds from which on the time outside the timed parts is shown."""


@register_section(
    "training",
    template="report_training.html.j2",
    links={"rounds": "Rounds", "events": "Events", "cost": "Communication"},
    order=40,
)
def _training(page: Page) -> dict[str, Any]:
    """Return how the rounds went, and what they cost."""
    summary, rounds, table = page.summary, page.rounds, page.table
    best = summary.get("best_round")
    happened = list(summary.get("events") or [e for r in rounds for e in r.get("events") or ()])
    kinds = {event.get("kind") for event in happened}
    sites = [row.name for row in table.rows]
    spent = [r["seconds"] for r in rounds if r.get("seconds") is not None]
    return {
        "curves": curves.rounds(rounds, happened, table.metric, sites, best) if rounds else (),
        "sites": [(name, curves.site_colour(i, len(sites))) for i, name in enumerate(sites)]
        if len(sites) <= LABELLED
        else [],
        "reported": reported(rounds, best),
        "marks": {
            "rollback": kinds & curves.BACK,
            "refused": kinds & curves.LOST,
            "undone": any(r.get("undone") for r in rounds),
        },
        "events": [event_row(event) for event in happened],
        "traffic": curves.traffic(rounds) if rounds else None,
        "exchanged": exchanged(summary, rounds),
        "seconds": seconds(summary),
        "round_seconds": statistics.median_high(spent) if spent else None,
    }


@register_section(
    "data",
    template="report_data.html.j2",
    links={"data": "Data", "again": "Run it again", "terms": "Terms"},
    order=50,
)
def _data(page: Page) -> dict[str, Any]:
    """Return the data's shape, the run's origin, and what the words mean."""
    manifest = page.manifest
    rest = {k: v for k, v in manifest.items() if k not in SHOWN_ABOVE}
    return {
        "shape": [(row.get("site"), shape_cells(row)) for row in page.data_shape],
        "again": again(page.summary, manifest),
        "measures": measures(page.summary, page.table),
        "facts": facts(page.summary),
        "manifest": [(key, _plain(value)) for key, value in flatten(rest).items()],
    }


def event_row(event: Record) -> dict[str, Any]:
    """Return an event with every cell present."""
    kind, site = str(event.get("kind")), event.get("site")
    return {"round": None, "attempt": 0, "by": None, **event} | {
        "what": EVENTS.get(kind, kind),
        "serious": kind in curves.BACK | curves.LOST or kind == "damaged-round",
        "site": site,
        "message": str(event.get("message") or "").removeprefix(f"{site}: "),
    }


def reported(rounds: Sequence[Record], chosen: int | None) -> list[tuple[str, list[str]]]:
    """Return metrics of the strategy's and of the sites' own: (name, first, chosen, last round).

    Args:
        rounds: the history's rounds; those that were taken back are left out.
        chosen: number of the round that validation chose.
    """
    kept = {r["round"]: further_metrics(r) for r in rounds if not r.get("undone")}
    if not kept:
        return []
    three = [kept[min(kept)], kept.get(chosen or 0, {}), kept[max(kept)]]
    names = sorted({name for metrics in kept.values() for name in metrics})
    return [(n, [f"{m[n]:.4g}" if n in m else MISSING for m in three]) for n in names]


def exchanged(summary: Record, rounds: Sequence[Record]) -> list[tuple[str, str, str, str]]:
    """Return (what, from the sites, to the sites, both) in total, per round and site."""
    total = summary.get("bytes") or {}
    up, down = total.get("up"), total.get("down")
    if up is None or down is None:
        return []
    replies = sum(len(r.get("sampled") or r.get("sites") or ()) for r in rounds)
    sent, received = (sum(r.get(key) or 0 for r in rounds) for key in ("bytes_up", "bytes_down"))
    rows = [("In total", up, down)]
    for name, count in (("Per round, all sites", len(rounds)), ("Per round and site", replies)):
        if count:
            rows.append((name, sent / count, received / count))
    return [(name, size(a), size(b), size(a + b)) for name, a, b in rows]


def seconds(summary: Record) -> list[tuple[str, float, float]]:
    """Return (what, seconds, share of the total), the longest first, the total last.

    Between the timed parts lies time of its own: it is a row too, so that the rows add up.
    """
    spent = {k: v for k, v in (summary.get("seconds") or {}).items() if isinstance(v, int | float)}
    total = spent.pop("total", None)
    whole = total or sum(spent.values()) or 1.0
    rows = [
        (name.replace("_", " "), float(value), float(value) / whole)
        for name, value in sorted(spent.items(), key=lambda item: -item[1])
    ]
    if total is not None:
        rest = float(total) - sum(spent.values())
        if rest >= SHORTEST:
            rows.append(("other", rest, rest / whole))
        rows.append(("total", float(total), 1.0))
    return rows


def measures(summary: Record, table: GainTable) -> list[tuple[str, list[str]]]:
    """Return every metric on all test windows together: (label, value per column)."""
    tested = summary.get("test") or {}
    scored = {"federated": tested, **(tested.get("baselines") or {})}
    parts = {name: part_of(scored.get(name), "global") or {} for name in table.columns}
    names = dict.fromkeys(name for part in parts.values() for name in part)
    return [
        (_label(n, table.cases), [number(part.get(n), metric(n).digits) for part in parts.values()])
        for n in names
    ]


def _label(name: str, cases: str) -> str:
    # One failure stands behind several windows: the count of windows is not that of failures.
    if name == "positives":
        return f"{cases} {'before' if cases == 'windows' else 'with'} a failure in the test part"
    return metric(name).label


def shape_cells(row: Record) -> list[str]:
    """Return the cells of a site's data shape."""
    counts = [number(row.get(k), 0) for k in ("rows", "machines", "heldout_machines", "failures")]
    parts = ("train", "validation", "test", "heldout")
    return [
        *counts,
        percent(row.get("missing")),
        *(number(part_of(row, "windows", part), 0) for part in parts),
        *(percent(part_of(row, "prevalence", part)) for part in ("train", "test")),
    ]


def facts(summary: Record) -> list[tuple[str, str]]:
    """Return the first lines of the configuration, for people."""
    named = {name: summary.get(name.lower()) for name in ("Task", "Model", "Strategy", "Engine")}
    return _known({"Data": part_of(summary, "data", "name"), **named})


def again(summary: Record, manifest: Record) -> dict[str, Any]:
    """Return how the run can be had again: commands, and what they rest on."""
    run, seed = str(summary.get("run") or "RUN"), summary.get("seed")
    return {
        "run": (
            "from pathlib import Path\n"
            "from omegaconf import OmegaConf\n"
            "from fedpdm.simulate import simulate\n\n"
            f"simulate(OmegaConf.load({run + '/config.yaml'!r}), Path({run + '-again'!r}))"
        ),
        # The same seed: generated sites change with it.
        "split": f"python -m fedpdm.simulate split={run} seed={seed} strategy=…"
        if part_of(manifest, "data", "split")
        else None,
        "rows": _known({
            "Seed": seed,
            "Data, SHA-256": part_of(summary, "data", "sha256"),
            "Split, SHA-256": part_of(summary, "data", "split_sha256"),
            "Git commit": _commit(manifest),
            "Versions": summary.get("versions") or None,
        }),
    }  # fmt: skip


def _known(values: Record) -> list[tuple[str, str]]:
    return [(name, _plain(value)) for name, value in values.items() if value is not None]


def _commit(manifest: Record) -> str | None:
    commit = str(manifest.get("git_commit") or "")
    return f"{commit[:-1]}, with changes since" if commit.endswith("+") else commit or None


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items()) or MISSING
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value) or MISSING
    return MISSING if value is None else str(value)
