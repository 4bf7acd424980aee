"""The report's plain tables: events, bytes, time, the data's shape, configuration, origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedpdm.evaluation.wording import EVENTS, MISSING, metric, number, percent, size
from fedpdm.report.gain_table import GainTable
from fedpdm.report.rounds import BACK, LOST
from fedpdm.server.round_metrics import further_metrics

Record = Mapping[str, Any]

SHOWN_ABOVE = frozenset({"schema", "seed", "git_commit"})
"""Keys of the manifest that ``facts`` shows already."""
SHORTEST = 0.05
"""Seconds from which on the time outside the timed parts is shown."""


def event_row(event: Record) -> dict[str, Any]:
    """Return an event with every cell present."""
    kind = str(event.get("kind"))
    return {
        "round": event.get("round"),
        "attempt": event.get("attempt"),
        "what": EVENTS.get(kind, kind),
        "serious": kind in BACK | LOST or kind == "damaged-round",
        "site": event.get("site"),
        "message": str(event.get("message") or "").removeprefix(f"{event.get('site')}: "),
        "by": event.get("by"),
    }


def marks(rounds: Sequence[Record], events: Sequence[Record]) -> dict[str, bool]:
    """Return which marks occur in the plots of the rounds, for their legend."""
    kinds = {event.get("kind") for event in events}
    return {
        "rollback": bool(kinds & BACK),
        "refused": bool(kinds & LOST),
        "undone": any(r.get("undone") for r in rounds),
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
    trained = [r for r in rounds if r.get("sites") or r.get("sampled")]
    replies = sum(len(r.get("sampled") or r.get("sites") or ()) for r in trained)
    rows = [("In total", up, down)]
    if rounds:
        own = [sum(r.get(key) or 0 for r in rounds) for key in ("bytes_up", "bytes_down")]
        rows.append(("Per round, all sites", own[0] / len(rounds), own[1] / len(rounds)))
        if replies:
            rows.append(("Per round and site", own[0] / replies, own[1] / replies))
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


def median(values: Sequence[float]) -> float | None:
    """Return the (upper) median; None of nothing."""
    return sorted(values)[len(values) // 2] if values else None


def full_windows(summary: Record, table: GainTable) -> dict[str, Any] | None:
    """Return the protocol that leaves padded windows out, where the run reports it."""
    part = (summary.get("test") or {}).get("full_windows")
    if not isinstance(part, Mapping):
        return None
    m = table.metric
    return {
        "value": number(part.get(m.name), m.digits),
        "n": number(part.get("n"), 0),
        "prevalence": percent(part.get("prevalence")) if "prevalence" in part else None,
        "machines": [str(machine) for machine in part.get("short_machines") or ()],
    }


def measures(summary: Record, table: GainTable) -> list[tuple[str, list[str]]]:
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
        (_label(n, table.cases), [number(parts[c].get(n), metric(n).digits) for c in table.columns])
        for n in names
    ]


def _label(name: str, cases: str) -> str:
    # One failure stands behind several windows: the count of windows is not that of failures.
    if name == "positives":
        return f"{cases} {'before' if cases == 'windows' else 'with'} a failure in the test part"
    return metric(name).label


def shape_row(row: Record) -> dict[str, Any]:
    """Return a site's data shape with every cell present."""
    windows = row.get("windows") or {}
    prevalence = row.get("prevalence")
    return {
        "site": row.get("site"),
        "cells": [
            number(row.get("rows"), 0),
            number(row.get("machines"), 0),
            number(row.get("heldout_machines"), 0),
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


def again(summary: Record, manifest: Record) -> dict[str, Any]:
    """Return how the run can be had again: commands, and what they rest on."""
    run = str(summary.get("run") or "RUN")
    data = summary.get("data") or {}
    split = (manifest.get("data") or {}).get("split") or {}
    versions = summary.get("versions") or {}
    return {
        "run": (
            "from pathlib import Path\n"
            "from omegaconf import OmegaConf\n"
            "from fedpdm.simulate import simulate\n\n"
            f"simulate(OmegaConf.load({run + '/config.yaml'!r}), Path({run + '-again'!r}))"
        ),
        # The same seed: generated sites change with it.
        "split": f"python -m fedpdm.simulate split={run} seed={summary.get('seed')} strategy=…"
        if split
        else None,
        "rows": [
            (name, _plain(value))
            for name, value in (
                ("Seed", summary.get("seed")),
                ("Data, SHA-256", data.get("sha256")),
                ("Split, SHA-256", data.get("split_sha256")),
                ("Git commit", _commit(manifest)),
                ("Versions", versions or None),
            )
            if value is not None
        ],
    }


def _commit(manifest: Record) -> str | None:
    commit = manifest.get("git_commit")
    text = None if commit is None else str(commit)
    return f"{text[:-1]}, with changes since" if text and text.endswith("+") else text


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
