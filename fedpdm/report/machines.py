"""The list of machines to inspect as a page of its own: of ``predict``, and at a deployed site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from fedpdm.evaluation.locales import dated, written_in
from fedpdm.evaluation.wording import MISSING, number
from fedpdm.report.page import render_page

ACTIONS = {True: "inspect now", False: "none"}
"""What to do, by whether a machine is in alarm."""
PER_DAY = {"days": 1, "hours": 24, "minutes": 1440, "seconds": 86400}
DATED = range(20 * 365, 100 * 365)
"""Days since 1970 that are dates: no data set counts so many days from its own beginning."""
WHY = (
    "Why: the sensors that make the score worse most, in shares (Shapley values against the "
    "machine's own calm windows). They explain the model; the cause may be another."
)


def line(one: Mapping[str, Any], unit: str, digits: int) -> dict[str, Any]:
    """Return what a page says of a machine.

    Args:
        one: of ``machines`` of ``inspect`` of summary.json.
        unit: of its times.
        digits: of its score.
    """
    return {
        "machine": one["machine"],
        "site": one["site"],
        "score": number(one["score"], digits),
        "alarm": one["alarm"],
        "since": moment(one["since"], unit) if one["alarm"] else None,
        "time": moment(one["time"], unit),
        "why": why(one.get("sensors")),
    }


def score_name(column: str) -> str:
    """Return what a page calls a score: of ``risk_7`` the risk, of a remaining life the life."""
    return "life left" if "life" in column else column.partition("_")[0]


def is_date(time: float, unit: str) -> bool:
    """Return whether a time counts from 1970, in UTC."""
    return unit in PER_DAY and int(time / PER_DAY[unit]) in DATED


def moment(time: float, unit: str) -> str:
    """Return a time as a date, if it is one, else as it is counted."""
    if is_date(time, unit):
        return dated(datetime(1970, 1, 1) + timedelta(days=time / PER_DAY[unit]))
    return f"{unit.removesuffix('s')} {number(time, 0 if time == int(time) else 1)}".strip()


def why(sensors: Sequence[Mapping[str, Any]] | None) -> str:
    """Return sensors with their shares in words; empty without any."""
    return ", ".join(
        f"{s['sensor']} {s['reads']} ({number(100 * s['share'], 0)} %)" for s in sensors or ()
    )


def machines_page(
    lines: Sequence[Mapping[str, Any]],
    *,
    source: str,
    title: str,
    score: str,
    notes: Sequence[str] = (),
    padded: str = "",
    locale: str,
) -> str:
    """Return a page of machines, the one most at risk first, without outside resources.

    Args:
        lines: of each machine ``machine``, ``score``, ``since`` and ``time`` as text, ``why``,
            ``alarm`` (None: there is no alarm level), perhaps ``interval``.
        source: whose machines they are: a file, a site.
        title: which model scored them.
        score: what the score is called.
        notes: what a person should know.
        padded: what a mark behind a time means, if there is one.
        locale: how numbers and dates are written.
    """
    shown = [
        {
            **line,
            "since": line["since"] or ("no alarm" if line["alarm"] is not None else MISSING),
            "action": MISSING if line["alarm"] is None else ACTIONS[bool(line["alarm"])],
            "why": line["why"] or MISSING,
        }
        for line in lines
    ]
    with written_in(locale):
        return render_page(
            "machines.html.j2", lines=shown, source=source, title=title, score=score,
            notes=list(notes), padded=padded, alarms=sum(bool(line["alarm"]) for line in lines),
            interval=any("interval" in line for line in lines), how=WHY,
        )  # fmt: skip
