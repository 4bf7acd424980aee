"""Personal methods against their papers: known optima, formulas on tiny arrays, limits."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from torch import Tensor, nn

from fedpdm.client.state import OBJECTIVE
from fedpdm.training.loop import TrainingSettings, fit
from fedpdm.training.objective import LocalContext, LocalWork, Objective, Supervised
from fedpdm.training.personal import APFL, Ditto, FedALA, FedRep, KNNPer, Personal, PFedMe
from fedpdm.training.personal.base import MODEL, recalled
from fedpdm.wire.records import arrays_in
from tests.strategies.quadratics import Bowl, Point, Quadratic, optimum, settle

SITES = {
    "p0": Bowl((1.0, 3.0), (4.0, -3.0), rows=2),
    "p1": Bowl((3.0, 1.0), (-5.0, 2.0), rows=2),
    "p2": Bowl((1.5, 2.0), (6.0, 5.0), rows=2),
}
"""Each makes one step in a round, so that FedAvg is gradient descent on the mean loss."""


def around(method: Personal) -> Objective:
    return method.around(Supervised.of(Quadratic()))  # type: ignore[arg-type]


def points(kept: dict[str, RecordDict]) -> dict[str, Any]:
    """Return the personal model of each site."""
    return {s: arrays_in(state, OBJECTIVE)["personal.model.w"] for s, state in kept.items()}


def a_b(name: str) -> tuple[Any, Any]:
    return np.array(SITES[name].a), np.array(SITES[name].b)


@pytest.mark.parametrize("weight", [0.0, 4.0])
def test_ditto_reaches_the_personal_optima(tmp_path: Path, weight: float) -> None:
    kept: dict[str, RecordDict] = {}
    rate = 0.2 if weight else 0.4
    shared = settle(
        tmp_path, "ditto", SITES, rounds=36, rate=rate, objective=around(Ditto(weight)), kept=kept
    )
    plain = settle(tmp_path / "plain", "fedavg", SITES, rounds=36, rate=rate)
    assert (shared == plain).all(), "the shared model knows nothing of personal ones"
    assert np.abs(shared - optimum(SITES)).max() < 1e-5
    for name, found in points(kept).items():
        a, b = a_b(name)
        # The minimum of F_k(v) + (λ/2)·‖v − w‖²; with λ = 0 that of the site by itself.
        assert np.abs(found - (a * b + weight * shared) / (a + weight)).max() < 1e-5


def test_pfedme_reaches_the_optimum_of_the_envelopes_and_the_personal_ones(tmp_path: Path) -> None:
    weight, kept = 2.0, dict[str, RecordDict]()
    method = PFedMe(weight, inner_steps=12, inner_rate=0.25)
    shared = settle(
        tmp_path, "pfedme", SITES, rounds=24, rate=0.9, objective=around(method), kept=kept
    )
    # F_k is a quadratic around b_k of curvature a·λ/(a + λ).
    bowls = {
        name: Bowl(tuple(a * weight / (a + weight) for a in bowl.a), bowl.b)
        for name, bowl in SITES.items()
    }
    assert np.abs(shared - optimum(bowls)).max() < 1e-4
    assert np.abs(shared - optimum(SITES)).max() > 0.1, "it is not that of FedAvg"
    for name, found in points(kept).items():
        a, b = a_b(name)
        assert np.abs(found - (a * b + weight * shared) / (a + weight)).max() < 1e-4


def test_pfedme_with_one_inner_step_of_length_one_over_lambda_is_fedavg(tmp_path: Path) -> None:
    method = PFedMe(4.0, inner_steps=1, inner_rate=0.25)
    found = settle(tmp_path / "a", "pfedme", SITES, rounds=7, rate=0.1, objective=around(method))
    plain = settle(tmp_path / "b", "fedavg", SITES, rounds=7, rate=0.1)
    assert np.abs(found - plain).max() < 1e-12 < np.abs(plain).max()


def apfl_by_hand(
    a: Any, b: Any, w: Any, v: Any, alpha: float, rates: tuple[float, float], steps: int,
    adaptive: bool,
) -> tuple[Any, Any, float]:  # fmt: skip
    """Algorithm 1 of the paper with the adaptive share, for ½·a·(x − b)²."""
    for _ in range(steps):
        slope = a * (alpha * v + (1 - alpha) * w - b)
        new = alpha - rates[1] * float(((v - w) * slope).sum()) if adaptive else alpha
        w, v = w - rates[0] * a * (w - b), v - rates[0] * alpha * slope
        alpha = min(max(new, 0.0), 1.0)
    return w, v, alpha


@pytest.mark.parametrize("adaptive", [True, False])
def test_apfl_is_the_papers_formula(tmp_path: Path, adaptive: bool) -> None:
    kept: dict[str, RecordDict] = {}
    method = APFL(0.4, adaptive, alpha_rate=0.02)
    shared = settle(
        tmp_path, "apfl", SITES, rounds=3, rate=0.05, epochs=2, objective=around(method), kept=kept
    )
    w, own = np.zeros(2), {name: (np.zeros(2), 0.4) for name in SITES}
    for _ in range(3):
        done = {
            name: apfl_by_hand(*a_b(name), w, *own[name], (0.05, 0.02), 2, adaptive)
            for name in SITES
        }
        w = np.mean([each[0] for each in done.values()], axis=0)
        own = {name: each[1:] for name, each in done.items()}
    assert np.abs(shared - w).max() < 1e-12
    shares = set()
    for name, state in kept.items():
        memory = arrays_in(state, OBJECTIVE)
        assert np.abs(memory["personal.model.w"] - own[name][0]).max() < 1e-12
        assert memory["personal.share.alpha"][0] == pytest.approx(own[name][1], abs=1e-12)
        shares.add(round(own[name][1], 6))
        context = LocalContext(memory={n: torch.from_numpy(t) for n, t in memory.items()})
        point = Point()
        point.w.data = torch.from_numpy(np.asarray(shared))
        v, alpha = own[name]
        mixed = method.module(point, context).w.detach().numpy()  # type: ignore[union-attr]
        assert np.abs(mixed - (alpha * v + (1 - alpha) * w)).max() < 1e-12
    assert (len(shares) > 1) == adaptive


def test_apfls_mixture_reaches_each_sites_own_optimum(tmp_path: Path) -> None:
    kept: dict[str, RecordDict] = {}
    method = APFL(0.9, adaptive=False)
    shared = settle(
        tmp_path, "apfl", SITES, rounds=30, rate=0.5, objective=around(method), kept=kept
    )
    for name, v in points(kept).items():
        assert np.abs(0.9 * v + 0.1 * shared - a_b(name)[1]).max() < 1e-4


def work(model: nn.Module, x: Tensor, y: Tensor, **changes: Any) -> LocalContext:
    settings = TrainingSettings(1, changes.pop("batch", 1000), 0.1, optimizer="sgd")
    received = {n: t.clone() for n, t in model.state_dict().items()}
    return LocalContext(
        received, work=LocalWork(x, y, settings, 0, ("t", "site", 1, 0), 1, **changes)
    )


@pytest.mark.parametrize("steps", [1, 3, 400])
def test_fedalas_weights_are_those_of_the_papers_step(steps: int) -> None:
    a, b = torch.tensor([2.0, 2.0]).double(), torch.tensor([1.0, 9.0]).double()
    common, last = torch.tensor([4.0, 4.0]).double(), torch.tensor([0.0, 2.0]).double()
    rate, gap = 0.02, common - last
    weights = torch.ones(2).double()
    for _ in range(steps):
        mixed = last + gap * weights
        weights = (weights - rate * a * (mixed - b) * gap).clamp(0, 1)
    model, y = Point(), torch.cat([a, b]).repeat(4, 1)
    model.w.data = common.clone()
    method = FedALA(rate=rate, share=1.0, first_passes=steps)
    method.around(Supervised.of(Quadratic()))  # type: ignore[arg-type]
    context = work(model, torch.zeros(4, 1), y)
    context.memory["personal.model.w"] = last
    method.begin(model, context)
    end = {1: 1e-12, 3: 1e-12, 400: 5e-3}[steps]  # it may stop when nothing changes any more
    assert torch.allclose(model.w.detach(), last + gap * weights, atol=end)
    if steps == 400:  # the optimum is reached where it lies between the two, else the nearer end
        assert torch.allclose(model.w.detach(), torch.tensor([1.0, 4.0]).double(), atol=0.05)
    method.end(model, context)
    assert set(recalled(context, "weights")) == {"w"}
    assert torch.equal(recalled(context, MODEL)["w"], model.w.detach())


def test_fedala_starts_as_fedavg_and_lower_layers_are_the_received_ones() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    before = {n: t.clone() for n, t in model.state_dict().items()}
    x, y = torch.randn(8, 3), torch.randint(2, (8,))
    method = FedALA()
    method.around(Supervised(nn.functional.cross_entropy))
    context = work(model, x, y)
    method.begin(model, context)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    context.memory.update({f"personal.model.{n}": t + 1.0 for n, t in before.items()})
    method.begin(model, context)
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {"2.weight", "2.bias"}


def test_fedrep_trains_the_head_first_and_then_the_body() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x, y = torch.randn(20, 3), torch.randint(2, (20,))
    seen = [{n: t.clone() for n, t in model.state_dict().items()}]
    objective = FedRep(head_epochs=2).around(Supervised(nn.functional.cross_entropy))
    fit(
        model, x, y, objective, TrainingSettings(5, 8, 0.05), seed=0, key=("t",), epochs=5,
        after_epoch=lambda _: seen.append({n: t.clone() for n, t in model.state_dict().items()}),
    )  # fmt: skip
    moved = [
        {n for n in before if not torch.equal(before[n], after[n])}
        for before, after in itertools.pairwise(seen)
    ]
    head, body = {"2.weight", "2.bias"}, {"0.weight", "0.bias"}
    assert moved == [head, head, body, body, body]


def test_knnpers_answer_is_the_papers_formula() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    x, y = torch.randn(40, 3), torch.randint(3, (40,))
    asked, truth = torch.randn(30, 3), torch.randint(3, (30,))
    base = Supervised(nn.functional.cross_entropy)
    method = KNNPer(neighbours=5).around(base)
    context = work(model, x, y, validation=(asked, truth))
    method.personalise(model, context)
    with torch.no_grad():
        kept, at = (torch.tanh(model[0](part)).numpy() for part in (x, asked))
        shared = model(asked).softmax(dim=1).numpy()
    remembered = np.zeros((30, 3))
    for row, point in enumerate(at):
        far = np.linalg.norm(kept - point, axis=1)
        for near in np.argsort(far)[:5]:
            remembered[row, int(y[near])] += np.exp(-far[near])
    remembered /= remembered.sum(1, keepdims=True)
    grid = np.arange(11) / 10
    picked = np.arange(30), truth.numpy()
    losses = [
        -np.log(np.maximum(share * remembered + (1 - share) * shared, 1e-12))[picked].mean()
        for share in grid
    ]
    share = float(grid[int(np.argmin(losses))])
    with torch.no_grad():
        found = method.predictor(model, context)(asked).softmax(dim=1).numpy()
    assert np.abs(found - (share * remembered + (1 - share) * shared)).max() < 1e-5
    chosen = recalled(context, "memory")
    assert float(chosen["share"]) == pytest.approx(share)
    assert len(chosen["features"]) == 40
    small = KNNPer(capacity=7).around(base)
    small.personalise(model, context)
    assert len(recalled(context, "memory")["features"]) == 7


def test_a_memory_that_does_not_help_on_validation_is_left_alone() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(50, 2)
    with torch.no_grad():
        truth = model(x).argmax(dim=1)
        model[2].weight.mul_(50)  # it is sure, and right
        model[2].bias.mul_(50)
    method = KNNPer().around(Supervised(nn.functional.cross_entropy))
    context = work(model, x, 1 - truth, validation=(x, truth))  # the memory is wrong everywhere
    method.personalise(model, context)
    assert float(recalled(context, "memory")["share"]) == 0
    with torch.no_grad():
        found = method.predictor(model, context)(x).softmax(dim=1)
        assert torch.allclose(found, model(x).softmax(dim=1), atol=1e-6)
