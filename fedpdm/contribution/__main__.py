"""``python -m fedpdm.contribution RUN``: what did each site bring?"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from fedpdm.config.arguments import run_parser
from fedpdm.errors import FedPdmError, run_command

DESCRIPTION = """\
Say what each site brought to a finished run's model, on the validation windows of all sites.

Shapley values of the sites' updates; the run is trained once more to see them, unless it was begun
with contribution=shapley:
  python -m fedpdm.contribution runs/2026-01-31_12-00-00-ab12cd
Leave-one-out, exact: the run is trained once more for every site, without that site. It costs as
many trainings as there are sites; the same command goes on where it was:
  python -m fedpdm.contribution RUN --retrain"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    made = run_parser("contribution", DESCRIPTION, "also write the numbers there, as JSON")
    made.add_argument("--retrain", action="store_true",
                      help="leave-one-out by training without each site")  # fmt: skip
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 for our failures, 2 for mistakes."""
    given = parser().parse_args(arguments)
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        from fedpdm.config.imports import names_of
        from fedpdm.contribution.again import replayed, retrained, told
        from fedpdm.runs.assembly import one_thread
        from fedpdm.storage import write_json

        one_thread()
        imports = names_of(given.imports)
        found = (retrained if given.retrain else replayed)(given.run, imports=imports)
        print(told(found))
        if given.out is not None:
            write_json(given.out, found)
    except FedPdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
