"""The contract of a model: what training, the wire and the stacked engine rely on."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor, nn

from fedpdm.engines.stacked.schedule import SiteData
from fedpdm.engines.stacked.trainer import StackedTrainer
from fedpdm.errors import ConfigError
from fedpdm.models import ModelWrapper
from fedpdm.seeding import torch_seeded
from fedpdm.training.loop import TrainingSettings, fit
from fedpdm.training.objective import Supervised

ROWS = 24


def check_model(
    build: Callable[[], nn.Module | ModelWrapper],
    shape: tuple[int, ...],
    outputs: int,
    *,
    without_gradient: Collection[str] = (),
) -> str | None:
    """Check that a model keeps its contract.

    Checked are: (B, outputs) finite numbers for every batch size; initial weights that are a
    function of the seed; parameters and buffers that travel exactly; a gradient for every
    trainable tensor within two steps; evaluation that changes nothing and draws nothing; that
    it pickles; that a stack of sites trains to what each site trains to alone.

    Args:
        build: makes the model with fresh weights, on the CPU.
        shape: of one case, (F,) for tabular rows or (T, F) for windows.
        outputs: width of the output, which is (B, outputs).
        without_gradient: names of the trainable tensors whose gradient is zero by
            construction, as a bias before BatchNorm is.

    Returns:
        Why ``engine=batched`` cannot stack the model, or None if it can.

    Raises:
        AssertionError: says in one sentence what is broken.
    """
    first, again = _built(build, 1), _built(build, 1, drawn_before=3)
    _check_equal(first, again, "two models of the same seed differ: draw from torch's generator")
    x = torch.randn((ROWS, *shape), generator=torch.Generator().manual_seed(0))
    _check_evaluation(first, x, outputs)
    trained = _built(build, 1)
    _check_gradients(trained, x, outputs, set(without_gradient))
    other = _built(build, 2)
    other.set_parameters(trained.get_parameters())
    _check_equal(trained, other, "parameters or buffers are lost on their way")
    if not torch.equal(trained.eval()(x), other.eval()(x)):
        raise AssertionError(
            "two models of the same parameters and buffers give different outputs: register "
            "what forward() needs with register_buffer"
        )
    try:
        twin = pickle.loads(pickle.dumps(trained))
    except Exception as error:
        raise AssertionError(
            f"the model does not pickle, so engine=ray cannot send it to a worker: {error}"
        ) from error
    _check_equal(trained, twin, "a pickled copy has other parameters or buffers")
    return _check_stack(build, x, outputs)


def _built(build: Callable[[], nn.Module | ModelWrapper], seed: int, drawn_before: int = 0
) -> ModelWrapper:  # fmt: skip
    torch.rand(drawn_before)
    with torch_seeded(seed, "check-model"):
        model = build()
    return model if isinstance(model, ModelWrapper) else ModelWrapper(model)


def _check_equal(first: ModelWrapper, second: ModelWrapper, message: str) -> None:
    ours, theirs = first.get_parameters(), second.get_parameters()
    differing = sorted(set(ours) ^ set(theirs)) or [
        name
        for name, tensor in ours.items()
        if tensor.dtype != theirs[name].dtype or not torch.equal(tensor, theirs[name])
    ]
    if differing:
        raise AssertionError(f"{message} ({', '.join(differing)})")


def _check_evaluation(model: ModelWrapper, x: Tensor, outputs: int) -> None:
    before = {name: tensor.clone() for name, tensor in model.eval().get_parameters().items()}
    for rows in (1, 2, ROWS):
        found = model(x[:rows])
        if found.shape != (rows, outputs) or not torch.isfinite(found).all():
            raise AssertionError(
                f"for {tuple(x[:rows].shape)} the model gives {tuple(found.shape)}, where "
                f"{(rows, outputs)} finite numbers were declared"
            )
    if not torch.equal(model(x), model(x)):
        raise AssertionError("in eval mode two calls differ: random parts must follow .training")
    for name, tensor in model.get_parameters().items():
        if not torch.equal(tensor, before[name]):
            raise AssertionError(f"in eval mode a forward pass changed {name}")


def _check_gradients(model: ModelWrapper, x: Tensor, outputs: int, exempt: set[str]) -> None:
    target = torch.arange(len(x) * outputs).view(len(x), outputs).sin().to(x.dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    reached = {n: 0.0 for n, p in model.module.named_parameters() if p.requires_grad}
    with torch_seeded(0, "check-model-dropout"):
        for _ in range(2):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model.train()(x), target)
            loss.backward()  # type: ignore[no-untyped-call]
            for name, parameter in model.module.named_parameters():
                if parameter.grad is not None:
                    reached[name] = max(reached[name], float(parameter.grad.abs().max()))
            optimizer.step()
    dead = {name for name, largest in reached.items() if largest < 1e-7} - exempt
    if dead:
        raise AssertionError(
            f"in two steps these trainable tensors got no gradient: {', '.join(sorted(dead))}"
        )


def _check_stack(
    build: Callable[[], nn.Module | ModelWrapper], x: Tensor, outputs: int
) -> str | None:
    model, x = _built(build, 1).to(torch.float64), x.double()
    y = torch.arange(len(x) * outputs).view(len(x), outputs).sin().double()
    settings = TrainingSettings(local_epochs=1, batch_size=4, learning_rate=0.05, optimizer="sgd")
    received = model.get_parameters()
    objective = Supervised(torch.nn.functional.mse_loss)
    trainer = StackedTrainer(model.module, objective, settings, seed=0)
    sites = [SiteData("a", ("a",), x[:10], y[:10]), SiteData("b", ("b",), x[10:], y[10:])]
    try:
        stacked = list(trainer.train(received, sites, epochs=1))
    except ConfigError as error:
        return str(error)
    draws = not torch.equal(model.train()(x), model(x))
    for site, found in zip(sites, stacked, strict=True):
        model.set_parameters(received)
        fit(
            model.module, site.x, site.y, objective, settings, seed=0, key=site.key, epochs=1,
        )  # fmt: skip
        for name, array in model.snapshot().items():
            # A model with dropout draws others in a stack; then only the shapes are compared.
            close = draws or np.allclose(found.weights[name], array, rtol=0, atol=1e-9)
            if found.weights[name].shape != array.shape or not close:
                raise AssertionError(
                    f"stacked with another site, {name} does not train to what it does alone: "
                    "rows of one batch must not be told apart by their place in it"
                )
    return None
