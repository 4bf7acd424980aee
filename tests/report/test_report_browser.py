"""The report in a browser: it fits phones and screens, complains of nothing, and shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedpdm.compare import compare_folders
from fedpdm.report.report import render
from tests import chromium
from tests.comparison.example_comparison import make_run
from tests.report.example_details import detailed_failure
from tests.report.test_report import RUNS, page_of


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    chromium.require()
    folder = tmp_path_factory.mktemp("reports")
    found = {}
    for index, name in enumerate(RUNS):
        found[name] = folder / f"{index}.html"
        found[name].write_text(page_of(name), encoding="utf-8")
    return found


@pytest.mark.parametrize("width", [375, 1200])
@pytest.mark.parametrize("name", RUNS)
def test_chromium_shows_it_without_complaint_and_nothing_sticks_out(
    files: dict[str, Path], name: str, width: int
) -> None:
    shown = chromium.fit(files[name], width)
    assert shown.console == []
    assert shown.overflow == 0


@pytest.mark.parametrize("width", [375, 1200])
def test_a_comparison_fits_phones_and_screens(tmp_path: Path, width: int) -> None:
    chromium.require()
    for strategy in ("FedAvg", "FedProx", "FedNova"):
        for seed in range(3):
            make_run(tmp_path / f"{strategy}-{seed}", seed, strategy=strategy, score=0.4 + seed / 9)
    compare_folders([tmp_path], out=tmp_path / "out")
    shown = chromium.fit(tmp_path / "out" / "comparison.html", width)
    assert shown.console == []
    assert shown.overflow == 0
    assert probed(tmp_path / "out" / "comparison.html", width) == "broken:"


def test_a_page_that_is_too_wide_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "wide.html"
    page.write_text(
        '<!DOCTYPE html><link rel="icon" href="data:,"><div style="width:700px">x</div>'
        "<script>console.error('noticed')</script>"
    )
    shown = chromium.fit(page, 390)
    assert shown.overflow > 300
    assert any("noticed" in line for line in shown.console)


PROBE = """<script>
const rects = (node, from, to) => {
  const range = document.createRange();
  range.setStart(node, from);
  range.setEnd(node, to);
  return [...range.getClientRects()];
};
const lines = (boxes) => new Set(boxes.map((box) => Math.round(box.top))).size;
const broken = [];
for (const head of document.querySelectorAll("table:not(.keys) tbody th")) {
  const text = head.firstChild;
  if (head.offsetParent === null || text?.nodeType !== Node.TEXT_NODE) continue;
  for (const word of text.data.matchAll(/[a-zA-Z]{2,9}/g))
    if (lines(rects(text, word.index, word.index + word[0].length)) > 1) broken.push(word[0]);
}
const shown = (s) => [...document.querySelectorAll(s)].some((e) => e.offsetParent !== null);
const said = [...document.querySelectorAll("td.sure")].find((e) => e.textContent.includes("only"));
const found = ["broken:" + broken.join(",")];
if (said) {
  const boxes = rects(said.firstChild, 0, said.firstChild.length);
  const edge = said.closest(".scroll").getBoundingClientRect().right;
  found.push("roomy:" + shown("span.roomy"), "narrow:" + shown("span.narrow"));
  found.push("cut:" + boxes.some((box) => box.right > edge), "wraps:" + (lines(boxes) > 1));
}
(window.frameElement ? parent.document : document).body.dataset.found = found.join(" ");
</script>"""


def probed(page: Path, width: int) -> str:
    """Return what the probe finds on a page in a window of that width."""
    text = page.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>")
    page.write_text(text, encoding="utf-8")
    return chromium.dump_dom(page, width).dom.split('data-found="')[1].split('"')[0]


@pytest.mark.parametrize(
    ("width", "found"),
    [
        (390, "broken: roomy:false narrow:true cut:false wraps:true"),
        (1200, "broken: roomy:true narrow:false cut:false wraps:false"),
    ],
)
def test_on_a_phone_names_stay_whole_and_reasons_are_not_cut(
    tmp_path: Path, width: int, found: str
) -> None:
    chromium.require()
    run = detailed_failure(2)
    drawn = run["summary"]["test"]["bootstrap"]["gain"]["alone"]["per_site"]["detroit"]
    drawn |= {"sure": None, "failing": 6, "reason": "only 6 machines failed: too few to be sure"}
    page = tmp_path / "phone.html"
    page.write_text(render(**run), encoding="utf-8")
    assert probed(page, width) == found


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_screenshot_is_not_blank(
    files: dict[str, Path], tmp_path: Path, width: int, dark: bool
) -> None:
    from matplotlib.image import imread

    picture = tmp_path / "shot.png"
    chromium.screenshot(files["failure, 2 sites"], picture, width, 1400, dark)
    pixels = np.asarray(imread(picture))[..., :3]
    assert pixels.shape == (1400, width, 3)
    grey = pixels.mean(axis=2)
    assert (np.median(grey) < 0.2) if dark else (np.median(grey) > 0.9)  # paper
    assert 0.01 < (np.abs(grey - np.median(grey)) > 0.3).mean() < 0.3  # ink
    filled = (np.ptp(grey.reshape(20, -1), axis=1) > 0.3).mean()
    assert filled > 0.8  # from top to bottom
    assert (np.ptp(pixels, axis=2) > 0.25).mean() > 0.001  # and colour
