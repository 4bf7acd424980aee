"""``python -m fedpdm.compare RUN…``: is one setting better than another, beyond chance?"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedpdm.config.arguments import add_out, parser_of
from fedpdm.errors import FedPdmError, HistoryError, run_command

if TYPE_CHECKING:
    from rich.console import Console

    from fedpdm.comparison.result import Comparison

DESCRIPTION = """\
Compare settings over seeds: runs that differ in their seed alone are one setting, and runs of
one seed are paired. Name run folders, or folders that hold some, such as a multirun's:

  python -m fedpdm.simulate -m strategy=fedavg,fedprox seed=0,1,2,3,4,5
  python -m fedpdm.compare runs/2026-01-31_12-00-00-ab12cd
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 where nothing can be compared."""
    given = parser().parse_intermixed_args(arguments)
    try:
        compare_folders(
            given.runs, out=given.out, against=given.against, view=given.on, metric=given.metric
        )
    except FedPdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; choose another --out", file=sys.stderr)
        return 2
    return 0


def compare_folders(
    paths: Sequence[Path],
    *,
    out: Path | None = None,
    against: str | None = None,
    view: str = "global",
    metric: str | None = None,
    console: Console | None = None,
) -> Comparison:
    """Compare the runs in folders, print the result and write its files.

    Args:
        paths: run folders, or folders that hold some.
        out: where the files go; None: ``default_folder``.
        against: the reference (``fedpdm.comparison.result.compare``).
        view: ``global``, ``mean`` or ``worst``: the score that is tested.
        metric: its name in summary.json; None for the one that chose the rounds.
        console: where to print; standard output if None.

    Raises:
        UserError: a folder holds no run, or nothing can be compared.
    """
    from fedpdm.comparison.output import print_comparison, write_comparison
    from fedpdm.comparison.result import compare
    from fedpdm.comparison.runs import find_runs
    from fedpdm.comparison.settings import settings_of
    from fedpdm.report.console import console_for
    from fedpdm.runs.progress import Working

    with Working("comparing the runs", console):
        runs, left_out = find_runs(paths)
        if not runs:
            raise HistoryError("no run is finished: " + "; ".join(left_out))
        settings, remarks = settings_of(runs)
        comparison = compare(
            settings, against=against, view=view, metric_name=metric, remarks=remarks,
            left_out=left_out,
        )  # fmt: skip
        folder = out or default_folder(paths)
        replaced = (folder / "comparison.html").exists()
        page = write_comparison(comparison, folder)
    print_comparison(comparison, page, console)
    if replaced:
        console_for(console).print("It takes the place of an earlier comparison in this folder.")
    return comparison


def default_folder(paths: Sequence[Path]) -> Path:
    """Return the folder of a comparison: the same inputs, the same folder.

    ``comparison`` in the one folder named, or beside it if that is a run. Of several inputs
    ``comparison-<8 hex digits>`` in the folder that they have in common, the digits standing
    for their names in it: comparisons of other inputs lie beside each other.
    """
    inputs = {path.resolve(): path for path in paths}
    if len(inputs) == 1:
        ((whole, given),) = inputs.items()
        is_run = (whole / "manifest.json").exists() or (whole / "summary.json").exists()
        return (whole.parent if is_run else given) / "comparison"
    common = Path(os.path.commonpath([path.parent for path in inputs]))
    names = sorted(path.relative_to(common).as_posix() for path in inputs)
    digest = hashlib.sha256("\0".join(names).encode()).hexdigest()
    return common / f"comparison-{digest[:8]}"


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    parsed = parser_of("compare", DESCRIPTION)
    parsed.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run or multirun folder")
    parsed.add_argument(
        "--against", metavar="NAME",
        help="reference: a setting's name, or a part of it that its twins differ in (FedAvg, "
        "else the first setting)",
    )  # fmt: skip
    parsed.add_argument(
        "--on", default="global", choices=("global", "mean", "worst"),
        help="score that is tested: all test data together, mean of sites, or worst site",
    )  # fmt: skip
    parsed.add_argument("--metric", help="its name in summary.json (the metric of the task)")
    add_out(
        parsed,
        "where the files go (comparison/ in the one folder named, or beside the one run; of "
        "several inputs comparison-… in the folder that they have in common)",
        "FOLDER",
    )
    return parsed


if __name__ == "__main__":
    sys.exit(run_command(main))
