"""The console: its width, its characters, its tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedpdm.errors import printable
from fedpdm.evaluation.wording import MINUS, MISSING

ASCII = {
    MINUS: "-",
    MISSING: "-",
    "±": "=",
    "…": "...",
    "≥": ">=",
    "≤": "<=",
    "\u202f": " ",
    "\u00a0": " ",
}
"""What stands for a character where the console has no Unicode."""
PLAIN_WIDTH = 100
"""Columns assumed where there is no terminal to ask."""
LINES = Box("    \n    \n ── \n    \n ── \n    \n    \n    \n")
"""A rule below the head and one above the mean."""
GAP = 2
"""Characters between two columns: padding and the box's divider; with 2 all fit 80."""
STYLE = {"better": "green", "worse": "bold red"}


def console_for(console: Console | None) -> Console:
    """Return ``console``, or one for standard output; files and pipes get a fixed width."""
    if console is not None:
        return console
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def readable(text: str, console: Console) -> str:
    """Return ``text`` in characters that the console can write, and shows."""
    text = printable(text)
    if console.encoding.lower().startswith("utf"):
        return text
    for fancy, plain in ASCII.items():
        text = text.replace(fancy, plain)
    return text.encode("ascii", "replace").decode()


def say(console: Console, text: str, style: str = "", wrap: bool = True) -> None:
    """Print a line as it stands: a bracket in it is no markup.

    Args:
        console: where.
        text: the line.
        style: Rich's.
        wrap: whether a long line is broken; paths stay whole, so that they can be copied.
    """
    console.print(Text(readable(text, console), style=style), soft_wrap=not wrap)


def room_for_names(heads: Sequence[str], rows: Sequence[Sequence[Text]], console: Console) -> int:
    """Return by how many characters the screen is wider than these columns; below 0: narrower."""
    return console.width - sum(_widths(heads, rows)) - GAP * (len(heads) - 1)


def grid_of(
    heads: Sequence[str],
    rows: Sequence[Sequence[Text]],
    console: Console,
    *,
    fold: bool = False,
    means: int = 0,
) -> Table:
    """Return a table of these cells; on a narrow screen names give way, numbers never.

    Args:
        heads: the columns' titles, that of the names first.
        rows: what is shown.
        console: where.
        fold: a name that is too long goes on in a second line, and does not end in "…".
        means: how many rows at the end stand apart, in bold.
    """
    rows = [
        [Text(readable(cell.plain, console), style=cell.style) for cell in cells] for cells in rows
    ]
    widths = _widths(heads, rows)
    widths[0] = max(min(widths[0], widths[0] + room_for_names(heads, rows, console)), 6)
    grid = Table(box=LINES, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for i, (head, width) in enumerate(zip(heads, widths, strict=True)):
        grid.add_column(
            head, justify="right" if i else "left", no_wrap=bool(i) or not fold,
            overflow="fold" if fold else "ellipsis", width=width,
        )  # fmt: skip
    for index, cells in enumerate(rows, start=means - len(rows)):
        grid.add_row(*cells, end_section=index == -1, style="bold" if index >= 0 else "")
    return grid


def _widths(heads: Sequence[str], rows: Sequence[Sequence[Text]]) -> list[int]:
    return [
        max([cell_len(head), *(cells[i].cell_len for cells in rows)])
        for i, head in enumerate(heads)
    ]
