"""One training step of a stack: losses and gradients of every site at once.

Shapes: K sites, B rows.
"""

from __future__ import annotations

import contextlib
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from fedpdm.engines.stacked.layers import Now, stacked_copy
from fedpdm.errors import ConfigError, FedPdmError
from fedpdm.training.freezing import Freezing
from fedpdm.training.objective import LocalContext, Objective


class StackedStep:
    """A model and its loss, evaluated for K sites with weights of their own.

    Attributes:
        names: parameters and buffers that travel, in the order of ``state_dict``; a
            parameter that has two names is there once.
        trainable: those of them with a gradient, in the order of ``module.parameters()``.
        aliases: further names of shared parameters, to the name they are kept under.
    """

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        device: torch.device,
        *,
        compile: bool = False,
    ) -> None:
        self._now = Now()
        self._objective, self._row_losses = objective, objective.row_losses
        self.context = LocalContext()
        self._title = module
        self._stacked = stacked_copy(module, self._now).to(device).train()
        parameters = dict(self._stacked.named_parameters())
        self.trainable = [name for name, p in parameters.items() if p.requires_grad]
        self._find_places()
        # By the number of tensors that tell padding from rows.
        self._sites: dict[int, Any] = {
            extra: vmap(self._site, in_dims=(0, 0, 0, 0, None, *[0] * extra)) for extra in (0, 2)
        }
        if compile:
            for extra, work in self._sites.items():
                self._sites[extra] = torch.compile(work, dynamic=False)
        self._padding_checked = False
        self._frozen: frozenset[str] = frozenset()

    def freeze(self, freezing: Freezing | None) -> None:
        """Freeze an encoder for the steps to come, or nothing."""
        self._frozen = frozenset() if freezing is None else freezing.names
        self._stacked.train()
        if freezing is not None:
            freezing.quiet(self._stacked)

    def _find_places(self) -> None:
        """Find where each tensor sits in the modules, to put sites' tensors there."""
        known: dict[int, str] = {}
        self.aliases: dict[str, str] = {}
        self._places: dict[str, list[tuple[dict[str, Any], str]]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        wanted = set(self._stacked.state_dict())
        for prefix, part in self._stacked.named_modules(remove_duplicate=False):
            for box in (part._parameters, part._buffers):
                for key, tensor in box.items():
                    name = f"{prefix}.{key}" if prefix else key
                    if tensor is None or name not in wanted:
                        continue
                    first = known.setdefault(id(tensor), name)
                    if first != name:
                        self.aliases[name] = first
                    self._places.setdefault(first, []).append((box, key))
                    self.dtypes[first] = tensor.dtype
        self.names = list(self._places)
        self._originals = [
            (box, key, box[key]) for places in self._places.values() for box, key in places
        ]

    def gradients(self, stack: Mapping[str, Tensor], *batch: Tensor) -> list[Tensor | None]:
        """Return losses and gradients; running statistics in ``stack`` change in place.

        Args:
            stack: at least K rows of each tensor in ``names``; the first K are used.
            *batch: (K, B, …) inputs, (K, B, …) targets, (K,) int64 keys for dropout, () int64
                steps made before and, where rows are padded, (K,) rows that are no padding.

        Returns:
            (K,) mean losses, then (K, …) of each trainable, None for one not in use or frozen.
        """
        count = len(batch[0])
        with stackable(self._title):
            tensors = {name: stack[name][:count].detach() for name in self.names}
            live = [name for name in self.trainable if name not in self._frozen]
            leaves = [tensors[name].requires_grad_() for name in live]
            loss = self.losses(list(tensors.values()), *batch)
            gradients = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
        found = dict(zip(live, apart(gradients), strict=True))
        return [loss.detach(), *(found.get(name) for name in self.trainable)]

    def losses(self, tensors: Sequence[Tensor], *batch: Tensor) -> Tensor:
        """Return (K,) mean losses.

        Args:
            tensors: (K, …) of each tensor in ``names``.
            *batch: as ``gradients`` takes it.
        """
        x, y, keys, step, *sizes = batch
        padding = [torch.arange(x.shape[1], device=x.device) < n.unsqueeze(1) for n in sizes]
        padding += sizes
        try:
            found: Tensor = self._sites[len(padding)](tuple(tensors), x, y, keys, step, *padding)
            if self._row_losses is None:
                return found
            each = self._row_losses(found.flatten(0, 1), y.flatten(0, 1)).view(y.shape[:2])
        finally:
            for box, key, tensor in self._originals:
                box[key] = tensor
        if not padding:
            return each.mean(1)
        real, count = padding
        return torch.where(real, each, 0.0).sum(1) / count

    def check_padding(self, stack: Mapping[str, Tensor], x: Tensor, y: Tensor) -> None:
        """Make sure, once, that padded rows have no part in a site's loss.

        Args:
            stack: tensors of at least one site; not changed.
            x: (B, …) a site's inputs, B > 1.
            y: (B, …) its targets.

        Raises:
            ConfigError: the model couples rows other than by batch norm, or the loss is not
                a mean over rows.
        """
        if self._padding_checked:
            return
        self._padding_checked = True
        count = min(len(x), 8)
        size = torch.tensor([count], device=x.device)
        zero = torch.zeros((), dtype=torch.int64, device=x.device)

        def loss(rows: list[int], *real: Tensor) -> Tensor:
            tensors = [stack[name][:1].detach().clone() for name in self.names]
            index = torch.tensor(rows, device=x.device)
            batch = x[index].unsqueeze(0), y[index].unsqueeze(0)
            with stackable(self._title):
                return self.losses(tensors, *batch, zero.view(1), zero, *real)

        rows = list(range(count))
        plain = loss(rows)
        # One choice of padding may leave the mean loss as it is by chance; not each of them.
        for padding in rows:
            padded = loss([*rows, padding, padding, padding], size)
            if torch.allclose(plain, padded, rtol=1e-3, atol=1e-5, equal_nan=True):
                continue
            raise ConfigError(
                "engine=batched pads sites of unequal size, and in "
                f"{type(self._title).__name__} or its loss padding changes the loss from "
                f"{plain.item():.6g} to {padded.item():.6g} (rows see each other, or the "
                "loss is no mean over rows): use engine=serial"
            )

    def _site(
        self, tensors: Sequence[Tensor], x: Tensor, y: Tensor, key: Tensor, step: Tensor,
        *padding: Tensor,
    ) -> Any:  # fmt: skip
        """Return one site's mean loss over rows that are no padding, as ``vmap`` sees it.

        Where the loss of each row is known, return its outputs: losses are then computed for
        the rows of all sites at once.
        """
        now = self._now
        now.key, now.step, now.drawn = key, step, 0
        now.rows, now.count = padding or (None, None)
        for tensor, places in zip(tensors, self._places.values(), strict=True):
            for box, name in places:
                box[name] = tensor
        if self._row_losses is not None:
            return self._stacked(x)
        if not padding:
            return self._objective.loss(self._stacked, x, y, self.context)
        rows, count = padding
        each = self._objective.losses(self._stacked, x, y, self.context)
        return torch.where(rows, each, 0.0).sum() / count


def apart(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return gradients that may be changed in place: two parameters may share one tensor.

    They are contiguous: a fused optimizer takes values in the order of memory.
    """
    seen: set[int] = set()
    result: list[Tensor | None] = []
    for gradient in gradients:
        if gradient is not None:
            whole = gradient.contiguous()
            gradient = whole.clone() if whole.data_ptr() in seen else whole
            seen.add(gradient.data_ptr())
        result.append(gradient)
    return result


def clip(gradients: Sequence[Tensor], limit: float) -> None:
    """Scale each site's (K, …) gradients to a norm of at most ``limit``, as torch does."""
    if not gradients:
        return
    norms = torch.stack(
        [torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for g in gradients], dim=1
    )
    factor = (limit / (torch.linalg.vector_norm(norms, dim=1) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *[1] * (gradient.ndim - 1)))


_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)
_FALLBACK = "There is a performance drop because we have not yet implemented"


@contextlib.contextmanager
def stackable(module: nn.Module) -> Iterator[None]:
    """Turn what ``vmap`` refuses, or does site by site, into an error.

    Raises:
        ConfigError: names the operation and the model's class; memory that ran out.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=_FALLBACK)
        try:
            yield
        except FedPdmError:
            raise
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                "engine=batched ran out of the device's memory: set engine.chunk to fewer sites"
            ) from error
        except (RuntimeError, NotImplementedError, UserWarning, AttributeError) as error:
            raise ConfigError(
                f"engine=batched cannot train {type(module).__name__} as a stack of sites, "
                f"because of {_operation(error)}: use engine=serial"
            ) from error


def _operation(error: BaseException) -> str:
    """Return the operation that failed, the model's line that asked for it, and why."""
    text = str(error).strip()
    name = re.search(r"aten::\w+(\.\w+)?", text) or re.search(r"\.item\(\)", text)
    why = text.splitlines()[0].split(". ")[0] if text else type(error).__name__
    lines = [
        f"`{frame.line}`"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.line and not frame.filename.startswith((_TORCH, _HERE))
    ]
    parts = [name.group(0)] if name else []
    return " ".join([*parts, *(["in", lines[-1]] if lines else []), f"({why})"])
