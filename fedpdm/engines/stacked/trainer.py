"""Many sites trained as one stacked model: the kernel of ``engine=batched``.

K sites that share an architecture become one model whose tensors have a first dimension
K: one large operation in place of K small ones. The forward pass runs under
``torch.func.vmap``; because no site's loss depends on another's weights, one backward pass
of the summed losses gives every site its own gradient, and optimizers that work value by
value need not know. Imports torch and numpy only. Shapes: K sites, B rows, C outputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpdm.engines.stacked.products import lanes
from fedpdm.engines.stacked.recorded import RecordedStep
from fedpdm.engines.stacked.refusals import check_options, check_training
from fedpdm.engines.stacked.schedule import (
    JoinedData,
    Piece,
    Schedule,
    SiteData,
    chunk_on_cpu,
    chunk_on_cuda,
    saved_bytes,
    schedule,
)
from fedpdm.engines.stacked.step import StackedStep, clip
from fedpdm.training.loop import (
    GradientTerm,
    Memory,
    SiteTerm,
    TrainingSettings,
    batch_sizes,
)
from fedpdm.training.objective import Objective
from fedpdm.training.optimizers import OPTIMIZERS

__all__ = ["SiteData", "StackedTrainer", "Trained"]

Named = dict[str, Tensor]


@dataclass(frozen=True)
class Trained:
    """What a site comes home with.

    Attributes:
        name: the site.
        weights: all parameters and buffers; views into the arrays of its chunk.
        train_loss: mean loss over its last epoch, without the strategy's terms.
    """

    name: str
    weights: dict[str, NDArray[Any]]
    train_loss: float


class StackedTrainer:
    """Trains sites as ``training.fit`` does, many at a time.

    Args:
        module: the architecture; its own weights do not matter and stay as they are.
        objective: what is minimised. With unequal sites its loss must be a mean over rows.
        settings: optimizer, batches, learning rate.
        seed: the run's seed.
        device: where to train.
        chunk: sites in one stack, which bounds memory; None for as many as are fast and fit.
        shared: names of the parameters that terms see, if not all: those that travel.
        compile: run the forward pass through ``torch.compile``: minutes at first.
        cuda_graphs: record a step once per shape and replay it; needs CUDA.

    Raises:
        ConfigError: an option, a setting or an objective that cannot work here.
    """

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        settings: TrainingSettings,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        chunk: int | None = None,
        shared: Collection[str] | None = None,
        compile: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        self.device = torch.device(device)
        check_options(self.device, chunk, cuda_graphs)
        check_training(module, objective, settings)
        self.module, self.settings, self.shared = module, settings, shared
        self.seed, self.chunk, self.cuda_graphs = seed, chunk, cuda_graphs
        self._step = StackedStep(module, objective, self.device, compile=compile)
        self._normalises = any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules()
        )
        self._data = JoinedData()
        self._recorded: dict[tuple[Any, ...], RecordedStep] = {}
        self._resident: dict[int, Named] = {}
        self._fitting: int | None = None
        self._is_frozen = False

    def can_train(self, site: SiteData) -> bool:
        """Return whether ``train`` takes this site: one with rows, two a batch for batch norm.

        ``training.fit`` says what is wrong with one that is not taken.
        """
        sizes = batch_sizes(len(site.x), self.settings.batch_size)
        return bool(sizes) and not (self._normalises and 1 in sizes)

    def train(
        self,
        received: Mapping[str, Tensor],
        sites: Sequence[SiteData],
        *,
        epochs: int,
        first_epoch: int = 0,
        terms: Sequence[GradientTerm | SiteTerm] = (),
    ) -> Iterator[Trained]:
        """Train sites from ``received`` and yield them in the order given, chunk by chunk.

        A site that ``can_train`` refuses is left out.

        Args:
            received: all parameters and buffers by name; not changed. Where a site has tensors
                of its own (``SiteData.local``), it starts from those.
            sites: data on the trainer's device; numbers of rows may differ.
            epochs: passes over the data.
            first_epoch: global number of the first pass, for the learning rate.
            terms: strategy terms, added to the gradient before clipping, as ``fit`` does.

        Raises:
            ConfigError: the model or the loss cannot be stacked.
            DataError: sites whose rows have different shapes.
        """
        taken = [site for site in sites if self.can_train(site)]
        if not taken:
            return
        dtypes = self._step.dtypes
        start = {name: received[name].to(self.device, dtypes[name]) for name in self._step.names}
        self._step.context.received = start
        freezing = self.settings.freezing  # a round is frozen whole, or not at all
        self._is_frozen = freezing is not None and freezing.holds(first_epoch)
        self._step.freeze(freezing if self._is_frozen else None)
        most = self.chunk or self._chunk(start, taken)
        chunk = -(-len(taken) // -(-len(taken) // most))  # as many stacks, as equal as can be
        for begin in range(0, len(taken), chunk):
            part = taken[begin : begin + chunk]
            yield from self._train(start, part, epochs, first_epoch, terms)

    def _train(
        self,
        start: Named,
        sites: Sequence[SiteData],
        epochs: int,
        first_epoch: int,
        terms: Sequence[GradientTerm | SiteTerm],
    ) -> Iterator[Trained]:
        plan = schedule(sites, self.settings, seed=self.seed, epochs=epochs)
        x, y = self._data.of(sites)
        rows, keys = plan.rows.to(self.device), plan.keys.to(self.device)
        stack = self._stack(start, len(sites))
        for place, number in enumerate(plan.order.tolist()):
            for name, tensor in sites[number].local.items():
                stack[name][place].copy_(tensor)
        trainable = self._step.trainable
        shared = [n for n, name in enumerate(trainable) if not self.shared or name in self.shared]
        reference = [start[trainable[n]] for n in shared]
        parameters = [stack[name] for name in trainable]
        flat = [_flat(parameter) for parameter in parameters]
        make, decay = OPTIMIZERS[self.settings.optimizer], self.settings.weight_decay
        optimizers = [
            (run, group, mine, make(mine, decay))
            for run in plan.runs
            for group in self._groups()
            if (mine := [flat[n][run.begin : run.end] for n in group[0]])
        ]
        memories = self._memories(terms, [sites[n] for n in plan.order.tolist()], reference)
        found: list[Tensor] = []
        bound: list[GradientTerm] = []
        before = 0
        for step in range(len(plan.sizes)):
            active = plan.active(step)
            if active != before:
                bound, before = bind(terms, reference, memories, active), active
            loss, gradients = self._joined(
                [
                    self._piece(stack, plan, piece, step, (x, y, rows, keys), sites)
                    for piece in plan.pieces(step)
                ]
            )
            found.append(loss)
            leaves = [tensor[:active] for tensor in parameters]
            for leaf, gradient in zip(leaves, gradients, strict=True):
                leaf.grad = gradient
            for term in bound:
                term([leaves[n] for n in shared], reference)
            if self.settings.clip_norm is not None:
                clip([g for p in leaves if (g := p.grad) is not None], self.settings.clip_norm)
            for run, (members, factor), mine, optimizer in optimizers:
                if run.end <= active:
                    for part, leaf in zip(mine, [leaves[n] for n in members], strict=True):
                        part.grad = None
                        if leaf.grad is not None:
                            part.grad = _filled(leaf.grad[run.begin : run.end], part)
                    optimizer.step(factor * plan.rate(self.settings, run, step, first_epoch))
        yield from self._trained(sites, plan, stack, found, epochs)

    def _piece(
        self,
        stack: Named,
        plan: Schedule,
        piece: Piece,
        step: int,
        data: tuple[Tensor, ...],
        sites: Sequence[SiteData],
    ) -> list[Tensor | None]:
        """Return losses and gradients of the sites of a piece."""
        x, y, rows, keys = data
        part = slice(piece.begin, piece.end)
        index = rows[step, part, : piece.width].reshape(-1)
        shape = piece.end - piece.begin, piece.width
        inputs = [t.index_select(0, index).view(*shape, *t.shape[1:]) for t in (x, y)]
        inputs += [keys[part], torch.tensor(step, device=self.device)]
        if piece.padded:
            longest = int(plan.order[0])
            self._step.check_padding(stack, sites[longest].x, sites[longest].y)
            inputs.append(torch.from_numpy(plan.sizes[step, part]).to(self.device))
        return self._gradients(stack, piece.begin, inputs)

    @staticmethod
    def _joined(parts: Sequence[list[Tensor | None]]) -> tuple[Tensor, list[Tensor | None]]:
        """Return the losses and gradients of all pieces of a step."""
        joined: list[Tensor | None] = []
        for tensors in zip(*parts, strict=True):
            there = [tensor for tensor in tensors if tensor is not None]
            joined.append(torch.cat(there) if len(there) > 1 else (there or [None])[0])
        loss, *gradients = joined
        assert loss is not None
        return loss, gradients

    def _groups(self) -> list[tuple[list[int], float]]:
        """Return places in ``trainable`` and the factor of their rate; the encoder has its own."""
        freezing, names = self.settings.freezing, self._step.trainable
        if freezing is None:
            return [(list(range(len(names))), 1.0)]
        encoder = [n for n, name in enumerate(names) if name in freezing.names]
        others = [n for n in range(len(names)) if n not in encoder]
        return [(others, 1.0), (encoder, freezing.rate)]

    def _memories(
        self,
        terms: Sequence[GradientTerm | SiteTerm],
        sites: Sequence[SiteData],
        reference: Sequence[Tensor],
    ) -> dict[str, Memory]:
        """Return what sites remember, stacked in their order, by the key of the term."""
        return {
            term.key: {
                group: [
                    torch.stack([p.memory[term.key][group][place] for p in sites]).to(
                        self.device, like.dtype
                    )
                    for place, like in enumerate(reference)
                ]
                for group in sites[0].memory.get(term.key, {})
            }
            for term in terms
            if isinstance(term, SiteTerm)
        }

    def _trained(
        self,
        sites: Sequence[SiteData],
        plan: Schedule,
        stack: Named,
        found: Sequence[Tensor],
        epochs: int,
    ) -> Iterator[Trained]:
        losses = np.zeros(plan.sizes.shape)
        for step, loss in enumerate(found):
            losses[step, : len(loss)] = loss.cpu().numpy()
        means = plan.means(losses, epochs)
        arrays = {name: tensor.cpu().numpy() for name, tensor in stack.items()}
        arrays |= {alias: arrays[name] for alias, name in self._step.aliases.items()}
        for site, place in zip(sites, np.argsort(plan.order).tolist(), strict=True):
            weights = {name: array[place, ...] for name, array in arrays.items()}
            yield Trained(site.name, weights, float(means[place]))

    def _gradients(self, stack: Named, begin: int, inputs: Sequence[Tensor]) -> list[Tensor | None]:
        """Return losses and gradients from a place on, from a recorded step if so asked."""
        part = {name: tensor[begin:] for name, tensor in stack.items()} if begin else stack
        if not self.cuda_graphs:
            return self._step.gradients(part, *inputs)
        sites = len(next(iter(stack.values())))
        key = (sites, begin, self._is_frozen, *(tuple(tensor.shape) for tensor in inputs))
        if key not in self._recorded:
            changed = [part[n] for n in self._step.names if n not in self._step.trainable]
            self._recorded[key] = RecordedStep(
                lambda *given: self._step.gradients(part, *given), inputs, changed
            )
        loss, *gradients = self._recorded[key](*inputs)
        return [None if loss is None else loss.clone(), *gradients]

    def _stack(self, start: Named, sites: int) -> Named:
        """Return a copy of the received tensors for each site; recorded steps need the same."""
        if self.cuda_graphs and sites in self._resident:
            for name, tensor in self._resident[sites].items():
                tensor.copy_(start[name].expand_as(tensor))
            return self._resident[sites]
        stack = {}
        for name, tensor in start.items():
            memory = tensor.new_zeros(sites, lanes(tensor.numel()))
            stack[name] = memory[:, : tensor.numel()].view(sites, *tensor.shape)
            stack[name].copy_(tensor.detach().expand(sites, *tensor.shape))
        if self.cuda_graphs:
            self._resident[sites] = stack
        return stack

    def _chunk(self, start: Named, sites: Sequence[SiteData]) -> int:
        """Return how many sites to stack."""
        if self.device.type != "cuda":
            return chunk_on_cpu(self.module, len(sites))
        if self._fitting is None:
            largest = max(sites, key=lambda site: len(site.x))
            rows = slice(0, self.settings.batch_size)
            one = [start[name].detach().unsqueeze(0).clone() for name in self._step.names]
            for tensor, name in zip(one, self._step.names, strict=True):
                tensor.requires_grad_(name in self._step.trainable)
            zero = torch.zeros((), dtype=torch.int64, device=self.device)
            x, y = largest.x[rows].unsqueeze(0), largest.y[rows].unsqueeze(0)
            needs = saved_bytes(lambda: self._step.losses(one, x, y, zero.view(1), zero))
            self._fitting = chunk_on_cuda(self.module, 2**31, needs, self.device)
        return min(self._fitting, len(sites))


def bind(
    terms: Sequence[GradientTerm | SiteTerm],
    received: Sequence[Tensor],
    memories: Mapping[str, Memory],
    active: int,
) -> list[GradientTerm]:
    """Return the terms of the first ``active`` sites of a stack."""
    bound: list[GradientTerm | None] = []
    for term in terms:
        if isinstance(term, SiteTerm):
            memory = memories[term.key]
            mine = {group: [t[:active] for t in tensors] for group, tensors in memory.items()}
            bound.append(term.term(received, mine))
        else:
            bound.append(term)
    return [term for term in bound if term is not None]


def _flat(stacked: Tensor) -> Tensor:
    """Return (K, W) of a stack's (K, …) tensor, W in whole ``lanes``."""
    width = lanes(stacked[0].numel())
    return stacked.as_strided((len(stacked), width), (width, 1))


def _filled(gradient: Tensor, like: Tensor) -> Tensor:
    """Return a (K, …) gradient as wide as ``like``, (K, W)."""
    rows = gradient.reshape(len(gradient), -1)
    missing = like.shape[1] - rows.shape[1]
    return nn.functional.pad(rows, (0, missing)) if missing else rows
