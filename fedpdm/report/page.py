"""What all HTML pages share: templates, one style, and the way plots are drawn.

A page is one file without scripts or outside resources, for phones, screens and paper.
Templates lie in ``templates/`` and include ``page.css``. Plots are SVG that takes its colours
from the page (light, dark, print); they are drawn for the width of a phone and scale up, and
their text stays text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module, resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from fedpdm.evaluation.locales import marked
from fedpdm.evaluation.wording import duration, listing, number, percent, size

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _template(name: str) -> str:
    if not name.endswith((".html.j2", ".css")):
        return name  # a section's own text
    # Through importlib.resources, so that a wheel works, zipped or not.
    return (resources.files("fedpdm.report") / "templates" / name).read_text("utf-8")


@cache
def _pages() -> Environment:
    """Return what knows the templates; it compiles each of them once."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    pages = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {
        "number": number,
        "percent": percent,
        "size": size,
        "duration": duration,
        "listing": lambda names: listing(names, most=12),
    }
    return pages


def import_libraries() -> None:
    """Import what pages are made with: half a second, where there is nothing else to do."""
    for name in ("jinja2", "matplotlib.backends.backend_svg", "scipy.special"):
        import_module(name)


def render_page(template: str, **values: Any) -> str:
    """Return a page as HTML.

    Args:
        template: its file in ``templates/``.
        values: what the template asks for; a missing one is an error. Text is escaped,
            ``markupsafe.Markup`` is not.
    """
    return _CARDS.sub(_labelled, _pages().get_template(template).render(**values))


_CARDS = re.compile(r'<table class="cards\b.*?</table>', re.DOTALL)
"""Tables that are wider than a phone: there each row is a card, a line for each cell."""
_ROLES = {"table": "table", "thead": "rowgroup", "tbody": "rowgroup", "tfoot": "rowgroup",
          "tr": "row", "td": "cell", 'th scope="col"': "columnheader",
          'th scope="row"': "rowheader"}  # fmt: skip
"""What an element is for those who do not see it: browsers forget it with the layout of a table."""
_ELEMENT = re.compile(rf"<({'|'.join(_ROLES)})\b")


def _labelled(match: re.Match[str]) -> str:
    """Return a table whose cells say what their column is called, for ``page.css`` to show."""
    head, body = match[0].split("</thead>")
    names = [re.sub("<.*?>", "", name) for name in re.findall("<th.*?>(.*?)</th>", head)]

    def row(found: re.Match[str]) -> str:
        left = iter(names)
        return re.sub(
            r"<t[dh]\b", lambda cell: f'{cell[0]} data-label="{next(left, "")}"', found[0]
        )

    table = head + "</thead>" + re.sub("<tr.*?</tr>", row, body, flags=re.DOTALL)
    return _ELEMENT.sub(lambda found: f'{found[0]} role="{_ROLES[found[1]]}"', table)


# Matplotlib wants colours and the page wants variables: each name is drawn in a colour
# that nothing else uses and is replaced by ``var(--name)`` in the SVG.
_NAMES = dict.fromkeys(re.findall(r"--([a-z0-9-]+):", _template("page.css")))
COLOUR = {name: f"#0101{i:02x}" for i, name in enumerate(_NAMES, start=1)}
"""Colours by the names that ``page.css`` gives them."""

WIDTH, RIGHT, BOTTOM = 420, 22, 46
"""A figure's width and two of its margins, in SVG units."""

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
    "axes.edgecolor": COLOUR["quiet"],
    "axes.labelcolor": COLOUR["quiet"],
    "grid.color": COLOUR["grid"],
    "xtick.color": COLOUR["quiet"],
    "ytick.color": COLOUR["quiet"],
    "xtick.labelcolor": COLOUR["ink"],
    "ytick.labelcolor": COLOUR["ink"],
    "ytick.major.size": 0,
    "text.color": COLOUR["ink"],
}

LABELLED = 6
"""Up to this many sites are drawn in colours of their own."""
LISTED = 24
"""Up to this many sites get a line of their own."""


def part_of(tree: Any, *path: str) -> Any:
    """Return what lies at a path of keys in nested mappings; None where nothing does."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def figure_of(height: int, left: int = 64, top: int = 16) -> tuple[Figure, Axes]:
    """Return a figure ``WIDTH`` by ``height`` SVG units with one axes and these margins."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH / 72, height / 72))
        wide, high = 1 - (left + RIGHT) / WIDTH, 1 - (top + BOTTOM) / height
        axes = figure.add_axes((left / WIDTH, BOTTOM / height, wide, high))
    # Long numbers must not touch.
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    return figure, axes


def rows_figure(names: Sequence[str], height: int, longest: int = 18) -> tuple[Figure, Axes]:
    """Return a figure with one axes and a named row for each name, the first one lowest.

    Args:
        names: of the rows.
        height: in SVG units.
        longest: characters of a name that are drawn.
    """
    shown = [name if len(name) <= longest else name[: longest - 1] + "…" for name in names]
    figure, axes = figure_of(height, left=20 + round(7.4 * max(map(len, shown), default=0)), top=6)
    axes.set_yticks(range(len(shown)), shown)
    axes.set_ylim(-0.7, max(len(shown), 2) - 0.3)
    axes.grid(axis="y", visible=False)
    return figure, axes


def svg_of(figure: Figure, prefix: str, title: str) -> Markup:
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
    body = re.sub(r"(?<=>)[^<>]+(?=</text>)", lambda written: marked(written[0]), body)
    # Several figures share one page: ids must not meet.
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'xlink:href="#', f'href="#{prefix}-', body)
    body = body.replace("url(#", f"url(#{prefix}-")
    body = re.sub(r"font(-family)?: ?([\d.]+px )?'DejaVu Sans'[^;\"]*", _page_font, body)
    for name, colour in COLOUR.items():
        body = body.replace(colour, f"var(--{name})")
    height, title = round(figure.get_figheight() * 72), escape(title)
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">'
        f"<title>{title}</title>{body}"
    )


def _page_font(match: re.Match[str]) -> str:
    return f"font-family: inherit; font-size: {match[2]}" if match[2] else "font-family: inherit"
