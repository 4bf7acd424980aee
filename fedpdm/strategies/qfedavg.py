"""q-FedAvg, weighted by the loss of the received model as in the paper.

Li et al. 2020, Fair Resource Allocation in Federated Learning (ICLR), algorithm 2: a
site's weight is F_k(w_t)^q, the loss of the model it *received*. Flower's class leaves
to the client which loss it reports; this one asks for it.

Use it where no site may be left behind; the larger q, the more the worst site counts, and the
slower the mean improves. A site computes the loss of the received model, one more pass over its
rows; one number travels, and a reported loss is believed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import QFedAvg as FlowerQFedAvg

from fedpdm.strategies.ranges import check_range


class QFedAvg(FlowerQFedAvg):
    """Flower's q-FedAvg, fed with each site's loss before local training.

    Args:
        client_learning_rate: 1/L in the paper. The deltas of Adam are not those of plain
            gradient steps, so this sets how strongly q damps the step, not the local rate.
        q: 0 is the plain mean over sites; larger favours the sites with the larger loss.
        **flower: further arguments of Flower's class.
    """

    def __init__(self, client_learning_rate: float, q: float = 0.1, **flower: Any) -> None:
        check_range("client_learning_rate", client_learning_rate)
        check_range("q", q, zero=True)
        super().__init__(client_learning_rate, q, train_loss_key="received_loss", **flower)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        config["report-received-loss"] = True
        return super().configure_train(server_round, arrays, config, grid)
