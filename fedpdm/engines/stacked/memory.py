"""What bounds a stack's memory, and what of it is kept from round to round."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fedpdm.engines.stacked.schedule import SiteData
from fedpdm.errors import DataError

KEPT_BYTES = 256 * 2**20
"""How much joined data is kept for the case that the same sites train again."""

CONVOLUTION_CHUNK = 8
"""Sites in a stack of convolutions on a CPU: more of them leave its caches."""


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
    convolves = any(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules())
    return min(sites, CONVOLUTION_CHUNK) if convolves else sites


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
