"""Rows with the words that a task's classes come from, and a split by machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedpdm.data.rows import Rows, Split, Strings
from fedpdm.data.sources.base import Source, WrappedSource
from fedpdm.errors import DataError
from fedpdm.seeding import numpy_generator

DEALT = (Split.TRAIN, Split.TEST, Split.VALIDATION, Split.TRAIN, Split.TRAIN)
"""How the machines of a class are dealt out, in turn: 60, 20 and 20 %, the first to training."""


class ClassSource(WrappedSource):
    """The rows of another source, with a column of words that tells their class.

    Args:
        inner: the data.
        column: of its rows (``Rows.groups``), or of the truth behind them (``Source.truth``).
        seed: deals whole machines to training, validation and test, because all rows of a
            machine have one label: a test on other rows of a known machine would ask whether it
            is recognised. None: the data's own split.
    """

    def __init__(self, inner: Source, column: str, seed: int | None) -> None:
        super().__init__(inner)
        self.column, self.seed = column, seed

    def rows(self, site: str) -> Rows:
        rows = self.inner.rows(site)
        words = rows.groups.get(self.column)
        words = self.inner.truth(site).get(self.column) if words is None else words
        if words is None:
            raise DataError(
                f"{site}: data={self.name} has no column '{self.column}' to take classes from; "
                f"files name it in sites.{site}.groups, and data=fleet has kind and mode with "
                "partition=natural"
            )
        rows = replace(rows, groups=rows.groups | {self.column: words})
        if self.seed is None:
            return rows
        return by_machine(rows, words, numpy_generator(self.seed, "machines", site))


def by_machine(rows: Rows, words: Strings, generator: np.random.Generator) -> Rows:
    """Deal a site's machines to training, validation and test, class by class.

    Args:
        rows: sorted by machine.
        words: (R,) class of each row.
        generator: draws the order within a class.

    Returns:
        The rows with ``split`` set; every row of a machine is in one part.
    """
    machines, first, index = np.unique(rows.machine, return_index=True, return_inverse=True)
    drawn = generator.permutation(len(machines))
    split = np.empty(len(machines), dtype=np.int8)
    for word in np.unique(words[first]):
        own = drawn[words[first][drawn] == word]
        split[own] = np.resize(np.array(DEALT, dtype=np.int8), len(own))
    return replace(rows, split=split[index])
