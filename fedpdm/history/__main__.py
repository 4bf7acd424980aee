"""``python -m fedpdm.history``: list a run's rounds, roll back to one, export one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedpdm.config.arguments import add_out, parser_of
from fedpdm.errors import ConfigError, FedPdmError, HistoryError, run_command
from fedpdm.history.lock import RunLock
from fedpdm.history.record import RoundRecord, judged_by
from fedpdm.history.rounds import History
from fedpdm.storage import read_bytes, read_json, write_bytes, write_json

STALE = ("summary.json", "report.html", "metrics.csv", "drift.safetensors", "promotion")
"""Results that a rollback makes untrue."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 for mistakes."""
    given = parser().parse_args(argv)
    try:
        given.command(given)
    except FedPdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def parser() -> argparse.ArgumentParser:
    made = parser_of(
        "history",
        "The rounds of a run on disk: list them, look at one, return to one, take its weights out.",
    )
    commands = made.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Any, text: str, with_round: bool = True) -> Any:
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(command=command)
        one.add_argument("run", metavar="RUN", type=Path, help="the run folder")
        if with_round:
            one.add_argument("round", metavar="ROUND", type=int, help="number of the round")
        return one

    add("list", _list, "All rounds: loss, metric, bytes, what happened.", with_round=False)
    show = add("show", _show, "One round: sites, events, files with checksums, tensors.")
    rollback = add("rollback", _rollback, "Return to a finished round; what is undone is kept.")
    rollback.add_argument(
        "--exclude", nargs="+", default=[], metavar="SITE",
        help="sites to leave out when the undone rounds are repeated",
    )  # fmt: skip
    rollback.add_argument("--reason", default="rolled back by hand", help="for the record")
    export = add("export", _export, "Copy a round's weights, checked, to a safetensors file.")
    add_out(export, "FILE.safetensors", "FILE", "--to", required=True)
    export.add_argument("--force", action="store_true", help="overwrite FILE")
    for one in (show, export):
        one.add_argument(
            "--attempt", type=int, help="a round that was undone, as it was in this attempt"
        )
    return made


# Commands -----------------------------------------------------------------------------


def _list(given: argparse.Namespace) -> None:
    with History.open(given.run) as history:
        records = history.rounds(undone=True)
        head, best = history.head(), history.protected()
        notes, flaws = history.events(), history.sealed.flaws()
    if head is None:
        raise HistoryError(f"{given.run} has no finished round yet")
    metric = judged_by(records)
    numbers = ("round", "attempt", "sites", "loss", metric or "metric", "MB up", "MB down", "s")
    table = _table(f"{given.run.resolve().name}: {len(records)} rounds", right=numbers)
    table.add_column("what happened")
    for record in records:
        places = {"best": best, "head": head.round}
        marks = [mark for mark, number in places.items() if record.round == number]
        if record.undone:
            marks = ["undone"]
        loss = record.metrics.get("validation_loss")
        table.add_row(
            *(str(record.round), str(record.attempt), str(len(record.sampled)) if record.round
              else "start"),
            _number(record.metrics.get("train_loss") if loss is None else loss),
            _number(record.metrics.get(metric) if metric else None),
            f"{record.bytes_up / 1e6:.2f}", f"{record.bytes_down / 1e6:.2f}",
            f"{record.seconds:.1f}",
            Text(" · ".join([*marks, *_happened(record.events)])),
            style="dim" if record.undone else "bold" if "head" in marks else None,
        )  # fmt: skip
    console = _console()
    console.print(table)
    in_rounds = [event for record in records for event in record.events]
    _print_events(console, [event for event in notes if event not in in_rounds])
    if flaws:
        raise HistoryError("; ".join(flaws))


def _show(given: argparse.Namespace) -> None:
    console = _console()
    with History.open(given.run) as history:
        row = history.row(given.round, given.attempt)
        record = history.record(row)
        flaws = history.flaws(row) if row.stored else []
        sound = row.stored and not flaws
        states = len(history.client_states(row.number, row.attempt)) if sound else 0
        weights = history.weights(row.number, row.attempt) if sound else {}
    title = f"round {record.round}, attempt {record.attempt}"
    console.print(
        f"[bold]{title}[/]{' (undone)' if record.undone else ''}, started {record.started}, "
        f"{record.seconds:.1f} s, {record.bytes_up:,} bytes up, {record.bytes_down:,} down",
        highlight=False,
    )
    for name, value in record.metrics.items():
        console.print(f"  {name} {_number(value)}", highlight=False, markup=False)
    _print_sites(console, record)
    _print_events(console, record.events)
    verdict = "intact" if sound else "damaged" if flaws else "not kept (history.keep)"
    table = _table(f"files: {verdict}", left=("file", "sha256"))
    table.add_row(row.weights, row.weights_sha256)
    if row.state is not None:
        table.add_row(row.state, row.state_sha256)
    console.print(table)
    if states:
        console.print(f"states of {states} sites")
    if weights:
        table = _table("tensors", left=("name", "type", "shape"), right=("norm",))
        for name, array in weights.items():
            norm = float(np.linalg.norm(array.astype(np.float64).ravel()))
            shape = " × ".join(str(size) for size in array.shape) or "1"
            table.add_row(Text(name), array.dtype.name, shape, _number(norm))
        console.print(table)
    if flaws:
        raise HistoryError(
            f"{'; '.join(flaws)}; resume={given.run} goes back to the last good round by itself"
        )


def _rollback(given: argparse.Namespace) -> None:
    with History.open(given.run):
        pass  # a folder that is no run's should not get a lock file
    with RunLock(given.run), History.open(given.run) as history:
        row = history.row(given.round)
        sites = {site for record in history.rounds(undone=True) for site in record.sampled}
        if unknown := sorted(set(given.exclude) - sites):
            raise ConfigError(
                f"--exclude {' '.join(unknown)}: no such site in this run; there are: "
                f"{', '.join(sorted(sites)) or 'none'}"
            )
        if sites and sites <= set(given.exclude):
            raise ConfigError("--exclude names every site of the run: nobody would train")
        history.rollback(row.number, by="person", reason=given.reason, exclude=given.exclude)
        attempt = history.attempt
        with history.sealed.writing("model.json", *STALE):
            stale = _set_aside(given.run, row.number, attempt)
    without = f" without {', '.join(given.exclude)}" if given.exclude else ""
    print(
        f"round {row.number} is the head again; the rounds after it are kept in "
        f"{given.run / 'rounds' / 'undone'}\ncontinue{without} (attempt {attempt}): "
        f"python -m fedpdm.simulate resume={given.run}"
    )
    if stale:
        print(f"{', '.join(stale)} told of undone rounds and are kept there; resume makes new ones")


def _set_aside(run: Path, number: int, attempt: int) -> list[str]:
    """Move what describes undone rounds out of the way, so that nobody takes it for the result."""
    card = run / "model.json"
    if card.exists() and (content := read_json(card)).get("best_round") is not None:
        write_json(card, content | {"best_round": None, "threshold": None})
    moved = []
    for name in STALE:
        if (run / name).exists():
            (run / "rounds" / "undone").mkdir(exist_ok=True)
            (run / name).replace(run / "rounds" / "undone" / f"{attempt - 1}-{name}")
            moved.append(name)
    return moved


def _export(given: argparse.Namespace) -> None:
    out: Path = given.out
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out} must end in .safetensors: that is what is written")
    if out.exists() and not given.force:
        raise ConfigError(f"--out {out} exists; choose another name, or overwrite it with --force")
    with History.open(given.run) as history:
        row = history.row(given.round, given.attempt)
        history.weights(row.number, row.attempt)  # says what is wrong, if anything is
        path = history.path(row)
        if out.exists() and out.samefile(path):
            raise ConfigError(f"--out {out} is the round's own file; choose another name")
        sha256 = write_bytes(out, read_bytes(path, row.weights_sha256))
    print(f"round {row.number} (attempt {row.attempt}): {out}\nsha256 {sha256}")


# Parts of the commands ----------------------------------------------------------------


def _console() -> Console:
    """Return where people read; a file or a pipe has no width of its own."""
    return Console() if sys.stdout.isatty() else Console(width=140)


def _table(title: str, left: Iterable[str] = (), right: Iterable[str] = ()) -> Table:
    """Return a table with columns of texts, then of numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right")
    return table


def _happened(events: Iterable[dict[str, Any]]) -> list[str]:
    return [" ".join(str(e[key]) for key in ("kind", "site") if e.get(key)) for e in events]


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _print_sites(console: Console, record: RoundRecord) -> None:
    rows: dict[str, dict[str, Any]] = {}
    for site, values in record.sites.items():
        rows[site] = {name: value for name, value in values.items() if name != "validation"}
        for name, value in (values.get("validation") or {}).items():
            if name != "num-examples":
                rows[site][f"validation {name}"] = value
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = _table("sites", ["site"], [name.replace("_", " ") for name in names])
    for site, row in rows.items():
        table.add_row(Text(site), *(_number(row.get(name)) for name in names))
    console.print(table)


def _print_events(console: Console, events: Iterable[dict[str, Any]]) -> None:
    for event in events:
        where = f"round {event['round']}: " if event.get("round") is not None else ""
        who = f" ({event['by']})" if event.get("by") else ""
        console.print(
            f"{where}{event.get('kind')}{who}: {event.get('message') or ''}",
            markup=False, highlight=False,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_command(main))
