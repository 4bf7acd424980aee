"""``model=mixer_hybrid``: the document's counts, what is trained, and what it keeps apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from fedpdm.errors import ModelError
from fedpdm.models import ModelFactory, ModelWrapper
from fedpdm.models.mixer import GatedMixer, LowRank, MixerEncoder
from fedpdm.seeding import torch_seeded
from fedpdm.testing import check_model

DOWN = [f"adapters.{number}.down" for number in range(25)]
"""A product of two small numbers in the second step: tested exactly below."""
VARIANTS: dict[str, tuple[int, dict[str, Any]]] = {
    "trained": (5, {}),
    "frozen": (5, {"freeze_encoder": True}),
    "concat": (2 + 56, {"sensors": 2}),
    "none": (2 + 56, {"sensors": 2, "fusion": "none"}),
    "cross_attention": (2 + 56, {"sensors": 2, "fusion": "cross_attention"}),
    "one sensor": (1 + 28, {"sensors": 1, "fusion": "cross_attention", "freeze_encoder": True}),
}


def build(variant: str, length: int = 20, dropout: float = 0.0) -> ModelWrapper:
    inputs, config = VARIANTS[variant]
    return ModelFactory.create_model(
        "mixer_hybrid", inputs, 3, sequence_length=length, dropout_rate=dropout,
        encoder_dropout=dropout, **config,
    )  # fmt: skip


def windows(inputs: int, rows: int = 6, length: int = 20) -> Tensor:
    return torch.randn((rows, length, inputs), generator=torch.Generator().manual_seed(1))


def count(*modules: nn.Module) -> int:
    return sum(weight.numel() for module in modules for weight in module.parameters())


# The document's tables ------------------------------------------------------------------


def source_layout(fusion: str) -> dict[str, nn.Module]:
    """Return the source's parts by name, those that its forward pass never uses included.

    ``seeds/hvac-hybrid-v2.2.md``, and the counts read off the committed weights.
    """
    encoder = MixerEncoder(90, 8, 64, 4, 0.1)
    decoder = [GatedMixer(8, mixed, 0.1) for _ in range(8) for mixed in (11, 8)]
    decoded = [m for mixer in decoder for m in mixer.modules() if isinstance(m, nn.Linear)]
    joined = {
        "concat": [nn.Linear(92, 128)],
        "none": [nn.Linear(64, 128)],
        "cross_attention": [
            nn.Linear(28, 64), nn.MultiheadAttention(64, 4), nn.LayerNorm(64),
            nn.Linear(64, 28), nn.MultiheadAttention(28, 4), nn.LayerNorm(28), nn.Linear(92, 128),
        ],
    }[fusion]  # fmt: skip
    return {
        "encoder": encoder,
        "adapters": nn.ModuleList(LowRank(layer, 8, 16) for layer in encoder.adapted()),
        "decoder": nn.ModuleList([nn.Linear(64, 8), *decoder]),
        "decoder adapters": nn.ModuleList(LowRank(layer, 8, 16) for layer in decoded),
        "forecast head": nn.Linear(88, 90),
        "unused heads": nn.ModuleList(
            nn.Linear(*sizes) for _ in range(3) for sizes in ((64, 32), (32, 16), (16, 1))
        ),
        "attention": nn.ModuleList([nn.MultiheadAttention(64, 4), nn.LayerNorm(64)]),
        "fusion": nn.ModuleList([*joined, nn.LayerNorm(128)]),
        "heads": nn.ModuleList(
            nn.Linear(*sizes) for _ in range(3) for sizes in ((128, 64), (64, 1))
        ),
    }


@pytest.mark.parametrize(
    ("fusion", "total", "fused"),
    [("concat", 195_204, 12_160), ("cross_attention", 218_952, 35_908), ("none", 191_620, 8_576)],
)
def test_the_documents_counts_are_reproduced_part_by_part(fusion, total, fused):
    parts = {name: count(part) for name, part in source_layout(fusion).items()}
    assert parts == {
        "encoder": 87_140, "adapters": 19_776, "decoder": 8_784, "decoder adapters": 9_728,
        "forecast head": 8_010, "unused heads": 7_875, "attention": 16_768, "fusion": fused,
        "heads": 24_963,
    }  # fmt: skip
    assert sum(parts.values()) == total


def test_the_documents_trainable_share_is_reproduced():
    parts = {name: count(part) for name, part in source_layout("concat").items()}
    trained = sum(parts[name] for name in ("unused heads", "attention", "fusion", "heads"))
    assert trained == 61_766
    assert round(100 * trained / sum(parts.values()), 2) == 31.64


def test_ours_has_the_documents_parts_without_the_dead_ones():
    """One sensor and 28 statistics: key biases, decoder, unused heads are left out."""
    model = ModelFactory.create_model(
        "mixer_hybrid", 29, 3, sequence_length=90, sensors=1, freeze_encoder=True
    )
    used = {name: count(part) for name, part in model.module.named_children()}
    assert used["encoder"] == 87_140 and used["adapters"] == 19_776
    assert used["attention"] + used["norm"] == 16_768 - 64
    assert used["shared"] + used["shared_norm"] == 12_160 and used["output"] == 24_963
    own = model.module.channel.numel()
    assert model.num_parameters == sum(used.values()) + own == 160_807
    trained = sum(w.numel() for w in model.module.parameters() if w.requires_grad)
    assert trained == 160_807 - 87_140


# The contract -----------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_every_variant_keeps_the_contract_and_stacks(variant, dropout):
    shape = (20, VARIANTS[variant][0])
    found = check_model(
        lambda: build(variant, dropout=dropout), shape, outputs=3, without_gradient=DOWN
    )
    assert found is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_trainable_tensor_gets_a_gradient_within_two_steps(variant):
    """The source's LoRA, queries and keys never got one. LoRA's A needs the second step."""
    with torch_seeded(0, "gradients"):
        module = build(variant).double().module
    x = windows(VARIANTS[variant][0], rows=24).double()
    target = torch.arange(72).view(24, 3).sin().double()
    optimizer = torch.optim.Adam([w for w in module.parameters() if w.requires_grad], lr=1e-2)
    reached: set[str] = set()
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(module.train()(x), target).backward()
        reached |= {n for n, w in module.named_parameters() if w.grad is not None and w.grad.any()}
        optimizer.step()
    assert reached == {n for n, w in module.named_parameters() if w.requires_grad}
    if module.frozen:
        assert not any(name.startswith("encoder.") for name in reached)
        assert {name for name in DOWN} <= reached


def test_a_frozen_encoder_stays_in_evaluation_and_a_trained_one_does_not():
    frozen, trained = build("frozen", dropout=0.5), build("trained", dropout=0.5)
    for model, still in ((frozen, True), (trained, False)):
        model.train()
        assert model.module.training
        assert all(part.training is not still for part in model.module.encoder.modules())
        x = windows(5)
        assert torch.equal(model.module.encode(x), model.module.encode(x)) is still
        model.eval()
        assert not any(part.training for part in model.module.modules())


def test_adapters_change_nothing_at_first_and_the_output_once_they_are_trained():
    with torch_seeded(3, "adapters"):
        model = build("frozen").eval()
    x = windows(5)
    before = model(x)
    plain = model.module.encoder(x[:, :, :5]).flatten(1, 2)
    torch.testing.assert_close(model.module.encode(x), plain)
    with torch.no_grad():
        for adapter in model.module.adapters:
            adapter.up.add_(0.1)
    assert not torch.allclose(model(x), before)
    torch.testing.assert_close(model.module.encoder(x), plain.view(6, 5, 2, 64))


# What it sees -----------------------------------------------------------------------------


def test_tokens_are_sensors_times_patches_and_the_oldest_rest_is_not_seen():
    model = build(
        "concat", length=20
    ).eval()  # two patches of 8; the first four steps are left over
    x = windows(58)
    assert model.module.encode(x).shape == (6, 2 * 2, 64)
    changed = x.clone()
    changed[:, :4, :2] += 9.0
    assert torch.equal(model(changed), model(x))
    changed[:, 4, :2] += 9.0
    assert not torch.allclose(model(changed), model(x))


@pytest.mark.parametrize("change", ["swapped sensors", "level", "scale", "reversed"])
def test_what_the_source_lost_changes_the_output(change):
    """It scaled every window by its own deviation, and knew one channel."""
    with torch_seeded(5, "seen"):
        model = build("trained").eval()
    x = windows(5)
    other = {
        "swapped sensors": x[:, :, [1, 0, 2, 3, 4]], "level": x + 1.0, "scale": 2.0 * x,
        "reversed": x.flip(1),
    }[change]  # fmt: skip
    assert (model(other) - model(x)).abs().max() > 1e-4


@pytest.mark.parametrize(("variant", "seen"), [("concat", 1), ("cross_attention", 1), ("none", 0)])
def test_statistics_are_read_where_they_are_fused(variant, seen):
    model = build(variant).eval()
    x = windows(58)
    other = x.clone()
    other[:, :, 2:] += 1.0
    assert (not torch.allclose(model(other), model(x))) is bool(seen)


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_each_output_has_a_head_of_its_own(outputs):
    model = ModelFactory.create_model("mixer_hybrid", 4, outputs, sequence_length=16).eval()
    x = windows(4, length=16)
    before = model(x)
    with torch.no_grad():
        model.module.output.hidden_weight[-1] += 1.0
    changed = (model(x) - before).abs().amax(dim=0) > 1e-6
    assert changed.tolist() == [False] * (outputs - 1) + [True]


# Settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "length", "config", "message"),
    [
        (5, None, {}, "needs sequences"),
        (5, 15, {"patch": 8}, "fewer than two: set data.window to 16 or more"),
        (5, 1, {}, "fewer than two: set data.window to 2 or more"),
        (5, 20, {"patch": 11}, "model.config.patch to 10 or less"),
        (5, 20, {"fusion": "sum"}, "fusion=sum is unknown; choose one of concat"),
        (5, 20, {"fusion": "cross_attention"}, "use features=both without limits"),
        (67, 20, {"fusion": "cross_attention", "sensors": 2}, "use features=both without limits"),
        (5, 20, {"sensors": 6}, "sensors=6 must be at least 1 and at most the 5 inputs"),
        (5, 20, {"width": 30}, "width=30 must be a multiple of heads=4"),
        (5, 20, {"lora_rank": -1, "freeze_encoder": True}, "lora_rank=-1 must be at least 0"),
        (5, 20, {"num_layers": 0}, "num_layers=0: a size must be at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(inputs, length, config, message):
    with pytest.raises(ModelError, match=message):
        ModelFactory.create_model("mixer_hybrid", inputs, 3, sequence_length=length, **config)


def test_another_shape_is_refused_in_one_sentence():
    with pytest.raises(ModelError, match=r"model=mixer_hybrid was built for windows \(B, 20, 5\)"):
        build("trained")(torch.zeros(2, 24, 5))


def test_the_yaml_is_the_class():
    path = Path(__file__).parents[2] / "conf" / "model" / "mixer_hybrid.yaml"
    option = yaml.safe_load(path.read_text(encoding="utf-8"))
    shape = {"input_dim", "num_classes", "sequence_length"}
    defaults = ModelFactory.get_default_config("mixer_hybrid")
    assert option["config"] == {key: v for key, v in defaults.items() if key not in shape}


@pytest.mark.parametrize(
    ("setting", "value"),
    [("patch", 10), ("width", 32), ("num_layers", 1), ("heads", 2), ("hidden_size", 64),
     ("freeze_encoder", True), ("dropout_rate", 0.0), ("encoder_dropout", 0.0), ("fusion", "none")],
)  # fmt: skip
def test_every_setting_changes_the_model(setting, value):
    def output(**config: Any) -> Tensor:
        with torch_seeded(0, "settings"):
            made = ModelFactory.create_model(
                "mixer_hybrid", 58, 2, sequence_length=20, sensors=2, **config
            )
            return made.train()(windows(58))  # type: ignore[no-any-return]

    assert not torch.equal(output(), output(**{setting: value}))


@pytest.mark.parametrize("setting", [{"lora_rank": 2}, {"lora_alpha": 4.0}])
def test_settings_of_adapters_change_them(setting):
    usual, other = (
        ModelFactory.create_model(
            "mixer_hybrid", 3, 2, sequence_length=20, freeze_encoder=True, **config
        ).module.adapters[0]
        for config in ({}, setting)
    )
    assert (usual.scale, usual.down.shape) != (other.scale, other.down.shape)
