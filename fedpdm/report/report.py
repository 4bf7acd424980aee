"""The report of a run: one self-contained HTML file for the people who run the sites.

It answers first whether federation helps each site, by how much, and whether that is sure;
then come the controls, alarms, calibration, rounds, communication, data and origin. What a
run has no numbers for is said in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpdm.evaluation.wording import MISSING
from fedpdm.report import plots
from fedpdm.report import record as report_record
from fedpdm.report import rounds as report_rounds
from fedpdm.report.alarms import alarm_section, levels
from fedpdm.report.costs import cost_table
from fedpdm.report.gain_table import COLUMNS, EXPLAINED, GainTable, Row, gain_table
from fedpdm.report.page import render_page, write_page
from fedpdm.report.quality import calibration_section, life_section
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
    table = gain_table(summary)
    few = len(table.rows) <= plots.LISTED
    ordered = list(table.rows) if few else losers_first(table)
    rounds = [r for r in rounds if r.get("round")]  # round 0 is the start: nobody trained
    happened = list(summary.get("events") or [e for r in rounds for e in r.get("events") or ()])
    unit = (summary.get("data") or {}).get("time_unit") or "the data's time unit"
    alarms = _marked(alarm_section(summary, table.cases), "plots")
    return render_page(
        "report.html.j2",
        headline=headline(table),
        sure=certainty(table),
        shuffled=shuffled(summary),
        meaning=table.metric.meaning.format(unit=unit, cases=table.cases),
        summary=summary,
        run=str(summary.get("run") or "run"),
        table=table,
        columns={name: COLUMNS[name] for name in table.columns},
        explained={name: EXPLAINED[name] for name in table.columns},
        left_out=left_out(summary),
        footnotes=footnotes(table),
        ordered=ordered,
        leading=ordered if few else [*ordered[:ENDS], *_known(ordered)[-ENDS:]],
        prevalence=any(row.counts.get("prevalence") is not None for row in table.rows),
        few=few,
        findings=findings(summary, table),
        alarms=alarms,
        costs=cost_table(summary),
        own_levels=levels(alarms.get("sites") or ()),
        calibration=_marked(calibration_section(summary), "plot"),
        life=_marked(life_section(summary), "plot"),
        heldout=gain_table(summary, "heldout") if summary.get("heldout") else None,
        full_windows=report_record.full_windows(summary, table),
        measures=report_record.measures(summary, table),
        shape=[report_record.shape_row(row) for row in data_shape],
        again=report_record.again(summary, manifest),
        facts=report_record.facts(summary, manifest),
        manifest=report_record.flat(
            {k: v for k, v in manifest.items() if k not in report_record.SHOWN_ABOVE}
        ),
        glossary=GLOSSARY,
        missing=MISSING,
        **_compared(table, few),
        **_training(summary, table, rounds, happened),
    )


def footnotes(table: GainTable) -> list[str]:
    """Return the reasons for missing values; a row's mark is its reason's place plus one."""
    return list(dict.fromkeys(row.note for row in (*table.rows, table.together) if row.note))


def losers_first(table: GainTable) -> list[Row]:
    """Return the sites by gain, the greatest loss first; the unknown last."""
    return sorted(table.rows, key=lambda r: (r.gain is None, r.gain or 0.0))


def _known(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.gain is not None]


def _compared(table: GainTable, few: bool) -> dict[str, Any]:
    """Return the plots of sites and predictors."""
    from markupsafe import Markup

    gained = _known(table.rows)
    drawn = (plots.confidence(table) if few else plots.gains(table)) if gained else None
    return {
        "compared": Markup(plots.sites(table) if few else plots.spread(table)),
        "confidence": Markup(drawn) if drawn else None,
        "intervals": any(row.interval is not None for row in gained),
    }


def _training(
    summary: Record, table: GainTable, rounds: Sequence[Record], happened: Sequence[Record]
) -> dict[str, Any]:
    """Return what the template shows of the rounds, and of what they cost."""
    from markupsafe import Markup

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


def _marked(section: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a section whose plots need no escaping."""
    from markupsafe import Markup

    drawn = section.get(key)
    if not drawn:
        return section
    whole = [Markup(p) for p in drawn] if isinstance(drawn, tuple) else Markup(drawn)
    return {**section, key: whole}
