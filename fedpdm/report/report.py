"""The report of a run: one self-contained HTML file for the people who run the sites.

It answers first whether federation helps each site, by how much, and whether that is sure;
then come the controls, alarms, calibration, rounds, communication, data and origin. What a
run has no numbers for is said in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpdm.errors import ConfigError
from fedpdm.evaluation.wording import MISSING
from fedpdm.report import plots
from fedpdm.report import record as report_record
from fedpdm.report import rounds as report_rounds
from fedpdm.report.alarms import alarm_section, levels
from fedpdm.report.costs import cost_table
from fedpdm.report.gain_table import GainRow, GainTable, gain_table
from fedpdm.report.page import render_page, write_page
from fedpdm.report.quality import calibration_section, life_section
from fedpdm.report.sections import Page, in_order, register_section
from fedpdm.report.sentences import GLOSSARY, findings, left_out, shuffled
from fedpdm.report.summary_text import certainty, headline

Record = Mapping[str, Any]

ENDS = 8
"""Of too many sites so many of the greatest losses and gains are shown unfolded."""


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
    text = render({"run": name, **summary}, rounds, manifest, data_shape)
    return write_page(folder / "report.html", text)


def render(
    summary: Record, rounds: Sequence[Record], manifest: Record, data_shape: Sequence[Record]
) -> str:
    """Return the report as HTML."""
    from markupsafe import Markup

    table = gain_table(summary)
    few = len(table.rows) <= plots.LISTED
    ordered = list(table.rows) if few else losers_first(table)
    rounds = [r for r in rounds if r.get("round")]  # round 0 is the start: nobody trained
    page = Page(summary, rounds, manifest, data_shape, table, few, ordered)
    unit = (summary.get("data") or {}).get("time_unit") or "the data's time unit"
    sections = in_order()
    values: dict[str, Any] = {
        "headline": headline(table),
        "sure": certainty(table),
        "shuffled": shuffled(summary),
        "meaning": table.metric.meaning.format(unit=unit, cases=table.cases),
        "summary": summary,
        "run": str(summary.get("run") or "run"),
        "table": table,
        "columns": table.columns,
        "symbols": {name: Markup(plots.key_of(shown)) for name, shown in table.columns.items()},
        "ordered": ordered,
        "few": few,
        "missing": MISSING,
        "sections": sections,
    }
    for section in sections:
        own = section.values(page)
        if taken := sorted(values.keys() & own.keys()):
            raise ConfigError(
                f"a report section of {section.values.__module__} calls a value '{taken[0]}', and "
                "so does another part of the report; choose another name"
            )
        values |= own
    shown = [(id, title) for s in sections for id, title in s.links.items()]
    values["links"] = [link for link in shown if values.get(link[0], link) is not None]
    return render_page("report.html.j2", **values)


@register_section(
    "gain",
    template="report_gain.html.j2",
    links={"gain": "Gain", "sites": "Controls", "heldout": "Unseen machines"},
    order=10,
)
def _gain(page: Page) -> dict[str, Any]:
    """Return who gains, and every predictor at every site."""
    from markupsafe import Markup

    summary, table, few = page.summary, page.table, page.few
    gained = _known(table.rows)
    drawn = (plots.confidence(table) if few else plots.gains(table)) if gained else None
    return {
        "left_out": left_out(summary),
        "footnotes": footnotes(table),
        "leading": page.ordered if few else [*page.ordered[:ENDS], *_known(page.ordered)[-ENDS:]],
        "prevalence": any(row.counts.get("prevalence") is not None for row in table.rows),
        "findings": findings(summary, table),
        "heldout": gain_table(summary, "heldout") if summary.get("heldout") else None,
        "full_windows": report_record.full_windows(summary, table),
        "compared": Markup(plots.sites(table) if few else plots.spread(table)),
        "confidence": Markup(drawn) if drawn else None,
        "intervals": any(row.interval is not None for row in gained),
    }


@register_section("alarms", template="report_alarms.html.j2", links={"alarms": "Alarms"}, order=20)
def _alarms(page: Page) -> dict[str, Any]:
    """Return what alarms catch and miss."""
    alarms = _marked(alarm_section(page.summary, page.table.cases), "plots")
    return {
        "alarms": alarms,
        "costs": cost_table(page.summary),
        "own_levels": levels(alarms.get("sites") or ()),
    }


@register_section(
    "quality",
    template="report_quality.html.j2",
    links={"calibration": "Calibration", "life": "Remaining life"},
    order=30,
)
def _quality(page: Page) -> dict[str, Any]:
    """Return whether predicted risks and lives mean what they say."""
    return {
        "calibration": _marked(calibration_section(page.summary), "plot"),
        "life": _marked(life_section(page.summary), "plot"),
    }


def footnotes(table: GainTable) -> list[str]:
    """Return the reasons for missing values; a row's mark is its reason's place plus one."""
    return list(dict.fromkeys(row.note for row in (*table.rows, table.together) if row.note))


def losers_first(table: GainTable) -> list[GainRow]:
    """Return the sites by gain, the greatest loss first; the unknown last."""
    return sorted(table.rows, key=lambda r: (r.gain is None, r.gain or 0.0))


def _known(rows: Sequence[GainRow]) -> list[GainRow]:
    return [row for row in rows if row.gain is not None]


@register_section(
    "training",
    template="report_training.html.j2",
    links={"rounds": "Rounds", "events": "Events", "cost": "Communication"},
    order=40,
)
def _training(page: Page) -> dict[str, Any]:
    """Return how the rounds went, and what they cost."""
    from markupsafe import Markup

    summary, rounds, table = page.summary, page.rounds, page.table
    happened = list(summary.get("events") or [e for r in rounds for e in r.get("events") or ()])
    sites = [row.name for row in table.rows]
    curves = (
        report_rounds.rounds(rounds, happened, table.metric, sites, summary.get("best_round"))
        if rounds
        else ()
    )
    spent = [r["seconds"] for r in rounds if r.get("seconds") is not None]
    return {
        "curves": [Markup(svg) for svg in curves],
        "sites": [(name, report_rounds.site_colour(i, len(sites))) for i, name in enumerate(sites)]
        if len(sites) <= plots.LABELLED
        else [],
        "reported": report_record.reported(rounds, summary.get("best_round")),
        "marks": report_record.marks(rounds, happened),
        "events": [report_record.event_row(event) for event in happened],
        "traffic": Markup(report_rounds.traffic(rounds)) if rounds else None,
        "exchanged": report_record.exchanged(summary, rounds),
        "seconds": report_record.seconds(summary),
        "round_seconds": report_record.median(spent),
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
    rest = {k: v for k, v in manifest.items() if k not in report_record.SHOWN_ABOVE}
    return {
        "shape": [report_record.shape_row(row) for row in page.data_shape],
        "again": report_record.again(page.summary, manifest),
        "measures": report_record.measures(page.summary, page.table),
        "facts": report_record.facts(page.summary, manifest),
        "manifest": report_record.flat(rest),
        "glossary": GLOSSARY,
    }


def _marked(section: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a section whose plots need no escaping."""
    from markupsafe import Markup

    drawn = section.get(key)
    if not drawn:
        return section
    whole = [Markup(p) for p in drawn] if isinstance(drawn, tuple) else Markup(drawn)
    return {**section, key: whole}
