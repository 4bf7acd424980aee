"""The page that shows a run: where it stands, its curves, its sites, what happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from fedpdm.evaluation.wording import (
    EVENTS,
    MISSING,
    Metric,
    counted,
    duration,
    listing,
    metric,
    primary_metric,
)
from fedpdm.history import RoundRecord
from fedpdm.history.record import judged_by
from fedpdm.report import curves
from fedpdm.report.page import LABELLED, LISTED, part_of, render_page
from fedpdm.runs.progress import event_line, seconds_left
from fedpdm.watch.reading import Seen

EVERY = 3
"""Seconds between two looks of an open page."""
SHOWN_ROUNDS, SHOWN_SITES, SHOWN_EVENTS = 12, 60, 100
"""Most rows of each table."""
LONGEST = 60
"""Characters of a metric's name that are drawn."""
CONNECTION = {"disconnected": "disconnected", "connected": ""}
"""Kinds of events that say whether a deployed site is there, and what the page says then. That a
node was not let in says nothing of the site whose name it used."""


@dataclass(frozen=True)
class SiteRow:
    """A site: what became of its last update, and its metric then."""

    name: str
    state: str
    good: bool
    online: bool
    metric: float | None
    rounds: int


class Pages:
    """Makes the page; its plots are drawn again only when there is something new."""

    def __init__(self) -> None:
        self._drawn: tuple[object, list[Markup]] = (None, [])

    def render(self, name: str, seen: Seen, address: str, nonce: str) -> str:
        """Return the page of a run.

        Args:
            name: of the run.
            seen: what its folder says.
            address: path of the page, ending with a slash.
            nonce: of the page's script.
        """
        now = datetime.now(UTC)
        judged = chosen_metric(seen)
        rows = site_rows(seen, judged)
        title, said = standing(seen)
        few = len(rows) <= LISTED
        return render_page(
            "watch.html.j2",
            run=name,
            title=title,
            said=said,
            metric=judged,
            tiles=tiles(seen, judged, rows, now),
            done=seen.done,
            rounds=seen.rounds,
            curves=self._curves(seen, judged, [row.name for row in rows]),
            colours=[(row.name, curves.site_colour(i, len(rows))) for i, row in enumerate(rows)]
            if len(rows) <= LABELLED
            else [],
            few=few,
            marks=marks(seen),
            last=[round_row(record, judged) for record in seen.records if record.round][
                : -SHOWN_ROUNDS - 1 : -1
            ],
            sites=sorted(rows, key=lambda row: row.good)[:SHOWN_SITES],
            sites_left_out=max(len(rows) - SHOWN_SITES, 0),
            events=[event_line(event) for event in seen.events[: -SHOWN_EVENTS - 1 : -1]],
            events_left_out=max(len(seen.events) - SHOWN_EVENTS, 0),
            report=f"{address}report.html" if seen.summary is not None else None,
            symbols={},
            missing=MISSING,
            every=EVERY,
            nonce=nonce,
            read=now.strftime("%H:%M:%S UTC"),
            failed=None,
        )

    def _curves(self, seen: Seen, judged: Metric, sites: Sequence[str]) -> list[Markup]:
        key = (
            seen.folder, judged, seen.best, len(seen.events),
            [(record.started, record.undone) for record in seen.records],
        )  # fmt: skip
        if key != self._drawn[0]:
            records = [record.to_dict() for record in seen.records if record.round]
            best = seen.best or None
            drawn = curves.rounds(records, seen.events, judged, sites, best) if records else []
            self._drawn = (key, drawn)
        return self._drawn[1]


def render_failure(name: str, sentence: str, nonce: str) -> str:
    """Return the page of a run that cannot be shown now, with the reason.

    Args:
        name: of the run.
        sentence: the reason.
        nonce: of the page's script.
    """
    read = datetime.now(UTC).strftime("%H:%M:%S UTC")
    return render_page(
        "watch.html.j2", run=name, title="This run cannot be shown", failed=sentence,
        every=EVERY, nonce=nonce, read=read, symbols={}, few=True, marks={},
    )  # fmt: skip


def chosen_metric(seen: Seen) -> Metric:
    """Return the metric that rounds are judged by."""
    if seen.summary is not None:
        return primary_metric(seen.summary)
    return metric((judged_by(seen.live) or judged_by(seen.records) or "metric")[:LONGEST])


def standing(seen: Seen) -> tuple[str, str]:
    """Return where the run stands: a headline, and a sentence."""
    rounds, done = seen.rounds, seen.done
    of = f"{done} of {counted(rounds, 'round')}" if rounds else counted(done, "round")
    if seen.summary is not None and seen.summary.get("rounds") == rounds == done:
        return f"Finished: {counted(done, 'round')}", "The result is in the report."
    if seen.at_work is False:
        deployed = part_of(seen.manifest, "engine", "name") == "flower"
        again = (
            f"flwr run . --run-config 'resume=\"{seen.folder}\"'"
            if deployed
            else f"python -m fedpdm.simulate resume={seen.folder}"
        )
        last = seen.events[-1] if seen.events else {}
        why = f"{event_line(last)}. " if last.get("kind") == "stopped" else ""
        if not seen.records:
            return "Ended before the first round", "The process of this run is gone."
        return f"Stopped after {of}", f"{why}The process of this run is gone. Continue it: {again}"
    if not seen.records:
        return "Getting ready", "Data is read and the run is prepared; no round is finished yet."
    if rounds and done >= rounds:
        return f"All {counted(rounds, 'round')} done", "The chosen round is tested now."
    return f"{of} done", f"Round {done + 1} is under way."


def tiles(
    seen: Seen, judged: Metric, rows: Sequence[SiteRow], now: datetime
) -> list[tuple[str, str, str]]:
    """Return what stands at the top: what, how much, and a line below it."""
    from fedpdm.evaluation.wording import number, size

    live = seen.live
    best = next((r for r in live if r.round == seen.best), live[-1] if live else None)
    value = number(best.metrics.get(judged.name), judged.digits) if best else MISSING
    last = number(live[-1].metrics.get(judged.name), judged.digits) if live else ""
    left, pace = time_left(seen, now)
    up, down = (
        sum(getattr(record, key) for record in seen.records) for key in ("bytes_up", "bytes_down")
    )
    online = sum(row.online for row in rows)
    started = since(seen.records[0].started, now) if seen.records else None
    return [
        (f"Validation {judged.short}, best", value,
         f"round {best.round}; last {last}; {judged.aim} is better" if best else ""),
        ("Sites online", f"{online} of {len(rows)}", last_round(seen)),
        ("Exchanged", size(up + down), f"{size(up)} up, {size(down)} down"),
        ("Time left", left, pace),
        ("Started", MISSING if started is None else f"{duration(started)} ago",
         seen.records[0].started[:16].replace("T", " ") + " UTC" if started is not None else ""),
    ]  # fmt: skip


def time_left(seen: Seen, now: datetime) -> tuple[str, str]:
    """Return the time left, as the progress line of a run reckons it, and from what."""
    rounds, records = seen.rounds, [record for record in seen.records if record.round]
    if rounds is not None and seen.done >= rounds:
        return "none" if seen.summary is not None else "a moment", "of training: all rounds done"
    if seen.at_work is False:
        return MISSING, "nobody works on it"
    spent = [record.seconds for record in records]
    pace = seconds_left(spent, 1)
    if pace is None or rounds is None:
        return MISSING, "known after the second round"
    begun = since(records[-1].started, now)
    waited = 0.0 if begun is None else max(begun - records[-1].seconds, 0.0)
    # The round under way takes at least no time, however late it is.
    left = pace * (rounds - seen.done - 1) + max(pace - waited, 0.0)
    return duration(left), f"{duration(pace)} a round (median)"


def since(started: str, now: datetime) -> float | None:
    """Return the seconds since an ISO time; None if it is none."""
    try:
        return max((now - datetime.fromisoformat(started)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None


def last_round(seen: Seen) -> str:
    """Return in a few words what became of the updates of the last round."""
    if not seen.live:
        return "no round is finished yet"
    record = seen.live[-1]
    used = sum(updated(record, site) for site in record.sampled)
    each = {(str(e.get("kind")), str(e.get("site"))) for e in record.events}
    lost = Counter(kind for kind, _ in each if kind in curves.LOST)
    words = [f"{used} of {len(record.sampled)} trained in round {record.round}"]
    words += [f"{EVENTS[kind].lower()}: {count}" for kind, count in sorted(lost.items())]
    return ", ".join(words)


def updated(record: RoundRecord, site: str) -> bool:
    """Return whether an update of a site went into a round."""
    return part_of(record.sites, site, "examples") is not None


def site_rows(seen: Seen, judged: Metric) -> list[SiteRow]:
    """Return every site that is known, in the order of the run."""
    known = dict.fromkeys(part_of(seen.manifest, "data", "sites") or {})
    last: dict[str, RoundRecord] = {}
    rounds: Counter[str] = Counter()
    measured: dict[str, Any] = {}
    for record in seen.live:
        for site in record.sampled:
            last[site] = record
            rounds[site] += updated(record, site)
        for site in record.sites:
            value = part_of(record.sites, site, "validation", judged.name)
            measured[site] = measured.get(site) if value is None else value
    known |= dict.fromkeys([*last, *measured])
    there = {
        str(event["site"]): CONNECTION[event["kind"]]
        for event in seen.events
        if event.get("site") and str(event.get("kind")) in CONNECTION
    }
    known |= dict.fromkeys(there)
    rows = []
    for site in known:
        away = there.get(site, "")
        state, good = became_of(site, last.get(site))
        value = measured.get(site)
        rows.append(
            SiteRow(
                site, away or state, good and not away, not away,
                value if isinstance(value, int | float) else None, rounds[site],
            )
        )  # fmt: skip
    return rows


def became_of(site: str, record: RoundRecord | None) -> tuple[str, bool]:
    """Return what became of a site's last update, in words, and whether that is as it should be.

    Args:
        site: its name.
        record: the last round in which it was asked; None if it never was.
    """
    if record is None:
        return "not asked yet", True
    if updated(record, site):
        return f"trained in round {record.round}", True
    kinds = [str(event.get("kind")) for event in record.events if event.get("site") == site]
    told = [EVENTS.get(kind, kind).lower() for kind in kinds]
    if not told:  # a server that waits for nobody has its update later
        return f"asked in round {record.round}, no update yet", True
    return f"{listing(list(dict.fromkeys(told)))} in round {record.round}", False


def round_row(record: RoundRecord, judged: Metric) -> Mapping[str, Any]:
    """Return a round as a row of the table."""
    return {
        "number": record.round,
        "undone": record.undone,
        "train_loss": record.metrics.get("train_loss"),
        "validation_loss": record.metrics.get("validation_loss"),
        "metric": record.metrics.get(judged.name),
        "sites": f"{sum(updated(record, site) for site in record.sampled)}/{len(record.sampled)}",
        "bytes": record.bytes_up + record.bytes_down,
        "seconds": record.seconds,
    }


def marks(seen: Seen) -> dict[str, bool]:
    """Return which marks the curves have, for their legend."""
    kinds = {str(event.get("kind")) for event in seen.events}
    return {
        "rollback": bool(kinds & curves.BACK),
        "refused": bool(kinds & curves.LOST),
        "undone": any(record.undone for record in seen.records),
    }
