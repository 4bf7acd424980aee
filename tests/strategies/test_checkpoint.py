"""What a strategy remembers goes out as plain data and comes back, in those it holds too."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import DifferentialPrivacyServerSideAdaptiveClipping as Adaptive
from flwr.serverapp.strategy import FedAdam, FedAvg

from fedpdm.storage import flatten_tree, restore_tree
from fedpdm.strategies.checkpoint import capture, restore


class Accountant:
    """Keeps its state to itself, as Flower's privacy accountant does."""

    def __init__(self) -> None:
        self._spent: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        return {"spent": list(self._spent)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._spent = list(state["spent"])


class Council(FedAvg):
    """Holds strategies in a list and a dict, and what no yaml describes."""

    def __init__(self) -> None:
        super().__init__()
        self.members = [FedAdam(), Adaptive(FedAdam(), 0.0, 2)]
        self.by_name = {"deputy": FedAdam()}
        self.accountant = Accountant()
        self.seen: dict[int, int] = {}
        self.sent = ArrayRecord()


def filled(moments: float) -> Council:
    council = Council()
    inner = council.members[1].strategy  # type: ignore[attr-defined]
    for number, adam in enumerate((council.members[0], inner, council.by_name["deputy"])):
        adam.m_t = {"w": np.full(3, moments + number)}
    council.members[1].clipping_norm = moments  # type: ignore[attr-defined]
    council.accountant._spent = [moments]
    council.seen = {7: 2}
    council.sent = ArrayRecord({"w": Array(np.arange(2.0))})
    return council


def test_all_that_is_held_survives_the_way_over_the_disk() -> None:
    before, fresh = filled(0.25), Council()
    kept = fresh.members[1]
    restore(fresh, restore_tree(*flatten_tree(capture(before))))
    np.testing.assert_equal(capture(fresh), capture(before))
    assert fresh.members[1] is kept  # filled, not replaced
    np.testing.assert_equal(kept.strategy.m_t["w"], np.full(3, 1.25))  # type: ignore[attr-defined]
    assert fresh.accountant.state_dict() == {"spent": [0.25]} and fresh.seen == {7: 2}
    assert isinstance(fresh.sent, ArrayRecord)


def test_a_restore_leaves_what_is_no_memory() -> None:
    strategy = FedAdam()
    means = strategy.train_metrics_aggr_fn
    restore(strategy, capture(FedAdam(eta=0.5)))
    assert strategy.eta == 0.5 and strategy.train_metrics_aggr_fn is means
