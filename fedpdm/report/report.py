"""The report of a run: one self-contained HTML file for the people who operate the sites.

It answers first whether federation helps each site, by how much, and whether that is sure;
then come the baselines, alarms, calibration, rounds, communication, data and origin. A part that
a run has no numbers for is left out.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpdm.errors import ConfigError
from fedpdm.evaluation.locales import DEFAULT, written_in
from fedpdm.evaluation.wording import MISSING
from fedpdm.report import plots, sections
from fedpdm.report.gain_table import gain_table, part_of
from fedpdm.report.page import render_page
from fedpdm.report.sections import SECTIONS, Page
from fedpdm.report.summary_text import certainty, facts, headline, shuffled
from fedpdm.storage import write_bytes

Record = Mapping[str, Any]

for _module in pkgutil.iter_modules(sections.__path__):  # each registers its sections
    importlib.import_module(f"{sections.__name__}.{_module.name}")


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
        data_shape: per site, as ``Federation.shape`` returns it.
    """
    where = folder.resolve()
    # The runs of a multirun are 0, 1, 2…: their folder's name says more.
    name = f"{where.parent.name}/{where.name}" if where.name.isdigit() else where.name
    locale = part_of(manifest, "config", "report", "locale") or DEFAULT
    with written_in(locale):
        text = render({"run": name, **summary}, rounds, manifest, data_shape)
    path = folder / "report.html"
    write_bytes(path, text.encode())
    return path


def render(
    summary: Record, rounds: Sequence[Record], manifest: Record, data_shape: Sequence[Record]
) -> str:
    """Return the report as HTML; the arguments are those of ``write_report``."""
    table = gain_table(summary)
    few = len(table.rows) <= plots.LISTED
    ordered = list(table.rows)
    if not few:  # the greatest loss first, the unknown last
        ordered.sort(key=lambda row: (row.gain is None, row.gain or 0.0))
    rounds = [r for r in rounds if r.get("round")]  # round 0 is the start: nobody trained
    page = Page(summary, rounds, manifest, data_shape, table, few, ordered)
    unit = part_of(summary, "data", "time_unit") or "the data's time unit"
    shown = sorted(SECTIONS.values(), key=lambda section: section.order)
    values: dict[str, Any] = {
        "headline": headline(table),
        "sure": certainty(table),
        "of_data": facts(summary),
        "shuffled": shuffled(summary),
        "meaning": table.metric.meaning.format(unit=unit, cases=table.cases),
        "summary": summary,
        "run": str(summary.get("run") or "run"),
        "table": table,
        "columns": table.columns,
        "symbols": {name: plots.key_of(shown) for name, shown in table.columns.items()},
        "ordered": ordered,
        "few": few,
        "missing": MISSING,
        "sections": shown,
    }
    for section in shown:
        own = section.values(page)
        if taken := sorted(values.keys() & own.keys()):
            raise ConfigError(
                f"a report section of {section.values.__module__} calls a value '{taken[0]}', and "
                "so does another part of the report; choose another name"
            )
        values |= own
    links = [(id, title) for s in shown for id, title in s.links.items()]
    values["links"] = [link for link in links if values.get(link[0], link) is not None]
    return render_page("report.html.j2", **values)
