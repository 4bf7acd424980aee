"""Objectives against label skew and drift: closed forms, limits, memory, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedpdm.client.state import OBJECTIVE
from fedpdm.config.command_line import options
from fedpdm.config.compose import compose
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.errors import ConfigError
from fedpdm.runs.assembly import baseline_inputs
from fedpdm.runs.experiment import build
from fedpdm.tasks import Failure, RemainingLife, Task
from fedpdm.tasks.classes import AssetType
from fedpdm.testing.federated import Federated, check_resume, federate, same
from fedpdm.training.loop import TrainingSettings, fit
from fedpdm.training.losses import Focal
from fedpdm.training.objective import LocalContext, LocalWork, Objective, Supervised
from fedpdm.training.objectives.balanced_softmax import BalancedSoftmax
from fedpdm.training.objectives.feddecorr import FedDecorr, correlation
from fedpdm.training.objectives.fedlc import FedLC
from fedpdm.training.objectives.fedntd import FedNTD, not_true
from fedpdm.training.objectives.fedrs import FedRS
from fedpdm.training.objectives.fedsam import FedSAM
from fedpdm.training.objectives.moon import Moon, contrastive
from fedpdm.training.objectives.wrapping import outputs_and_features
from fedpdm.wire.records import arrays_in

TASK = Failure(horizon=4.0)
THREE = AssetType(["a", "b", "c"])


@pytest.fixture(autouse=True)
def drawn_alike() -> None:
    torch.manual_seed(0)


class Small(nn.Module):
    """Two layers, of which ``output`` is the last."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.first, self.output = nn.Linear(3, 4), nn.Linear(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.tanh(self.first(x)))  # type: ignore[no-any-return]


def in_training(x: Tensor, y: Tensor) -> LocalContext:
    """Return what an objective sees of a site with these windows."""
    return LocalContext(work=LocalWork(x, y, TrainingSettings(1, 4, 0.1), 0, ("site",), 1))


def for_task(objective: Objective, task: Task = TASK) -> Any:
    return objective.for_task(task)


# Closed forms ---------------------------------------------------------------------------------


def test_features_are_what_the_last_layer_gets() -> None:
    model, x = Small(), torch.randn(5, 3)
    output, z = outputs_and_features(model, x)
    assert torch.equal(output, model(x)) and torch.equal(z, torch.tanh(model.first(x)))
    assert not model.output._forward_pre_hooks


def test_moons_term_is_the_papers() -> None:
    z, near, far = (torch.randn(4, 6, dtype=torch.float64) for _ in range(3))
    expected = []
    for row in range(4):
        sims = [
            float(z[row] @ other[row] / (z[row].norm() * other[row].norm()))
            for other in (near, far)
        ]
        up, down = (math.exp(s / 0.5) for s in sims)
        expected.append(-math.log(up / (up + down)))
    assert float(contrastive(z, near, far, 0.5)) == pytest.approx(np.mean(expected), rel=1e-12)
    assert float(contrastive(z, near, near, 0.5)) == pytest.approx(math.log(2))
    assert float(contrastive(near, near, -near, 0.1)) < 1e-6


def test_decorrelation_is_zero_for_uncorrelated_features_and_counts_pairs() -> None:
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert float(correlation(signs)) < 1e-12
    z = torch.randn(40, 3, dtype=torch.float64)
    matrix = np.corrcoef(z.numpy().T)
    expected = (np.sum(matrix**2) - 3) / 9
    assert float(correlation(z)) == pytest.approx(expected, rel=1e-6)
    assert float(correlation(torch.ones(4, 3))) == 0.0


def test_not_true_distillation_by_hand() -> None:
    now = torch.tensor([[2.0, 0.0, 1.0]], dtype=torch.float64)
    then = torch.tensor([[0.0, 1.0, 3.0]], dtype=torch.float64)
    y = torch.tensor([1])
    q, p = (
        np.exp(v) / np.exp(v).sum() for v in (np.array([0.0, 3.0]) / 2, np.array([2.0, 1.0]) / 2)
    )
    expected = float(np.sum(q * np.log(q / p)))
    assert float(not_true(now, then, y, 2.0)) == pytest.approx(expected, rel=1e-12)
    assert float(not_true(then, then, y, 2.0)) == 0.0
    true_logit = now.clone()
    true_logit[0, 1] = 50.0  # the true class has no part in it
    assert float(not_true(true_logit, then, y, 2.0)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("objective", "changed"), [
    (FedLC(tau=2.0), lambda f, n: f - 2.0 * n**-0.25),
    (BalancedSoftmax(), lambda f, n: f + torch.log(n / n.sum())),
    (FedRS(alpha=0.5), lambda f, n: f),
])  # fmt: skip
def test_logits_are_changed_by_the_sites_counts(
    objective: Objective, changed: Callable[[Tensor, Tensor], Tensor]
) -> None:
    made, model = for_task(objective), Small()
    x, y = torch.randn(10, 3), torch.tensor([0] * 9 + [1])
    context = in_training(x, y)
    made.begin(model, context)
    found = made.loss(model, x, y, context)
    expected = functional.cross_entropy(changed(model(x), torch.tensor([9.0, 1.0])), y)
    assert torch.allclose(found, expected)
    plain = functional.cross_entropy(model(x), y)
    assert made.mean_loss(model, x, y, context) == pytest.approx(float(plain.detach()))


def test_a_class_that_a_site_lacks_is_not_unlearned() -> None:
    x, y = torch.randn(6, 3), torch.zeros(6, dtype=torch.long)
    pushed = {}
    for name, objective in (
        ("base", FedLC(tau=0.0)), ("lc", FedLC()), ("rs", FedRS(alpha=0.1)),
        ("bal", BalancedSoftmax()),
    ):  # fmt: skip
        torch.manual_seed(0)
        model, made, context = Small(), for_task(objective), in_training(x, y)
        made.begin(model, context)
        made.backward(model, x, y, context)
        assert model.output.bias.grad is not None
        pushed[name] = abs(float(model.output.bias.grad[1]))
    assert pushed["rs"] < 0.2 * pushed["base"] and max(pushed["lc"], pushed["bal"]) < 1e-6


def test_the_balanced_model_learns_the_same_from_two_shares_of_classes() -> None:
    # One number x, densities N(±1, 1): the balanced logit is 2x, whatever the classes' shares.
    random = np.random.default_rng(1)
    slopes: dict[str, list[tuple[float, float]]] = {"plain": [], "balanced": []}
    for share in (0.1, 0.5):
        y = torch.from_numpy((random.random(4000) < share).astype(np.int64))
        x = torch.from_numpy(random.normal(2.0 * y.numpy() - 1, 1.0)).float()[:, None]
        for name, objective in (
            ("plain", Supervised.of(TASK)),
            ("balanced", for_task(BalancedSoftmax())),
        ):
            model = nn.Linear(1, 2)
            nn.init.zeros_(model.weight)
            nn.init.zeros_(model.bias)
            settings = TrainingSettings(1, 4000, 1.0, optimizer="sgd")
            fit(model, x, y, objective, settings, seed=0, key=("t",), epochs=150)
            line, base = model.weight.detach(), model.bias.detach()
            slopes[name].append((float(line[1] - line[0]), float(base[1] - base[0])))
    for slope, offset in slopes["balanced"]:
        assert slope == pytest.approx(2.0, abs=0.25) and offset == pytest.approx(0.0, abs=0.3)
    assert slopes["plain"][0][1] == pytest.approx(math.log(0.1 / 0.9), abs=0.4)


def test_sams_gradient_is_that_of_the_worst_point_nearby() -> None:
    weight = nn.Parameter(torch.tensor([3.0, -1.0], dtype=torch.float64))
    a, b = torch.tensor([1.0, 4.0]), torch.tensor([0.5, 0.0])

    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = weight

        def forward(self, x: Tensor) -> Tensor:
            return self.w.expand(len(x), 2)

    loss = lambda o, t: (0.5 * a * (o - b) ** 2).sum(1).mean()  # noqa: E731
    sam = FedSAM(rho=0.1)
    sam.base = Supervised(loss)
    value = sam.backward(Point(), torch.zeros(2, 1), torch.zeros(2), LocalContext())
    w = np.array([3.0, -1.0])
    gradient = a.numpy() * (w - b.numpy())
    there = w + 0.1 * gradient / np.linalg.norm(gradient)
    assert weight.grad is not None
    assert np.allclose(weight.grad.numpy(), a.numpy() * (there - b.numpy()), atol=1e-12)
    assert np.array_equal(weight.detach().numpy(), w)
    assert float(value) == pytest.approx(float(0.5 * np.sum(a.numpy() * (w - b.numpy()) ** 2)))


# In a federation ------------------------------------------------------------------------------

OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "moon": Moon, "fedlc": FedLC, "balanced_softmax": BalancedSoftmax, "feddecorr": FedDecorr,
    "fedsam": FedSAM, "fedrs": FedRS,
}  # fmt: skip
NOTHING = {
    "moon": Moon(mu=0), "fedlc": FedLC(tau=0), "feddecorr": FedDecorr(beta=0),
    "fedsam": FedSAM(rho=0), "fedrs": FedRS(alpha=1),
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Federated:
    return federate(tmp_path_factory.mktemp("plain"), rounds=2, task=TASK)


@pytest.mark.parametrize("name", sorted(NOTHING))
def test_with_nothing_to_add_it_is_fedavg_to_the_bit(
    name: str, plain: Federated, tmp_path: Path
) -> None:
    idle = federate(tmp_path / "idle", rounds=2, objective=for_task(NOTHING[name]))
    assert same(plain.weights(), idle.weights())
    assert not idle.grid.states, "it remembers nothing"
    if name != "fedrs":  # every site has seen failures here
        usual = federate(tmp_path / "usual", rounds=2, objective=for_task(OBJECTIVES[name]()))
        assert not same(plain.weights(), usual.weights())


@pytest.mark.parametrize("name", ["moon", "balanced_softmax", "fedsam", "feddecorr"])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    check_resume(
        lambda label, rounds: federate(
            tmp_path / label, rounds=rounds, objective=for_task(OBJECTIVES[name]())
        )
    )


def test_moon_remembers_the_model_that_the_site_came_to_and_forgets_a_refused_one(
    tmp_path: Path,
) -> None:
    run = federate(tmp_path, rounds=2, objective=for_task(Moon()), faults={"nan": "p1@1"})
    assert set(run.grid.states) == {"p0", "p1", "p2"}
    kept = arrays_in(run.grid.states["p0"], OBJECTIVE)
    assert set(kept) == {f"moon.{name}" for name in run.weights()}
    first = federate(tmp_path / "one", rounds=1, objective=for_task(Moon()), faults={"nan": "p1@1"})
    assert set(first.grid.states) == {"p0", "p2"}
    base = federate(tmp_path / "base", rounds=1, faults={"nan": "p1@1"})
    assert same(first.weights(), base.weights()), "the first round has no last model"
    later = federate(tmp_path / "later", rounds=2, faults={"nan": "p1@1"})
    assert not same(run.weights(), later.weights())


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_a_stack_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="as a stack.*use engine=serial"):
        federate(tmp_path, rounds=1, objective=for_task(OBJECTIVES[name]()), engine=BatchedGrid)


def test_a_class_that_one_site_alone_has_is_kept_at_the_others() -> None:
    # The received model knows three classes; a site that has two of them trains on.
    random = np.random.default_rng(2)
    centres = np.array([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0]])
    labels = random.integers(3, size=600)
    x = torch.from_numpy(centres[labels] + 0.5 * random.normal(size=(600, 3))).float()
    y = torch.from_numpy(labels)
    torch.manual_seed(3)
    model, settings = Small(3), TrainingSettings(1, 50, 0.2, optimizer="sgd")
    fit(model, x, y, Supervised.of(THREE), settings, seed=0, key=("g",), epochs=20)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept = {}
    for name, objective in (("base", FedNTD(beta=0)), ("ntd", FedNTD(beta=3.0))):
        model.load_state_dict(start)
        fit(
            model, x[y < 2], y[y < 2], for_task(objective, THREE), settings, seed=0, key=("l",),
            epochs=40,
        )  # fmt: skip
        third = model(x[y == 2]).detach()
        kept[name] = float((third[:, 2] - third[:, :2].max(1).values).mean())
    assert kept["ntd"] > kept["base"] + 0.1


# Composed -------------------------------------------------------------------------------------

SMALL = ["model=mlp", "site=detroit", "sites.detroit.machines=6"]


def test_a_base_may_be_focal_loss_and_networks_alone_train_by_it() -> None:
    focal = "objective.base={_target_: fedpdm.training.losses.Focal, gamma: 3.0}"
    made = build(compose([*SMALL, "objective=moon", focal])).objective
    assert isinstance(made, Moon) and isinstance(made.base, Supervised)
    output, y = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    expected = for_task(Focal(gamma=3.0)).loss_function(output, y)
    assert torch.equal(made.base.loss_function(output, y), expected)
    experiment = build(compose([*SMALL, "objective=fedlc"]))
    alone = baseline_inputs(experiment).objective
    assert type(alone) is Supervised
    kept = build(compose([*SMALL, "objective=fedsam", "strategy=fedcm"]))
    assert isinstance(baseline_inputs(kept).objective, FedSAM), "MoFedSAM; alone has SAM, too"


@pytest.mark.parametrize(("overrides", "said"), [
    (["objective=moon", "objective.mu=-1"], r"objective\.mu=-1"),
    (["objective=moon", "objective.temperature=0"], r"objective\.temperature=0"),
    (["objective=fedlc", "objective.tau=-1"], r"objective\.tau"),
    (["objective=fedrs", "objective.alpha=2"], r"objective\.alpha=2"),
    (["objective=feddecorr", "objective.beta=-1"], r"objective\.beta"),
    (["objective=fedsam", "objective.rho=-1"], r"objective\.rho"),
    (["objective=fedntd"], "needs 3 classes or more"),
    (["objective=fedlc", "task=rul"], "a logit for each class"),
    (["objective=moon", "objective.base={_target_: fedpdm.training.objectives.moon.Moon}"],
     r"objective\.base=Moon is none"),
    (["objective=moon", "objective.base=focal"], r"objective\.base=focal must be a block"),
    (["objective=moon", "objective.base={a: 1}"], r"objective\.base=.* must be a block"),
    (["objective=moon", "training.augment.jitter=0.1"], "supervised loss"),
    (["objective=moon", "engine=batched"], "stacks = True"),
])  # fmt: skip
def test_what_cannot_work_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(compose([*SMALL, *overrides]))


def test_every_yaml_makes_its_objective() -> None:
    for name in sorted({*OBJECTIVES, "fedntd"} & set(options("objective"))):
        chosen = compose([f"objective={name}"]).objective
        assert chosen.base is None and str(chosen._target_).split(".")[3] == name
    with pytest.raises(ConfigError):
        for_task(FedLC(), RemainingLife(cap=30.0))
