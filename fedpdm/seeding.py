"""Keyed random generators: one seed, and a generator of its own for every purpose.

Every draw in fedpdm comes from a generator keyed by what it is for, for example
``("batches", site, round, attempt)``. The key is hashed, so neither the order in
which sites are visited nor the number of workers can change a result, and a
resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def key_seed(seed: int, *key: str | int) -> int:
    """Return a 63-bit integer that depends on ``seed`` and every part of ``key``.

    Parts are length-prefixed before hashing, so ``("a", "bc")`` and ``("ab", "c")`` differ.
    """
    texts = [f"{type(part).__name__}:{part}".encode() for part in (seed, *key)]
    prefixed = b"".join([len(text).to_bytes(4, "big") + text for text in texts])
    return int.from_bytes(hashlib.sha256(prefixed).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *key: str | int) -> np.random.Generator:
    """Return NumPy's generator for ``key``."""
    return np.random.default_rng(key_seed(seed, *key))


def torch_generator(seed: int, *key: str | int) -> torch.Generator:
    """Return a CPU ``torch.Generator`` for ``key``."""
    return torch.Generator().manual_seed(key_seed(seed, *key))


@contextlib.contextmanager
def torch_seeded(seed: int, *key: str | int) -> Iterator[None]:
    """Seed torch's global generators for the block, and put them back afterwards.

    For code that has no generator argument (parameter initialisation, ``nn.Dropout``).
    """
    used = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if used else ()
    value = key_seed(seed, *key)
    with torch.random.fork_rng(devices=list(devices)):
        # Not torch.manual_seed: it also queues calls for devices nobody has touched, each with
        # a formatted stack trace, which takes longer than a small site's training step.
        torch.default_generator.manual_seed(value)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(value)
        yield


@contextlib.contextmanager
def seeded_globals(seed: int, *key: str | int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators for the block, then put them back.

    For code of others that draws from them: Flower's noise of differential privacy does.

    Args:
        seed: the run's seed.
        *key: what is drawn for.
    """
    value = key_seed(seed, *key)
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(value)
    np.random.seed([value & 0xFFFFFFFF, value >> 32])
    try:
        with torch_seeded(seed, *key):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
