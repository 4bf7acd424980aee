"""The floor: the plain PyTorch loop that a person would write, and nothing else.

One process, one resident model, data in memory, the same fused Adam as fedpdm, and the
weighted mean at the end of a round. No messages, no history, no seeds per site.
``floor-default`` is the same with torch's Adam as it comes.
"""

from __future__ import annotations

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
    """Return clock stamps and losses of the rounds."""
    from fedpdm.training.optimizers import Adam

    torch.manual_seed(SEED)
    device = torch.device(work.device)
    module = build_model(work.model).module.to(device)
    module.train()
    data = [
        tuple(torch.from_numpy(a).to(device) for a in site_data(work.model, site))
        for site in range(work.sites)
    ]
    parameters = [p for p in module.parameters() if p.requires_grad]
    # Parameters and float buffers are averaged; BatchNorm's counter is only counted on.
    state = [t.data for t in module.state_dict(keep_vars=True).values() if t.is_floating_point()]
    shared = [t.clone() for t in state]
    stamps, losses = [time.perf_counter()], []
    for _ in range(work.rounds):
        sums = [torch.zeros_like(t) for t in state]
        total = torch.zeros((), device=device)
        for x, y in data:
            torch._foreach_copy_(state, shared)
            optimizer: Any = (
                torch.optim.Adam(parameters, lr=LEARNING_RATE)
                if work.contender.startswith("floor-default")
                else Adam(parameters, 0.0)
            )
            for _ in range(EPOCHS):
                for index in torch.split(torch.randperm(SAMPLES, device=device), BATCH):
                    for parameter in parameters:
                        parameter.grad = None
                    loss = functional.cross_entropy(module(x[index]), y[index])
                    loss.backward()  # type: ignore[no-untyped-call]
                    if isinstance(optimizer, Adam):
                        optimizer.step(LEARNING_RATE)
                    else:
                        optimizer.step()
                    total += loss.detach() * len(index)
            torch._foreach_add_(sums, state, alpha=SAMPLES)
        torch._foreach_div_(sums, float(SAMPLES * work.sites))
        shared = sums
        losses.append(float(total) / (SAMPLES * work.sites * EPOCHS))  # waits for the device
        stamps.append(time.perf_counter())
    return stamps, losses


if __name__ == "__main__":
    asked, path = read_work()
    write_result(path, *run(asked))
