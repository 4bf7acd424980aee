"""The ``fedpdm`` command, or ``python -m fedpdm``: one entry point for all commands."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from fedpdm.errors import run_command

COMMANDS = {
    "simulate": ("fedpdm.simulate", "train a federation of sites, and compare it honestly"),
    "watch": ("fedpdm.watch.__main__", "show a run in the browser while it works"),
    "compare": ("fedpdm.compare", "say which setting is better over seeds, and how surely"),
    "predict": ("fedpdm.predict", "score a site's new rows with a finished run"),
    "ablate": ("fedpdm.ablate.__main__", "say what sensors, losses and parts of a model are worth"),
    "contribution": ("fedpdm.contribution.__main__", "say what each site brought to a run"),
    "audit": ("fedpdm.audit.__main__", "attack a finished run: who was in the training data?"),
    "promote": ("fedpdm.promote.__main__", "ask gates whether a model may be used, and export it"),
    "strategies": ("fedpdm.strategies.__main__", "list the methods there are, or explain one"),
    "history": ("fedpdm.history.__main__", "list, show, roll back or export the rounds of a run"),
    "data": (
        "fedpdm.data.__main__",
        "generate, fetch or check data; propose a yaml for a file of yours",
    ),
    "completion": ("fedpdm.completion.__main__", "let bash complete these commands"),
}

HELP = """\
Federated learning for predictive maintenance across factory sites.

  fedpdm COMMAND …        also: python -m fedpdm COMMAND …

{commands}

  fedpdm simulate site=detroit,houston
  fedpdm watch
  fedpdm compare runs/2026-01-31_12-00-00-ab12cd
  fedpdm history list runs/2026-01-31_12-00-00-ab12cd
  fedpdm predict runs/2026-01-31_12-00-00-ab12cd plant.csv
  fedpdm promote runs/2026-01-31_12-00-00-ab12cd
  fedpdm data fetch ai4i

Each command has its own --help; fedpdm --version prints the version."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Hand the arguments on to a command; return its exit code (2: no such command)."""
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in ("--help", "-h", "help"):
        print(help_text())
        return 0
    if command in ("--version", "version"):
        from fedpdm import __version__

        print(f"fedpdm {__version__}")
        return 0
    if command not in COMMANDS:
        print(f"error: {unknown(command)}", file=sys.stderr)
        return 2
    # Imported only now: predict need not wait for what simulate needs.
    code: int = importlib.import_module(COMMANDS[command][0]).main(rest)
    return code


def help_text() -> str:
    """Return the help, with every command there is."""
    lines = (f"  {name:<12} {what}" for name, (_, what) in COMMANDS.items())
    return HELP.format(commands="\n".join(lines))


def unknown(command: str) -> str:
    """Return what to say about a command that does not exist."""
    if "=" in command:
        return f"{command} is an option of simulate: fedpdm simulate {command}"
    close = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"there is no command {command!r}; {hint}there are {', '.join(COMMANDS)}"


def script() -> int:
    """Run the command that pip installs."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(script())
