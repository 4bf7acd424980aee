"""Stochastic quantisation: a difference travels in 8 or 4 bits, rounded so that the mean is right.

Alistarh et al. 2017, *QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding*
(NeurIPS), section 3.1, with buckets and scaling by the largest value as in its section 4. In a
bucket of 512 values with m = max |p_i| and s = 2^(bits−1) − 1 levels,

    C(p_i) = sign(p_i) · m · ξ_i/s,   ξ_i = ⌊s·|p_i|/m + u_i⌋,   u_i uniform in [0, 1)

so E C(p_i) = p_i and |C(p_i) − p_i| < m/s. Codes are packed, two to a byte with 4 bits.

*Use it* for a safe factor of 4 (8 bits) or nearly 8 (4 bits): each message is right in the mean,
and nothing is remembered. *It costs* bits/8 bytes a value and 4 for each bucket. Deviates from
the paper in that codes have a fixed length: Elias coding pays where most are zero, and there
top-k pays more. With error feedback the rounding is made up for in the next round.
"""

from __future__ import annotations

import numpy as np

from fedpdm.errors import ConfigError
from fedpdm.transforms.compression import Compression, check, flat, kind_of, read, unflat
from fedpdm.wire.records import Arrays


class Quantise(Compression):
    """Rounds differences at random to a few levels.

    Args:
        bits: of each value, 8 or 4.
        bucket: values with a scale of their own.
        direction: ``up``, ``down`` or ``both``.
        error_feedback: what rounding changed is remembered and added to the next difference.

    Raises:
        ConfigError: a setting is out of its range.
    """

    def __init__(
        self,
        bits: int = 8,
        bucket: int = 512,
        direction: str = "both",
        error_feedback: bool = False,
    ) -> None:
        super().__init__(direction, error_feedback)
        if bits not in (4, 8):
            raise ConfigError(f"transforms: bits={bits} of Quantise must be 4 or 8")
        check(self, {"bucket": (bucket, 1, 1 << 24)})
        self.bits, self.bucket, self.levels = bits, bucket, 2 ** (bits - 1) - 1

    def pack(self, change: Arrays, own: Arrays, generator: np.random.Generator) -> Arrays:
        vector = flat(change)
        starts = np.arange(0, vector.size, self.bucket)
        scales = np.maximum.reduceat(np.abs(vector), starts) if vector.size else vector
        of_each = scales[np.arange(vector.size) // self.bucket]
        shares = np.divide(
            np.abs(vector), of_each, out=np.zeros_like(vector), where=of_each > 0
        ) * vector.dtype.type(self.levels)
        low = np.floor(shares)
        steps = low + (generator.random(vector.size) < shares - low)
        codes = (np.sign(vector) * steps + self.levels).astype(np.uint8)
        if self.bits == 4:
            even = np.concatenate([codes, np.zeros(codes.size % 2, np.uint8)])
            codes = even[0::2] << 4 | even[1::2]
        return {"codes": codes, "scales": scales}

    def unpack(self, packed: Arrays, like: Arrays) -> Arrays:
        size, kind = sum(array.size for array in like.values()), kind_of(like)
        buckets, length = -(-size // self.bucket), -(-size * self.bits // 8)
        forms = {"codes": (length, np.dtype(np.uint8)), "scales": (buckets, kind)}
        codes, scales = read(packed, **forms)
        if self.bits == 4:
            codes = np.stack([codes >> 4, codes & 15], axis=1).reshape(-1)[:size]
        if codes.max(initial=0) > 2 * self.levels or (scales < 0).any():
            raise ValueError("a code or a scale is out of its range")
        signed = codes.astype(kind) - kind.type(self.levels)
        of_each = scales[np.arange(size) // self.bucket]
        return unflat(of_each * signed / kind.type(self.levels), like)
