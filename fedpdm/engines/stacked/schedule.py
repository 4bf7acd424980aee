"""The batches of every site of a stack in every step: the shuffles of ``training.fit``.

Shapes: K sites, S steps (the most that one makes), W rows (the widest batch).
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpdm.errors import DataError
from fedpdm.seeding import key_seed
from fedpdm.training.loop import Memory, TrainingSettings, batch_sizes


@dataclass(frozen=True)
class SiteData:
    """A site's training data.

    Attributes:
        name: the site.
        key: what its shuffles and dropout are drawn for, as given to ``training.fit``.
        x: (N, T, F) or (N, F) inputs.
        y: (N, …) targets.
        memory: what it remembers, by the key of the strategy's term.
        local: tensors of the model that it starts from in place of the received ones, by name.
    """

    name: str
    key: tuple[str | int, ...]
    x: Tensor
    y: Tensor
    memory: Mapping[str, Memory] = field(default_factory=dict)
    local: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """Neighbours in a stack, [begin, end), whose batches of a step are equally wide."""

    begin: int
    end: int
    width: int
    padded: bool


@dataclass(frozen=True)
class Schedule:
    """The steps of a stack. Sites with more steps come first, so who is active is a prefix.

    How wide a site's batch is, and whether rows are padded, is a matter of the site alone: a
    sum over more rows may round differently, and a site's bits are to depend on no neighbour.

    Attributes:
        order: (K,) place among the given sites, by place in the stack.
        per_epoch: (K,) steps of an epoch.
        rows: (S, K, W) where a batch's rows are in all sites' joined data; padding repeats
            a site's first row.
        sizes: (S, K) how many of them are not padding; 0 once a site has finished.
        keys: (K,) int64, one hash of seed and key for each site, as its shuffles start from.
        runs: sites in the stack that make equally many steps, and are alike in the last one of
            an epoch.
        size: rows of the other steps.
    """

    order: NDArray[np.int64]
    per_epoch: NDArray[np.int64]
    rows: Tensor
    sizes: NDArray[np.int64]
    keys: Tensor
    runs: list[Piece]
    size: int

    def active(self, step: int) -> int:
        """Return how many sites make this step."""
        return int(np.count_nonzero(self.sizes[step]))

    def pieces(self, step: int) -> list[Piece]:
        """Return the active sites of a step in pieces, as few as can be."""
        found: list[Piece] = []
        for run in self.runs:
            if not self.sizes[step, run.begin]:
                break
            if (step + 1) % int(self.per_epoch[run.begin]):
                run = Piece(run.begin, run.end, self.size, False)
            if found and (found[-1].width, found[-1].padded) == (run.width, run.padded):
                run = replace(found.pop(), end=run.end)
            found.append(run)
        return found

    def means(self, losses: NDArray[np.float64], epochs: int) -> NDArray[np.float64]:
        """Return (K,) mean losses over the last epoch from (S, K) losses of batches."""
        steps = np.arange(len(losses))[:, None]
        counted = (steps >= self.per_epoch * (epochs - 1)) * self.sizes
        total: NDArray[np.float64] = (losses * counted).sum(0) / np.maximum(counted.sum(0), 1)
        return total

    def rate(self, settings: TrainingSettings, run: Piece, step: int, first: int) -> float:
        """Return the learning rate of a run of sites in a step."""
        return settings.rate(first + step // int(self.per_epoch[run.begin]))


def schedule(
    sites: Sequence[SiteData], settings: TrainingSettings, *, seed: int, epochs: int
) -> Schedule:
    """Draw the shuffles of all sites. The same sites with the same keys get the same."""
    counts = [len(site.x) for site in sites]
    size = settings.batch_size
    sizes_of = {count: batch_sizes(count, size) for count in set(counts)}
    per_epoch = np.array([len(sizes_of[count]) for count in counts])
    rests = np.array([sizes_of[count][-1] if count else 0 for count in counts])
    widths = np.array([_width(rest, size) for rest in rests.tolist()])
    order = np.lexsort((rests < widths, -widths, -per_epoch))
    starts = np.concatenate([[0], np.cumsum(counts)])
    steps = int(per_epoch.max(initial=0)) * epochs
    width = int(max(widths.max(initial=0), size if (per_epoch > 1).any() else 0))
    rows = np.empty((steps, len(sites), width), dtype=np.int64)
    sizes = np.zeros((steps, len(sites)), dtype=np.int64)
    keys = [key_seed(seed, "batches", *sites[number].key) for number in order.tolist()]
    generator = torch.Generator()
    for place, number in enumerate(order.tolist()):
        count, cut = counts[number], sizes_of[counts[number]]
        if not count:
            continue
        last = len(cut) - 1
        whole = last * size
        generator.manual_seed(keys[place])
        begin = int(starts[number])
        rows[:, place] = begin
        for epoch in range(epochs):
            shuffled = torch.randperm(count, generator=generator).numpy()
            first = epoch * len(cut)
            if last:
                rows[first : first + last, place, :size] = shuffled[:whole].reshape(last, size)
                rows[first : first + last, place, :size] += begin
            rows[first + last, place, : cut[-1]] = shuffled[whole:] + begin
            sizes[first : first + len(cut), place] = cut
    kinds = np.stack([per_epoch, widths, rests < widths], axis=1)[order]
    edges = [0, *(np.flatnonzero(np.diff(kinds, axis=0).any(1)) + 1).tolist(), len(sites)]
    runs = [
        Piece(a, b, int(kinds[a, 1]), bool(kinds[a, 2]))
        for a, b in itertools.pairwise(edges)
        if b > a and kinds[a, 0]
    ]
    return Schedule(
        order, kinds[:, 0], torch.from_numpy(rows), sizes, torch.tensor(keys), runs, size
    )


def _width(rows: int, size: int) -> int:
    """Return the rows that a last batch is padded to, so that few different widths occur.

    Batches of equal width make one piece; those of each width would cost calls of their own.
    """
    if rows >= size:
        return rows
    step = max(8, (1 << (rows - 1).bit_length()) // 4)
    return min(size, -(-rows // step) * step)


KEPT_BYTES = 256 * 2**20
"""How much joined data is kept for the case that the same sites train again."""

CHUNK_ON_CPU = 32
"""Sites in a stack on a CPU where layers cost more than their calls: with more of them memory
grows and time does not fall (docs/decisions/062)."""


def sites_at_hand(device: torch.device) -> int:
    """Return of how many sites the data is brought to a device at once, stacks aside."""
    return 4096 if device.type == "cuda" else 256


class JoinedData:
    """All rows of a stack's sites behind each other; kept while the same tensors come again."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self.limit = limit
        self._kept: OrderedDict[
            tuple[int, ...], tuple[list[Tensor], tuple[Tensor, Tensor], int]
        ] = OrderedDict()

    def of(self, sites: Sequence[SiteData]) -> tuple[Tensor, Tensor]:
        """Return (rows of all sites, …) inputs and targets.

        Raises:
            DataError: sites differ in more than their number of rows.
        """
        parts = [tensor for site in sites for tensor in (site.x, site.y)]
        key = tuple(id(tensor) for tensor in parts)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][1]
        _check_alike(sites)
        joined = torch.cat([p.x for p in sites]), torch.cat([p.y for p in sites])
        # Twice: the sites' own tensors are held, too.
        size = 2 * sum(tensor.numel() * tensor.element_size() for tensor in joined)
        if size <= self.limit:
            # With the parts, so that their ids stay theirs.
            self._kept[key] = (parts, joined, size)
            while sum(kept[2] for kept in self._kept.values()) > self.limit:
                self._kept.popitem(last=False)
        return joined


def _check_alike(sites: Sequence[SiteData]) -> None:
    first = sites[0]
    for site in sites:
        for mine, other in ((site.x, first.x), (site.y, first.y)):
            if mine.shape[1:] != other.shape[1:] or mine.dtype != other.dtype:
                raise DataError(
                    f"engine=batched cannot stack site {site.name}, whose rows are "
                    f"{tuple(mine.shape[1:])} {mine.dtype}, on {first.name}, whose rows are "
                    f"{tuple(other.shape[1:])} {other.dtype}: use engine=serial"
                )


def saved_bytes(work: Callable[[], Tensor]) -> int:
    """Return how many bytes ``work`` keeps for its backward pass."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        seen[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = work()
    del kept
    return sum(seen.values())


def chunk_on_cpu(module: nn.Module, sites: int) -> int:
    """Return how many sites to stack on a CPU."""
    cheap = getattr(module, "cheap_layers", False) is True
    return sites if cheap else min(sites, CHUNK_ON_CPU)


def chunk_on_cuda(module: nn.Module, sites: int, activations: int, device: torch.device) -> int:
    """Return how many sites fit into three fifths of a GPU's free memory.

    Args:
        module: the model.
        sites: how many there are.
        activations: bytes that one site's step keeps for its backward pass.
        device: the GPU.
    """
    free, _ = torch.cuda.mem_get_info(device)
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    # Weights, gradients and two moments, twice for what is made on the way; and activations
    # with their gradients.
    each = 8 * weights + 3 * activations
    return max(1, min(sites, int(0.6 * free) // max(each, 1)))
