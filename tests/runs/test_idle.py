"""Settings of models and objectives that nothing reads are said, and truly change nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fedpdm.config.compose import compose
from fedpdm.models import ModelFactory
from fedpdm.runs.experiment import build
from fedpdm.runs.idle import idle_options
from fedpdm.seeding import torch_seeded
from fedpdm.training.teacher_forcing import TeacherForcing

SMALL = {"width": 8, "heads": 2, "num_layers": 1, "hidden_size": 8}


def built(name: str, inputs: int, config: dict[str, Any]) -> torch.nn.Module:
    with torch_seeded(0, "model"):
        return ModelFactory.create_model(name, inputs, 2, sequence_length=16, **config).module


@pytest.mark.parametrize(
    ("name", "inputs", "config", "idle", "key"),
    [
        ("mixer_hybrid", 3, SMALL | {"fusion": "none"}, {"lora_rank": 2}, "lora_rank"),
        ("mixer_hybrid", 3, SMALL | {"fusion": "none"}, {"lora_alpha": 2.0}, "lora_alpha"),
        ("mixer_hybrid", 3, SMALL | {"fusion": "none", "freeze_encoder": True, "lora_rank": 0},
         {"lora_alpha": 2.0}, "lora_alpha"),
        ("mixer_hybrid", 3, SMALL | {"fusion": "none", "freeze_encoder": True},
         {"encoder_dropout": 0.7}, "encoder_dropout"),
        ("mixer_hybrid", 3, SMALL | {"fusion": "none"}, {"fusion": "concat"}, "features=both"),
        ("masked_autoencoder", 3, {"masking": "block"}, {"patch": 3}, "masking=patch"),
        ("sensor_encoder", 3, {"width": 8, "hidden_size": 8}, {"embedding_dim": 9}, "embedding"),
    ],
)  # fmt: skip
def test_what_is_called_idle_changes_no_weight_and_no_output(
    name: str, inputs: int, config: dict[str, Any], idle: dict[str, Any], key: str
) -> None:
    plain, other = built(name, inputs, config), built(name, inputs, config | idle)
    assert plain.idle == []
    assert len(said := list(other.idle)) == 1 and key in said[0]  # type: ignore[arg-type]
    mine, its = plain.state_dict(), other.state_dict()
    assert list(mine) == list(its) and all(torch.equal(mine[k], its[k]) for k in mine)
    x = torch.randn(4, 16, inputs, generator=torch.Generator().manual_seed(1))
    for training in (False, True):
        found = []
        for module in (plain, other):
            module.train(training)
            with torch_seeded(3, "draws"):
                found.append(module(x))
        assert torch.equal(*found)


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        ({"freeze_encoder": True}, {"lora_rank": 2}),
        ({"freeze_encoder": True}, {"lora_alpha": 2.0}),
        ({}, {"encoder_dropout": 0.7}),
        ({"sensors": 2}, {"fusion": "concat"}),
    ],
)
def test_what_has_an_effect_is_not_called_idle(
    config: dict[str, Any], changed: dict[str, Any]
) -> None:
    base = SMALL | ({} if "sensors" in config else {"fusion": "none"}) | config
    plain, other = (built("mixer_hybrid", 3, base | more) for more in ({}, changed))
    assert plain.idle == other.idle == []
    unread = built("mixer_hybrid", 3, SMALL | {"sensors": 2, "fusion": "none"})
    assert len(unread.idle) == 1, "an input that is not looked at"  # type: ignore[arg-type]


def test_guesses_that_are_never_taken() -> None:
    assert TeacherForcing(sampling=0.2, sampling_steps=5).idle == TeacherForcing().idle == []
    assert len(TeacherForcing(sampling_steps=5).idle) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], []),
        (["model=mixer_hybrid", "model.config.lora_rank=4"], ["fusion=concat", "lora_rank=4"]),
        (["model=mixer_hybrid", "features=both"], []),
        (["model=gbdt", "training.learning_rate=0.5", "training.optimizer=adam"],
         ["training.learning_rate, training.optimizer"]),
        (["model=gbdt"], []),
        (["model=sensor_encoder", "model.config.reconstructs=true"], ["Denoising"]),
    ],
)  # fmt: skip
def test_a_run_says_what_is_without_effect(words: list[str], said: list[str]) -> None:
    small = ["sites.detroit.machines=4", "sites.houston.machines=4"]
    cfg = compose([*small, *words])
    found = idle_options(cfg, build(cfg))
    assert len(found) == len(said)
    for text, part in zip(found, said, strict=True):
        assert text.startswith("without effect: ") and part in text
