"""Kill a run at random moments, resume it, and compare with one that was left alone.

    python -m tests.kills 20 /some/empty/folder [OVERRIDE …]

A program of its own, so that torch is imported once and forked before it has threads.
Prints one JSON line: the kills, the rounds they hit, and whether all that the last round keeps
agreed. Overrides take the place of the strategy.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch

ROUNDS = 6
OVERRIDES = (
    "site=detroit,houston", f"rounds={ROUNDS}", "model=mlp", "seed=3", "data.days=150",
    "data.step_hours=24", "data.window=8", "baselines.max_plants=0", "evaluate.bootstrap=0",
    "sites.detroit.machines=8", "sites.houston.machines=8",
)  # fmt: skip
STRATEGY = (
    "~strategy.fraction_train",
    # A wrapper that draws noise, around a strategy with moments: all must come back.
    "strategy._target_=flwr.serverapp.strategy.DifferentialPrivacyServerSideFixedClipping",
    "+strategy.noise_multiplier=0.01", "+strategy.clipping_norm=1.0",
    "+strategy.num_sampled_clients=2",
    "+strategy.strategy={_target_:flwr.serverapp.strategy.FedAdam,eta:0.01}",
)  # fmt: skip


def start(folder: Path, resumed: bool) -> int:
    """Fork a child that runs or resumes, and return its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        from omegaconf import OmegaConf

        from fedpdm.simulate import simulate

        cfg = OmegaConf.load(folder / "config.yaml") if resumed else composed()
        simulate(cfg, folder, resumed=resumed)  # type: ignore[arg-type]
        code = 0
    finally:
        os._exit(code)


@cache
def composed() -> Any:
    """Return the config of every run; made once, before the first fork."""
    from fedpdm.config.compose import compose

    return compose([*OVERRIDES, *(sys.argv[3:] or STRATEGY)])


def wait_for(child: int, file: Path) -> None:
    """Wait until a child has written a file of its run."""
    how = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while not file.exists():
        assert os.waitid(os.P_PID, child, how) is None, f"a run ended without {file.name}"
        time.sleep(0.001)


def finish(child: int) -> None:
    """Wait for a child that must succeed."""
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, f"a run failed: {status}"


def weights(folder: Path) -> dict[str, bytes]:
    """Return the last round's tensors, and what its sites remember, as bytes."""
    from fedpdm.history import History

    with History.open(folder) as history:
        models = {"": history.weights(), **history.models()}
        found = {f"{m}/{n}": a.tobytes() for m, model in models.items() for n, a in model.items()}
        return found | dict(history.client_states())


def killed_once(folder: Path, file: str, delay: float) -> int | None:
    """Run, kill -9 ``delay`` seconds after a file is there, resume to the end.

    Returns the last round that was finished at the kill, or None if the run was faster.
    """
    from fedpdm.history import History

    child = start(folder, resumed=False)
    wait_for(child, folder / file)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) == 0:
        return None
    reached = -1
    if (folder / "history.sqlite").exists():
        try:
            with History.open(folder) as history:
                head = history.head()
                reached = -1 if head is None else head.round
        except Exception:
            reached = -1
    finish(start(folder, resumed=True))
    return reached


def main(kills: int, base: Path) -> None:
    torch.set_num_threads(1)
    # What a run imports late is imported once here, and not in every child.
    import jinja2  # noqa: F401
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401
    import pandas  # noqa: F401
    import safetensors.numpy  # noqa: F401
    import sklearn.ensemble
    import sklearn.metrics  # noqa: F401

    import fedpdm.report.report
    import fedpdm.runs.run  # noqa: F401

    composed()
    whole = base / "whole"
    child = start(whole, resumed=False)
    wait_for(child, whole / "manifest.json")
    begun = time.perf_counter()
    finish(child)
    length = time.perf_counter() - begun
    expected = weights(whole)
    chance = random.Random(11)
    reached: list[int] = []
    differing: list[int] = []
    tried = 0
    while len(reached) < kills and tried < 4 * kills:
        tried += 1
        folder = base / f"killed-{tried}"
        written = [f"rounds/{number:06d}.safetensors" for number in range(ROUNDS + 1)]
        file = chance.choice(["manifest.json", *written])
        at = killed_once(folder, file, chance.uniform(0.0, length / len(written)))
        if at is None:
            continue
        reached.append(at)
        if weights(folder) != expected:
            differing.append(tried)
    print(json.dumps({"kills": len(reached), "after_round": reached, "differing": differing}))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
