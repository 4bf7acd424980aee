"""``python -m fedpdm.watch RUN``: a page in the browser that shows a run while it works."""

from __future__ import annotations

import argparse
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from fedpdm.config.arguments import parser_of
from fedpdm.errors import ConfigError, FedPdmError, HistoryError, printable, run_command

DESCRIPTION = """\
Show a run in the browser while it works: rounds, sites, events, time left; then its report.

  python -m fedpdm.watch                                   the newest run in runs/
  python -m fedpdm.watch runs/2026-01-31_12-00-00-ab12cd

The page is for this machine only, under an address that is printed and that nobody can guess. It
reads the run folder and changes nothing, so it may come and go at any time, and a server's run
under Flower's SuperLink is shown alike. Ctrl-C ends it."""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    made = parser_of("watch", DESCRIPTION)
    made.add_argument("run", nargs="?", type=Path, metavar="RUN", default=Path("runs"),
                      help="its folder, or a folder of runs: the newest in it (runs)")  # fmt: skip
    made.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (any that is free)")
    made.add_argument("--wait", type=float, default=60.0, metavar="SECONDS",
                      help="for a run that is about to begin (60)")  # fmt: skip
    made.add_argument("--open", action="store_true", help="open the page in a browser")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line until it is interrupted; return the exit code: 0, or 2 for mistakes."""
    given = parser().parse_args(arguments)
    try:
        watch(given.run, port=given.port, patience=given.wait, browser=given.open)
    except KeyboardInterrupt:
        print()
    except FedPdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def watch(folder: Path, port: int = 0, patience: float = 60.0, browser: bool = False) -> None:
    """Serve the page of a run until interrupted.

    Args:
        folder: the run folder, or a folder of runs.
        port: where to listen; 0: any that is free.
        patience: seconds to wait for a run that is about to begin.
        browser: open the page in one.

    Raises:
        HistoryError: there is no run.
        ConfigError: the port cannot be had.
    """
    from fedpdm.watch.reading import find_run
    from fedpdm.watch.server import PageServer, reader_of

    def say(text: str) -> None:
        print(printable(text), flush=True)

    if not 0 <= port < 2**16:
        raise ConfigError(f"--port {port} must be between 0 and 65535")
    if not 0 <= patience < 1e6:
        raise ConfigError(f"--wait {patience:g} must be at least 0 seconds")
    try:
        reader = reader_of(find_run(folder, patience, say))
    except OSError as error:
        raise HistoryError(f"{folder} cannot be read ({error.strerror})") from error
    with PageServer(reader, port) as server:
        say(f"watching {reader.folder}, on this machine only; Ctrl-C ends it\n{server.url}")
        if browser and not webbrowser.open(server.url):
            say("there is no browser here to open it with")
        server.serve_forever()


if __name__ == "__main__":
    sys.exit(run_command(main))
