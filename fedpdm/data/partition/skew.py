"""Partitions with skewed labels or amounts of data: the usual controlled heterogeneity."""

from __future__ import annotations

import numpy as np

from fedpdm.data.partition.base import Machines, WholeMachines
from fedpdm.data.rows import Floats, Ints, Split
from fedpdm.data.sources.base import require_positive
from fedpdm.errors import ConfigError

DRAWS = 200
"""So often shares are drawn again until every site has its minimum."""
LEAST_ROWS, LEAST_MACHINES = 10, 2  # ten rows as NIID-Bench; two machines: one to validate on


class Dirichlet(WholeMachines):
    """Label skew: each class is dealt by shares drawn from Dirichlet(alpha).

    Hsu, Qi, Brown, arXiv 1909.06335. A small ``alpha`` gives a site nearly one class only, a
    large one nearly equal sites. Rows are shuffled within their class. Every split of a
    class is dealt by the same shares, so that a site is tested on what it knows. Of a time
    series whole machines are dealt, and the class of a machine is the quantile of

    - its share of positive rows, where the data itself gives labels;
    - its life, where every machine has one life with a known end (C-MAPSS);
    - else its number of failures per time.

    Args:
        alpha: concentration, above 0.
        sites: number of sites; None: those that ``site=`` names, or 10.
        minimum: training rows (machines of a time series) that every site must get; None:
            10 rows or 2 machines. Shares are drawn again until it holds.
        classes: classes into which machines are put by quantiles.
    """

    name = "dirichlet"

    def __init__(
        self,
        alpha: float = 0.5,
        sites: int | None = None,
        minimum: int | None = None,
        classes: int = 4,
    ) -> None:
        super().__init__(sites)
        number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
        if not number or not 0 < alpha < np.inf:
            raise ConfigError(f"partition.alpha={alpha} must be a number above 0")
        self.alpha = float(alpha)
        self.minimum = None if minimum is None else require_positive("partition.minimum", minimum)
        self.classes = require_positive("partition.classes", classes)

    def shares(self, machines: Machines, sites: int, generator: np.random.Generator) -> Ints:
        least = self.minimum or (LEAST_ROWS if machines.word == "row" else LEAST_MACHINES)
        kind = self.kinds(machines)
        kinds, training = np.unique(kind), machines.split == Split.TRAIN
        most = 0
        for _ in range(DRAWS if least * sites <= machines.trained_on else 0):
            shares = {k: generator.dirichlet(np.full(sites, self.alpha)) for k in kinds}
            owner = np.zeros(len(machines), dtype=np.int64)
            for part in machines.groups:
                for k in kinds:
                    members = np.flatnonzero(part & (kind == k))
                    # Where a member's place in the shuffled class falls among the summed shares.
                    place = (generator.permutation(len(members)) + 0.5) / max(len(members), 1)
                    found = np.searchsorted(np.cumsum(shares[k]), place)
                    owner[members] = np.minimum(found, sites - 1)
            smallest = int(np.bincount(owner[training], minlength=sites).min())
            if smallest >= least:
                return owner
            most = max(most, smallest)
        raise ConfigError(
            f"partition={self.name} partition.alpha={self.alpha:g} cannot give each of {sites} "
            f"sites (partition.sites) {least} training {machines.word}s out of "
            f"{machines.trained_on}: in {DRAWS} draws the smallest site got {most} at most; raise "
            "partition.alpha, lower partition.sites or partition.minimum, or take another seed"
        )

    def kinds(self, machines: Machines) -> Ints:
        """Return (M,) the class of each machine, for label skew.

        Quantiles are those of the training machines, whatever the split of a machine.
        """
        rows = machines.rows
        if rows.label is not None and machines.word == "row":
            return rows.label[machines.first]
        value = machine_values(machines)
        trained = np.sort(value[machines.split == Split.TRAIN])
        edges = np.quantile(trained, np.arange(1, self.classes) / self.classes)
        return np.searchsorted(np.unique(edges), value, side="right").astype(np.int64)


class ByQuantity(Dirichlet):
    """Quantity skew: sites own very different amounts of alike data.

    Machines (single rows of tabular data) are dealt at random by shares drawn from
    Dirichlet(alpha), the same shares in every split; Li et al., arXiv 2102.02079.

    Args:
        alpha: concentration, above 0; small: very unequal.
        sites: number of sites; None: those that ``site=`` names, or 10.
        minimum: training rows (machines of a time series) that every site must get.
    """

    name = "quantity"

    def __init__(
        self, alpha: float = 0.5, sites: int | None = None, minimum: int | None = None
    ) -> None:
        super().__init__(alpha, sites, minimum)

    def kinds(self, machines: Machines) -> Ints:
        return np.zeros(len(machines), dtype=np.int64)


def machine_values(machines: Machines) -> Floats:
    """Return (M,) what machines are ranked by: positive share, life, or failures per time."""
    rows, index = machines.rows, machines.index
    if rows.label is not None:
        return np.asarray(np.bincount(index, weights=rows.label) / np.bincount(index))
    known, life = machines.life
    if known.all():
        return life
    pairs = np.stack([index, rows.life])[:, ~np.isnan(rows.time_to_failure)]
    failures = np.bincount(np.unique(pairs, axis=1)[0], minlength=len(machines))
    begin, end = np.full(len(machines), np.inf), np.full(len(machines), -np.inf)
    np.minimum.at(begin, index, rows.time)
    np.maximum.at(end, index, rows.time)
    return np.asarray(failures / np.maximum(end - begin, 1e-9))
