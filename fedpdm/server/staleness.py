"""How much an update counts whose site began from an older version: its staleness weight.

The staleness of an update is the number of versions that were committed while its site worked.
Xie et al. 2019 (section 5.2) name three weights, with s(0) = 1; FedBuff's is the polynomial with
a = 1/2 (Nguyen et al. 2022, section 5).
"""

from __future__ import annotations

from fedpdm.errors import ConfigError

KINDS = ("constant", "polynomial", "hinge")


class Staleness:
    """The weight of an update by its staleness t.

    - ``constant``: 1;
    - ``polynomial``: (1 + t) ** -a;
    - ``hinge``: 1 up to t = b, then 1 / (a * (t - b) + 1).

    Args:
        kind: one of the three.
        a: how fast the weight falls.
        b: of the hinge: the staleness up to which all counts in full.

    Raises:
        ConfigError: a value is out of its range.
    """

    def __init__(self, kind: str, a: float, b: float) -> None:
        if kind not in KINDS:
            raise ConfigError(f"server.staleness={kind} is unknown; choose {', '.join(KINDS)}")
        for name, value in (("a", a), ("b", b)):
            if not 0 <= value <= 1e6:
                raise ConfigError(f"server.{name}={value} must be at least 0 and at most 1000000")
        self._kind, self._a, self._b = kind, a, b

    def __call__(self, staleness: int) -> float:
        if self._kind == "polynomial":
            return float((1.0 + staleness) ** -self._a)
        if self._kind == "hinge" and staleness > self._b:
            return 1.0 / (self._a * (staleness - self._b) + 1.0)
        return 1.0
