"""The masked autoencoder and the linear probe, around every model that has an encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fedpdm.errors import ModelError
from fedpdm.models import ModelFactory, ModelWrapper, registry
from fedpdm.models.encoders import encoder_tensors
from fedpdm.models.masked_autoencoder import MASKINGS, MaskedAutoencoder
from fedpdm.seeding import torch_seeded
from fedpdm.testing import check_model

STEPS, FEATURES = 30, 6
ENCODERS = [name for name in registry.names() if hasattr(registry.find(name), "encode")]
BEFORE_BATCH_NORM = ("encoder.conv1.bias", "encoder.conv2.bias")


def build(model: str = "masked_autoencoder", outputs: int = 4, **config: Any) -> ModelWrapper:
    return ModelFactory.create_model(model, FEATURES, outputs, sequence_length=STEPS, **config)


def test_the_layout_of_the_document_has_its_number_of_parameters() -> None:
    settings = {"hidden_size": 128, "num_layers": 2}
    model = ModelFactory.create_model(
        "masked_autoencoder", 4, 4, sequence_length=105, settings=settings
    )
    assert model.num_parameters == 566_408


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_can_be_pretrained_and_probed(encoder: str) -> None:
    exempt = BEFORE_BATCH_NORM if encoder == "hybrid" else ()
    shape = (STEPS, FEATURES)
    for model, outputs in (("masked_autoencoder", 4), ("linear_probe", 2)):
        made = lambda m=model, n=outputs: build(m, n, encoder=encoder)  # noqa: E731
        assert check_model(made, shape, outputs, without_gradient=exempt) is None
    # What is pretrained is exactly what the encoder's own model calls its encoder.
    own = build(encoder, 2).module
    wrapped = encoder_tensors(MaskedAutoencoder, build(encoder=encoder).module.state_dict())
    assert set(wrapped) == set(encoder_tensors(type(own), own.state_dict()))


@pytest.mark.parametrize("masking", MASKINGS)
def test_training_hides_the_share_and_evaluation_each_step_once(masking: str) -> None:
    model = build(masking=masking, share=0.2, patch=5).module.train()
    assert isinstance(model, MaskedAutoencoder)
    with torch_seeded(0, "test"):
        mask = model._drawn(torch.zeros(2000, STEPS, FEATURES))
    assert set(mask.sum(dim=1).tolist()) == {6 if masking != "patch" else 5}
    places = mask.float().mean(dim=0)
    edges = mask.int().diff(dim=1).abs().sum(dim=1)
    if masking == "last":
        assert places.tolist() == [0.0] * 24 + [1.0] * 6
        assert model.folds.tolist() == [[False] * 24 + [True] * 6]
        return
    assert model.folds.sum(dim=0).tolist() == [1] * STEPS
    if masking == "block":
        assert int(edges.max()) <= 2
    else:
        share = 0.2 if masking == "random" else 1 / 6
        assert float((places - share).abs().max()) < 0.05


def test_what_is_hidden_is_not_seen_and_errors_are_those_of_the_guesses() -> None:
    model = build(masking="last", share=0.1).module.eval()
    assert isinstance(model, MaskedAutoencoder)
    x = torch.randn(5, STEPS, FEATURES)
    other = x.clone()
    other[:, -3:] += 100.0
    mask = model.folds[0].expand(5, -1)
    assert torch.equal(model.rebuild(x, mask)[0], model.rebuild(other, mask)[0])
    hidden = x[:, -3:]
    rebuilt = model.rebuild(x, mask)[0][:, -3:]
    guesses = (rebuilt, torch.zeros_like(hidden), x[:, -4:-3], x[:, -4:-3])
    for found, guess in zip(model(x).T, guesses, strict=True):
        torch.testing.assert_close(found, (guess - hidden).square().mean(dim=(1, 2)))


def test_a_straight_line_is_interpolated_without_error() -> None:
    model = build(share=0.01, outputs=4).module.eval()  # one step at a time
    line = torch.linspace(0, 29, STEPS)[:, None].expand(1, STEPS, FEATURES)
    mean, last, interpolation = model(line)[0, 1:].tolist()
    assert mean == pytest.approx(float(line.square().mean()))
    # At either end there is no reading on one side: a whole step off. Else nothing.
    assert last == pytest.approx(1.0)
    assert interpolation == pytest.approx(2 / STEPS)


def test_tokens_that_all_say_the_same_are_punished_in_training_only() -> None:
    x = torch.randn(4, STEPS, FEATURES)
    plain, spread = (build(masking="last", spread_weight=w) for w in (0.0, 0.1))
    spread.set_parameters(plain.get_parameters())
    assert torch.equal(plain.eval()(x), spread.eval()(x))
    tokens = plain.module.rebuild(x, plain.module.folds[0].expand(4, -1))[1]
    expected = 0.1 * (1 - tokens.flatten(1).std(dim=1)).relu()
    torch.testing.assert_close(spread.train()(x)[:, 0] - plain.train()(x)[:, 0], expected)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"masking": "half"}, "masking"),
        ({"share": 1.0}, "share"),
        ({"encoder": "mlp"}, "encoder=mlp"),
        ({"masking": "patch", "patch": 30}, "patch"),
        ({"outputs": 5}, "task=reconstruction"),
    ],
)
def test_what_cannot_be_pretrained_is_refused(config: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        build(**config)


def test_a_token_of_one_channel_rebuilds_its_own_patch_of_that_channel() -> None:
    settings = {"patch": 4, "width": 8, "num_layers": 1, "encoder_dropout": 0.0}
    model = build(encoder="mixer_hybrid", settings=settings).module.eval()
    assert isinstance(model, MaskedAutoencoder) and model.apart == (7, 4)
    x, other = torch.randn(2, STEPS, FEATURES), torch.randn(2, STEPS)
    hidden = torch.zeros(2, STEPS, dtype=torch.bool)
    changed = x.clone()
    changed[:, :, 3] = other
    with torch.no_grad():
        before, after = model.rebuild(x, hidden)[0], model.rebuild(changed, hidden)[0]
    assert before.shape == x.shape and (before[:, :2] == 0).all()  # 30 steps: 7 patches and 2
    others = [channel for channel in range(FEATURES) if channel != 3]
    assert torch.equal(before[:, :, others], after[:, :, others])
    assert not torch.isclose(before[:, 2:, 3], after[:, 2:, 3]).all()
    # without mixing, a patch is rebuilt from its own token alone
    for layer in model.encoder.encoder.layers.modules():  # type: ignore[union-attr]
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
    moved = x.clone()
    moved[:, 2 + 4 : 2 + 8, 1] += 1.0
    with torch.no_grad():
        changes = (model.rebuild(x, hidden)[0] != model.rebuild(moved, hidden)[0]).nonzero()
    assert set(changes[:, 1].tolist()) <= {6, 7, 8, 9} and set(changes[:, 2].tolist()) == {1}
