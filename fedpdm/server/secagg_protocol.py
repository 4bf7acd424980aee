"""The server's part in one round of secure aggregation: whom it asks what, and what the sum is.

``server.secagg`` says what the protocol is; here are its stages, without messages.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from fedpdm.transforms.masking import (
    COLLECT,
    SETUP,
    SHARE_KEYS,
    UNMASK,
    Vector,
    key_of,
    mask,
    pair_mask,
    signed,
)

Values = dict[str, Any]
Graph = dict[int, set[int]]
Stages = Generator[tuple[str, dict[int, Values]], dict[int, Values], None]
"""Yields a stage and what each site is asked, and is sent what each answered."""


class TooFew(Exception):
    """There is no sum; says why."""


class Protocol:
    """One round.

    Args:
        names: of the sites, by number.
        graph: each site's neighbours.
        threshold: share of a neighbourhood that must be left.
        size: length of a vector.
        coding: what sites must know to make one.

    Attributes:
        total: (size,) the sum of the vectors so far; of all masks bare after the last stage.
        came: whose vectors are in it.
    """

    def __init__(
        self,
        names: Mapping[int, str],
        graph: Graph,
        threshold: float,
        size: int,
        coding: Mapping[str, Any],
    ) -> None:
        self._names, self._graph, self._coding = names, graph, coding
        self._hood = 1 + max((len(others) for others in graph.values()), default=0)
        # With half of them, two halves could be asked for different secrets of one site.
        least = math.ceil(threshold * self._hood - 1e-9)
        self._least = max(2, self._hood // 2 + 1, least)
        self._asked: dict[int, Values] = {}
        self._stage = SETUP
        self._keys: Mapping[int, Values] = {}
        self.total: Vector = np.zeros(size, np.uint64)
        self.came: list[int] = []

    def stages(self) -> Stages:
        """Go through the round.

        Raises:
            TooFew: there can be no sum any more.
        """
        if self._hood < self._least:
            raise TooFew("one site cannot hide its update among others")
        self._keys = yield self._ask(SETUP, {site: {"id": site} for site in self._graph})
        graph = self._left(self._graph, self._keys)
        shared = yield self._ask(SHARE_KEYS, {
            site: {
                "threshold": self._least,
                "neighbourhood": self._hood,
                "peers": sorted(others),
                "pk1": [self._keys[other]["pk1"] for other in sorted(others)],
                "pk2": [self._keys[other]["pk2"] for other in sorted(others)],
            }
            for site, others in graph.items()
        })  # fmt: skip
        graph = self._left(graph, shared)
        texts = {
            site: dict(zip(said["peers"], said["ciphertexts"], strict=True))
            for site, said in shared.items()
        }
        heard = yield self._ask(COLLECT, {
            site: {
                "sources": sorted(others),
                "ciphertexts": [texts[other][site] for other in sorted(others)],
                **self._coding,
            }
            for site, others in graph.items()
        })  # fmt: skip
        self._left(graph, heard)
        self.came = list(heard)
        answers = yield self._ask(UNMASK, {
            site: {
                "there": sorted({site, *(graph[site] & heard.keys())}),
                "gone": sorted(graph[site] - heard.keys()),
            }
            for site in heard
        })  # fmt: skip
        shares: dict[int, list[bytes]] = {site: [] for site in graph}
        for said in answers.values():
            for owner, share in zip(said["ids"], said["shares"], strict=True):
                shares[owner].append(share)
        for site, found in shares.items():
            self._unmask(site, found, graph[site] & heard.keys())

    def masked(self, vector: Vector) -> None:
        """Add a site's vector to the sum; it is not kept.

        Raises:
            ValueError: it has another form.
        """
        if vector.shape != self.total.shape or vector.dtype != np.uint64:
            raise ValueError(f"a vector of {vector.dtype} {vector.shape}")
        self.total += vector

    def check(self, site: int, said: Values) -> None:
        """Check what a site answered to a stage without training.

        Raises:
            Exception: of any kind: it is not what was asked for.
        """
        asked = self._asked[site]
        expected: Values = {}
        if self._stage == SETUP:
            count, given = 2, [said["pk1"], said["pk2"]]
        elif self._stage == SHARE_KEYS:
            expected = {"peers": asked["peers"]}
            count, given = len(asked["peers"]), said["ciphertexts"]
        else:
            expected = {"ids": [*asked["there"], *asked["gone"]]}
            count, given = len(expected["ids"]), said["shares"]
        fits = all(said[name] == value for name, value in expected.items())
        if not (fits and len(given) == count and all(isinstance(each, bytes) for each in given)):
            raise ValueError("it is not what was asked for")

    def _ask(self, stage: str, asked: dict[int, Values]) -> tuple[str, dict[int, Values]]:
        self._stage, self._asked = stage, asked
        return stage, asked

    def _left(self, graph: Graph, heard: Mapping[int, object]) -> Graph:
        """Return the graph of those sites that answered."""
        found = {site: others & heard.keys() for site, others in graph.items() if site in heard}
        fewest = min((1 + len(others) for others in found.values()), default=0)
        if fewest < self._least:
            raise TooFew(
                f"after stage {self._stage} {len(found)} of {len(self._graph)} sites were left, "
                f"and {self._least} of {self._hood} are needed to unmask it"
            )
        return found

    def _unmask(self, site: int, shares: list[bytes], others: set[int]) -> None:
        """Take a site's masks off the sum: its own, or those of its pairs if it went away.

        Args:
            site: whose.
            shares: of the secret behind them.
            others: its neighbours whose vectors are in the sum.
        """
        size, name = len(self.total), self._names[site]
        if len(shares) < self._least:
            raise TooFew(
                f"{len(shares)} shares of a secret of {name} came, and {self._least} are needed"
            )
        try:
            secret = combine_shares(shares[: self._least])
            if site in self.came:
                self.total -= mask(secret, size)
                return
            own = key_of(secret)
            if public_key_to_bytes(own.public_key()) != self._keys[site]["pk1"]:
                raise ValueError
            for other in sorted(others):
                values = pair_mask(own, self._keys[other]["pk1"], size)
                self.total -= signed(values, other, site)
        except ValueError:
            raise TooFew(f"the shares of a secret of {name} do not fit") from None
