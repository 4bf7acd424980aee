"""The machines to inspect at a deployed site, as a page and a table that stay there.

    FLWR_HOME/fedpdm/inspect/SITE.html    for people
    FLWR_HOME/fedpdm/inspect/SITE.csv     for programs

Each run replaces what the last one wrote, so that a bookmark shows the newest. The server is told
how many machines there are and how many of them are in alarm.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from fedpdm.errors import HistoryError
from fedpdm.evaluation.locales import dated, written_in
from fedpdm.report.machines import ACTIONS, is_date, line, machines_page, score_name
from fedpdm.runs.experiment import Experiment
from fedpdm.storage import write_bytes
from fedpdm.wire.flower import flower_home


def keep_list(found: Mapping[str, Any], site: str, experiment: Experiment) -> None:
    """Write a site's list and say where, in the site's own log.

    A folder that cannot be written costs the list, never the test of the model.

    Args:
        found: ``inspect`` as ``machines_to_inspect`` returns it, of this site alone.
        site: its name.
        experiment: what was run.
    """
    unit, task = experiment.federation.source.time_unit, experiment.task
    name = quote(site, safe="")
    path = flower_home() / "fedpdm" / "inspect" / f"{name}.html"
    machines = found["machines"]
    with written_in(experiment.locale):
        lines = [line(one, unit, task.score_digits) for one in machines]
        tested = dated(datetime.now(UTC))
    notes = [
        "Each machine at its last row of the test data; python -m fedpdm.predict takes newer rows."
    ]
    if any(is_date(one["time"], unit) for one in machines):
        notes.append("Times are in UTC.")
    page = machines_page(
        lines, source=site, title=f"{task.name}, tested {tested} UTC",
        score=score_name(found["score"]), locale=experiment.locale, notes=notes,
    )  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, page.encode())
        write_bytes(path.with_suffix(".csv"), table(machines, found["score"], unit).encode())
        print(f"{site}: machines to inspect: {path}", file=sys.stderr, flush=True)
    except (OSError, HistoryError) as error:
        print(f"{site}: no list of machines: {error}", file=sys.stderr, flush=True)


def table(machines: list[Mapping[str, Any]], score: str, unit: str) -> str:
    """Return the list as CSV, with the columns that ``predict`` writes."""
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(["machine", "time", score, "alarm", "since", "why", "action"])
    for one in machines:
        told = line(one, unit, 3)
        alarm = one["alarm"]
        rows.writerow([
            one["machine"], told["time"], one["score"], alarm, told["since"], told["why"],
            None if alarm is None else ACTIONS[alarm],
        ])  # fmt: skip
    return buffer.getvalue()
