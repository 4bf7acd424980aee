"""Generate sites as files, fetch the public data sets, check these or your own.

python -m fedpdm.data generate --sites detroit,houston --days 320 --seed 0 --out FOLDER
python -m fedpdm.data fetch ai4i|cmapss [--out FOLDER] [--url URL]
python -m fedpdm.data check [ai4i|cmapss] [--from FOLDER]
python -m fedpdm.data check --config-dir FOLDER data=files … [--out FILE]
python -m fedpdm.data describe FILE [LOG …] [--site NAME] [--out FILE]
python -m fedpdm.data npz --out FOLDER [data.runs=30 …]
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedpdm.config.arguments import add_out, parser_of, subcommands
from fedpdm.data.sources.fetch import URLS, fetch
from fedpdm.data.sources.published import KNOWN, KnownFile, data_folder
from fedpdm.errors import DataError, FedPdmError, run_command
from fedpdm.storage import sha256_of, write_bytes

FOLDER = "data folder; default: $FEDPDM_DATA or ~/.cache/fedpdm"
OWN_DATA = re.compile(r"[^-].*=|--config-dir|-cd|--out|--page")
"""Words of ``check`` that tell it to look at the data of a config."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 if something needs mending."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["check"] and any(OWN_DATA.match(word) for word in words):
        from fedpdm import check as own_data

        return own_data.main(words[1:])
    known = parser()
    commands = subcommands(known)
    if words and words[0] in commands:  # flags and KEY=VALUE words in any order
        given = commands[words[0]].parse_intermixed_args(words[1:])
        given.command = words[0]
    else:
        given = known.parse_args(words)
    try:
        if given.command == "generate":
            return generated(given)
        if given.command == "npz":
            return npz_written(Path(given.out).expanduser(), given.options)
        if given.command == "describe":
            return described(given.files, given.site, given.out)
        folder = data_folder(given.out)
        if given.command == "fetch":
            fetch(given.dataset, folder, given.url)
            return 0
        return check(folder, [given.dataset] if given.dataset else sorted(KNOWN))
    except FedPdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        rest = (
            "the same command goes on from here" if given.command == "fetch" else "nothing is left"
        )
        print(f"stopped; {rest}", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    made = parser_of(
        "data",
        "Generate sites as files, fetch the public data sets, check these, or with KEY=VALUE\n"
        "words your own data.",
    )
    commands = made.add_subparsers(dest="command", required=True)
    add_generate(commands)
    fetching = commands.add_parser("fetch", help="download a data set and check its sums")
    fetching.add_argument("dataset", choices=sorted(URLS))
    fetching.add_argument("--url", help="archive to take instead of the publisher's")
    checking = commands.add_parser(
        "check",
        help="list files with rows and sums; with data=files … look at your own data",
        epilog="With KEY=VALUE words or --config-dir it looks at the data of that config instead: "
        "python -m fedpdm.data check --config-dir FOLDER data=files site=NAME,NAME",
    )
    checking.add_argument("dataset", nargs="?", choices=sorted(URLS), help="default: both")
    describing = commands.add_parser("describe", help="propose a site's yaml for files of your own")
    describing.add_argument("files", nargs="+", metavar="FILE", help="sensor rows, and logs")
    describing.add_argument("--site", help="name of the site; default: the file's")
    add_out(describing, "write the yaml there, and do not print it")
    writing = commands.add_parser(
        "npz",
        help="write generated milling runs as .npz files, which data=npz reads",
        description="Write the windows of data=milling as train_sequences.npz, val_sequences.npz, "
        "test_sequences.npz and vocabulary.json; an existing folder is never overwritten.",
    )
    add_out(writing, "folder to make", "FOLDER", required=True)
    writing.add_argument("options", nargs="*", metavar="KEY=VALUE", help="options, e.g. seed=1")
    add_out(fetching, FOLDER, "FOLDER", "--to")
    checking.add_argument("--from", "--to", dest="out", metavar="FOLDER", help=FOLDER)
    return made


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Let SIGTERM end this process by way of ``finally``: nothing half-written is left."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def add_generate(commands: Any) -> None:
    """Add the command that generates sites, with its options."""
    parser = commands.add_parser(
        "generate",
        help="write generated sites as files, with the truth beside them",
        description="Write generated sites as files: per site its sensor rows, its log of "
        "failures and services, weather and load, and apart from them the truth behind them. "
        "Training on the files gives the same result as training without them. The data is "
        "checked before it gets its name; an existing folder is never overwritten.",
    )
    parser.add_argument(
        "--sites",
        default="detroit,houston",
        metavar="NAME,NAME",
        help="sites, as in site=; default: detroit,houston",
    )
    parser.add_argument("--days", type=float, help="length of the record; default: 320")
    parser.add_argument("--seed", type=int, default=42, help="same seed, same bytes; default: 42")
    add_out(parser, "folder to make", "FOLDER", required=True)
    parser.add_argument("--csv", action="store_true", help="write CSV instead of Parquet")
    parser.add_argument(
        "options",
        nargs="*",
        metavar="KEY=VALUE",
        help="options of data, sites and replicas, e.g. data.heterogeneity.label_skew=0.5",
    )


def generated(given: argparse.Namespace) -> int:
    """Generate sites, say what came of it, and how to go on; return the exit code."""
    from fedpdm.data.fleet.generate import generate

    begin, worked = time.perf_counter(), time.process_time()
    with ended_in_order():
        made = generate(
            given.out, given.sites.split(","), given.days, given.seed, given.options, given.csv
        )
    rows = made.summary["total"]["rows"]
    took, worked = time.perf_counter() - begin, time.process_time() - worked
    for site, counted in made.summary["plants"].items():
        share = counted["prevalence"]
        print(
            f"{site}: {counted['rows']:,} rows of {counted['machines']} machines, "
            f"{counted['failures']} failures, {counted['maintenance']} services, "
            f"{'unknown' if share is None else f'{share:.1%}'} of rows within "
            f"{made.summary['horizon_days']:g} days of a failure"
        )
    tally = made.summary["gates"]
    print(f"gates: {tally['passed']} passed, {tally['skipped']} skipped (see summary.json)")
    print(
        f"{rows:,} rows in {took:.1f} s, checks included: "
        f"{rows / took * 60 / 1e6:.1f} million rows a minute, "
        f"{rows / worked * 60 / 1e6:.1f} million per minute of processor time"
    )
    print(f"written to {made.folder}; train on it with\n\n  {made.command}\n")
    return 0


def described(files: list[str], site: str | None, out: Path | None) -> int:
    """Print a site's proposed yaml, or write it where nothing is yet; return the exit code."""
    from fedpdm.data.quality.describe import describe

    if out is not None and out.exists():
        raise DataError(f"--out {out} exists, and you may have edited it; name another file")
    text = describe(files, site)
    if out is None:
        print(text, end="")
        return 0
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, text.encode())
    print(f"written to {out}; read it, and mend what it says is unsure")
    return 0


def npz_written(folder: Path, options: list[str]) -> int:
    """Write generated milling runs as .npz files; return the exit code."""
    from fedpdm.config.compose import compose
    from fedpdm.config.values import make, plain, whole
    from fedpdm.data.sources.npz import write_npz
    from fedpdm.runs.sources import build_source

    if folder.exists():
        raise DataError(f"{folder} exists already; name another folder")
    cfg = compose(["data=milling", "task=program", *options])
    source = build_source(cfg, make(cfg.task, "task"), whole(cfg, "seed", 0))
    write_npz(source, folder, tuple(plain(cfg.data.task_defaults.classes)))
    print(f"written to {folder}; train on it with\n")
    print(f"  python -m fedpdm.simulate data=npz data.path={folder} task=program "
          "model=program_decoder partition.sites=3\n")  # fmt: skip
    return 0


def check(folder: Path, datasets: list[str]) -> int:
    """Print each known file with its rows and whether it is the published one."""
    print(f"{'file':<24} {'rows':>7}  sha256    in {folder}")
    sound = True
    for dataset in datasets:
        verdicts = [(known, *verdict(folder / known.path, known)) for known in KNOWN[dataset]]
        for known, rows, word in verdicts:
            sound = sound and word == "ok"
            print(f"{known.path:<24} {rows:>7}  {word}")
        if any(word == "missing" for _, _, word in verdicts):
            print(f"  python -m fedpdm.data fetch {dataset} --out {folder}")
    return 0 if sound else 2


def verdict(path: Path, known: KnownFile) -> tuple[str, str]:
    """Return a file's number of rows, as text, and ``ok``, ``missing`` or what is wrong."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return "-", "missing"
    except OSError as error:
        return "-", f"unreadable ({error.strerror})"
    header = known.path.endswith(".csv")
    rows = sum(1 for line in content.splitlines() if line.strip()) - header
    if sha256_of(path) == known.sha256:
        return str(rows), "ok"
    return str(rows), "differs" if rows == known.rows else f"differs, should have {known.rows} rows"


if __name__ == "__main__":
    sys.exit(run_command(main))
