"""What the parsers of several commands share: the run folder, ``--out`` and ``--imports``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def parser_of(command: str, description: str) -> argparse.ArgumentParser:
    """Return a parser whose help shows the description as it stands.

    Args:
        command: the command's name: ``audit`` is ``python -m fedpdm.audit``.
        description: what it does, with examples.
    """
    return argparse.ArgumentParser(
        prog=f"python -m fedpdm.{command}", description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def add_out(
    parser: argparse.ArgumentParser,
    what: str,
    metavar: str = "FILE",
    *earlier: str,
    **more: Any,
) -> None:
    """Add ``--out``, where a command writes.

    Args:
        parser: the command's.
        what: the help.
        metavar: FILE or FOLDER.
        earlier: names that the option had, which stay valid.
        more: ``required`` or ``default``.
    """
    parser.add_argument("--out", *earlier, type=Path, metavar=metavar, help=what, **more)


def add_imports(parser: argparse.ArgumentParser) -> None:
    """Add ``--imports``: code comes from the person at the keyboard, never from a run folder."""
    parser.add_argument("--imports", help="modules of your own that the run used: mylab,…")


def run_parser(command: str, description: str, what: str) -> argparse.ArgumentParser:
    """Return the parser of a command that asks a finished run something.

    Args:
        command: its name.
        description: what it does.
        what: the help of ``--out``, which was ``--json``.
    """
    made = parser_of(command, description)
    made.add_argument("run", type=Path, metavar="RUN", help="the run folder")
    add_out(made, what, "FILE", "--json")
    add_imports(made)
    return made


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of a command's own commands by name; argparse hides them."""
    found = (action.choices for action in parser._actions)
    return next((dict(choices) for choices in found if isinstance(choices, dict)), {})


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
    """Return the options of a parser, ``--out`` and the like, without short and earlier names."""
    shown = (a.option_strings for a in parser._actions if a.help is not argparse.SUPPRESS)
    return [next(name for name in names if name.startswith("--")) for names in shown if names]
