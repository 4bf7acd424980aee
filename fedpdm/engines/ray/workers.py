"""The pool of the ray engine's workers: started, replaced when they die, and ended.

``ray`` is imported here alone, and only when workers are started.
"""

from __future__ import annotations

import atexit
import importlib.util
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.clientapp import ClientApp

from fedpdm.config.imports import imported
from fedpdm.engines.hardware import cores
from fedpdm.errors import ConfigError, SiteError

START_SECONDS = 120.0
"""So long may workers take to start, imports included."""

GRACE_SECONDS = 1.0
"""A worker that is late at the end of a round is given so long before it is replaced."""

BASE = sys.base_prefix + "/lib"

ONE_AT_A_TIME = threading.Lock()
"""A process has one Ray: who comes second joins it."""


QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_enable_metrics_collection": "0",
}
"""No telemetry, no hints about the next Ray, on the user's screen."""


@dataclass
class Seat:
    """One worker's place. ``generation`` counts its workers; ``lost``: none can start again."""

    actor: Any = None
    hello: Any = None
    pid: int | None = None
    generation: int = 0
    lost: bool = False
    late: list[Any] = field(default_factory=list)


class Workers:
    """Long-lived workers in a Ray of their own, or in an existing cluster.

    They start in the background. ``ready`` waits for them.

    Args:
        app: goes to every worker, once.
        sites: how many sites there are.
        workers: how many processes; None is one per core, at most one per site.
        gpus: share of a GPU that each worker gets, 0 to 1.
        address: HOST:PORT of an existing cluster, or "auto"; None starts a private Ray.
        stacks: how workers train sites as stacks; None if one by one.

    Raises:
        ConfigError: Ray is not installed, or the settings cannot work.
    """

    def __init__(
        self,
        app: ClientApp,
        sites: int,
        workers: int | None,
        gpus: float,
        address: str | None,
        stacks: dict[str, Any] | None = None,
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConfigError(
                "engine=ray needs Ray, which is not installed: pip install 'flwr[simulation]', or "
                "use engine=serial"
            )
        self._app, self._sites, self._gpus, self._address = app, sites, gpus, address
        self._wanted, self._stacks = workers, stacks
        self.seats: list[Seat] = []
        self._signal = False
        self._failure: BaseException | None = None
        self._folder: str | None = None
        self._started, self._closing = threading.Event(), threading.Event()
        # Ray's processes die with the thread that starts them (PR_SET_PDEATHSIG), even after
        # kill -9 of this process; so this thread lives as long as they shall.
        self._thread = threading.Thread(target=self._live, name="ray-workers", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    # Life -------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            with ONE_AT_A_TIME:
                self._start()
        except BaseException as error:
            self._failure = error
        self._started.set()
        self._closing.wait()
        self._end()

    def _start(self) -> None:
        os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
        if self._address is None:
            # After kill -9 of this process Ray's agents look for its database so long, not 60 s.
            os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "8")
        import ray

        logging.getLogger("ray").setLevel(logging.CRITICAL)  # what matters we say ourselves
        self.ray: Any = ray
        self._private = self._joined = False
        quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        count = self._wanted or min(cores(), self._sites)
        if ray.is_initialized():
            pass  # Ray was started elsewhere in this process and is not ours to end
        elif self._address is None:
            self._private = True
            base = "/tmp" if os.path.isdir("/tmp") else None  # a socket's path must be short
            self._folder = tempfile.mkdtemp(prefix="fedpdm-", dir=base)
            # Ray puts one place after another in front, which turns their order round.
            path = own_path()[::-1]
            ray.init(
                "local", num_cpus=count, num_gpus=None if self._gpus else 0,
                include_dashboard=False, _temp_dir=self._folder,
                job_config=ray.job_config.JobConfig(_py_driver_sys_path=path), **quiet,
            )  # fmt: skip
        else:
            reachable(self._address)
            self._joined = True
            ray.init(self._address, **quiet)
            if self._wanted is None:
                there = int(self.ray.cluster_resources().get("CPU", 1))
                count = max(1, min(there, self._sites))
        if self._private or self._joined:
            # No option keeps Ray from printing a paragraph when a worker dies.
            ray._private.worker.print_to_stdstream = lambda *_, **__: None
        have = self.ray.cluster_resources().get("GPU", 0)
        if self._gpus and have < count * self._gpus:
            raise ConfigError(
                f"engine.workers={count} with engine.num_gpus_per_worker={self._gpus:g} need "
                f"{count * self._gpus:g} GPUs, there are {have:g}; lower one of them"
            )
        from fedpdm.engines.ray.worker import Worker

        self._worker = ray.remote(num_cpus=1, num_gpus=self._gpus, max_restarts=0)(Worker)
        self._shipped = ray.put(self._app)
        self.seats = [Seat() for _ in range(count)]
        for seat in self.seats:
            self._fill(seat)

    def _fill(self, seat: Seat) -> None:
        # In a list Ray hands over a reference as it is: the app is unpickled after the imports.
        seat.actor = self._worker.remote(
            own_path(), imported(), [self._shipped], self._sites, self._gpus, self._stacks
        )
        seat.hello = seat.actor.hello.remote()
        seat.pid, seat.late = None, []
        seat.generation += 1

    def ready(self) -> None:
        """Wait until every worker can take work; replace those that are stuck or dead.

        Raises:
            ConfigError: Ray or its workers cannot start; says why.
        """
        if not self._started.wait(START_SECONDS):
            raise ConfigError(
                f"engine=ray: Ray did not start within {START_SECONDS:.0f} s"
                + (
                    f"; is a Ray cluster at engine.address={self._address}?"
                    if self._address
                    else ""
                )
            )
        self._end_on_sigterm()
        if isinstance(self._failure, ConfigError):
            raise self._failure
        if self._failure is not None:
            first = str(self._failure).strip().splitlines() or [type(self._failure).__name__]
            raise ConfigError(f"engine=ray: Ray did not start: {first[0]}") from self._failure
        if self._closing.is_set():
            raise ConfigError("engine=ray: this grid is closed")
        for seat in self.seats:
            if (
                seat.late
                and self.ray.wait(
                    seat.late, num_returns=len(seat.late), timeout=GRACE_SECONDS, fetch_local=False
                )[1]
            ):
                self.refill(seat)
            seat.late = []
        for seat in self.seats:
            if seat.pid is None and not seat.lost:
                self.greet(seat)

    def _end_on_sigterm(self) -> None:
        """Let SIGTERM end this process by way of ``close``; Ray would print a stack trace."""
        main = threading.current_thread() is threading.main_thread()
        if main and not self._signal and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            self._signal = True
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

    def greet(self, seat: Seat) -> None:
        """Wait until a worker is there.

        Raises:
            ConfigError: it cannot start, or there is no room for it.
        """
        errors = self.ray.exceptions
        try:
            seat.pid = int(self.ray.get(seat.hello, timeout=START_SECONDS))
        except errors.GetTimeoutError:
            need = f"{len(self.seats)} workers of one CPU"
            need += f" and {self._gpus:g} GPU each" if self._gpus else " each"
            raise ConfigError(
                f"engine=ray: no room for {need} after {START_SECONDS:.0f} s; lower engine.workers"
            ) from None
        except (errors.RayActorError, errors.RayTaskError) as error:
            raise ConfigError(
                f"engine=ray: a worker could not start: {cause(error)}; every machine of the "
                "cluster needs the same fedpdm and what it depends on"
            ) from error

    def refill(self, seat: Seat) -> bool:
        """Put a new process in the place of one that is dead or stuck.

        Returns:
            Whether there is room for it: not if its machine has left the cluster. The others go on.

        Raises:
            ConfigError: the new process cannot start.
            SiteError: no worker is left.
        """
        self.ray.kill(seat.actor)
        there = self.ray.cluster_resources()
        count = sum(not each.lost for each in self.seats)
        if there.get("CPU", 0) >= count and there.get("GPU", 0) >= count * self._gpus:
            self._fill(seat)
            self.greet(seat)
            return True
        if count == 1:
            raise SiteError(
                "engine=ray: the machines of all workers have left the cluster; when others are "
                "there, continue with resume=…, with engine.workers=… if they are fewer"
            )
        seat.lost, seat.late = True, []
        return False

    def close(self) -> None:
        """End every process that was started. May be called again."""
        atexit.unregister(self.close)
        self._closing.set()
        self._thread.join()
        if self._signal and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._signal = False

    def _end(self) -> None:
        if not hasattr(self, "ray"):
            return
        if self._private or self._joined:
            self.ray.shutdown()  # ends our actors in a cluster, too
        elif self.ray.is_initialized():
            for seat in self.seats:
                self.ray.kill(seat.actor)
        self.seats = []
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def own_path() -> list[str]:
    """Return where this process finds modules beside its Python's own, for its workers."""
    return [str(Path(p).resolve()) for p in sys.path if not p.startswith((sys.prefix, BASE))]


def reachable(address: str) -> None:
    """Say at once that no server listens there; Ray itself would try for a minute.

    Raises:
        ConfigError: the address is not one of a cluster, or nothing answers.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise ConfigError(f"engine.address={address} must be HOST:PORT or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise ConfigError(
            f"engine.address={address}: no Ray cluster answers there ({error}); start one with "
            "ray start --head, or leave engine.address out"
        ) from error


def cause(error: BaseException) -> str:
    """Return the line of Ray's long report that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
