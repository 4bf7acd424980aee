"""Pages in a browser: on phones, screens and paper nothing is cut and nothing lacks its header."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpdm.report.machines import machines_page
from fedpdm.report.report import render
from tests import axe, chromium
from tests.report.example_details import detailed_failure
from tests.report.test_report import RUNS, page_of

A4 = 688
"""Pixels between the margins of a sheet of A4."""


def machines() -> str:
    """The page of a prediction, with a name and reasons longer than a phone is wide."""
    line: dict[str, Any] = {
        "machine": "Presse-" + "x" * 50, "score": "0.912", "alarm": True, "since": None,
        "time": "2025-10-19 12:00, padded", "why": "a_sensor_with_a_long_name higher (73 %), " * 3,
        "interval": "10.0 to 20.0",
    }  # fmt: skip
    calm = line | {"machine": "P2", "alarm": None, "why": ""}
    return machines_page(
        [line, line | {"alarm": False}, calm], source="week.csv", title="failure", score="risk",
        notes=["A note."], padded="Padded: few rows.", locale="de",
    )  # fmt: skip


def deployed() -> str:
    """The report of a run whose sites keep the names of their machines."""
    run = detailed_failure(2)
    counts = {site: {"machines": 9, "alarms": 2} for site in run["summary"]["sites"]}
    run["summary"] |= {"inspect": {"score": "risk", "machines": [], "per_site": counts}}
    run["summary"]["test"]["baselines"] = dict.fromkeys(run["summary"]["test"]["baselines"])
    return render(**run)


PAGES = {name: lambda name=name: page_of(name) for name in list(RUNS)[:3]} | {
    # More than are listed unfolded; axe-core takes a minute for a hundred.
    "failure, 26 sites": lambda: render(**detailed_failure(26, rounds=3)),
    "machines": machines,
    "deployed": deployed,
}


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_phones_and_screens_and_breaks_no_rule_of_accessibility(
    name: str, width: int
) -> None:
    assert axe.violations(PAGES[name](), width) == []


def test_what_is_wrong_with_a_page_would_be_noticed() -> None:
    page = (
        '<!DOCTYPE html><html lang="en"><head><title>t</title><link rel="icon" href="data:,">'
        "<style>thead { position: absolute; }</style></head><body><main><h1>t</h1>"
        '<div style="width:700px">x</div><img src="data:,">'
        "<table><thead><tr><th>A</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>"
        "</main></body></html>"
    )
    found = "\n".join(axe.violations(page, 390))
    assert "wider than the window by" in found and "image-alt" in found
    assert "a cell without its header: <td>1</td>" in found


@pytest.mark.parametrize("name", ["failure, 2 sites", "machines"])
def test_a_page_prints_on_a4_and_nothing_is_cut(tmp_path: Path, name: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(PAGES[name](), encoding="utf-8")
    printed = chromium.pdf(page)
    sheets = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", printed)
    assert {(round(float(w)), round(float(h))) for w, h in sheets} == {(595, 842)}
    assert len(sheets) <= 10
    as_printed = page.read_text("utf-8").replace("@media print", "@media all")
    assert [f for f in axe.violations(as_printed, A4) if f.startswith(("wider", "cut"))] == []


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_screenshot_is_not_blank(tmp_path: Path, width: int, dark: bool) -> None:
    from matplotlib.image import imread

    page, picture = tmp_path / "page.html", tmp_path / "shot.png"
    page.write_text(page_of("failure, 2 sites"), encoding="utf-8")
    chromium.screenshot(page, picture, width, 1400, dark)
    pixels = np.asarray(imread(picture))[..., :3]
    assert pixels.shape == (1400, width, 3)
    grey = pixels.mean(axis=2)
    assert (np.median(grey) < 0.2) if dark else (np.median(grey) > 0.9)  # paper
    assert 0.01 < (np.abs(grey - np.median(grey)) > 0.3).mean() < 0.3  # ink
    filled = (np.ptp(grey.reshape(20, -1), axis=1) > 0.3).mean()
    assert filled > 0.8  # from top to bottom
    assert (np.ptp(pixels, axis=2) > 0.25).mean() > 0.001  # and colour
