"""Section on data: shape, origin of the run, metrics of all windows together, terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpdm.evaluation.wording import MISSING, metric, number, percent
from fedpdm.report.gain_table import GainTable, part_of
from fedpdm.report.sections import Page, register_section
from fedpdm.storage import flatten

Record = Mapping[str, Any]

SHOWN_ABOVE = frozenset({"schema", "seed", "git_commit"})
"""Keys of the manifest that the page shows already."""


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
        "data": [(row.get("site"), shape_cells(row)) for row in page.data_shape] or None,
        "again": again(page.summary, manifest),
        "measures": measures(page.summary, page.table),
        "facts": facts(page.summary),
        "manifest": [(key, _plain(value)) for key, value in flatten(rest).items()],
    }


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
