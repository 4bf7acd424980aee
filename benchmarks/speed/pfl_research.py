"""pfl-research 0.6: FederatedAveraging on its SimulatedBackend, in one process or several.

As its documentation has it: one resident PyTorch model per process, datasets of tensors in
memory, ``torch.optim.Adam`` as the local optimizer (fused, like the others'), SGD with rate
1 as the central one. Its datasets are read in order, so it is spared the shuffling, and it
does not average BatchNorm's buffers. No evaluation, no callback but the clock.
"""

from __future__ import annotations

import functools
import os
import time
from typing import Any

import torch
from torch.nn import functional

from benchmarks.speed.work import (
    BATCH,
    EPOCHS,
    LEARNING_RATE,
    SAMPLES,
    SEED,
    Work,
    build_model,
    read_work,
    site_data,
    write_result,
)


def run(work: Work) -> tuple[list[float], list[float]]:
    """Return clock stamps, and losses of the rounds over this process's sites."""
    import numpy as np
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.pytorch import PyTorchTensorDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    np.random.seed(SEED)
    torch.manual_seed(SEED)
    module = build_model(work.model).module
    module.train()
    seen: list[Any] = [torch.zeros(()), 0]  # sum of losses, number of samples

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        value = functional.cross_entropy(module(x), y)
        seen[0] += value.detach() * len(y)
        seen[1] += len(y)
        return value

    module.loss, module.metrics = loss, None  # type: ignore[assignment]
    model = PyTorchModel(
        module,
        functools.partial(torch.optim.Adam, fused=True),
        torch.optim.SGD(module.parameters(), lr=1.0),
    )
    sets = [
        PyTorchTensorDataset([torch.from_numpy(a) for a in site_data(work.model, site)])
        for site in range(work.sites)
    ]
    users = FederatedDataset(
        sets.__getitem__, get_user_sampler("minimize_reuse", list(range(work.sites)))
    )
    stamps, losses = [time.perf_counter()], []

    class Clock(TrainingProcessCallback):  # type: ignore[misc]
        def after_central_iteration(
            self, aggregate_metrics: Any, model: Any, *, central_iteration: int
        ) -> tuple[bool, Any]:
            stamps.append(time.perf_counter())
            losses.append(float(seen[0]) / seen[1])
            seen[0], seen[1] = torch.zeros(()), 0
            return False, Metrics()

    algorithm = FederatedAveraging()
    # It evaluates in iteration 0 whatever the frequency, so counting starts at 1.
    algorithm._current_central_iteration = 1
    algorithm.run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=work.rounds + 1,
            evaluation_frequency=10**9,
            train_cohort_size=work.sites,
            val_cohort_size=None,
        ),
        backend=SimulatedBackend(training_data=users, val_data=users),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=EPOCHS, local_learning_rate=LEARNING_RATE, local_batch_size=BATCH
        ),
        callbacks=[Clock()],
        send_metrics_to_platform=False,
    )
    assert sum(len(s) for s in sets) == SAMPLES * work.sites
    return stamps, losses


if __name__ == "__main__":
    asked, path = read_work()
    measured = run(asked)
    if os.environ.get("RANK", "0") == "0":
        write_result(path, *measured)
