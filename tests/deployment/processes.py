"""The server and sites as real processes on 127.0.0.1, each with a home of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
HERE = Path(__file__).parent


def block(readme: str, title: str) -> str:
    """Return the commands of a README that begin with the comment ``# title``."""
    text = (ROOT / readme).read_text()
    found = re.search(rf"```bash\n# {re.escape(title)}\n(.*?)```", text, re.DOTALL)
    assert found, f"{readme} has no block of commands '# {title}'"
    return found[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: str, condition: Callable[[], Any], seconds: float) -> Any:
    """Return what ``condition`` comes to; fail if it is nothing after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.3)
    return result


@dataclass
class Machine:
    """One machine: a folder, a Flower home, and at most one long process.

    Args:
        folder: where it starts.
        path: folders of modules.
        programs: those of a ``forks.Template``, which are looked for first, by Flower, too.
        variables: further environment variables.
    """

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    pids: list[int] = field(default_factory=list)
    path: list[Path] = field(default_factory=lambda: [ROOT])
    programs: Path | None = None
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "log.txt"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": os.pathsep.join(
                [*([str(self.programs)] if self.programs else []), str(BIN), os.environ["PATH"]]
            ),
            "PYTHONPATH": os.pathsep.join(map(str, self.path)),
            "FLWR_HOME": str(self.folder / "flower"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.4",
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            **self.variables,
        }

    def program(self, name: str) -> list[str]:
        """Return how a program begins that is Flower's, or a file of ours beside this one."""
        if self.programs:
            return [str(self.programs / name)]
        return [str(BIN / "python"), str(HERE / name)] if ".py" in name else [str(BIN / name)]

    def start(self, name: str, *arguments: str) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.program(name), *arguments],
                cwd=self.folder, env=self.environment, stdout=log, stderr=log, process_group=0,
            )  # fmt: skip

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the process group; its helpers notice within a moment and end too."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, how)
            except ProcessLookupError:
                pass
            self.process.wait(timeout=60)
            self.process = None

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class ServerProcess(Machine):
    """A machine with ``flower-superlink``, and from which ``flwr`` is called."""

    def __init__(self, folder: Path, *, tls: bool = True, programs: Path | None = None) -> None:
        super().__init__(folder, programs=programs)
        self.port = free_port()
        self.tls = tls
        if tls:
            self.shell(block("server/README.md", "certificates"))
        secure = [f'root-certificates = "{folder}/keys/ca.crt"'] if tls else ["insecure = true"]
        home = folder / "flower"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text("\n".join([
            "[superlink]", 'default = "here"', "", "[superlink.here]",
            f'address = "127.0.0.1:{self.port}"', *secure, "",
        ]))  # fmt: skip

    def shell(self, commands: str) -> str:
        done = subprocess.run(["bash", "-ec", commands], cwd=self.folder, env=self.environment,
                              capture_output=True, text=True, timeout=180)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def open(self, *extra: str) -> None:
        """Start the SuperLink and wait until it listens."""
        keys = ["--ssl-ca-certfile", "keys/ca.crt", "--ssl-certfile", "keys/server.pem",
                "--ssl-keyfile", "keys/server.key", "--enable-supernode-auth"]  # fmt: skip
        self.start("flower-superlink", *(keys if self.tls else ["--insecure"]),
                   "--host", "127.0.0.1", "--port", str(self.port), "--database", "superlink.db",
                   "--disable-runtime-dependency-installation", *extra)  # fmt: skip
        until(f"SuperLink listens ({self.log})", self.listens, 180)

    def listens(self) -> bool:
        verify = (
            ssl.create_default_context(cafile=self.folder / "keys/ca.crt") if self.tls else True
        )
        scheme = "https" if self.tls else "http"
        try:
            return httpx.get(f"{scheme}://127.0.0.1:{self.port}/health", verify=verify).is_success
        except httpx.HTTPError:
            return False

    def flwr(self, *arguments: str) -> dict[str, Any]:
        """Call ``flwr`` and return its JSON."""
        done = subprocess.run(
            [*self.program("flwr"), *arguments, "--format", "json"],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=180,
        )  # fmt: skip
        assert done.returncode == 0, f"flwr {arguments}: {done.stdout}{done.stderr}"
        found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
        return found

    def run(self, **config: str) -> str:
        """``flwr run .``; return the id of the run."""
        told = " ".join(f'{key.replace("_", "-")}="{value}"' for key, value in config.items())
        return str(self.flwr("run", ".", "here", "--run-config", told)["run-id"])

    def status(self, run_id: str) -> str:
        runs = self.flwr("ls", "here", "--run-id", run_id)["runs"]
        return str(runs[0]["status"])

    def shown(self, run_id: str) -> str:
        """Return what the server has printed: ``flwr log``."""
        done = subprocess.run(
            [*self.program("flwr"), "log", run_id, "here", "--show"],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=180,
        )  # fmt: skip
        return done.stdout + done.stderr

    def finished(self, run_id: str, seconds: float) -> str:
        """Wait for the end of a run; return how it ended."""
        ended = re.compile(rf"Finished task \d+ of run {run_id}\b")
        until(f"run {run_id} ends ({self.log})", lambda: ended.search(self.said()), seconds)
        return self.status(run_id)


class SiteProcess(Machine):
    """A machine with ``flower-supernode``: a site with a key, a folder and a file in it.

    Args:
        folder: where it starts, and where its data lies.
        site: its name in the run.
        server: to which it connects.
        also: what else its ``--node-config`` says.
        kind: a file beside this one, which is started in place of ``flower-supernode``.
    """

    def __init__(
        self, folder: Path, site: str, server: ServerProcess, also: str = "",
        kind: str = "supernode.py",
    ) -> None:  # fmt: skip
        super().__init__(folder, path=server.path, programs=server.programs)
        self.site, self.server, self.also, self.kind = site, server, also, kind
        self.port = free_port()
        if server.tls:
            done = subprocess.run(["bash", "-ec", block("clients/README.md", "key")], cwd=folder,
                                  capture_output=True, text=True, timeout=180)  # fmt: skip
            assert done.returncode == 0, done.stderr

    def register(self, name: str | None = None) -> None:
        """Let the server know the key, under the site's name if no other is given."""
        self.server.flwr("supernode", "register", f"{self.folder}/plant_key.pub", "here",
                         "--name", name or self.site)  # fmt: skip

    def connect(self, *, insecure: bool = False) -> None:
        """Start the supernode."""
        hq = self.server
        secure = ["--root-certificates", f"{hq.folder}/keys/ca.crt",
                  "--auth-supernode-private-key", "plant_key"]  # fmt: skip
        plain = insecure or not hq.tls
        who = f'site="{self.site}" data="{self.folder}" {self.also}'
        self.start(self.kind, *(["--insecure"] if plain else secure),
                   "--superlink", f"127.0.0.1:{hq.port}", "--port", str(self.port),
                   "--node-config", who)  # fmt: skip

    def come_back(self, seconds: float) -> None:
        """Start the supernode again and again, as systemd would, until it is let in.

        Flower refuses the key of a supernode that was killed for as long as it takes the
        old process for alive (see supernode.py).
        """
        greetings = self.said().count("SuperNode ID")

        def let_in() -> bool:
            if self.process is None or self.process.poll() is not None:
                self.stop()
                time.sleep(4)
                self.connect()
            return self.said().count("SuperNode ID") > greetings

        until(f"{self.site} is let in again ({self.log})", let_in, seconds)
