"""Where text for people goes: the console, its width, and the characters that it can write."""

from __future__ import annotations

from rich.console import Console

from fedpdm.evaluation.wording import MINUS, MISSING

ASCII = {MINUS: "-", MISSING: "-", "±": "=", "…": "...", "\u202f": " ", "\u00a0": " "}
"""What stands for a character where the console has no Unicode."""
PLAIN_WIDTH = 100
"""Columns assumed where there is no terminal to ask."""


def console_for(console: Console | None) -> Console:
    """Return ``console``, or one for standard output; files and pipes get a fixed width."""
    if console is not None:
        return console
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def readable(text: str, console: Console) -> str:
    """Return ``text`` in characters that the console can write."""
    if console.encoding.lower().startswith("utf"):
        return text
    for fancy, plain in ASCII.items():
        text = text.replace(fancy, plain)
    return text.encode("ascii", "replace").decode()
