"""Shuffled labels as a leakage test: without a leak, a model must then score like chance.

What a model learns then can only be chance, and its average precision at each site lies at
that site's prevalence, up to the chance of few windows (``fedpdm.evaluation.summary_sections`` says
how far that reaches). Training and test labels both move. Only training labels would not do:
a model of noise still moves slowly with the sensors, and so do true labels, which gives large
chance correlations. There are two ways, and each shows something else:

- ``windows``: the labels of all windows of a part are permuted, so that each is drawn for
  itself and every part keeps its share. A score above chance then says that test labels reach
  the predictions after the shuffle (or, if only the run's own metric is above, that it is
  wrong). Test windows that are copies of training windows do not show: both got labels of
  their own.
- ``rotated``: labels move along a machine's record, over all parts at once, so a copy, an
  overlap or a neighbour in time of a training window carries that window's wrong label in the
  test as well. A score above chance then says that the test holds such windows, or what
  ``windows`` says. Its chance deviations are larger: machines are fewer than windows.

Neither shows a label, or what follows from it, among the sensors: the sensors stay where they
were and say nothing of the new labels. Guards (``fedpdm.data.leakage.checks``) and, for generated
fleets, the gates on single sensors (``fedpdm.data.fleet.gates``) look for that. ``rotated`` sees
neither single rows that are nearly copies, nor copies of part of a machine under another name,
nor copies at another site unless its scaling is the same: guards look for those, too.

Judge it per site (and by the mean over sites). Over pooled windows the score may lie above
the common prevalence without any leak: sites differ in prevalence and in their sensors, and
which site a window comes from can be told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.rows import Floats, Ints, Split
from fedpdm.data.sources.base import require_choice
from fedpdm.data.windows import Windows
from fedpdm.seeding import numpy_generator

KINDS = ("windows", "rotated")


@dataclass(frozen=True)
class LabelShuffle:
    """Shuffles the labels of a site's windows.

    Attributes:
        kind: ``windows`` or ``rotated``, as above.
        seed: the run's seed; each site and part (``windows``) or each machine's readings
            (``rotated``) draw by themselves.

    Raises:
        ConfigError: an unknown kind.
    """

    kind: str
    seed: int

    def __post_init__(self) -> None:
        require_choice("shuffle_labels", self.kind, KINDS, null=True)

    def __call__(self, parts: Mapping[Split, Windows], site: str) -> dict[Split, Windows]:
        """Return a site's windows with the labels of others."""
        every = list(parts.values())
        starts = np.cumsum([0, *(len(part) for part in every)])
        if self.kind == "rotated":
            order = Rings.of(every).turned(lambda readings: self._random("shuffle", readings))[0]
        else:
            orders = [
                start + self._random("shuffle", site, int(split)).permutation(len(part))
                for start, (split, part) in zip(starts[:-1], parts.items(), strict=True)
            ]
            order = np.concatenate(orders)
        y = np.concatenate([part.y for part in every])[order]
        truth = np.concatenate([part.truth for part in every])[order]
        cuts = starts[1:-1]
        return {
            split: replace(part, y=own, truth=own_truth)
            for (split, part), own, own_truth in zip(
                parts.items(), np.split(y, cuts), np.split(truth, cuts), strict=True
            )
        }

    def again(self, windows: Windows, site: str, draws: int) -> Ints:
        """Return (draws, N) whose label each window gets if this part is shuffled once more."""
        random = self._random("shuffled again", site)
        if self.kind == "rotated":
            return Rings.of([windows]).turned(lambda readings: random, draws)
        return np.stack([random.permutation(len(windows)) for _ in range(draws)])

    def _random(self, *key: str | int) -> np.random.Generator:
        return numpy_generator(self.seed, *key)


@dataclass(frozen=True)
class Rings:
    """Along which windows labels move. N windows, P places.

    Attributes:
        place: (N,) the place of each window; windows at one place share their label.
        window: (P,) a window at each place.
        machines: for each machine its places in the order of time, the last followed by the
            first. A whole machine and not a life: short lives may hold one label only.
        readings: for each machine a hash of its windows, so that a machine copied under
            another name turns alike, in another part too.
        rows: places of single rows (of machines with one place), which have no time to move
            along. There a place is a row's content, whatever its name.
    """

    place: Ints
    window: Ints
    machines: tuple[Ints, ...]
    readings: tuple[str, ...]
    rows: Ints

    @staticmethod
    def of(parts: Sequence[Windows]) -> Rings:
        """Return the rings of a site's windows, which are numbered through its parts."""
        hashes = [hashlib.sha256(x.tobytes()).digest()[:8] for part in parts for x in part.x]
        content = np.frombuffer(b"".join(hashes), dtype=np.uint64)
        machine = np.unique(np.concatenate([p.machine for p in parts]), return_inverse=True)[1]
        time = np.concatenate([p.time for p in parts])
        window = _distinct(machine, time, content)[1]
        single = (np.bincount(machine[window]) == 1)[machine]
        machine = np.where(single, -1, machine)
        place, window = _distinct(machine, np.where(single, 0.0, time), content)
        owner = machine[window]  # in order, single rows first
        places = np.split(np.arange(len(owner)), np.flatnonzero(np.diff(owner)) + 1)
        machines = tuple(own for own in places if len(own) and owner[own[0]] >= 0)
        readings = (hashlib.sha256(content[window[own]].tobytes()).hexdigest() for own in machines)
        return Rings(place, window, machines, tuple(readings), np.flatnonzero(owner < 0))

    def turned(self, random: Callable[[str], np.random.Generator], draws: int = 1) -> Ints:
        """Return (draws, N) whose label each window gets.

        Args:
            random: gives what a machine's turn is drawn from, by its ``readings``; single rows
                are permuted, and draw by the readings ``rows``.
            draws: how often all are turned.
        """
        moved = np.empty((draws, len(self.window)), dtype=np.int64)
        moved[:, self.rows] = random("rows").permuted(np.tile(self.rows, (draws, 1)), axis=1)
        for own, readings in zip(self.machines, self.readings, strict=True):
            turn = random(readings).integers(len(own), size=(draws, 1))
            moved[:, own] = own[(np.arange(len(own)) + turn) % len(own)]
        return np.asarray(self.window[moved[:, self.place]])


def _distinct(machine: Ints, time: Floats, content: NDArray[np.uint64]) -> tuple[Ints, Ints]:
    """Return (N,) which distinct window each is, and (P,) one of each, sorted as given."""
    order = np.lexsort((content, time, machine))
    new = np.zeros(len(order), dtype=bool)
    for column in (machine, time, content):
        new[1:] |= column[order[1:]] != column[order[:-1]]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.cumsum(new)
    return place, order[np.r_[True, new[1:]]] if len(order) else order
