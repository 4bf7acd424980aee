"""Pages in headless Chromium: accessibility by axe-core, and whether everything fits."""

from __future__ import annotations

import html
import importlib.util
import json
import tempfile
from pathlib import Path

import pytest

from tests import chromium

RUN = """<script>
const misfits = () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
  const found = [], width = document.documentElement.clientWidth;
  const over = document.documentElement.scrollWidth - width;
  if (over > 0) found.push("wider than the window by " + over);
  for (const table of document.querySelectorAll("table:has(thead)")) {
    const heads = [...table.querySelectorAll("thead tr > *")].map((h) => h.getBoundingClientRect());
    const gone = getComputedStyle(table.tHead).position === "absolute";
    for (const row of table.querySelectorAll("tbody tr, tfoot tr"))
      [...row.cells].forEach((cell, column) => {
        const box = cell.getBoundingClientRect();
        if (!box.width) return;
        const label = getComputedStyle(cell, "::before").content.replace(/["': ]/g, "");
        const named = gone ? label && label !== "none" : heads[column].left - box.left < 2;
        if (!named) found.push("a cell without its header: " + cell.outerHTML);
        if (box.right > width + 1 && table.closest(".cards")) found.push("cut: " + cell.outerHTML);
      });
  }
  return found;
};
window.addEventListener("load", () => axe.run(document).then((found) => {
  const broken = found.violations.map((v) => v.id + ": " + v.nodes.map((n) => n.html).join(" | "));
  broken.push(...misfits());
  const body = (window.frameElement ? parent.document : document).body;
  body.dataset.axe = JSON.stringify({broken, passed: found.passes.length});
}));
</script>"""


def script() -> Path:
    """Return axe-core; skip the test, saying so, where it is not installed."""
    spec = importlib.util.find_spec("axe_core_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe-core is not installed: pip install axe-core-python")
    return Path(spec.origin).parent / "axe.min.js"


def violations(text: str, width: int) -> list[str]:
    """Return what is wrong with a page in a window of that width.

    That is rules of axe-core which it breaks, each with its elements, whatever is wider than the
    window, cells whose column's header is not to be seen, and complaints of the browser.

    Args:
        text: the page; its own scripts do not run.
        width: of the window, in pixels.
    """
    text = text.replace("<script nonce=", '<script type="text/plain" data-was=')
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        axe = f'<script src="{script().as_uri()}"></script>'
        page.write_text(text.replace("</body>", f"{axe}{RUN}</body>"), encoding="utf-8")
        shown = chromium.dump_dom(page, width, later=60_000)
    found = json.loads(html.unescape(shown.dom.split('data-axe="')[1].split('"')[0]))
    assert found["passed"] > 10, "axe did not look"
    return [*found["broken"], *shown.console]
