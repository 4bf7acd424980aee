"""Who takes part, and the environments of the peers."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed.measure import QUIET, ROOT, launch_of

BENCH = ROOT / ".bench"


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        title: name in tables.
        module: the program, in ``benchmarks.speed``.
        peer: whose Python runs it: "" for our own.
        processes: started by torchrun if more than one.
        cuda: whether it needs a GPU.
        optional: takes part only when named.
    """

    title: str
    module: str
    peer: str = ""
    processes: int = 1
    cuda: bool = False
    optional: bool = False


CONTENDERS = {
    "floor": Contender("bare loop", "floor"),
    "floor-default": Contender("bare loop, torch.optim.Adam", "floor", optional=True),
    "serial": Contender("serial", "engines"),
    "ray": Contender("ray, 2 workers", "engines"),
    "batched": Contender("batched", "engines"),
    "batched2": Contender("batched, 2 workers", "engines"),
    "kernel": Contender("stacked kernel alone", "kernel", optional=True),
    "auto": Contender("auto", "engines"),
    "flower": Contender("Flower, 2 actors", "flower", "flower"),
    "pfl1": Contender("pfl, 1 process", "pfl_research", "pfl"),
    "pfl2": Contender("pfl, 2 processes", "pfl_research", "pfl", processes=2),
    "floor-cuda": Contender("bare loop, GPU", "floor", cuda=True),
    "serial-cuda": Contender("serial, GPU", "engines", cuda=True),
    "batched-cuda": Contender("batched, GPU", "engines", cuda=True),
    "kernel-cuda": Contender("stacked kernel alone, GPU", "kernel", cuda=True),
}


def exists(name: str) -> bool:
    """Return whether a contender can start: an engine needs its yaml."""
    if CONTENDERS[name].module != "engines":
        return True
    return (ROOT / "conf" / "engine" / f"{engine_of(name)}.yaml").exists()


def engine_of(name: str) -> str:
    """Return the name of the engine that a contender is."""
    return name.removesuffix("-cuda").removesuffix("2")


def chosen(names: list[str] | None, device: str) -> list[str]:
    """Return the contenders of this run, in their fixed order.

    Args:
        names: asked for by name, or None for all that the device takes.
        device: cpu, cuda or both.
    """
    if names is None:
        names = [
            name
            for name, contender in CONTENDERS.items()
            if not contender.optional and device in ("both", "cuda" if contender.cuda else "cpu")
        ]
    return [name for name in CONTENDERS if name in names and exists(name)]


def peer_python(peer: str, given: str | None) -> str:
    """Return a peer's interpreter; its environment is made on first use, in ``.bench``."""
    if not peer:
        return sys.executable
    if given:
        return given
    folder = BENCH / peer
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    wanted = (Path(__file__).parent / f"requirements-{peer}.txt").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"making {folder} (once)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check",
             "-r", str(Path(__file__).parent / f"requirements-{peer}.txt")],
            check=True,
        )  # fmt: skip
        stamp.write_text(wanted)
    return str(python)


def launch(name: str, pythons: dict[str, str | None]) -> list[str]:
    """Return the command line of a contender."""
    contender = CONTENDERS[name]
    python = peer_python(contender.peer, pythons.get(contender.peer))
    return launch_of(contender.module, python, contender.processes)


FACTS = """
import importlib.metadata as m, json, platform
found = {}
for name in ("torch", "numpy", "flwr", "ray", "pfl"):
    try:
        found[name] = m.version(name)
    except m.PackageNotFoundError:
        pass
import torch
gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
print(json.dumps({"python": platform.python_version(), "packages": found, "gpu": gpu}))
"""


def facts(python: str) -> dict[str, Any]:
    """Return versions and GPU as an interpreter sees them."""
    done = subprocess.run(
        [python, "-c", FACTS],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **QUIET},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def processor() -> str:
    """Return the processor's name and how many cores this process may use."""

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"
