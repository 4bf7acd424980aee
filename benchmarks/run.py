"""Measure speed: fedpdm's engines, a bare PyTorch loop, Flower and pfl-research, in turn.

    python benchmarks/run.py                        # everything; several hours on two cores
    python benchmarks/run.py --cells cnn:100 --contenders floor,serial,ray
    python benchmarks/run.py --quick                # minutes; writes only under .bench/
    python benchmarks/run.py targets                # goals and what was measured
    python benchmarks/run.py report                 # tables and plot of docs/engines.md again
    python benchmarks/run.py scale                  # 10,000 sites, 5 % sampled
    python benchmarks/run.py evidence fleet ai4i    # the numbers about predictions

It can be stopped and started: finished runs are kept in ``.bench/speed.jsonl``. Medians go to
``benchmarks/results/speed.json`` (GPU rows: ``speed-cuda.json``), from there to docs/engines.md.
"""

from __future__ import annotations

import argparse
import json
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.speed import contenders, report, results, targets  # noqa: E402
from benchmarks.speed.measure import measure  # noqa: E402
from benchmarks.speed.work import MODELS, Work, as_argument  # noqa: E402

SITES = (2, 10, 100, 1000)
RESULTS = ROOT / "benchmarks" / "results"
BENCH = ROOT / ".bench"


def parse_cells(text: str | None, quick: bool) -> list[tuple[str, int]]:
    """Return (model, sites) of ``cnn:100,lstm:10``; ``cnn`` alone means all sizes."""
    sizes = SITES[:2] if quick else SITES
    if text is None:
        return [(model, sites) for sites in sizes for model in MODELS]
    found: list[tuple[str, int]] = []
    for part in text.split(","):
        model, _, sites = part.partition(":")
        if model not in MODELS or (sites and (not sites.isdigit() or int(sites) < 1)):
            raise SystemExit(f"--cells: {part} is no MODEL:SITES; models are {', '.join(MODELS)}")
        found += [(model, int(sites))] if sites else [(model, n) for n in sizes]
    return found


def plan(
    cells: Sequence[tuple[str, int]], names: Sequence[str], repeats: int, done: set[results.Key]
) -> Iterator[results.Key]:
    """Yield what is left to measure. In a cell the contenders take turns: A B C A B C."""
    for model, sites in cells:
        for repeat in range(repeats):
            for name in names:
                if (key := (model, sites, name, repeat)) not in done:
                    yield key


def rounds_of(sites: int, quick: bool) -> int:
    """Return how many rounds a run has: the first starts up, the others count."""
    return 3 if quick or sites >= 1000 else 5


def commit() -> str:
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True,
            check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write(runs: Sequence[results.Run], machine: dict[str, Any], versions: dict[str, Any],
          folder: Path) -> None:  # fmt: skip
    """Write the medians of all finished runs, and the goals, one file per kind of device."""
    folder.mkdir(parents=True, exist_ok=True)
    for device, name in (("cpu", "speed.json"), ("cuda", "speed-cuda.json")):
        part = [run for run in runs if run["device"] == device]
        if not part:
            continue
        entries = results.summarise(part)
        stored = {
            "schema": 1,
            "device": device,
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine,
            "versions": versions,
            "commits": sorted({run["commit"] for run in part}),
            "repeats": max(run["repeat"] for run in part) + 1,
            "results": entries,
            "targets": [
                goal for goal in targets.as_json(targets.goals(entries))
                if goal["measured"] is not None
            ],
            "disagreements": results.disagreements(entries),
        }  # fmt: skip
        (folder / name).write_text(json.dumps(stored, indent=1) + "\n")


def load(folder: Path) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the stored results of the CPU and of the GPU."""
    paths = (folder / "speed.json", folder / "speed-cuda.json")
    cpu, cuda = (json.loads(p.read_text()) if p.exists() else None for p in paths)
    return cpu, cuda


def show(folder: Path) -> None:
    """Print the goals, and where contenders did not learn the same."""
    stored = [part for part in load(folder) if part is not None]
    entries = [entry for part in stored for entry in part["results"]]
    print(targets.as_text(targets.goals(entries)))
    for part in stored:
        for line in part["disagreements"]:
            print(f"note: {line}")
        for entry in part["results"]:
            if "failed" in entry:
                print("failed: {contender}, {model}, {sites} sites: {failed}".format(**entry))


def publish(folder: Path) -> None:
    """Write the page's section and the plot from the stored results."""
    from benchmarks.speed.plot import draw

    cpu, cuda = load(folder)
    if cpu is not None:
        try:
            draw(cpu["results"], ROOT / report.PLOT)
        except ImportError:
            print(f"matplotlib is missing: {report.PLOT} was not drawn")
    if not report.write_page(ROOT / report.PAGE, report.section(cpu, cuda)):
        print(f"{report.PAGE} has no {report.BEGIN} … {report.END}: its table was not written")


def speed(options: argparse.Namespace) -> None:
    """Measure what is left, write results after every cell, and publish them."""
    machine_facts = contenders.facts(sys.executable)
    gpu = machine_facts["gpu"]
    device = options.device if options.device != "both" else ("both" if gpu else "cpu")
    if device == "cuda" and not gpu:
        raise SystemExit("--device cuda: torch sees no GPU here")
    asked = None if options.contenders is None else options.contenders.split(",")
    if unknown := sorted(set(asked or ()) - set(contenders.CONTENDERS)):
        known = ", ".join(contenders.CONTENDERS)
        raise SystemExit(f"--contenders: {unknown[0]} is unknown; there are {known}")
    names = contenders.chosen(asked, device)
    pythons = {"flower": options.flower_python, "pfl": options.pfl_python}
    launches: dict[str, list[str]] = {}
    for name in names:
        try:
            launches[name] = contenders.launch(name, pythons)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{name} is left out, its environment could not be made: {error}")
    versions = {"ours": machine_facts["packages"]}
    for peer in {contenders.CONTENDERS[name].peer for name in launches} - {""}:
        versions[peer] = contenders.facts(contenders.peer_python(peer, pythons[peer]))["packages"]
    machine = {"processor": contenders.processor(), "gpu": gpu, "python": machine_facts["python"]}

    store = BENCH / ("quick.jsonl" if options.quick else "speed.jsonl")
    out = BENCH / "quick" if options.quick else options.out
    store.parent.mkdir(exist_ok=True)
    if options.fresh:
        store.unlink(missing_ok=True)
    runs = results.read_runs(store)
    repeats = 1 if options.quick else options.repeats
    cells = parse_cells(options.cells, options.quick)
    left = list(plan(cells, list(launches), repeats, results.done(runs)))
    at = commit()
    for number, (model, sites, name, repeat) in enumerate(left, start=1):
        on = "cuda" if contenders.CONTENDERS[name].cuda else "cpu"
        work = Work(name, model, sites, rounds_of(sites, options.quick), on, options.workers)
        result = measure(launches[name], as_argument(work), options.timeout)
        run = {
            "model": model, "plants": sites, "contender": name, "repeat": repeat, "device": on,
            "commit": at, "when": datetime.now(UTC).isoformat(timespec="seconds"), **result,
        }  # fmt: skip
        runs.append(run)
        with store.open("a") as file:
            file.write(json.dumps(run) + "\n")
        said = run.get("failed") or (
            f"{results.per_round(run['round_seconds']):.4f} s a round, "
            f"{run['process_seconds']:.1f} s in all"
        )
        print(f"{number}/{len(left)} {model} {sites} sites {name} #{repeat + 1}: {said}",
              flush=True)  # fmt: skip
        if number == len(left) or left[number][:2] != (model, sites):
            write(runs, machine, versions, out)
    if not left:
        write(runs, machine, versions, out)
    show(out)
    if not options.quick and options.out == RESULTS:
        publish(out)


def stop(*_: object) -> None:
    """End as after Ctrl-C, so that a contender that is at work is ended too."""
    raise SystemExit(143)


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["evidence"]:
        sys.argv = ["evidence.py", *given[1:]]
        runpy.run_path(str(ROOT / "benchmarks" / "evidence.py"), run_name="__main__")
        return
    if given[:1] == ["scale"]:
        from benchmarks.speed.scale import main as scale

        scale(given[1:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", default="speed",
                        choices=["speed", "targets", "report", "scale", "evidence"])  # fmt: skip
    parser.add_argument("--cells", help="MODEL:SITES,…; MODEL alone for all sizes")
    parser.add_argument("--contenders", help="names, separated by commas")
    parser.add_argument("--repeats", type=int, default=3, help="turns in every cell")
    parser.add_argument("--quick", action="store_true", help="small cells, one turn, no results")
    parser.add_argument("--fresh", action="store_true", help="forget finished runs")
    parser.add_argument("--device", choices=["both", "cpu", "cuda"], default="both")
    parser.add_argument("--workers", type=int, default=2, help="of ray and of Flower")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for one run")
    parser.add_argument("--flower-python", help="an interpreter that has Flower")
    parser.add_argument("--pfl-python", help="an interpreter that has pfl-research")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(given)
    if options.what == "speed":
        speed(options)
    elif options.what == "targets":
        show(BENCH / "quick" if options.quick else options.out)
    else:
        publish(options.out)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    main()
