"""Numbers that hide each other: what sites and server of secure aggregation compute alike.

A site's update becomes one vector of whole numbers modulo 2^64, in which weights are factors, so
that sums of vectors are exact. A mask is the keystream of ChaCha20 under a key of 32 bytes, uniform
over the same numbers. ``server.secagg`` is the protocol.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.quantization import quantize
from flwr.supercore.primitives.asymmetric import bytes_to_public_key
from numpy.typing import NDArray

from fedpdm.aggregation.update import Update
from fedpdm.wire.records import ARRAYS, BUFFERS, Arrays

Vector = NDArray[np.uint64]

SECAGG, MASKED = "secagg", "masked"
"""Records of a message: what belongs to the protocol, and a masked vector."""
SECAGG_MESSAGE = "train.secagg"
"""Type of the messages of stages in which nobody trains."""
SETUP, SHARE_KEYS, COLLECT, UNMASK = "setup", "share_keys", "collect_masked_vectors", "unmask"
"""The stages, by the names that they have in Flower."""
HEAD = 3
"""Numbers before the values: weight, examples, and how many values were clipped."""
KEY_BYTES = 32
_SCALAR_BYTES = 48


@dataclass(frozen=True)
class Coding:
    """How real numbers become whole ones, and weighted sums of them real again.

    A value in [-clip, clip] becomes one of 0 … 2^bits, rounded up or down at random so that it is
    right in the mean (``flwr.common.secure_aggregation.quantization``), times the site's weight.

    Args:
        clip: bound of a value, by how much it differs from what was sent.
        bits: of a value.
    """

    clip: float
    bits: int

    @property
    def step(self) -> float:
        """Distance of two neighbouring values: no site's value is further off."""
        return 2.0 * self.clip / float(2**self.bits)

    @property
    def most(self) -> int:
        """A sum of weights must be below this, or it could not be told from another."""
        return int(2 ** (64 - self.bits))

    def encode(self, update: Update, by_examples: bool) -> Vector:
        """Return an update as (3 + P,) whole numbers. Draws from NumPy's global generator.

        Args:
            update: with finite values.
            by_examples: it weighs as much as it has examples; else one.
        """
        examples = int(update.examples)
        weight = examples if by_examples else 1
        parts, clipped = [], 0
        for record, names in layout(update.base.arrays, update.base.buffers, update.records):
            origin, arrays = update.origin(record), update.records[record]
            flat = [
                np.ravel(arrays[n].astype(np.float64) - origin.get(n, np.float64(0))) for n in names
            ]
            values = np.concatenate(flat or [np.zeros(0)])
            clipped += int(np.sum(np.abs(values) > self.clip))
            levels = quantize([values], self.clip, 2**self.bits)[0].astype(np.uint64)
            parts.append(levels * np.uint64(examples if record == BUFFERS else weight))
        return np.concatenate([np.array([weight, examples, clipped], np.uint64), *parts])

    def decode(
        self, total: Vector, arrays: Arrays, buffers: Arrays, records: Sequence[str]
    ) -> tuple[int, dict[str, Arrays]]:
        """Return what a sum of vectors says.

        Args:
            total: (3 + P,) the sum.
            arrays: the parameters that were sent.
            buffers: sent beside them.
            records: what sites send beside these.

        Returns:
            How many values were clipped; and by record the weighted mean of how its values differ
            from what was sent, in float64.
        """
        weight, examples, clipped = (int(number) for number in total[:HEAD])
        means: dict[str, Arrays] = {}
        start = HEAD
        for record, names in layout(arrays, buffers, records):
            by = examples if record == BUFFERS else weight
            like = buffers if record == BUFFERS else arrays
            means[record] = {}
            for name in names:
                part = total[start : start + like[name].size]
                start += like[name].size
                # Zero is in the middle; the difference is exact, whole, and has a sign.
                middle = np.uint64((by << (self.bits - 1)) % 2**64)
                values = (part - middle).view(np.int64) / by * self.step
                means[record][name] = values.reshape(like[name].shape)
        return clipped, means


def layout(
    arrays: Arrays, buffers: Arrays, records: Mapping[str, Arrays] | Sequence[str]
) -> list[tuple[str, list[str]]]:
    """Return the order of a vector's values: records, and the names of their arrays.

    Buffers of whole numbers, which count something, are not in it.

    Args:
        arrays: the parameters that were sent.
        buffers: sent beside them.
        records: names of what a site sends.
    """
    floats = [name for name, array in buffers.items() if array.dtype.kind == "f"]
    beside = sorted(set(records) - {ARRAYS, BUFFERS})
    found = [(ARRAYS, list(arrays)), *((record, list(arrays)) for record in beside)]
    return [*found, (BUFFERS, floats)] if floats else found


def size_of(arrays: Arrays, buffers: Arrays, records: Sequence[str]) -> int:
    """Return the length of a vector, of the same arguments as ``layout``."""
    likes = {BUFFERS: buffers}
    return HEAD + sum(
        likes.get(record, arrays)[name].size
        for record, names in layout(arrays, buffers, records)
        for name in names
    )


def mask(key: bytes, size: int) -> Vector:
    """Return (size,) numbers, uniform over 0 … 2^64 - 1, that only the key's owners can know.

    Args:
        key: 32 bytes that no other mask is made of.
        size: how many.
    """
    stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(8 * size))
    return np.frombuffer(stream, "<u8").astype(np.uint64)


def pair_mask(own: ec.EllipticCurvePrivateKey, public: bytes, size: int) -> Vector:
    """Return the mask of two sites, from the private key of one and the public key of the other."""
    key = generate_shared_key(own, bytes_to_public_key(public))
    return mask(base64.urlsafe_b64decode(key), size)


def signed(values: Vector, site: int, other: int) -> Vector:
    """Return a pair's mask as ``site`` adds it; the other adds its negative."""
    return values if site > other else np.uint64(0) - values


def secret_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as 48 bytes; its usual form is six times as long to share out."""
    return key.private_numbers().private_value.to_bytes(_SCALAR_BYTES, "big")


def key_of(secret: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the private key behind ``secret_of``; raises ValueError if it is none."""
    return ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP384R1())


def ring(
    sites: Sequence[int], neighbours: int | None, generator: np.random.Generator
) -> dict[int, set[int]]:
    """Return each site's neighbours: with whom it shares masks and secrets (Bell et al. 2020).

    Sites stand in a circle in random order, and each has as many on its left as on its right.

    Args:
        sites: by number.
        neighbours: how many each has, an even number; None for all others.
        generator: draws the order.
    """
    count = len(sites)
    if neighbours is None or neighbours >= count - 1:
        return {site: set(sites) - {site} for site in sites}
    circle = [sites[n] for n in generator.permutation(count)]
    steps = range(1, neighbours // 2 + 1)
    return {
        site: {circle[(place + by * step) % count] for step in steps for by in (1, -1)}
        for place, site in enumerate(circle)
    }
