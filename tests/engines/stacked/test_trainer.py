"""Sites trained as one stack come home with what ``training.fit`` would have given them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedpdm.engines.stacked.dropout import kept
from fedpdm.engines.stacked.trainer import SiteData, StackedTrainer, Trained
from fedpdm.errors import ConfigError, DataError
from fedpdm.models import ModelFactory
from fedpdm.strategies import gradient_terms
from fedpdm.strategies.fedprox import proximal_term
from fedpdm.training.loop import TrainingSettings, fit
from fedpdm.training.objective import Supervised

MODELS = {"mlp": None, "cnn": 8, "lstm": 6, "hybrid": 8, "trend": 8}
EQUAL = [20, 20, 20]
RAGGED = [33, 17, 5, 16, 21, 2, 32, 8]  # batches of 8: a single row joins; less than a batch
LOSS = functional.cross_entropy


def network(name: str, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(1)
    return ModelFactory.create_model(
        name, 8, 2, sequence_length=MODELS[name], dropout_rate=dropout
    ).module


def sites(counts: list[int], length: int | None, dtype: torch.dtype) -> list[SiteData]:
    generator = torch.Generator().manual_seed(0)
    shape = (8,) if length is None else (length, 8)
    return [
        SiteData(
            f"p{number}",
            ("train", f"p{number}", 1, 0),
            torch.randn(count, *shape, generator=generator).to(dtype),
            torch.randint(0, 2, (count,), generator=generator),
        )
        for number, count in enumerate(counts)
    ]


def settings(**changes: object) -> TrainingSettings:
    return TrainingSettings(
        **{"local_epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "step_size": 10, **changes}
    )


def received_by(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def alone(module: nn.Module, data: list[SiteData], how: TrainingSettings, terms=(), loss=LOSS):
    received, found = received_by(module), []
    for site in data:
        module.load_state_dict(received)
        value = fit(
            module, site.x, site.y, Supervised(loss), how, seed=3, key=site.key, epochs=2,
            first_epoch=9, terms=terms,
        )  # fmt: skip
        weights = {name: t.clone().numpy() for name, t in module.state_dict().items()}
        found.append(Trained(site.name, weights, value))
    module.load_state_dict(received)
    return found


def stacked(module, data, how, terms=(), loss=LOSS, **options):
    trainer = StackedTrainer(module, Supervised(loss), how, seed=3, **options)
    return list(trainer.train(received_by(module), data, epochs=2, first_epoch=9, terms=terms))


def largest(mine: list[Trained], theirs: list[Trained]) -> float:
    """Return the largest difference of any tensor of any site."""
    assert [trained.name for trained in mine] == [trained.name for trained in theirs]
    return max(
        float(np.abs(np.asarray(a.weights[name], float) - b.weights[name]).max())
        for a, b in zip(mine, theirs, strict=True)
        for name in b.weights
    )


@pytest.mark.parametrize("counts", [EQUAL, RAGGED], ids=["equal", "ragged"])
@pytest.mark.parametrize("mu", [0.0, 0.1])
@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_is_that_of_serial_training(name, mu, counts):
    terms, how = gradient_terms({"proximal-mu": mu}), settings(weight_decay=1e-3, clip_norm=0.5)
    data, module = sites(counts, MODELS[name], torch.float64), network(name).double()
    theirs = alone(module, data, how, terms)
    mine = stacked(module, data, how, terms)
    assert largest(mine, theirs) < 1e-10
    for a, b in zip(mine, theirs, strict=True):
        assert a.weights.keys() == b.weights.keys()
        assert all(a.weights[n].dtype == b.weights[n].dtype for n in b.weights)
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-6)
    moved = [
        np.abs(mine[0].weights[n] - received_by(module)[n].numpy()).max()
        for n in ("output.weight",)
    ]
    assert moved[0] > 1e-3  # they were trained at all


@pytest.mark.parametrize("name", MODELS)
def test_in_single_precision_a_stack_is_as_near_to_the_truth_as_serial_training(name):
    """Where rounding decides, double precision says who is right: Adam divides by noise."""

    def mean(train, dtype):
        data = sites(RAGGED, MODELS[name], dtype)
        found = train(network(name).to(dtype), data, settings())
        names = [n for n, t in received_by(network(name)).items() if t.is_floating_point()]
        means = [np.mean([t.weights[n].astype(float) for t in found], axis=0) for n in names]
        return np.concatenate([mean.ravel() for mean in means])

    truth = mean(alone, torch.float64)
    mine, theirs = (
        np.linalg.norm(mean(train, torch.float32) - truth) / np.linalg.norm(truth)
        for train in (stacked, alone)
    )
    assert mine <= max(1e-6, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
@pytest.mark.parametrize("name", MODELS)
def test_a_sites_bits_depend_on_no_chunk_and_no_company(name, dtype):
    module, how = network(name, dropout=0.3).to(dtype), settings(weight_decay=1e-3, clip_norm=0.5)
    for counts in (RAGGED, [5] * 8, [9] * 8):  # odd numbers lie unaligned in a stack
        data = sites(counts, MODELS[name], dtype)
        whole = stacked(module, data, how)
        for chunk in (1, 3):
            assert largest(stacked(module, data, how, chunk=chunk), whole) == 0
    assert largest(stacked(module, data[::-1][:5], how)[::-1], whole[3:]) == 0
    assert largest(stacked(network(name).to(dtype), data, how), whole) > 1e-4  # dropout was on


def test_a_mask_depends_on_who_when_and_where_alone():
    keys, steps = torch.tensor([11, -12, 2**62 + 13]), torch.tensor([4, 4, 5])
    shape = torch.Size([3, 6, 5, 7])
    mask = kept(shape, keys, steps, 2, 0.4)
    assert torch.equal(kept(torch.Size([1, 6, 5, 7]), keys[1:2], steps[1:2], 2, 0.4), mask[1:2])
    # More rows, as padding adds, or more time steps leave the others as they were.
    assert torch.equal(kept(torch.Size([3, 9, 6, 9]), keys, steps, 2, 0.4)[:, :6, :5, :7], mask)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_masks_keep_their_rate_and_know_nothing_of_each_other(rate):
    """Means and pairwise correlations within 5 standard errors, over 20,000 values each."""
    shape, one = torch.Size([1, 100, 200]), torch.ones(1, dtype=torch.int64)
    variants = [(7, 0, 0), (8, 0, 0), (7, 1, 0), (7, 0, 1), (7, 1, 1), (9, 3, 2)]
    masks = [kept(shape, one * key, one * step, layer, rate) for key, step, layer in variants]
    flat = torch.stack([mask.flatten() for mask in masks]).double()
    error = (rate * (1 - rate) / 20_000) ** 0.5
    assert (flat.mean(1) - (1 - rate)).abs().max() < 5 * error
    off_diagonal = torch.corrcoef(flat) - torch.eye(len(masks))
    assert off_diagonal.abs().max() < 5 / 20_000**0.5
    neighbours = torch.stack([masks[0][0, :-1].flatten(), masks[0][0, 1:].flatten()]).double()
    assert torch.corrcoef(neighbours)[0, 1].abs() < 5 / 19_800**0.5
    columns = masks[0][0].double().mean(0)
    assert (columns - (1 - rate)).abs().max() < 5 * error * 200**0.5


def test_each_site_is_clipped_by_its_own_norm():
    data = sites([16, 16, 16], None, torch.float64)
    scaled = [
        SiteData(p.name, p.key, p.x * scale, p.y)
        for p, scale in zip(data, (1e-3, 1.0, 1e3), strict=True)
    ]
    module, how = network("mlp").double(), settings(clip_norm=0.05, optimizer="sgd")
    mine = stacked(module, scaled, how)
    assert largest(mine, alone(module, scaled, how)) < 1e-10
    loose = stacked(module, scaled, settings(clip_norm=1e9, optimizer="sgd"))
    assert largest(mine[2:], loose[2:]) > 1e-4  # the clipping did bite


def test_a_site_of_one_row_trains_unless_batch_norm_forbids_it_and_an_empty_one_does_not():
    module = network("mlp").double()
    data = sites([1, 9], None, torch.float64)
    assert largest(stacked(module, data, settings()), alone(module, data, settings())) < 1e-10
    convolving = StackedTrainer(network("cnn"), Supervised(LOSS), settings(), seed=3)
    data = sites([9, 1, 8, 0], 8, torch.float32)
    assert [convolving.can_train(site) for site in data] == [True, False, True, False]
    found = convolving.train(received_by(network("cnn")), data, epochs=1)
    assert [trained.name for trained in found] == ["p0", "p2"]


class Grown(nn.Module):
    """What users write: other norms, a deep LSTM over (T, B, F), shared and frozen weights."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8) if layer == "layer" else nn.GroupNorm(2, 6)
        self.lstm = nn.LSTM(8, 4, num_layers=2, bidirectional=True)
        self.left = nn.Linear(8, 8)
        self.right = self.left if layer == "layer" else nn.Linear(8, 8)
        self.frozen = nn.Parameter(torch.ones(8), requires_grad=False)
        self.output = nn.Linear(8, 2)
        self.never = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        states, (_, cells) = self.lstm(self.norm(x).transpose(0, 1))
        logits: Tensor = self.output(
            self.right(self.left(states[2] + cells.sum(0).repeat(1, 2)) * self.frozen)
        )
        return logits


@pytest.mark.parametrize("layer", ["layer", "group"])
@pytest.mark.parametrize("counts", [EQUAL, RAGGED], ids=["equal", "ragged"])
def test_a_users_module_trains_as_it_does_alone(layer, counts):
    torch.manual_seed(2)
    module, data = Grown(layer).double(), sites(counts, 6, torch.float64)
    how, terms = settings(weight_decay=0.01), [proximal_term(0.1)]
    assert largest(stacked(module, data, how, terms), alone(module, data, how, terms)) < 1e-10


class Looks(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        if x.mean().item() > 0:
            x = -x
        return super().forward(x)


class Mixes(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


class Draws(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.randn_like(x))


class Falls(nn.Module):
    """torch has no batching rule for its GRU, and the registry has no GRU of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.GRU(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        state: Tensor = self.inner(x.unsqueeze(1))[0][:, 0]
        return state


@pytest.mark.parametrize(
    ("module", "counts", "named"),
    [
        (Looks(8, 2), EQUAL, r"train Looks .*\.item\(\)"),
        (Draws(8, 2), EQUAL, r"train Draws .*randn_like"),
        (Falls(), EQUAL, r"train Falls .*aten::\w+"),
        (Mixes(8, 2), RAGGED, "Mixes.*padding changes the loss"),
    ],
)
def test_what_cannot_be_stacked_is_named_with_the_way_out(module, counts, named):
    data = sites(counts, None, torch.float32)
    with pytest.raises(ConfigError, match=rf"(?s){named}.*use engine=serial"):
        stacked(module, data, settings())


def test_sites_with_other_rows_and_losses_that_are_no_means_are_refused():
    odd = SiteData("odd", ("o",), torch.zeros(9, 5), torch.zeros(9, dtype=torch.int64))
    data = [*sites([9], None, torch.float32), odd]
    with pytest.raises(DataError, match=r"site odd, whose rows are \(5,\)"):
        stacked(network("mlp"), data, settings())
    with pytest.raises(ConfigError, match="no mean over rows"):
        stacked(
            network("mlp"), sites(RAGGED, None, torch.float32), settings(),
            loss=lambda output, target: LOSS(output, target, reduction="sum"),
        )  # fmt: skip


def test_the_same_sites_again_start_from_what_was_received_and_wrong_options_are_said():
    module, data = network("hybrid").double(), sites(RAGGED, 8, torch.float64)
    trainer, received = (
        StackedTrainer(module, Supervised(LOSS), settings(), seed=3),
        received_by(module),
    )
    first, again = (list(trainer.train(received, data, epochs=2)) for _ in range(2))
    assert largest(first, again) == 0
    assert all(torch.equal(received[n], t) for n, t in module.state_dict().items())
    with pytest.raises(ConfigError, match=r"engine\.chunk=0"):
        StackedTrainer(module, Supervised(LOSS), settings(), seed=3, chunk=0)
    with pytest.raises(ConfigError, match="engine.cuda_graphs=true needs device=cuda"):
        StackedTrainer(module, Supervised(LOSS), settings(), seed=3, cuda_graphs=True)
