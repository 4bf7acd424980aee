"""The decoder of programs: its grammar, greedy and beam search, freezing, all heads trained."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedpdm.data import programs
from fedpdm.data.programs import LENGTH, PARTS
from fedpdm.errors import ConfigError, ModelError
from fedpdm.models import ModelFactory
from fedpdm.models.program_decoder import OUTPUTS, PLACES, ProgramDecoder, tokens_of
from fedpdm.models.sensor_encoder import SensorEncoder
from fedpdm.seeding import torch_seeded
from fedpdm.tasks import Program
from fedpdm.testing import check_model
from fedpdm.training.freezing import Freezing
from fedpdm.training.loop import TrainingSettings, fit
from fedpdm.training.objective import LocalContext, outputs
from fedpdm.training.teacher_forcing import STEPS, TeacherForcing

TINY: dict[str, Any] = {
    "width": 16, "hidden_size": 8, "encoder_layers": 1, "d_model": 16, "n_heads": 2, "n_layers": 1
}  # fmt: skip
ENCODER = {"width": 16, "hidden_size": 8, "num_layers": 1}
LEVELS = [0, 0, 3, 0, 0, 4]
LINES = ["G1 X-12.50 F400", "G0 X5.00 Y-7.50", "M3 S2000", "M30", "G2 Y10.00 R5.00", "G53 Z-3.25"]


def decoder(seed: int = 0, spread: float | None = None, **given: Any) -> ProgramDecoder:
    with torch_seeded(seed, "decoder"):
        model = ProgramDecoder(6, OUTPUTS, **TINY | given)
        if spread:  # as far from the start as training may go
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=spread)
    return model


def windows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 9, 6, generator=torch.Generator().manual_seed(seed))


def written(model: ProgramDecoder, x: Tensor) -> np.ndarray:
    scores = Program().scores(outputs(model, x)).reshape(len(x), LENGTH - 1, len(PARTS))
    return np.concatenate([np.zeros((len(x), 1, len(PARTS))), scores], axis=1)


def log_probability(model: ProgramDecoder, x: Tensor, tokens: np.ndarray) -> Tensor:
    """Return (B,) log-probabilities of lines, each part among what the grammar allows."""
    known = torch.from_numpy(tokens).long()
    with torch.no_grad():
        logits = model.eval().decode(model.remember(x), known[:, :-1])
    total = torch.zeros(len(x))
    for step in range(LENGTH - 1):
        before, after = known[:, : step + 1], known[:, step + 1]
        legal = model.grammar.values(before, after[:, 0])
        legal[:, PLACES[0]] = model.grammar.types(before)
        each = logits[:, step].masked_fill(~legal, -torch.inf)
        for part, place in enumerate(PLACES):
            own = each[:, place].log_softmax(dim=1).gather(1, after[:, part : part + 1])[:, 0]
            total += own
    return total


def test_it_keeps_the_contract_of_models_and_says_that_it_cannot_be_stacked() -> None:
    reason = check_model(lambda: ProgramDecoder(6, OUTPUTS, **TINY), (9, 6), OUTPUTS)
    assert reason is not None and "engine=serial" in reason


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_whatever_the_weights_a_line_is_well_formed(beam: int, spread: float) -> None:
    model = decoder(spread=spread, beam=beam)
    found = written(model, 3 * windows(60))
    assert programs.well_formed(found).all()
    assert programs.encode(programs.decode(found)).tolist() == found.tolist()


def test_the_grammar_allows_every_line_that_can_be_written() -> None:
    model = decoder()
    tokens = torch.from_numpy(programs.encode(LINES)).long()
    for step in range(1, LENGTH):
        before, after = tokens[:, :step], tokens[:, step]
        assert model.grammar.types(before).gather(1, after[:, :1]).all()
        legal = model.grammar.values(before, after[:, 0])
        for part, place in enumerate(PLACES):
            assert legal[:, place].gather(1, after[:, part : part + 1]).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_finds_lines_at_least_as_likely_and_a_wide_one_the_likeliest(seed: int) -> None:
    x = windows(8, seed)
    model = decoder(seed, spread=0.5)
    greedy = written(model, x)
    found = {}
    for beam in (2, 64):
        model.beam = beam
        found[beam] = log_probability(model, x, written(model, x))
    assert (found[64] >= log_probability(model, x, greedy) - 1e-4).all()
    # All lines without a number, and with the likeliest number after each parameter: a few
    # hundred, of which none may beat the wide beam.
    rivals = ["M30", "G0", "G1", "G2", "G3", "G53", "M3"]
    for command, pair in itertools.product(("G0", "G1", "G2"), ("X", "Y")):
        rivals += [f"{command} {pair}{number}" for number in ("0.00", "55.55", "-11.11", "99.99")]
    for line in rivals:
        tokens = np.repeat(programs.encode([line]), len(x), axis=0)
        assert (found[64] >= log_probability(model, x, tokens) - 1e-4).all()


def test_greedy_scores_are_the_tokens_that_follow_from_each_other() -> None:
    model, x = decoder(spread=1.0).eval(), windows(20)
    found = written(model, x)
    with torch.no_grad():
        memory = model.remember(x)
        logits = model.decode(memory, torch.from_numpy(found).long()[:, :-1])
    types = tokens_of(logits)[..., 0]
    said = torch.from_numpy(found[:, 1:, 0]).long()
    before = torch.from_numpy(found).long()
    for step in range(LENGTH - 1):
        allowed = model.grammar.types(before[:, : step + 1])
        best = logits[:, step, PLACES[0]].masked_fill(~allowed, -torch.inf).argmax(dim=1)
        assert torch.equal(best, said[:, step])
    assert types.shape == said.shape


def test_a_blind_decoder_sees_no_sensor() -> None:
    model, x = decoder(), windows(40)
    seen = outputs(model, x)
    assert not torch.allclose(seen, seen[:1].expand_as(seen))
    model.blind = True
    guessed = outputs(model, x)
    assert torch.allclose(guessed, guessed[:1].expand_as(guessed))


def test_a_frozen_encoder_stays_in_eval_mode_and_does_not_change() -> None:
    model = decoder(encoder_layers=2)
    encoder = Freezing(frozenset(n for n in model.state_dict() if n.startswith("encoder.")), 1)
    settings = TrainingSettings(1, 6, 0.01, freezing=encoder)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    x, y = windows(12), torch.from_numpy(programs.encode(LINES * 2))
    fit(model, x, y, TeacherForcing(), settings, seed=0, key=("t",), epochs=1)
    encoder.quiet(model.train())
    assert model.training and not any(part.training for part in model.encoder.modules())
    for name, parameter in model.named_parameters():
        assert torch.equal(before[name], parameter) == name.startswith("encoder.")


def test_every_head_and_every_tensor_is_trained() -> None:
    """Defect 4.3.1: only one head of the source's decoder was in its loss."""
    model = decoder(dropout_rate=0.0)
    x, y = 3 * windows(len(LINES)), torch.from_numpy(programs.encode(LINES))
    objective, context = TeacherForcing(), LocalContext()
    largest = dict.fromkeys((name for name, _ in model.named_parameters()), 0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        objective.loss(model.train(), x, y, context).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            largest[name] = max(largest[name], float(parameter.grad.abs().max()))
        optimizer.step()
    assert [name for name, most in largest.items() if most < 1e-8] == []

    def each() -> Tensor:
        with torch.no_grad():
            return torch.stack(objective.parts(model.eval(), x, y, LocalContext())).mean(dim=1)

    start = each()
    settings = TrainingSettings(1, 6, 0.01, schedule="constant")
    fit(model, x, y, objective, settings, seed=0, key=("t",), epochs=120)
    assert (each() < 0.5 * start).all()
    found = Program().metrics(np.asarray(y), np.zeros(len(y)), written(model, x)[:, 1:])
    assert found["exact_match"] == found["number_accuracy"] == found["well_formed"] == 1.0


def test_a_part_is_learned_at_its_own_tokens_only() -> None:
    model = decoder(dropout_rate=0.0)
    x, y = windows(1), torch.from_numpy(programs.encode(["M30"]))
    parts = TeacherForcing().parts(model, x, y, LocalContext())
    assert [bool(part > 0) for part in parts] == [True, True, *[False] * 6]


def test_a_curriculum_brings_numbers_in_later() -> None:
    model, context = decoder(dropout_rate=0.0), LocalContext()
    x, y = windows(6), torch.from_numpy(programs.encode(LINES))
    objective, learned = TeacherForcing(curriculum=[2, 3]), []
    for _ in range(5):
        parts = objective.parts(model.train(), x, y, context)
        learned.append(sum(bool((part > 0).any()) for part in parts))
    assert learned == [3, 3, 6, 8, 8] and float(context.memory[STEPS]) == 5
    assert sum(bool((part > 0).any()) for part in objective.parts(model.eval(), x, y, context)) == 8


def test_scheduled_sampling_feeds_the_decoder_its_own_tokens() -> None:
    model, x = decoder(dropout_rate=0.0), windows(6)
    y = torch.from_numpy(programs.encode(LINES))
    plain = TeacherForcing().losses(model.train(), x, y, LocalContext())
    begun = LocalContext(memory={STEPS: torch.zeros(1)})
    full = LocalContext(memory={STEPS: torch.full((1,), 10.0)})
    objective = TeacherForcing(sampling=1.0, sampling_steps=10)
    assert torch.equal(objective.losses(model, x, y, begun), plain)  # nothing at the start
    assert not torch.allclose(objective.losses(model, x, y, full), plain)
    both = [LocalContext(memory={STEPS: torch.full((1,), 10.0)}) for _ in range(2)]
    first, second = (objective.losses(model, x, y, context) for context in both)
    assert torch.equal(first, second)
    assert torch.equal(objective.losses(model.eval(), x, y, full),
                       TeacherForcing().losses(model, x, y, LocalContext()))  # fmt: skip


def test_focal_loss_and_smoothing_change_what_they_say() -> None:
    model, x = decoder(dropout_rate=0.0).eval(), windows(6)
    y, context = torch.from_numpy(programs.encode(LINES)), LocalContext()
    plain = TeacherForcing().parts(model, x, y, context)
    focal = TeacherForcing(gamma=2.0).parts(model, x, y, context)
    assert all((focal[k] < plain[k]).all() for k in (0, 1))
    assert all(torch.equal(focal[k], plain[k]) for k in range(2, 8))
    smooth = TeacherForcing(label_smoothing=0.1).parts(model, x, y, context)
    assert all(not torch.equal(a, b) for a, b in zip(plain, smooth, strict=True))


@pytest.mark.parametrize(
    ("given", "said"),
    [({"curriculum": [3, 1]}, "curriculum"), ({"curriculum": [1]}, "curriculum"),
     ({"sampling": 2.0}, "sampling"), ({"sampling_steps": 0}, "sampling_steps"),
     ({"gamma": -1.0}, "gamma"), ({"label_smoothing": 1.0}, "label_smoothing")],
)  # fmt: skip
def test_options_out_of_range_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"objective\.{said}"):
        TeacherForcing(**given)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match="task=program"):
        ProgramDecoder(6, 2, **TINY)
    with pytest.raises(ModelError, match="d_model"):
        decoder(d_model=15)
    with pytest.raises(ConfigError, match="program_decoder"):
        TeacherForcing().check_model(ModelFactory.create_model("lstm", 6, OUTPUTS).module)


def test_its_encoder_is_that_of_the_first_stage() -> None:
    """What ``init=RUN`` takes over: names and shapes agree, and so does the memory."""
    first, second = SensorEncoder(6, 9, levels=LEVELS, **ENCODER), decoder(levels=LEVELS)
    inner = {n: t for n, t in first.state_dict().items() if n.startswith("encoder.")}
    outer = {n: t.shape for n, t in second.state_dict().items() if n.startswith("encoder.")}
    assert {name: tensor.shape for name, tensor in inner.items()} == outer and len(outer) > 10
    second.load_state_dict(inner, strict=False)
    x = windows(4)
    assert torch.equal(first.eval().encode(x), second.eval().encoder(x))
