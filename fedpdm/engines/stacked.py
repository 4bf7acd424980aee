"""Many plants trained as one stacked model: the kernel of ``engine=batched``.

K plants that share an architecture become one model whose tensors have a first dimension
K (Bradbury et al. 2018, JAX ``vmap``; He & Zou, functorch, 2021): one large operation in
place of K small ones. Forward passes run under ``torch.func.vmap``; because no plant's loss
depends on another's weights, one backward pass of the summed losses gives every plant its
own gradient. Imports torch and numpy only. Shapes: K plants, B rows, C outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fedpdm.engines.stacked_errors import stackable
from fedpdm.engines.stacked_layers import Now, stacked_copy
from fedpdm.engines.stacked_schedule import PlantData, Schedule, schedule
from fedpdm.errors import ConfigError
from fedpdm.keys import key_seed
from fedpdm.optimizers import OPTIMIZERS, Optimizer
from fedpdm.training import GradientTerm, LossFunction, TrainingSettings

__all__ = ["PlantData", "StackedTrainer", "Trained"]

Named = dict[str, Tensor]


@dataclass(frozen=True)
class Trained:
    """What a plant comes home with.

    Attributes:
        name: the plant.
        weights: all parameters and buffers; views into the arrays of its chunk.
        train_loss: mean loss over its last epoch, without the strategy's terms.
    """

    name: str
    weights: dict[str, NDArray[Any]]
    train_loss: float


class StackedTrainer:
    """Trains plants as ``training.fit`` does, many at a time.

    Args:
        module: the architecture; its own weights do not matter and stay as they are.
        loss: (outputs, targets) to mean loss. With unequal plants it must be a mean over rows.
        settings: optimizer, batches, learning rate.
        seed: the run's seed.
        device: where to train.
        chunk: plants in one stack, which bounds memory; None for as many as are fast.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: LossFunction,
        settings: TrainingSettings,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        chunk: int | None = None,
    ) -> None:
        if chunk is not None and chunk < 1:
            raise ConfigError(f"engine.chunk={chunk} must be at least 1, or null")
        self.module, self.loss, self.settings = module, loss, settings
        self.seed, self.device, self.chunk = seed, torch.device(device), chunk
        self._now = Now()
        self._stacked = stacked_copy(module, self._now).to(self.device).train()
        self._trainable = [n for n, p in self._stacked.named_parameters() if p.requires_grad]
        self._state = list(module.state_dict())
        buffers = dict(module.named_buffers())
        self._buffers = [name for name in self._state if name in buffers]

    def train(
        self,
        received: Mapping[str, Tensor],
        plants: Sequence[PlantData],
        *,
        epochs: int,
        first_epoch: int = 0,
        terms: Sequence[GradientTerm] = (),
    ) -> Iterator[Trained]:
        """Train every plant from ``received`` and yield them in the order given.

        Args:
            received: all parameters and buffers by name; not changed.
            plants: data on the trainer's device; numbers of rows may differ.
            epochs: passes over the data.
            first_epoch: global number of the first pass, for the learning rate.
            terms: strategy terms, added to the gradient (before clipping).

        Raises:
            ConfigError: the model or the loss cannot be stacked.
        """
        chunk = self.chunk or len(plants) or 1
        for begin in range(0, len(plants), chunk):
            yield from self._train(
                received, plants[begin : begin + chunk], epochs, first_epoch, terms
            )

    def _train(
        self,
        received: Mapping[str, Tensor],
        plants: Sequence[PlantData],
        epochs: int,
        first_epoch: int,
        terms: Sequence[GradientTerm],
    ) -> Iterator[Trained]:
        plan = schedule(plants, self.settings, seed=self.seed, epochs=epochs)
        x, y = (torch.cat([getattr(plant, part) for plant in plants]) for part in "xy")
        rows = plan.rows.to(self.device)
        keys = torch.tensor(
            [key_seed(self.seed, "dropout", *plants[i].key) for i in plan.order.tolist()],
            device=self.device,
        )
        stack = {
            name: received[name].to(self.device).expand(len(plants), *received[name].shape).clone()
            for name in self._state
        }
        losses = np.zeros(plan.sizes.shape)
        found: list[tuple[int, Tensor]] = []
        optimizers: dict[tuple[int, int], tuple[list[Tensor], Optimizer]] = {}
        for run in plan.runs:
            mine = [stack[name][run[0] : run[1]].detach() for name in self._trainable]
            optimizers[run] = (
                mine,
                OPTIMIZERS[self.settings.optimizer](mine, self.settings.weight_decay),
            )
        reference = [received[name].to(self.device) for name in self._trainable] if terms else []
        for step in range(len(plan.sizes)):
            active = plan.active(step)
            sizes = plan.sizes[step, :active]
            width = int(sizes.max())
            index = rows[step, :active, :width].reshape(-1)
            batch = x[index].unflatten(0, (active, width)), y[index].unflatten(0, (active, width))
            leaves = [stack[name][:active].detach().requires_grad_() for name in self._trainable]
            real = None if (sizes == width).all() else torch.from_numpy(sizes).to(self.device)
            loss, gradients = self._gradients(leaves, stack, batch, keys[:active], step, real)
            found.append((active, loss))
            for leaf, gradient in zip(leaves, _apart(gradients), strict=True):
                leaf.grad = gradient
            for term in terms:
                term(leaves, reference)
            if self.settings.clip_norm is not None:
                _clip([g for p in leaves if (g := p.grad) is not None], self.settings.clip_norm)
            for run, (mine, optimizer) in optimizers.items():
                if run[1] <= active:
                    for part, leaf in zip(mine, leaves, strict=True):
                        part.grad = None if leaf.grad is None else leaf.grad[run[0] : run[1]]
                    optimizer.step(plan.rate(self.settings, run, step, first_epoch))
        for step, (active, loss) in enumerate(found):
            losses[step, :active] = loss.cpu().numpy()
        yield from self._trained(plants, plan, stack, losses, epochs)

    def _trained(
        self,
        plants: Sequence[PlantData],
        plan: Schedule,
        stack: Named,
        losses: NDArray[np.float64],
        epochs: int,
    ) -> Iterator[Trained]:
        steps = np.arange(len(losses))[:, None]
        last = (steps >= plan.per_epoch * (epochs - 1)) * plan.sizes
        means = (losses * last).sum(0) / np.maximum(last.sum(0), 1)
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in stack.items()}
        places = np.argsort(plan.order).tolist()
        for plant, place in zip(plants, places, strict=True):
            weights = {name: array[place, ...] for name, array in arrays.items()}
            yield Trained(plant.name, weights, float(means[place]))

    def _gradients(
        self,
        leaves: list[Tensor],
        stack: Named,
        batch: tuple[Tensor, Tensor],
        keys: Tensor,
        step: int,
        sizes: Tensor | None,
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """Return (K,) mean losses and each parameter's gradient, None where it has none."""
        count = len(keys)
        named = dict(zip(self._trainable, leaves, strict=True))
        tensors = {
            name: named[name] if name in named else stack[name][:count] for name in self._state
        }
        at = torch.tensor(step, device=self.device)
        with stackable(self.module):
            if sizes is None:
                loss = vmap(self._plain, in_dims=(0, 0, 0, 0, None))(tensors, *batch, keys, at)
            else:
                width = batch[0].shape[1]
                real = torch.arange(width, device=self.device) < sizes.unsqueeze(1)
                loss = vmap(self._padded, in_dims=(0, 0, 0, 0, None, 0, 0))(
                    tensors, *batch, keys, at, real, sizes
                )
            gradients = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
        return loss.detach(), gradients

    def _plain(self, tensors: Named, x: Tensor, y: Tensor, key: Tensor, step: Tensor) -> Tensor:
        """Return one plant's mean loss, as ``vmap`` sees it."""
        now = self._now
        now.key, now.step, now.rows, now.count, now.drawn = key, step, None, None, 0
        return self.loss(functional_call(self._stacked, tensors, (x,)), y)

    def _padded(
        self,
        tensors: Named,
        x: Tensor,
        y: Tensor,
        key: Tensor,
        step: Tensor,
        rows: Tensor,
        count: Tensor,
    ) -> Tensor:
        """Return one plant's mean loss over the rows that are not padding."""
        now = self._now
        now.key, now.step, now.rows, now.count, now.drawn = key, step, rows, count, 0
        output = functional_call(self._stacked, tensors, (x,))
        each = vmap(lambda o, t: self.loss(o.unsqueeze(0), t.unsqueeze(0)))(output, y)
        return torch.where(rows, each, 0.0).sum() / count


def _apart(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return gradients that may be changed in place: two parameters may share one tensor.

    They are contiguous: a fused optimizer takes values in the order of memory.
    """
    seen: set[int] = set()
    apart: list[Tensor | None] = []
    for gradient in gradients:
        if gradient is not None:
            whole = gradient.contiguous()
            gradient = whole.clone() if whole.data_ptr() in seen else whole
            seen.add(gradient.data_ptr())
        apart.append(gradient)
    return apart


def _clip(gradients: Sequence[Tensor], limit: float) -> None:
    """Scale each plant's (K, …) gradients to a norm of at most ``limit``, as torch does."""
    norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients])
    factor = (limit / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *[1] * (gradient.ndim - 1)))
