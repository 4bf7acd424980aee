"""axe-core in headless Chromium: rules of accessibility that a page breaks."""

from __future__ import annotations

import html
import importlib.util
import json
import tempfile
from pathlib import Path

import pytest

from tests import chromium

RUN = """<script>
window.addEventListener("load", () => axe.run(document).then((found) => {
  const broken = found.violations.map((v) => v.id + ": " + v.nodes.map((n) => n.html).join(" | "));
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
    """Return the rules that a page breaks in a window of that width, each with its elements.

    Args:
        text: the page; its own scripts do not run.
        width: of the window, in pixels.
    """
    text = text.replace("<script nonce=", '<script type="text/plain" data-was=')
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        axe = f'<script src="{script().as_uri()}"></script>'
        page.write_text(text.replace("</body>", f"{axe}{RUN}</body>"), encoding="utf-8")
        dom = chromium.dump_dom(page, width, later=60_000).dom
    found = json.loads(html.unescape(dom.split('data-axe="')[1].split('"')[0]))
    assert found["passed"] > 10, "axe did not look"
    return list(found["broken"])
