"""The model as server and client see it: named tensors in, named tensors out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpdm.errors import ModelError
from fedpdm.storage import cut


class ModelWrapper:
    """An ``nn.Module`` whose parameters and buffers travel by name.

    Everything else (``forward``, ``train``, ``to``, ``state_dict`` …) is the module's own; where it
    would return the module, it returns the wrapper.

    Attributes:
        module: The wrapped module.
        model_type: Its registered name, or None for a module wrapped by hand.
        config: What ``ModelFactory.create_model`` was called with, enough to build it again.
    """

    def __init__(
        self,
        module: nn.Module,
        model_type: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.module = module
        self.model_type = model_type
        self.config: dict[str, Any] = dict(config or {})

    def __getattr__(self, name: str) -> Any:
        # Special names are Python asking how to copy or pickle the wrapper itself; and while
        # it is being rebuilt there is no module yet, so asking for it would recurse for ever.
        if "module" not in self.__dict__ or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        found = getattr(self.module, name)
        return self._fluent(found) if inspect.ismethod(found) else found

    def __repr__(self) -> str:
        return f"ModelWrapper({self.model_type or type(self.module).__name__}, {self.config})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of all parameters, in the module's order."""
        return tuple(name for name, _ in self.module.named_parameters())

    @property
    def buffer_names(self) -> tuple[str, ...]:
        """Names of the buffers that belong to the state (BatchNorm's running statistics)."""
        parameters = dict(self.module.named_parameters(remove_duplicate=False))
        return tuple(name for name in self._state() if name not in parameters)

    @property
    def num_parameters(self) -> int:
        """Number of parameter values, buffers not counted."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def parameter_norm(self) -> float:
        """Return the Euclidean norm of all parameters, in float64 (inf or NaN if they are)."""
        squares = [p.detach().double().square().sum() for p in self.module.parameters()]
        return float(torch.stack(squares).sum().sqrt()) if squares else 0.0

    def get_parameters(self) -> dict[str, Tensor]:
        """Return copies of all parameters and buffers by name: same dtype, no gradient."""
        return {name: tensor.detach().clone() for name, tensor in self._state().items()}

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Return what ``get_parameters`` does as arrays; those of one dtype share one block."""
        state = {name: tensor.detach() for name, tensor in self._state().items()}
        arrays: dict[str, NDArray[Any]] = {}
        for dtype in {tensor.dtype for tensor in state.values()}:
            group = {name: tensor for name, tensor in state.items() if tensor.dtype == dtype}
            block = torch.cat([tensor.reshape(-1) for tensor in group.values()]).cpu().numpy()
            arrays |= cut(block, {name: tensor.shape for name, tensor in group.items()})
        return {name: arrays[name] for name in state}

    def set_parameters(self, parameters: Mapping[str, Tensor | NDArray[Any]]) -> None:
        """Copy tensors of the given names into the module, all of them or none.

        Floating values are cast to the module's dtype; its parameters stay the same objects,
        so an optimizer keeps hold of them.

        Raises:
            ModelError: a name is missing or unknown, a shape differs, or real numbers are
                offered for whole ones.
        """
        state = self._state()
        self.check_names(parameters)
        # An array is copied first: torch warns about memory that it may not write to.
        offered = {
            name: value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
            for name, value in parameters.items()
        }
        for name, tensor in state.items():
            new = offered[name]
            if new.shape != tensor.shape:
                raise ModelError(
                    f"{self._title()}: {name} has shape {tuple(tensor.shape)} "
                    f"and was given {tuple(new.shape)}: was the model built with other settings?"
                )
            if new.is_floating_point() != tensor.is_floating_point():
                raise ModelError(
                    f"{self._title()}: {name} holds {tensor.dtype} and was given {new.dtype}"
                )
        with torch.no_grad():
            torch._foreach_copy_(list(state.values()), [offered[name] for name in state])

    def _fluent(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``method`` of the module, giving the wrapper where it gives the module."""

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            return self if result is self.module else result

        return call

    def _state(self) -> dict[str, Tensor]:
        state = self.module.state_dict(keep_vars=True)
        return {name: value for name, value in state.items() if isinstance(value, Tensor)}

    def check_names(self, offered: Iterable[str]) -> None:
        """Refuse names that are not exactly those of the parameters and buffers.

        Raises:
            ModelError: names what is missing and what is unknown.
        """
        given, own = set(offered), list(self._state())
        missing = [name for name in own if name not in given]
        unknown = sorted(given - set(own))
        parts = [
            f"{kind}: {', '.join(names)}"
            for kind, names in (("missing", missing), ("unknown", unknown))
            if names
        ]
        if parts:
            raise ModelError(
                f"{self._title()}: these tensors belong to another model ({'; '.join(parts)})"
            )

    def _title(self) -> str:
        return f"model={self.model_type}" if self.model_type else type(self.module).__name__
