"""FedRep: the body is learnt together; each site trains its own head first, then the body.

Collins, Hassani, Mokhtari, Shakkottai 2021, Exploiting Shared Representations for Personalized
Federated Learning (ICML), algorithm 1. In a round, with the received body φ and its own head h_k,

    h_k ← h_k − η·∇_h f_k(φ, h_k)       for the first epochs, the body still
    φ_k ← φ_k − η·∇_φ f_k(φ_k, h_k)     for the others, the head still
    φ   ← mean_S φ_k                    at the server

The head is the layer ``output``, or else the last one with parameters (``travels: body``). With all
epochs for both at once it would be FedPer.

A site remembers its head; a message is shorter by it. Nothing else is kept, and a step costs what
FedAvg's does. Ours deviates: the split is by epochs of one round's training with one optimizer,
whose moments of the part that is still do not change; a still body's running statistics do.

Use it as FedPer, where signals are alike and the answer differs, if training.local_epochs is 2 or
more.
"""

from __future__ import annotations

from torch import Tensor, nn

from fedpdm.errors import ConfigError
from fedpdm.models.policy import Body
from fedpdm.tasks.base import Task
from fedpdm.training.loop import TrainingSettings
from fedpdm.training.objective import LocalContext
from fedpdm.training.personal.base import Personal, Steps, check_option, personal, work_of


@personal("fedrep")
class FedRep(Personal):
    """Drops the gradients of the part that is still. The head itself is the policy's.

    Args:
        head_epochs: of the head, first; None for all of a round's but the last.
    """

    def __init__(self, head_epochs: int | None = None) -> None:
        check_option("head_epochs", 1 if head_epochs is None else head_epochs, 1, 10_000)
        self.head_epochs = head_epochs

    def check(self, task: Task, settings: TrainingSettings) -> None:
        super().check(task, settings)
        if settings.local_epochs <= (self.head_epochs or 1):
            raise ConfigError(
                f"personal.head_epochs={self.head_epochs or 1} leaves no epoch for the body: raise "
                f"training.local_epochs={settings.local_epochs}"
            )

    def begin(self, model: nn.Module, context: LocalContext) -> None:
        super().begin(model, context)
        work = work_of(context)
        self._steps, self._head = Steps(work), set(Body().local(model))
        self._until = self.head_epochs or max(work.epochs - 1, 1)

    def backward(self, model: nn.Module, x: Tensor, y: Tensor, context: LocalContext) -> Tensor:
        loss = super().backward(model, x, y, context)
        head = self._steps.next() < self._until
        for name, parameter in model.named_parameters():
            if (name in self._head) != head:
                parameter.grad = None
        return loss
