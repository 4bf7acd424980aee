"""A step of a stack, recorded once on a GPU and replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedpdm.errors import ConfigError, FedPdmError

Step = Callable[..., Sequence[Tensor | None]]

_WARM_UPS = 2


class RecordedStep:
    """``step`` with inputs of fixed shapes. Its outputs are overwritten by the next call.

    Args:
        step: tensors to tensors, all on one GPU, without a look at their values.
        inputs: tensors of the shapes to come.
        changed: tensors that ``step`` changes in place, and that recording must not.

    Raises:
        ConfigError: the step cannot be recorded.
    """

    def __init__(self, step: Step, inputs: Sequence[Tensor], changed: Sequence[Tensor]) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        before = [tensor.clone() for tensor in changed]
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UPS):
                    step(*self._inputs)
            torch.cuda.current_stream().wait_stream(aside)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._outputs = list(step(*self._inputs))
        except FedPdmError:
            raise
        except RuntimeError as error:
            raise ConfigError(
                "engine.cuda_graphs=true cannot record this model's training step "
                f"({str(error).splitlines()[0]}): set engine.cuda_graphs=false"
            ) from error
        for tensor, value in zip(changed, before, strict=True):
            tensor.copy_(value)

    def __call__(self, *inputs: Tensor) -> list[Tensor | None]:
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return self._outputs
