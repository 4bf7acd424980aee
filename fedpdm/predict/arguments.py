"""The arguments of ``python -m fedpdm.predict``; without PyTorch, for ``--help`` and shells."""

from __future__ import annotations

import argparse
from pathlib import Path

from fedpdm.config.arguments import add_imports, add_out, parser_of


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    made = parser_of(
        "predict", "Score a site's new data with the model of a run: risk and alarms by machine."
    )
    made.add_argument("run", metavar="RUN", type=Path, help="the run folder")
    made.add_argument("file", metavar="FILE", type=Path, help="CSV or Parquet with new rows")
    made.add_argument("--site", help="the site whose columns and scaling apply")
    made.add_argument("--round", type=int, help="weights of this round (default: the best)")
    add_out(made, "where the scores go (default: FILE-scores.csv, all-scores.csv for *.csv)")
    made.add_argument("--html", type=Path, metavar="FILE",
                      help="also write the list of machines as a page")  # fmt: skip
    made.add_argument("--threshold", type=float, help="alarm threshold (default: the run's)")
    made.add_argument("--drift", action="store_true",
                      help="also print how far the file lies from the training")  # fmt: skip
    add_imports(made)
    return made
