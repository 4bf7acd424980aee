"""The report of a run: one self-contained HTML file for the people who run the plants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpdm.evaluation import plots, report_rounds
from fedpdm.evaluation.headline import headline, verdict
from fedpdm.evaluation.page import render_page, write_page
from fedpdm.evaluation.standings import (
    COLUMNS,
    EXPLAINED,
    Row,
    Standings,
    standings,
)
from fedpdm.evaluation.wording import (
    EVENTS,
    MISSING,
    listing,
    metric,
    number,
    percent,
)

Record = Mapping[str, Any]

SHOWN_ABOVE = frozenset({"schema", "seed", "git_commit"})
"""Keys of the manifest that ``facts`` shows already."""


def write_report(
    folder: Path,
    summary: Record,
    rounds: Sequence[Record],
    manifest: Record,
    data_shape: Sequence[Record],
) -> Path:
    """Write ``folder/report.html`` atomically and return its path.

    Args:
        folder: the run folder; it exists.
        summary: the content of summary.json.
        rounds: the history's rounds in the order of training; a round that a rollback
            took back carries ``"undone": True``.
        manifest: the content of manifest.json; shown as it is.
        data_shape: per plant, as ``Federation.shape`` returns it.
    """
    text = render({"run": folder.resolve().name, **summary}, rounds, manifest, data_shape)
    return write_page(folder / "report.html", text)


def render(
    summary: Record, rounds: Sequence[Record], manifest: Record, data_shape: Sequence[Record]
) -> str:
    """Return the report as HTML."""
    from markupsafe import Markup

    table = standings(summary)
    rounds = [r for r in rounds if r.get("round")]  # round 0 is the start: nobody trained
    happened = list(summary.get("events") or [e for r in rounds for e in r.get("events") or ()])
    few = len(table.rows) <= plots.LISTED
    compared = [plots.plants(table)] if few else [plots.gains(table), plots.spread(table)]
    sites = [row.name for row in table.rows]
    curves = (
        report_rounds.rounds(rounds, happened, table.metric, sites, summary.get("best_round"))
        if rounds
        else ()
    )
    unit = (summary.get("data") or {}).get("time_unit") or "the data's time unit"
    return render_page(
        "report.html.j2",
        headline=headline(table),
        meaning=table.metric.meaning.format(unit=unit, cases=table.cases),
        summary=summary,
        run=str(summary.get("run") or "run"),
        table=table,
        columns={name: COLUMNS[name] for name in table.columns},
        explained={name: EXPLAINED[name] for name in table.columns},
        footnotes=footnotes(table),
        ordered=table.rows if few else losers_first(table),
        prevalence=any(row.counts.get("prevalence") is not None for row in table.rows),
        few=few,
        compared=[Markup(svg) for svg in compared],
        findings=findings(summary, table),
        curves=[Markup(svg) for svg in curves],
        sites=[(name, report_rounds.site_colour(i, len(sites))) for i, name in enumerate(sites)]
        if len(sites) <= plots.LABELLED
        else [],
        marks=marks(rounds, happened),
        traffic=Markup(report_rounds.traffic(rounds)) if rounds else None,
        exchanged=exchanged(summary, rounds),
        seconds=seconds(summary),
        round_seconds=median([r["seconds"] for r in rounds if r.get("seconds") is not None]),
        heldout=standings(summary, "heldout") if summary.get("heldout") else None,
        full_windows=full_windows(summary, table),
        measures=measures(summary, table),
        events=[event_row(event) for event in happened],
        shape=[shape_row(row) for row in data_shape],
        facts=facts(summary, manifest),
        manifest=flat({k: v for k, v in manifest.items() if k not in SHOWN_ABOVE}),
        missing=MISSING,
    )


def footnotes(table: Standings) -> list[str]:
    """Return the reasons for missing values; a row's mark is its reason's place plus one."""
    return list(dict.fromkeys(row.note for row in (*table.rows, table.together) if row.note))


def losers_first(table: Standings) -> list[Row]:
    """Return the plants by gain, the greatest loss first; the unknown last."""
    return sorted(table.rows, key=lambda r: (r.gain is None, r.gain or 0.0))


def findings(summary: Record, table: Standings) -> list[str]:
    """Return what the comparison says, sentence by sentence, flattering or not."""
    m, mean = table.metric, table.mean
    many = len(table.rows) > 1
    average, own = (" on average", "the shared model's") if many else ("", "its own model's")
    result = []
    federated = mean.values.get("federated")
    shared = number(federated, m.digits)
    beaten = [r.name for r in table.rows if r.beats("federated", "trivial") is False]
    if beaten:
        result.append(
            f"At {listing(beaten)} the {'shared ' if many else ''}model is no better than the "
            "constant answer: its output there carries no information."
        )
    for name, words in (
        ("pooled", "The same model on pooled data, if all plants could hand over their rows,"),
        ("hgb", "Boosted trees on pooled data"),
        ("minirocket", "MiniRocket and ridge regression on pooled data"),
        ("rules", "The physical rules alone, without learning,"),
    ):
        value = mean.values.get(name)
        if value is None or federated is None:
            continue
        comparison = _compared(value, federated, m.higher_is_better, m.digits)
        result.append(
            f"{words} would reach {m.label} {number(value, m.digits)}{average}, "
            f"{comparison} {own} {shared}."
        )
    unseen = verdict(standings(summary, "heldout")) if many else None
    if unseen:
        result.append(f"On machines never seen in training it {unseen}.")
    alarms = (summary.get("test") or {}).get("global") or {}
    precision, recall, threshold = (alarms.get(k) for k in ("precision", "recall", "threshold"))
    if precision is not None and recall is not None:
        level = number(threshold if threshold is not None else summary.get("threshold"), 2)
        result.append(
            f"With alarms from a risk of {level} on, a level chosen on validation data, "
            f"{percent(precision, 0)} of the alarms on test data were followed by a failure, and "
            f"{percent(recall, 0)} of the {table.cases} before a failure raised one."
        )
    result.append(
        f"This is one run with seed {summary.get('seed', MISSING)}. Repeat it with other seeds "
        "before acting on a small difference."
    )
    return result


def _compared(value: float, reference: float, higher_is_better: bool, digits: int) -> str:
    difference = round(value - reference, digits)
    if difference == 0:
        return "the same as"
    return "better than" if (difference > 0) == higher_is_better else "worse than"


def marks(rounds: Sequence[Record], events: Sequence[Record]) -> dict[str, bool]:
    """Return which marks occur in the plots of the rounds, for their legend."""
    kinds = {event.get("kind") for event in events}
    return {
        "rollback": bool(kinds & report_rounds.BACK),
        "refused": bool(kinds & report_rounds.LOST),
        "undone": any(r.get("undone") for r in rounds),
    }


def exchanged(summary: Record, rounds: Sequence[Record]) -> dict[str, Any]:
    """Return bytes up and down, in total and per round."""
    total = summary.get("bytes") or {}
    trained = max(len(rounds), 1)
    return {
        "up": total.get("up"),
        "down": total.get("down"),
        "up_per_round": sum(r.get("bytes_up") or 0 for r in rounds) / trained,
        "down_per_round": sum(r.get("bytes_down") or 0 for r in rounds) / trained,
    }


def seconds(summary: Record) -> list[tuple[str, float, float]]:
    """Return (what, seconds, share of the total), the longest first, the total last."""
    spent = {k: v for k, v in (summary.get("seconds") or {}).items() if isinstance(v, int | float)}
    total = spent.pop("total", None)
    whole = total or sum(spent.values()) or 1.0
    rows = [
        (name.replace("_", " "), float(value), float(value) / whole)
        for name, value in sorted(spent.items(), key=lambda item: -item[1])
    ]
    if total is not None:
        rows.append(("total", float(total), 1.0))
    return rows


def median(values: Sequence[float]) -> float | None:
    """Return the (upper) median; None of nothing."""
    return sorted(values)[len(values) // 2] if values else None


def full_windows(summary: Record, table: Standings) -> dict[str, Any] | None:
    """Return the protocol that leaves padded windows out, where the run reports it."""
    part = (summary.get("test") or {}).get("full_windows")
    if not isinstance(part, Mapping):
        return None
    m = table.metric
    return {
        "value": number(part.get(m.name), m.digits),
        "n": number(part.get("n"), 0),
        "prevalence": percent(part.get("prevalence")),
        "machines": [str(machine) for machine in part.get("short_machines") or ()],
    }


def measures(summary: Record, table: Standings) -> list[tuple[str, list[str]]]:
    """Return every metric on all test windows together: (label, value per column)."""
    tested = summary.get("test") or {}
    parts = {
        "federated": tested.get("global") or {},
        **{
            name: ((tested.get("baselines") or {}).get(name) or {}).get("global") or {}
            for name in table.columns
            if name != "federated"
        },
    }
    names = dict.fromkeys(name for column in table.columns for name in parts[column])
    return [
        (metric(n).label, [number(parts[c].get(n), metric(n).digits) for c in table.columns])
        for n in names
    ]


def event_row(event: Record) -> dict[str, Any]:
    """Return an event with every cell present."""
    kind = str(event.get("kind"))
    return {
        "round": event.get("round"),
        "attempt": event.get("attempt"),
        "what": EVENTS.get(kind, kind),
        "serious": kind in report_rounds.BACK | report_rounds.LOST or kind == "damaged-round",
        "site": event.get("site"),
        "message": str(event.get("message") or "").removeprefix(f"{event.get('site')}: "),
        "by": event.get("by"),
    }


def shape_row(row: Record) -> dict[str, Any]:
    """Return a plant's data shape with every cell present."""
    windows = row.get("windows") or {}
    prevalence = row.get("prevalence")
    return {
        "site": row.get("site"),
        "cells": [
            number(row.get("rows"), 0),
            number(row.get("machines"), 0),
            number(row.get("failures"), 0),
            percent(row.get("missing")),
            *(number(windows.get(part), 0) for part in ("train", "validation", "test", "heldout")),
            *(
                percent(prevalence.get(part)) if isinstance(prevalence, Mapping) else MISSING
                for part in ("train", "test")
            ),
        ],
    }


def facts(summary: Record, manifest: Record) -> list[tuple[str, str]]:
    """Return the first lines of the configuration, for people."""
    data = summary.get("data") or {}
    pairs = (
        ("Data", data.get("name")),
        ("Task", summary.get("task")),
        ("Model", summary.get("model")),
        ("Strategy", summary.get("strategy")),
        ("Engine", summary.get("engine")),
        ("Seed", summary.get("seed")),
        ("Git commit", manifest.get("git_commit")),
    )
    return [(name, _plain(value)) for name, value in pairs if value is not None]


def flat(tree: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Return a nested mapping as (dotted key, value) pairs."""
    if isinstance(tree, Mapping) and tree:
        return [
            pair
            for key, value in tree.items()
            for pair in flat(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(tree, list | tuple) and any(isinstance(v, Mapping) for v in tree):
        return [pair for i, v in enumerate(tree) for pair in flat(v, f"{prefix}.{i}")]
    return [(prefix, _plain(tree))]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items()) or MISSING
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value) or MISSING
    return MISSING if value is None else str(value)
