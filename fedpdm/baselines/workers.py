"""Runs baselines in processes of their own, while the federation trains.

They share nothing with it but the data, so they may run while it trains. Children are
forked, which costs no second import of torch; they write their scores to the run folder,
so a resumed run does not repeat what was finished. Where there is no fork (or a GPU is
in use, which does not survive one) the work is done in this process afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from fedpdm.baselines.inputs import BaselineInputs
from fedpdm.baselines.registry import BASELINES, Piece, left_out, pieces, work
from fedpdm.data.rows import Floats
from fedpdm.errors import HistoryError
from fedpdm.storage import read_tensors, write_tensors

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


class BaselineWorkers:
    """Starts the baselines, and hands over their scores when they are asked for.

    Args:
        inputs: what baselines need.
        folder: the run folder; finished parts go to ``baselines/`` in it.
        processes: how many children; 0 does everything in this process.
        in_child: called first in each child, for example to let go of the run's lock.
        free: cores that rounds leave; further children wait until ``release``.
    """

    def __init__(
        self, inputs: BaselineInputs, folder: Path, processes: int, in_child: Callable[[], None],
        free: int = 1,
    ) -> None:  # fmt: skip
        self._inputs = inputs
        self._folder = folder / "baselines"
        self.left_out = left_out(inputs)
        """Baselines that cannot be had here, and why."""
        todo = pieces(inputs)
        count = max(1, min(processes, len(todo)))
        self._shares: list[list[Piece]] = [[] for _ in range(count)]
        loads = [0.0] * count
        for piece in todo:  # longest first, to whoever has least
            lightest = loads.index(min(loads))
            self._shares[lightest].append(piece)
            loads[lightest] += BASELINES[piece.baseline].cost(inputs)
        can_fork = hasattr(os, "fork") and inputs.device.type == "cpu" and processes > 0
        self._free = free
        self._gate: tuple[int, ...] = os.pipe() if can_fork else ()
        self._children: dict[int, int] = {}
        for number, share in enumerate(self._shares):
            if can_fork and not self._path(number).exists():
                self._children[number] = self._fork(number, share, in_child)

    def scores(self) -> dict[str, Floats]:
        """Wait for the children and return all scores, by ``baseline/site/SPLIT``."""
        self.release()
        result: dict[str, Floats] = {}
        for number, share in enumerate(self._shares):
            if number in self._children:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(self._children.pop(number), 0)
            try:
                result |= read_tensors(self._path(number))
            except HistoryError:
                # A child that failed: do its share here, where its error can be seen.
                result |= self._write(number, share)
        return result

    def release(self, round_num: int = 0) -> None:
        """Let children begin that wait: the first round is there, or there is none to wait for."""
        if self._gate and self._free < len(self._shares):
            os.write(self._gate[1], bytes(len(self._shares)))
            self._free = len(self._shares)

    def stop(self) -> None:
        """End children that still run, for example after an error."""
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        self._children.clear()
        for end in self._gate:
            os.close(end)
        self._gate = ()

    def _path(self, number: int) -> Path:
        # Another version may have other baselines, or share them out in another way.
        share = hashlib.sha256(repr(self._shares[number]).encode()).hexdigest()[:8]
        name = f"{self._inputs.pooled.rounds}-rounds-part-{number + 1}-{share}"
        return self._folder / f"{name}.safetensors"

    def _write(self, number: int, share: list[Piece]) -> dict[str, Floats]:
        scores = work(self._inputs, share)
        self._folder.mkdir(exist_ok=True)
        write_tensors(self._path(number), scores)
        return scores

    def _fork(self, number: int, share: list[Piece], in_child: Callable[[], None]) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
            if os.getppid() == parent:
                in_child()
                if number >= self._free:
                    os.read(self._gate[0], 1)  # until the first round is there
                torch.set_num_threads(1)
                with open(os.devnull, "w") as nowhere:
                    os.dup2(nowhere.fileno(), 1)
                    os.dup2(nowhere.fileno(), 2)
                self._write(number, share)
                code = 0
        finally:
            # No clean-up of the parent's: its buffers, its threads and its files are not ours.
            os._exit(code)
