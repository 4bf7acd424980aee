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
    plant_data,
    read_work,
    write_result,
)


def run(work: Work) -> tuple[list[float], list[float]]:
    """Return clock stamps and losses of the rounds."""
    from fedpdm.engines.stacked.memory import plants_at_hand
    from fedpdm.engines.stacked.trainer import PlantData, StackedTrainer
    from fedpdm.tasks import Failure
    from fedpdm.training.loop import TrainingSettings

    settings = TrainingSettings(
        local_epochs=EPOCHS, batch_size=BATCH, learning_rate=LEARNING_RATE, optimizer="adam"
    )
    device = torch.device(work.device)
    model = build_model(work.model)
    task = Failure(horizon=1.0)  # whose loss the engines have in this benchmark
    trainer = StackedTrainer(
        model.module, task.loss, settings, seed=SEED, device=device, row_losses=task.row_losses
    )
    data = [
        [torch.from_numpy(a).to(device) for a in plant_data(work.model, plant)]
        for plant in range(work.plants)
    ]
    shared = {name: t.to(device) for name, t in model.get_parameters().items()}
    size = plants_at_hand(device)
    stamps, losses = [time.perf_counter()], []
    for number in range(1, work.rounds + 1):
        sums = {name: np.zeros(tuple(t.shape)) for name, t in shared.items()}
        found = []
        for begin in range(0, work.plants, size):
            plants = [
                PlantData(str(n), ("train", str(n), number, 0), *data[n])
                for n in range(begin, min(begin + size, work.plants))
            ]
            for trained in trainer.train(shared, plants, epochs=EPOCHS):
                found.append(trained.train_loss)
                for name, array in trained.weights.items():
                    sums[name] += array
        shared = {
            name: torch.as_tensor(sums[name] / work.plants).to(device, t.dtype)
            for name, t in shared.items()
        }
        losses.append(float(np.mean(found)))
        stamps.append(time.perf_counter())
    return stamps, losses


if __name__ == "__main__":
    asked, path = read_work()
    write_result(path, *run(asked))
