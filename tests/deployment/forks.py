"""Flower's processes, forked from a process that has already imported everything.

Under a SuperLink every message to a site is a process of its own. Most of its seconds are
imports, and so are most of every other program's, so here a template process does them once
and forks. All else is as Flower does it: a program is started by its name, which is found in
``PATH``, and its memory, environment and death are its own.

    python -m tests.deployment.forks FOLDER     until its standard input is closed
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from runpy import run_module

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = (
    "flwr-clientapp", "flwr-serverapp", "flower-superexec", "flower-superlink", "flwr",
    "supernode.py", "hostile_supernode.py",
)  # fmt: skip
STUB = r"""#!{python} -IS
import json, os, select, socket, sys
parent, template = os.getppid(), socket.socket(socket.AF_UNIX)
template.connect({address!r})
told = json.dumps([sys.argv, os.getcwd(), dict(os.environ), os.getpgid(0)]) + "\n"
socket.send_fds(template, [told.encode()], [1, 2])
while os.getppid() == parent and not select.select([template], [], [], 1)[0]:
    pass  # Flower's helpers end with who started them, too
sys.exit(ord(template.recv(1, socket.MSG_DONTWAIT) or b"\x01"))
"""


class Template:
    """The process that forks; ``folder`` holds the programs that ask it to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        address = str(folder / "socket")
        for name in PROGRAMS:
            (folder / name).write_text(STUB.format(python=sys.executable, address=address))
            (folder / name).chmod(0o755)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.deployment.forks", address],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
                 "FLWR_HOME": str(folder / "flower")},
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def close(self) -> None:
        self.process.communicate(timeout=60)


def serve(address: str) -> None:
    """Fork a child for every program that asks, until standard input is closed."""
    import pandas  # noqa: F401
    import sklearn.metrics  # noqa: F401
    from flwr.cli.app import app as flwr
    from flwr.supercore.cli.flower_superexec import flower_superexec
    from flwr.superlink.cli import flower_superlink, flwr_serverapp
    from flwr.supernode.cli import flwr_clientapp

    import fedpdm.deployment.client
    import fedpdm.deployment.server
    import fedpdm.report.report  # noqa: F401

    mains = dict(zip(PROGRAMS, (
        flwr_clientapp, flwr_serverapp, flower_superexec, flower_superlink, flwr,
        partial(run_module, f"{__package__}.supernode", run_name="__main__"),
        partial(run_module, f"{__package__}.hostile_supernode", run_name="__main__"),
    ), strict=True))  # fmt: skip
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    print("ready", flush=True)
    while listener in (ready := select.select([listener, sys.stdin], [], [])[0]):
        asker, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            become(asker, mains)
        asker.close()
    assert ready


def become(asker: socket.socket, mains: dict[str, Callable[[], object]]) -> None:
    """Be the program that a stub asked for; die when the stub is killed."""
    code = 1
    try:
        told, descriptors, _, _ = socket.recv_fds(asker, 1 << 16, 2)
        while not told.endswith(b"\n"):
            told += asker.recv(1 << 16)
        sys.argv, folder, environment, group = json.loads(told)
        with suppress(OSError):
            os.setpgid(0, group)  # a signal to the stub's group shall reach the program
        for place, descriptor in enumerate(descriptors, start=1):
            os.dup2(descriptor, place)
            os.close(descriptor)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
        threading.Thread(target=lambda: asker.recv(1) or os._exit(9), daemon=True).start()
        mains[Path(sys.argv[0]).name]()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        asker.send(bytes([code]))
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
