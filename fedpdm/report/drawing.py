"""How plots are drawn: as SVG that takes its colours from the page (light, dark, print).

Figures are drawn for the width of a phone and scale up; text stays text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib wants colours and the page wants variables: each name is drawn in a colour
# that nothing else uses and is replaced by ``var(--name)`` in the SVG.
_PAGE = (resources.files("fedpdm.report") / "templates" / "page.css").read_text("utf-8")
_NAMES = dict.fromkeys(re.findall(r"--([a-z0-9-]+):", _PAGE))
COLOUR = {name: f"#0101{i:02x}" for i, name in enumerate(_NAMES, start=1)}
"""Colours by the names that ``page.css`` gives them."""

WIDTH = 420

_STYLE: Any = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "none",  # text stays text: selectable, and in the page's font
    "svg.hashsalt": "fedpdm",  # the same run gives the same file
    "text.parse_math": False,  # a site may be called a$b
    "font.size": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.edgecolor": COLOUR["quiet"],
    "axes.labelcolor": COLOUR["quiet"],
    "axes.linewidth": 0.8,
    "grid.color": COLOUR["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": COLOUR["quiet"],
    "ytick.color": COLOUR["quiet"],
    "xtick.labelcolor": COLOUR["ink"],
    "ytick.labelcolor": COLOUR["ink"],
    "ytick.major.size": 0,
    "text.color": COLOUR["ink"],
}


def figure_of(
    height: int, left: int = 64, right: int = 22, top: int = 16, bottom: int = 46
) -> tuple[Figure, Axes]:
    """Return a figure ``WIDTH`` by ``height`` SVG units with one axes and these margins."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH / 72, height / 72))
        axes = figure.add_axes(
            (left / WIDTH, bottom / height, 1 - (left + right) / WIDTH, 1 - (top + bottom) / height)
        )
    axes.xaxis.set_major_locator(
        MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10])
    )  # long numbers must not touch
    return figure, axes


def short(name: str, most: int) -> str:
    """Return a name that takes at most so many characters."""
    return name if len(name) <= most else name[: most - 1] + "…"


def room(names: Sequence[str], most: int) -> int:
    """Return the left margin, in SVG units, that these names need, shortened to ``most``."""
    return 20 + round(7.4 * max((len(short(name, most)) for name in names), default=0))


def name_rows(axes: Axes, names: Sequence[str], low: float, high: float) -> None:
    """Name the rows of a plot, the first one lowest, and show ``low`` to ``high`` of them."""
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(low, high)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def svg_of(figure: Figure, prefix: str, title: str) -> str:
    """Return the figure as an ``<svg>`` element to stand inside an HTML page."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(
            buffer,
            format="svg",
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    text = buffer.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<style.*?</style>", "", body, count=1, flags=re.DOTALL)
    # Several figures share one page: ids must not meet.
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'xlink:href="#', f'href="#{prefix}-', body)
    body = body.replace("url(#", f"url(#{prefix}-")
    body = re.sub(r"font(-family)?: ?([\d.]+px )?'DejaVu Sans'[^;\"]*", _page_font, body)
    for name, colour in COLOUR.items():
        body = body.replace(colour, f"var(--{name})")
    height = round(figure.get_figheight() * 72)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">'
        f"<title>{title}</title>{body}"
    )


def _page_font(match: re.Match[str]) -> str:
    return f"font-family: inherit; font-size: {match[2]}" if match[2] else "font-family: inherit"
