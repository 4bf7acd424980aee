"""Section on training: rounds, events, bytes and time."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from fedpdm.evaluation.locales import marked
from fedpdm.evaluation.wording import EVENTS, MISSING, size
from fedpdm.report import curves
from fedpdm.report.plots import LABELLED
from fedpdm.report.sections import Page, register_section
from fedpdm.server.round_metrics import further_metrics

Record = Mapping[str, Any]

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
        "events": [event_row(event) for event in happened] or None,
        "traffic": curves.traffic(rounds) if rounds else None,
        "exchanged": exchanged(summary, rounds),
        "seconds": seconds(summary),
        "round_seconds": statistics.median_high(spent) if spent else None,
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
    return [(n, [marked(f"{m[n]:.4g}") if n in m else MISSING for m in three]) for n in names]


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
