"""``python -m fedpdm.audit RUN``: who was in the training data?"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpdm.errors import FedPdmError, run_command

DESCRIPTION = """\
Attack a finished run: tell training windows from windows that were never used by their loss
(Yeom et al. 2018). AUC 0.5 and advantage 0 are guessing.

  python -m fedpdm.audit runs/2026-01-31_12-00-00-ab12cd
  python -m fedpdm.audit RUN --control     also a model that learned windows by heart
  python -m fedpdm.audit RUN --json audit.json"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    made = argparse.ArgumentParser(
        prog="fedpdm audit", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("run", type=Path, metavar="RUN", help="the run folder")
    made.add_argument("--control", action="store_true",
                      help="also attack a model that was made to overfit")  # fmt: skip
    made.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    made.add_argument("--imports", help="modules of your own that the run used: mylab,…")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 for mistakes."""
    given = parser().parse_args(arguments)
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        from fedpdm.audit.attack import membership
        from fedpdm.config.imports import names_of
        from fedpdm.runs.assembly import one_thread

        one_thread()
        found = membership(given.run, control=given.control, imports=names_of(given.imports))
    except FedPdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(told(found))
    if given.json is not None:
        from fedpdm.storage import write_json

        write_json(given.json, found)
    return 0


def told(found: Mapping[str, Any]) -> str:
    """Return the result in words.

    Args:
        found: what ``membership`` returned.
    """
    of = found["model"]
    lines = [
        f"Membership inference against round {found['round']} of {found['run']}: {of['members']:,} "
        f"training windows of {of['machines'][0]} machines, {of['others']:,} never used of "
        f"{of['machines'][1]}."
    ]
    for name, words in (
        ("model", "the run's model"), ("untrained", "an untrained model, which knows nobody"),
        ("control", "control: a model that learned members by heart"),
    ):  # fmt: skip
        if found[name] is not None:
            lines.append(f"  {words}: {both(found[name])}")
    lines.append(verdict(found))
    if found["bound"] is not None:
        epsilon = found["privacy"]["epsilon"]
        lines.append(
            f"The advantage against one window cannot pass {found['bound']:.3f} at epsilon "
            f"{epsilon:.3g}, whatever the attack."
            if epsilon is not None
            else "Without noise there is no bound on the advantage."
        )
    return "\n".join(lines)


def both(of: Mapping[str, Any]) -> str:
    """Return AUC and advantage with their intervals."""
    return ", ".join(
        f"{name} {of[key]['value']:.3f} ({of[key]['low']:.3f} to {of[key]['high']:.3f})"
        for key, name in (("auc", "AUC"), ("advantage", "advantage"))
    )


def verdict(found: Mapping[str, Any]) -> str:
    """Return what the numbers say, and what they do not."""
    seen, base = found["model"]["auc"], found["untrained"]["auc"]
    if seen["low"] > max(0.5, base["high"]):
        said = "The attack works: training windows are told from others beyond chance"
    elif seen["low"] > 0.5:
        said = (
            "Training windows are told from others, but an untrained model tells them nearly as "
            "well: the machines differ by themselves"
        )
    else:
        said = "This attack finds nothing; a stronger one (shadow models) was not tried"
    return f"{said}."


if __name__ == "__main__":
    sys.exit(run_command(main))
