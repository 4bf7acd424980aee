"""Base class of strategies that bear malicious sites: every update of a round as a vector.

A robust strategy looks at updates one beside the other, so the server keeps all of a round: as
many times the model as there are sites in it (8 bytes a value). It needs no client half and sends
nothing but the weights.

How many examples a site has, it says itself. Weighted by that number, one malicious site could
outweigh all others, so here every site counts alike; ``by_examples`` brings the weights of the
papers back. The server averages buffers (running statistics of BatchNorm) by examples whatever
the strategy, so no robust strategy protects them: use a model without (mlp, lstm).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fedpdm.aggregation.sums import VectorSum
from fedpdm.storage import cut
from fedpdm.wire.records import (
    ARRAYS,
    EXAMPLES,
    Arrays,
    arrays_in,
    from_record,
    metrics_in,
    to_record,
)

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Updates:
    """The updates of a round. n sites, P values.

    Attributes:
        start: (P,) the model that was sent.
        deltas: (n, P) by how much each site changed it.
        weights: (n,) what each counts; they add up to 1.
        sites: their names, in site order.
        everyone: the names of all sites of the federation.
    """

    start: Vector
    deltas: NDArray[np.float64]
    weights: Vector
    sites: Sequence[str]
    everyone: Sequence[str]

    @property
    def norms(self) -> Vector:
        """(n,) the lengths of the updates."""
        return np.asarray(np.sqrt(np.sum(np.square(self.deltas), axis=1)))


@dataclass
class _Round:
    """What a round is about, as no part of the strategy's memory (``checkpoint.capture``)."""

    sent: Arrays = field(default_factory=dict)
    sites: tuple[str, ...] = ()
    everyone: tuple[str, ...] = ()
    suspected: dict[str, str] = field(default_factory=dict)
    reported: dict[str, float] = field(default_factory=dict)


class RobustStrategy(FedAvg):
    """Makes of the updates of a round one step of the model.

    Args:
        by_examples: weigh sites by the number of examples that they state.
        **flower: further arguments of Flower's FedAvg.

    Attributes:
        rule: how many malicious sites it bears, in words.
    """

    rule: ClassVar[str]

    def __init__(self, by_examples: bool = False, **flower: Any) -> None:
        super().__init__(**flower)
        self.by_examples = by_examples
        self._round = _Round()

    @abstractmethod
    def step(self, updates: Updates) -> Vector:
        """Return (P,) the change of the model. The arrays of ``updates`` must not be changed."""

    @abstractmethod
    def tolerated(self, sites: int) -> int:
        """Return how many of so many sites may be malicious."""

    def suspect(self, site: str, why: str) -> None:
        """Say in ``step`` that a site's update was left out; it becomes an event of the round."""
        self._round.suspected[site] = why

    def report(self, **numbers: float) -> None:
        """Say in ``step`` something of the round, as metrics by name."""
        self._round.reported |= numbers

    @property
    def suspected(self) -> Mapping[str, str]:
        """Whose updates the last round left out, and why."""
        return self._round.suspected

    def told(self, sent: Arrays, sites: Sequence[str], everyone: Sequence[str]) -> None:
        """Learn what the next replies answer, and whose they are, in their order.

        Flower's messages know nodes only, and a round may have several models.

        Args:
            sent: the parameters of the model.
            sites: the names of those who reply.
            everyone: the names of all sites of the federation.
        """
        self._round = _Round(sent, tuple(sites), tuple(everyone))

    # Flower's side ------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._round = _Round(sent=from_record(arrays))
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        valid = [reply for reply in replies if not reply.has_error()]
        if not valid:
            return None, None
        sent, shapes = self._round.sent, {n: a.shape for n, a in self._round.sent.items()}
        start, contents = flat(sent, sent), [reply.content for reply in valid]
        points = np.stack([flat(arrays_in(content, ARRAYS), sent) for content in contents])
        stated = [
            metrics_in(content)[EXAMPLES] if self.by_examples else 1.0 for content in contents
        ]
        self._round.suspected, self._round.reported = {}, {}
        names = self._round.sites
        if len(names) != len(valid):
            names = tuple(str(reply.metadata.src_node_id) for reply in valid)
        weights = np.array(stated)
        if not weights.sum() > 0:
            return None, None
        updates = Updates(
            start, points - start, weights / weights.sum(), names, self._round.everyone or names
        )
        new = self.combine_points(updates, points, weights)
        metrics = dict(self.train_metrics_aggr_fn(contents, self.weighted_by_key))
        found = {n: a.astype(sent[n].dtype) for n, a in cut(new, shapes).items()}
        return to_record(found), MetricRecord({**metrics, **self._round.reported})

    def combine_points(
        self, updates: Updates, points: NDArray[np.float64], weights: Vector
    ) -> Vector:
        """Return (P,) the new model.

        Args:
            updates: what the sites changed.
            points: (n, P) the models that they came to.
            weights: (n,) what each counts, as stated.
        """
        return updates.start + self.step(updates)


def flat(arrays: Arrays, like: Arrays) -> Vector:
    """Return (P,) the values of arrays, in the order of ``like``."""
    parts = [arrays[name].reshape(-1) for name in like]
    return np.concatenate(parts or [np.zeros(0)]).astype(np.float64)


def mean_of(points: NDArray[np.float64], weights: Vector) -> Vector:
    """Return (P,) the weighted mean, added up as FedAvg does: of the same, the same bits."""
    total = VectorSum({"all": points[0]})
    for point, weight in zip(points, weights, strict=True):
        total.add(point, float(weight))
    return np.asarray(total.values()["all"] / weights.sum())


def shortened(updates: Updates, points: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Return (n, P) the points, those farther than ``radius`` from the start drawn in to it."""
    norms = updates.norms
    inside = norms <= radius
    factors = np.where(inside, 1.0, radius / np.where(inside, 1.0, norms))
    drawn = updates.start + factors[:, None] * updates.deltas
    return np.where(inside[:, None], points, drawn)
