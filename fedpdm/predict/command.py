"""``python -m fedpdm.predict RUN plant.csv``: risk and alarms per machine, for new data."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from rich.console import Console

from fedpdm.config.imports import names_of, own_code_error
from fedpdm.data.sources.readings import values_of
from fedpdm.data.sources.tables import Table
from fedpdm.errors import ConfigError, DataError, FedPdmError, HistoryError, printable
from fedpdm.evaluation.wording import counted, listing
from fedpdm.history.schemas import Card
from fedpdm.history.sealed import read_sealed
from fedpdm.predict.arguments import parser
from fedpdm.predict.loading import load_predictor
from fedpdm.predict.ranking import EXPLAINED, page, print_machines, ranked
from fedpdm.runs.drift import MUCH, before, distances, stored_reference
from fedpdm.runs.predictor import Predictor
from fedpdm.runs.progress import Working
from fedpdm.storage import write_bytes

OPTIONS = ("site", "round", "out", "html", "threshold", "imports")
MOST = 20
"""Sites whose columns are tried."""
ENOUGH = 200
"""Rows from which on a distance from the training data says something."""


class Drift(NamedTuple):
    """How far new rows lie from the training.

    Attributes:
        whose: the training that they are compared with: of one site, or of all.
        found: ``psi`` and ``ks`` of each sensor and score, the farthest first; None where the run
            keeps no readings.
    """

    whose: str
    found: Mapping[str, Mapping[str, float]] | None

    def lines(self, run: Path) -> list[str]:
        """Return the distances for the screen."""
        if self.found is None:
            return ["no readings to measure drift from"]
        return [f"drift from the training of {run.name} ({self.whose}):  PSI    KS"] + [
            f"  {printable(name)}: {each['psi']:.3f}  {each['ks']:.3f}"
            + ("  much" if each["psi"] > MUCH else "")
            for name, each in self.found.items()
        ]

    def note(self, rows: int) -> list[str]:
        """Return what to say of columns far from training; of few rows nothing can be said."""
        much = [name for name, each in (self.found or {}).items() if each["psi"] > MUCH]
        if not much or rows < ENOUGH:
            return []
        return [
            f"{counted(len(much), 'column')} far from the training data: {listing(much, most=6)}; "
            "the risks may mean less (--drift shows how far)"
        ]


def drifted(predictor: Predictor, table: Table, scored: pd.DataFrame, site: str | None) -> Drift:
    """Return how far new rows, and the model's scores of them, lie from the training.

    Args:
        predictor: the model.
        table: the new rows.
        scored: what ``Predictor.score`` returned of them.
        site: whose readings to compare with; None for all sites'.

    Raises:
        HistoryError: the run keeps no readings.
    """
    names, columns = predictor.mapping.inputs, list(predictor.task.score_columns)
    stored = stored_reference(predictor.run, len(names))
    whose = f"site {site}" if site and f"readings/{site}" in stored else "all sites"
    old = before(stored, "readings", site)
    if old is None:
        return Drift(whose, None)
    found = distances(old, values_of(table, predictor.mapping), names)
    was = before(stored, "scores", site)
    if was is not None and was.shape[1] == len(columns):
        found |= distances(was, scored[columns].to_numpy(dtype=float), columns)
    return Drift(whose, found)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 for mistakes."""
    words = list(sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(1)
    try:
        _refuse_overrides(words)
        given = parser().parse_args(words)
        with Working("scoring the rows", Console(stderr=True)):
            predictor = load_predictor(
                given.run, site=given.site, round=given.round, threshold=given.threshold,
                imports=names_of(given.imports),
            )  # fmt: skip
            try:
                table = predictor.read(given.file)
            except DataError as refused:
                raise _with_site(refused, given) from refused
            scored, silent = predictor.score(table), predictor.silent(table)
            lines = ranked(predictor, scored, predictor.explain(table, scored, EXPLAINED))
            try:
                far = drifted(predictor, table, scored, given.site)
            except HistoryError:  # a deployed run keeps no readings
                if given.drift:
                    raise
                far = Drift("", None)
        name = re.sub(r"[*?\[\]]+", "", given.file.name.partition(".")[0]).strip("-_ ")
        out = given.out or Path(f"{name or 'all'}-scores.csv")
        listed = out.with_name(f"{out.stem.removesuffix('-scores')}-machines.csv")
        for path in filter(None, (out, listed, given.html)):
            if path.exists() and given.file.exists() and path.samefile(given.file):
                option = "--html" if path == given.html else "--out"
                raise ConfigError(f"{option} {path} is the file with the data; choose another name")
        notes = [
            *predictor.notes,
            *(f"column '{c}' has no reading at all; it counts as average" for c in silent),
            *far.note(len(table)),
        ]
        write_bytes(out, scored.to_csv(index=False).encode())
        write_bytes(listed, lines.to_csv(index=False).encode())
        if given.html:
            text = page(predictor, lines, given.file.name, notes)
            write_bytes(given.html, text.encode())
    except Exception as raised:
        error = own_code_error(raised)
        if not isinstance(error, FedPdmError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    print_machines(predictor, lines)
    if given.drift:
        print(*far.lines(predictor.run), sep="\n")
    print(f"{len(scored)} scored rows: {out}; {len(lines)} machines: {listed}")
    if given.html:
        print(f"page: {given.html}")
    return 0


def _with_site(error: DataError, given: argparse.Namespace) -> DataError:
    """Return the error with the site whose columns the file has, if there is one."""
    card = Card.read(read_sealed(given.run.expanduser(), "model.json"), given.run / "model.json")
    for site in list(card["sites"])[:MOST]:
        if site == given.site:
            continue
        with contextlib.suppress(FedPdmError):
            load_predictor(given.run, site=site, imports=names_of(given.imports)).read(given.file)
            return DataError(f"{error} The file has the columns of site {site}: --site {site}")
    return error


def _refuse_overrides(words: Sequence[str]) -> None:
    """Refuse overrides of a config on this command line, and name the option to write."""
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in OPTIONS and not Path(word).exists():
            raise ConfigError(f"{word}: predict takes no overrides; write --{key} {value}")
