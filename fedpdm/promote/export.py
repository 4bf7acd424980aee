"""A model as a file that needs no PyTorch: ONNX, its parity with the original, its latency.

The file takes scaled windows (float32) and gives scores: risks, or remaining life. The network
computes in float32 as in training, and what makes scores of its outputs in float64, as
``Task.scores`` does; so close risks are not rounded to the same number. What comes before
(scaling, missing readings) and after (calibration, thresholds) stays outside, in ``predict.py``.
N windows, T time steps, F features, C outputs, S scores.
"""

from __future__ import annotations

import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedpdm.data.rows import Floats, Floats32
from fedpdm.errors import ConfigError, ModelError
from fedpdm.tasks import Task
from fedpdm.training.objective import outputs

INPUT, OUTPUT = "window", "score"
WARM_UP, CALLS = 20, 300
DRAWN = 64
"""Outputs on which a way of scoring must agree with the task."""
Scorer = Callable[[Tensor, float], Tensor]


def _risks(hazard: Tensor, cap: float) -> Tensor:
    # 1 - exp(x): ONNX has no expm1. In float64 that loses nothing that a risk could show.
    return 1 - torch.exp(torch.cumsum(functional.logsigmoid(-hazard), dim=1))


SCORERS: dict[str, Scorer] = {
    "softmax of class 1": lambda output, cap: torch.softmax(output, dim=1)[:, 1:2],
    "softmax": lambda output, cap: torch.softmax(output, dim=1),
    "hazards": _risks,
    "sigmoid": lambda output, cap: torch.sigmoid(output),
    "unlikeness": lambda output, cap: 1 - torch.exp(-output[:, :1]),
    "capped life": lambda output, cap: output[:, :1].clamp(0.0, 1.0) * cap,
    "outputs": lambda output, cap: output,
}
"""How tasks make (N, S) scores of (N, C) float64 outputs; ``scorer_of`` finds a task's own."""


@dataclass(frozen=True)
class Exported:
    """A model as a file.

    Attributes:
        format: ``onnx``, or ``torch.export`` where ONNX cannot hold the model.
        content: of the file.
        scorer: a key of ``SCORERS``.
        reason: why it is no ONNX file; None if it is one.
        run: from (N, T, F) or (N, F) windows to (N, S) scores, on one thread.
    """

    format: str
    content: bytes
    scorer: str
    reason: str | None
    run: Callable[[Floats32], Floats]

    @property
    def name(self) -> str:
        """Of the file."""
        return "model.onnx" if self.format == "onnx" else "model.pt2"


class Scored(nn.Module):
    """A model followed by what makes scores of its outputs.

    Args:
        model: from windows to (N, C) outputs.
        scorer: a key of ``SCORERS``.
        cap: of remaining lives; any number for other tasks.
    """

    def __init__(self, model: nn.Module, scorer: str, cap: float) -> None:
        super().__init__()
        self.model, self.scorer, self.cap = model, SCORERS[scorer], cap

    def forward(self, window: Tensor) -> Tensor:
        """Return (N, S) float64 scores."""
        return self.scorer(self.model(window).double(), self.cap)


def scorer_of(task: Task) -> str:
    """Return how a task makes scores of outputs: the one way that agrees with ``Task.scores``.

    Raises:
        ModelError: none does.
    """
    drawn = 3 * torch.randn(DRAWN, task.outputs, generator=torch.Generator().manual_seed(0))
    wanted = task.scores(drawn).reshape(DRAWN, -1)
    for name, scorer in SCORERS.items():
        if name == "softmax of class 1" and task.outputs < 2:
            continue
        found = scorer(drawn.double(), task.life_cap or 1.0).numpy()
        if found.shape == wanted.shape and np.allclose(found, wanted, rtol=1e-9, atol=1e-12):
            return name
    raise ModelError(
        f"task={task.name} makes scores in a way that cannot be exported: there are "
        f"{', '.join(SCORERS)}; use one of these in Task.scores, or predict with fedpdm.predict"
    )


def export_model(model: nn.Module, task: Task, window: Floats32) -> Exported:
    """Export a model to ONNX, or with ``torch.export`` where ONNX cannot hold it.

    Args:
        model: in eval mode afterwards.
        task: what its outputs mean.
        window: (T, F) or (F,), one scaled window.

    Raises:
        ConfigError: the packages for ONNX are not installed.
        ModelError: the model cannot be exported at all.
    """
    _require_packages()
    scorer = scorer_of(task)
    whole = Scored(model, scorer, task.life_cap or 1.0).eval()
    example = torch.from_numpy(np.stack([window, window]))  # one would become a constant
    with _quiet():
        try:
            program = torch.export.export(
                whole, (example,), dynamic_shapes=({0: torch.export.Dim("windows")},)
            )
        except Exception as error:
            raise ModelError(
                f"the model cannot be exported, because torch.export cannot trace it: "
                f"{_first_line(error)}; promote another model, or predict with fedpdm.predict"
            ) from error
        try:
            content = _onnx(program)
            return Exported("onnx", content, scorer, None, onnx_runner(content))
        except Exception as error:
            reason = f"ONNX cannot hold this model: {_first_line(error)}"
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    traced = program.module()

    def run(windows: Floats32) -> Floats:
        with torch.no_grad():
            return np.asarray(traced(torch.from_numpy(windows)).numpy())

    return Exported("torch.export", buffer.getvalue(), scorer, reason, run)


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"promote needs a package that is not installed ({error.name}): "
            "pip install 'fedpdm[onnx]'"
        ) from error


def _onnx(program: Any) -> bytes:
    """Return an exported program as the content of an ONNX file."""
    made = torch.onnx.export(
        program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False
    )
    assert made is not None
    proto = made.model_proto
    # The exporter notes where in whose files each node came from: no part of a model.
    for part in (proto.graph, *proto.functions, *proto.graph.node, *proto.graph.value_info):
        del part.metadata_props[:]
    for function in proto.functions:
        for node in function.node:
            del node.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
    return bytes(proto.SerializeToString(deterministic=True))


def onnx_runner(content: bytes) -> Callable[[Floats32], Floats]:
    """Return what runs the content of an ONNX file on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda windows: np.asarray(session.run([OUTPUT], {INPUT: windows})[0])


def parity(exported: Exported, model: nn.Module, task: Task, windows: Floats32) -> float:
    """Return the largest difference between the file's scores and the model's own.

    Lives are measured in units of the cap, so that one bound fits risks and lives.

    Args:
        exported: the file.
        model: the original.
        task: makes scores of its outputs.
        windows: (N, T, F) or (N, F), N > 0.
    """
    wanted = task.scores(outputs(model, torch.from_numpy(windows))).reshape(len(windows), -1)
    found = np.concatenate(
        [exported.run(windows[i : i + 1024]) for i in range(0, len(windows), 1024)]
    )
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - wanted).max()) / (task.life_cap or 1.0)


def latency(exported: Exported, window: Floats32) -> float:
    """Return the median time of one window on one thread, in milliseconds.

    Args:
        exported: the file.
        window: (T, F) or (F,).
    """
    one = window[None]
    seconds = []
    for _ in range(WARM_UP + CALLS):
        begun = time.perf_counter()
        exported.run(one)
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds[WARM_UP:])) * 1000


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says of its own parts."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
