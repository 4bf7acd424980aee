"""Base class of attacks: which sites are malicious, in which rounds, and what they do.

A malicious site trains as the others do. It may see other training windows (``windows``), and may
send something else than the weights that it came to (``update``). Everything else it does
honestly: it counts its examples, evaluates, sends sums for the scaler, buffers and the strategy's
records, and its validation and test windows are never touched. So scores of an attacked run are
comparable to those of a clean one. Wherever the update is encoded (compressed, clipped), that
comes after the attack. Draws come from the run's seed, by attack, site, round and attempt.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from flwr.app import RecordDict

from fedpdm.data.windows import Windows
from fedpdm.errors import ConfigError
from fedpdm.federation import Federation
from fedpdm.seeding import numpy_generator
from fedpdm.wire.records import ARRAYS, Arrays, arrays_in, config_in

QUARTER = 0.25


class Attack(ABC):
    """What malicious sites do.

    Args:
        sites: their names, how many there are (a whole number), or which share of all sites
            (a number below 1); those that are not named are drawn from the seed. None is a
            quarter.
        first_round: the first round in which they attack.
        last_round: the last one; None for the last of the run.

    Attributes:
        name: as in ``conf/attack``.
        poisons: whether training windows are changed.
        malicious: the names of the malicious sites; known after ``settle``.
    """

    name: ClassVar[str]
    poisons: ClassVar[bool] = False

    def __init__(
        self,
        sites: Sequence[str] | int | float | None = None,
        first_round: int = 1,
        last_round: int | None = None,
    ) -> None:
        if first_round < 1:
            raise ConfigError(f"attack.first_round={first_round} must be at least 1")
        if last_round is not None and last_round < first_round:
            raise ConfigError(
                f"attack.last_round={last_round} is before attack.first_round={first_round}"
            )
        self.asked: Sequence[str] | int | float = QUARTER if sites is None else sites
        self.first_round, self.last_round = first_round, last_round
        self.malicious: tuple[str, ...] = ()
        self.seed = 0

    def settle(self, federation: Federation, rounds: int, seed: int) -> None:
        """Choose the malicious sites.

        Args:
            federation: its sites and windows.
            rounds: of the run.
            seed: of the run.

        Raises:
            ConfigError: there are no such sites or rounds, or nothing honest is left.
        """
        every, asked = federation.sites, self.asked
        self.seed = seed
        if self.first_round > rounds:
            raise ConfigError(
                f"attack.first_round={self.first_round} is after the last round ({rounds}) and "
                "would never happen"
            )
        if isinstance(asked, int | float):
            self.malicious = self._drawn(every, asked)
        else:
            names = [str(name) for name in asked]
            if unknown := [name for name in names if name not in every]:
                raise ConfigError(
                    f"attack.sites: there is no site {unknown[0]!r} in this run; it has "
                    f"{', '.join(every[:10])}{' …' if len(every) > 10 else ''}"
                )
            self.malicious = tuple(name for name in every if name in names)
        if len(self.malicious) >= len(every):
            raise ConfigError(
                f"attack.sites={asked} makes all {len(every)} sites malicious, and an attack needs "
                "an honest one; name fewer"
            )
        self.check(federation)

    def _drawn(self, every: Sequence[str], asked: int | float) -> tuple[str, ...]:
        if not asked >= 0 or (isinstance(asked, float) and not asked < 1):
            raise ConfigError(
                f"attack.sites={asked} must be names, a whole number of sites, or a share below 1"
            )
        count = asked if isinstance(asked, int) else max(1, int(asked * len(every) + 1e-9))
        count = 0 if asked == 0 else min(count, len(every))
        generator = numpy_generator(self.seed, "attack", "sites")
        return tuple(every[k] for k in sorted(generator.permutation(len(every))[:count]))

    def check(self, federation: Federation) -> None:  # noqa: B027  (most attacks need nothing)
        """Refuse a task or data that the attack cannot be made on, with a ConfigError."""

    def active(self, site: str, number: int) -> bool:
        """Return whether a site attacks in a round."""
        last = self.last_round
        rounds = self.first_round <= number and (last is None or number <= last)
        return rounds and site in self.malicious

    def windows(self, windows: Windows, site: str) -> Windows:
        """Return the training windows that a malicious site trains on."""
        return windows

    def update(self, received: Arrays, trained: Arrays, generator: np.random.Generator) -> Arrays:
        """Return the parameters that a malicious site sends, of any float type.

        Args:
            received: the parameters that it got.
            trained: those that it came to.
            generator: for this site, round and attempt.
        """
        return trained

    def sent(
        self, site: str, records: Mapping[str, Arrays], content: RecordDict
    ) -> dict[str, Arrays]:
        """Return the records that a site sends.

        Args:
            site: who.
            records: what it would send.
            content: of the message that it answers.
        """
        config = config_in(content)
        number, attempt = int(config["server-round"]), int(config.get("attempt", 0))
        if not self.active(site, number):
            return dict(records)
        key = "attack", self.name, site, number, attempt, str(config.get("job", ""))
        trained = records[ARRAYS]
        with np.errstate(all="ignore"):  # the server refuses what is not finite
            found = self.update(
                arrays_in(content, ARRAYS), trained, numpy_generator(self.seed, *key)
            )
            arrays = {n: np.asarray(found[n], a.dtype) for n, a in trained.items()}
        return {**records, ARRAYS: arrays}

    def described(self, sites: int) -> dict[str, Any]:
        """Return what ``summary.json`` says of the attack, among so many sites."""
        settings = {k: v for k, v in vars(self).items() if k not in _COMMON and k[0] != "_"}
        return {
            "name": self.name, "sites": list(self.malicious), "of_sites": sites,
            "rounds": [self.first_round, self.last_round], "settings": settings,
        }  # fmt: skip


_COMMON = ("asked", "first_round", "last_round", "malicious", "seed")


def scaled(received: Arrays, trained: Arrays, factor: float) -> Arrays:
    """Return what was received, plus ``factor`` times what training changed."""
    return {
        name: array + factor * (trained[name].astype(np.float64) - array)
        for name, array in received.items()
    }
