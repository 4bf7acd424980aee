"""The stacked kernel of ``engine=batched`` alone: no Flower, no messages, no history.

What it takes less than ``batched`` is the cost of the engine around it. Needs torch and
numpy, so it runs on a machine that has nothing else.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from benchmarks.speed.work import (
    BATCH,
    EPOCHS,
    LEARNING_RATE,
    SEED,
    Work,
    build_model,
    read_work,
    site_data,
    write_result,
)


def run(work: Work) -> tuple[list[float], list[float]]:
    """Return clock stamps and losses of the rounds."""
    from fedpdm.engines.stacked.schedule import sites_at_hand
    from fedpdm.engines.stacked.trainer import SiteData, StackedTrainer
    from fedpdm.tasks import Failure
    from fedpdm.training.loop import TrainingSettings
    from fedpdm.training.objective import Supervised

    settings = TrainingSettings(
        local_epochs=EPOCHS, batch_size=BATCH, learning_rate=LEARNING_RATE, optimizer="adam"
    )
    device = torch.device(work.device)
    model = build_model(work.model)
    task = Failure(horizon=1.0)  # whose loss the engines have in this benchmark
    trainer = StackedTrainer(model.module, Supervised.of(task), settings, seed=SEED, device=device)
    data = [
        [torch.from_numpy(a).to(device) for a in site_data(work.model, site)]
        for site in range(work.sites)
    ]
    shared = {name: t.to(device) for name, t in model.get_parameters().items()}
    size = sites_at_hand(device)
    stamps, losses = [time.perf_counter()], []
    for number in range(1, work.rounds + 1):
        sums = {name: np.zeros(tuple(t.shape)) for name, t in shared.items()}
        found = []
        for begin in range(0, work.sites, size):
            sites = [
                SiteData(str(n), ("train", str(n), number, 0), *data[n])
                for n in range(begin, min(begin + size, work.sites))
            ]
            for trained in trainer.train(shared, sites, epochs=EPOCHS):
                found.append(trained.train_loss)
                for name, array in trained.weights.items():
                    sums[name] += array
        shared = {
            name: torch.as_tensor(sums[name] / work.sites).to(device, t.dtype)
            for name, t in shared.items()
        }
        losses.append(float(np.mean(found)))
        stamps.append(time.perf_counter())
    return stamps, losses


if __name__ == "__main__":
    asked, path = read_work()
    write_result(path, *run(asked))
