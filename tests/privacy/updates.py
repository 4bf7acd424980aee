"""Updates of arbitrary sizes, and rounds of a transform alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedpdm.aggregation.sums import Accumulation, MeanByExamples
from fedpdm.aggregation.update import Base, Contribution, Update
from fedpdm.transforms.base import Transform
from fedpdm.wire.records import ARRAYS, BUFFERS, EXAMPLES, Arrays

SHAPES = {"a": (3, 4), "b": (5,), "c": ()}


def base_of(seed: int = 0, scale: float = 1.0) -> Base:
    random = np.random.default_rng(seed)
    arrays = {n: (scale * random.normal(size=s)).astype(np.float32) for n, s in SHAPES.items()}
    return Base(3, arrays, {"mean": np.ones(2, np.float32)})


def update_of(
    base: Base, size: float, seed: int, site: str = "s", records: Sequence[str] = ()
) -> Update:
    """Return an update of about this length, with strategy records of the same length."""
    random = np.random.default_rng(seed)

    def change(origin: Arrays | None) -> Arrays:
        raw = {n: random.normal(size=a.shape) for n, a in base.arrays.items()}
        total = np.sqrt(sum(float(np.sum(r**2)) for r in raw.values()))
        return {
            n: np.asarray((0 if origin is None else origin[n]) + size * r / total, np.float32)
            for n, r in raw.items()
        }

    found = {ARRAYS: change(base.arrays), BUFFERS: {"mean": np.full(2, size, np.float32)}}
    found |= {name: change(None) for name in records}
    metrics = {EXAMPLES: 50.0 + seed, "train_loss": 0.25}
    return Update(site, base, found, metrics, metrics[EXAMPLES])


def mean_of(transform: Transform, base: Base, updates: Sequence[Update], key: int = 0) -> Arrays:
    """Return what the server makes of updates, as the collector does it."""
    generator, contributions = np.random.default_rng(key), []
    total = Accumulation(base, MeanByExamples())
    for update in updates:
        sent = transform.encode(update, {}, np.random.default_rng([key, len(contributions)]))
        contributions.append(Contribution(sent.site, sent.metrics, sent.norm))
        total.add(transform.before_sum(sent), None)
    return transform.after_sum(total.totals(), contributions, generator)[ARRAYS].mean()


def apart(first: Arrays, second: Arrays) -> float:
    """Return the Euclidean distance of two models."""
    return float(np.sqrt(sum(float(np.sum((first[n] - second[n]) ** 2)) for n in first)))
