"""FedAvg and FedProx on Synthetic(0,0) and (1,1) with stragglers, as in the FedProx paper, but
smaller.

    python -m benchmarks.synthetic [--seeds 0,1,2,3,4]

Li et al. 2020, Federated Optimization in Heterogeneous Networks (MLSys), section 5.1 and figure 1:
30 devices, of which 10 are drawn in a round; softmax regression of 60 features and 10 classes; a
share of the drawn devices are stragglers, which manage 1 to E epochs (drawn) instead of E. FedAvg
drops them; FedProx takes what they have, with μ = 0 or μ = 1. Device k draws u ~ N(0, α) and B ~
N(0, β); W, b ~ N(u, 1); v ~ N(B, 1); x ~ N(v, Σ), Σ_jj = j^−1.2; y = argmax(Wx + b). Devices,
sampling and stragglers are the same for all methods of a seed.

Local training is ``fedpdm.training.loop.fit`` with FedProx's term, and the mean is ``VectorSum``:
what a run uses. A run gives all sites the same number of epochs, so stragglers are this file's own.
Smaller than the paper: at most 300 rows a device, E = 10 and 20 rounds, where it has up to
thousands, 20 and 200. Each cell is stored in ``benchmarks/results/synthetic.json`` when it is done,
so the command may be stopped and started at will.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn import functional

from fedpdm.aggregation.sums import VectorSum
from fedpdm.seeding import numpy_generator
from fedpdm.storage import write_json
from fedpdm.strategies.fedprox import proximal_term
from fedpdm.training.loop import TrainingSettings, fit
from fedpdm.training.objective import Supervised

RESULTS = Path(__file__).parent / "results" / "synthetic.json"
DEVICES, DRAWN, FEATURES, CLASSES = 30, 10, 60, 10
ROUNDS, EPOCHS, MOST_ROWS = 20, 10, 300
DATA = {"0,0": (0.0, 0.0), "1,1": (1.0, 1.0)}
STRAGGLERS = (0.0, 0.5, 0.9)
METHODS: dict[str, float | None] = {"fedavg": None, "fedprox-0": 0.0, "fedprox-1": 1.0}
"""FedProx's μ; None drops stragglers."""
LOSS = Supervised(functional.cross_entropy)
SETTINGS = TrainingSettings(EPOCHS, 10, 0.01, optimizer="sgd", schedule="constant")


@dataclass(frozen=True)
class Device:
    """A device's rows: (N, 60) inputs and (N,) classes, of training and of the test."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def devices(alpha: float, beta: float, seed: int) -> list[Device]:
    """Return the devices of Synthetic(α, β); a fifth of each one's rows is for the test."""
    made = []
    scale = np.arange(1, FEATURES + 1) ** -0.6  # the root of j^-1.2
    for k in range(DEVICES):
        random = numpy_generator(seed, "synthetic", f"{alpha:g},{beta:g}", k)
        rows = min(int(random.lognormal(4.0, 2.0)) + 50, MOST_ROWS)
        u, centre = random.normal(0, math.sqrt(alpha)), random.normal(0, math.sqrt(beta))
        weight, bias = random.normal(u, 1, (CLASSES, FEATURES)), random.normal(u, 1, CLASSES)
        x = random.normal(centre, 1, FEATURES) + scale * random.normal(size=(rows, FEATURES))
        y = (x @ weight.T + bias).argmax(axis=1)
        cut = rows * 4 // 5
        xs, ys = torch.from_numpy(x).float(), torch.from_numpy(y)
        made.append(Device(xs[:cut], ys[:cut], xs[cut:], ys[cut:]))
    return made


def drawn(seed: int, number: int, share: float) -> tuple[list[int], dict[int, int]]:
    """Return the devices of a round, and the epochs of those that are stragglers."""
    random = numpy_generator(seed, "synthetic-round", number)
    chosen = sorted(random.choice(DEVICES, DRAWN, replace=False).tolist())
    slow = random.permutation(chosen)[: round(share * DRAWN)].tolist()
    return chosen, {k: int(random.integers(1, EPOCHS + 1)) for k in sorted(slow)}


def trained(
    made: Sequence[Device], share: float, mu: float | None, seed: int, rounds: int = ROUNDS
) -> dict[str, float]:
    """Return the loss on all training rows and the share of right answers on test rows.

    Args:
        made: the devices.
        share: of the drawn devices that are stragglers.
        mu: of FedProx; None is FedAvg, which drops stragglers.
        seed: of the draws.
        rounds: how many.
    """
    model = nn.Linear(FEATURES, CLASSES)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    term = proximal_term(mu) if mu else None
    weights = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    for number in range(1, rounds + 1):
        chosen, slow = drawn(seed, number, share)
        total, count = VectorSum(weights), 0
        for k in chosen:
            if mu is None and k in slow:
                continue
            put(model, weights)
            fit(
                model, made[k].x, made[k].y, LOSS, SETTINGS, seed=seed, key=("s", k, number),
                epochs=slow.get(k, EPOCHS), terms=[term] if term else [],
            )  # fmt: skip
            vector = np.concatenate([p.detach().numpy().reshape(-1) for p in model.parameters()])
            total.add(vector, len(made[k].x))
            count += len(made[k].x)
        if count:
            weights = {n: (v / count).astype(np.float32) for n, v in total.values().items()}
    put(model, weights)
    with torch.no_grad():
        x, y = (torch.cat([getattr(d, name) for d in made]) for name in ("x", "y"))
        loss = float(functional.cross_entropy(model(x), y))
        x, y = (torch.cat([getattr(d, name) for d in made]) for name in ("test_x", "test_y"))
        right = float((model(x).argmax(1) == y).float().mean())
    return {"loss": loss, "accuracy": right}


def put(model: nn.Module, weights: Mapping[str, NDArray[Any]]) -> None:
    """Give a model weights."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))


def key_of(data: str, share: float, method: str, seed: int) -> str:
    """Return the name of a cell."""
    return f"({data}) {share:.0%} {method} seed {seed}"


def measure(seeds: Iterable[int], path: Path = RESULTS) -> dict[str, dict[str, float]]:
    """Measure the cells that are not stored yet, and return all."""
    found: dict[str, dict[str, float]] = (
        json.loads(path.read_text("utf-8"))["cells"] if path.exists() else {}
    )
    for seed in seeds:
        for data, (alpha, beta) in DATA.items():
            made = devices(alpha, beta, seed)
            for share in STRAGGLERS:
                for method, mu in METHODS.items():
                    if (key := key_of(data, share, method, seed)) not in found:
                        found[key] = trained(made, share, mu, seed)
                        write_json(path, {"cells": found, "differences": differences(found)})
                        print(key, found[key], flush=True)
    return found


def differences(cells: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return by how much FedAvg's loss is above FedProx's, paired by seed, with 95 % intervals.

    Args:
        cells: by their keys.
    """
    seeds = sorted({int(key.rpartition(" ")[2]) for key in cells})
    result = {}
    for data in DATA:
        for share in STRAGGLERS:
            for method in ("fedprox-0", "fedprox-1"):
                pairs = [
                    cells[a]["loss"] - cells[b]["loss"]
                    for seed in seeds
                    if (a := key_of(data, share, "fedavg", seed)) in cells
                    and (b := key_of(data, share, method, seed)) in cells
                ]
                if len(pairs) < 2:
                    continue
                half = (
                    student.ppf(0.975, len(pairs) - 1) * np.std(pairs, ddof=1) / len(pairs) ** 0.5
                )
                mean = float(np.mean(pairs))
                result[f"({data}) {share:.0%} fedavg - {method}"] = {
                    "mean": mean, "low": mean - float(half), "high": mean + float(half),
                    "seeds": len(pairs),
                }  # fmt: skip
    return result


def main() -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthetic")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="separated by commas")
    torch.set_num_threads(1)
    found = measure(int(seed) for seed in parser.parse_args().seeds.split(","))
    for name, each in differences(found).items():
        print(f"{name}: {each['mean']:+.3f} [{each['low']:+.3f}, {each['high']:+.3f}]")


if __name__ == "__main__":
    main()
