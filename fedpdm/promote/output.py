"""What a person reads of a promotion in the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from fedpdm.promote.registry import listed
from fedpdm.report.console import STYLE, console_for, grid_of, say


def print_decision(said: Mapping[str, Any], folder: Path, short: bool = False) -> None:
    """Print the table of gates, and where the folder is.

    Args:
        said: the decision record.
        folder: of the version, of the refusal, or of a record in a run's folder.
        short: one line a gate, and not what to do.
    """
    console = console_for(None)
    bad = STYLE["worse"]
    for gate in said["gates"]:
        stops = gate["gate"] in said["refused_by"]
        text = gate["result"]
        if gate["accepted_because"]:
            text += f"; accepted: {gate['accepted_because']}"
        begin = f"{gate['gate']:<13}{gate['status']:<10}"
        lines = textwrap.wrap(
            begin + text, console.width - 1, subsequent_indent=" " * len(begin),
            break_on_hyphens=False, max_lines=1 if short else None, placeholder=" …",
        )  # fmt: skip
        for line in lines:
            say(console, line, style=bad if stops else "")
    say(console, "")
    for gate in said["gates"]:
        if gate["gate"] in said["refused_by"] and not short:
            say(console, f"{gate['gate']}: {gate['criterion']}. If not: {gate['if_it_fails']}.")
    if said["refused_by"]:
        say(console, f"refused by {', '.join(said['refused_by'])}", style=bad)
        say(console, f"decision record: {folder / 'decision.md'}", wrap=False)
        return
    if said["version"] is None:
        say(console, "no critical gate refuses this model", style=STYLE["better"])
        say(console, f"decision record: {folder / 'decision.md'}", wrap=False)
        say(console, f"make a version of it: python -m fedpdm.promote {folder.parent}", wrap=False)
        return
    say(console, f"promoted: {said['name']}, version {said['version']}", style=STYLE["better"])
    say(console, str(folder), wrap=False)
    if said["format"] == "onnx":
        say(console, f"score new rows: python {folder / 'predict.py'} FILE.csv", wrap=False)


def print_list(store: Path) -> None:
    """Print the versions in a store, and their status.

    Raises:
        UserError: there is no store, or a record in it is damaged.
    """
    console, rows = console_for(None), []
    for said in listed(store):
        version = "–" if said["version"] is None else str(said["version"])
        score = "–" if said["test"] is None else f"{said['test']:.3f}"
        words = (said["name"], version, said["status"], said["metric"], score, said["run"],
                 said["date"], said["signed_by"])  # fmt: skip
        rows.append([Text(word) for word in words])
    heads = ["model", "version", "status", "metric", "test", "run", "date", "signed"]
    if not rows:
        say(console, f"{store} holds no model")
        return
    console.print(grid_of(heads, rows, console))
