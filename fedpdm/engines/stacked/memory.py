"""What bounds a stack's memory, and what of it is kept from round to round."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fedpdm.engines.stacked.schedule import PlantData
from fedpdm.errors import DataError

KEPT_BYTES = 256 * 2**20
"""How much joined data is kept for the case that the same plants train again."""

CONVOLUTION_CHUNK = 8
"""Plants in a stack of convolutions on a CPU: more of them leave its caches."""


def plants_at_hand(device: torch.device) -> int:
    """Return of how many plants the data is brought to a device at once, stacks aside."""
    return 4096 if device.type == "cuda" else 256


class JoinedData:
    """All rows of a stack's plants behind each other; kept while the same tensors come again."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self.limit = limit
        self._kept: OrderedDict[
            tuple[int, ...], tuple[list[Tensor], tuple[Tensor, Tensor], int]
        ] = OrderedDict()

    def of(self, plants: Sequence[PlantData]) -> tuple[Tensor, Tensor]:
        """Return (rows of all plants, …) inputs and targets.

        Raises:
            DataError: plants differ in more than their number of rows.
        """
        parts = [tensor for plant in plants for tensor in (plant.x, plant.y)]
        key = tuple(id(tensor) for tensor in parts)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][1]
        _check_alike(plants)
        joined = torch.cat([p.x for p in plants]), torch.cat([p.y for p in plants])
        # Twice: the plants' own tensors are held, too.
        size = 2 * sum(tensor.numel() * tensor.element_size() for tensor in joined)
        if size <= self.limit:
            # With the parts, so that their ids stay theirs.
            self._kept[key] = (parts, joined, size)
            while sum(kept[2] for kept in self._kept.values()) > self.limit:
                self._kept.popitem(last=False)
        return joined


def _check_alike(plants: Sequence[PlantData]) -> None:
    first = plants[0]
    for plant in plants:
        for mine, other in ((plant.x, first.x), (plant.y, first.y)):
            if mine.shape[1:] != other.shape[1:] or mine.dtype != other.dtype:
                raise DataError(
                    f"engine=batched cannot stack plant {plant.name}, whose rows are "
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


def chunk_on_cpu(module: nn.Module, plants: int) -> int:
    """Return how many plants to stack on a CPU."""
    convolves = any(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules())
    return min(plants, CONVOLUTION_CHUNK) if convolves else plants


def chunk_on_cuda(module: nn.Module, plants: int, activations: int, device: torch.device) -> int:
    """Return how many plants fit into three fifths of a GPU's free memory.

    Args:
        module: the model.
        plants: how many there are.
        activations: bytes that one plant's step keeps for its backward pass.
        device: the GPU.
    """
    free, _ = torch.cuda.mem_get_info(device)
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    # Weights, gradients and two moments, twice for what is made on the way; and activations
    # with their gradients.
    each = 8 * weights + 3 * activations
    return max(1, min(plants, int(0.6 * free) // max(each, 1)))
