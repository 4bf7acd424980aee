"""What each architecture takes, returns, counts and trains."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpdm.errors import ModelError
from fedpdm.models import ModelFactory
from fedpdm.seeding import torch_seeded

# model, sequence_length, trainable values and buffer values at 10 features, 2 classes
COUNTS = [
    ("mlp", None, 2_978, 0),
    ("mlp", 10, 7_298, 0),
    ("mlp", 30, 16_898, 0),
    ("cnn", None, 97_666, 451),
    ("cnn", 10, 98_530, 451),
    ("cnn", 30, 164_066, 451),
    ("lstm", 10, 55_682, 0),
    ("lstm", 50, 55_682, 0),
    ("hybrid", 10, 115_106, 194),
    ("hybrid", 50, 115_106, 194),
    ("enhanced_lstm", 105, 415_330, 0),
    ("trend", 10, 21_414, 0),
    ("trend", 30, 21_614, 0),
]
SHAPES = [
    ("mlp", None),
    ("mlp", 12),
    ("cnn", None),
    ("cnn", 12),
    ("lstm", 12),
    ("hybrid", 12),
    ("trend", 12),
    ("enhanced_lstm", 12),
]


def inputs(batch: int, length: int | None, features: int = 10, seed: int = 0) -> torch.Tensor:
    shape = (batch, features) if length is None else (batch, length, features)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "length", "parameters", "buffers"), COUNTS)
def test_parameter_counts_are_the_stated_ones(name, length, parameters, buffers):
    model = ModelFactory.create_model(name, 10, 2, sequence_length=length)
    assert model.num_parameters == parameters
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == parameters
    assert sum(b.numel() for b in model.buffers()) == buffers


@given(features=st.integers(1, 20), classes=st.integers(1, 5), length=st.integers(8, 40))
@settings(max_examples=20)
def test_cnn_count_follows_the_formula_of_its_docstring(features, classes, length):
    model = ModelFactory.create_model("cnn", features, classes, sequence_length=length)
    assert model.num_parameters == 96 * features + 32_768 * (length // 8) + 64_544 + 129 * classes


@given(
    shape=st.sampled_from(SHAPES),
    batch=st.integers(1, 9),
    features=st.integers(8, 30),
    length=st.integers(8, 40),
    classes=st.integers(1, 4),
)
@settings(max_examples=40)
def test_every_input_that_a_model_takes_gives_finite_logits(
    shape, batch, features, length, classes
):
    name, windows = shape[0], length if shape[1] else None
    model = ModelFactory.create_model(name, features, classes, sequence_length=windows).eval()
    output = model(inputs(batch, windows, features))
    assert output.shape == (batch, classes)
    assert torch.isfinite(output).all()


@pytest.mark.parametrize(("name", "length"), SHAPES)
def test_outputs_are_raw_and_rows_do_not_touch_each_other(name, length):
    model = ModelFactory.create_model(name, 10, 2, sequence_length=length).eval()
    x = 50 * inputs(6, length)
    output = model(x)
    assert not torch.allclose(output.sum(dim=1), torch.ones(6), atol=0.1)  # no softmax inside
    alone = torch.cat([model(row.unsqueeze(0)) for row in x])
    torch.testing.assert_close(output, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "length"), SHAPES)
def test_initial_weights_are_a_function_of_the_key(name, length):
    def build(seed: int) -> dict[str, torch.Tensor]:
        torch.rand(seed)  # whatever was drawn before must not matter
        with torch_seeded(seed, "model"):
            model = ModelFactory.create_model(name, 10, 2, sequence_length=length)
        return model.get_parameters()

    first, again, other = build(3), build(3), build(4)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(("name", "length"), SHAPES)
def test_each_model_can_learn(name, length):
    with torch_seeded(1, name):
        model = ModelFactory.create_model(name, 10, 2, sequence_length=length, dropout_rate=0.0)
        x = inputs(64, length)
        y = (x[..., 0] if length is None else x[..., 0].mean(dim=1)).gt(0).long()
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(40):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model.train()(x), y)
            loss.backward()
            optimizer.step()
    assert loss.item() < 0.35  # chance is .69


@pytest.mark.parametrize("name", ["lstm", "hybrid", "trend"])
def test_models_of_sequences_refuse_tabular_data_when_built(name):
    with pytest.raises(ModelError, match=rf"model={name} needs sequences .* use model=cnn"):
        ModelFactory.create_model(name, 10, 2, sequence_length=None)


@pytest.mark.parametrize(
    ("name", "features", "length", "message"),
    [
        ("cnn", 7, None, "at least 8 features, not 7: use model=mlp"),
        ("cnn", 10, 7, "at least 8 time steps, not 7: set data.window to 8"),
        ("hybrid", 10, 3, "at least 4 time steps, not 3: set data.window to 4"),
        ("lstm", 10, 0, "sequence_length=0 must be 1 or more"),
        ("mlp", 10, 0, "sequence_length=0 must be 1 or more"),
    ],
)
def test_too_small_inputs_are_refused_when_built(name, features, length, message):
    with pytest.raises(ModelError, match=message):
        ModelFactory.create_model(name, features, 2, sequence_length=length)


@pytest.mark.parametrize(
    ("name", "length", "shape", "message"),
    [
        ("mlp", None, (4, 12, 10), r"rows \(B, 10\) and was given \(4, 12, 10\)"),
        ("mlp", 12, (4, 10), r"windows \(B, 12, 10\) and was given \(4, 10\)"),
        ("cnn", None, (4, 12, 10), r"rows \(B, 10\) and was given \(4, 12, 10\)"),
        ("cnn", None, (4, 9), "it has 9 features, not 10"),
        ("cnn", 12, (4, 13, 10), r"windows \(B, 12, 10\) and was given \(4, 13, 10\)"),
        ("lstm", 12, (4, 10), r"windows \(B, T, 10\) and was given \(4, 10\)"),
        ("lstm", 12, (4, 10, 12), "the last dimension must be the features"),
        ("hybrid", 12, (4, 10), r"windows \(B, T, 10\) and was given \(4, 10\)"),
        ("hybrid", 12, (4, 1, 10), "at least 4 time steps"),
        ("trend", 12, (4, 13, 10), r"windows \(B, 12, 10\) and was given \(4, 13, 10\)"),
    ],
)
def test_wrong_shapes_are_refused_in_one_sentence(name, length, shape, message):
    model = ModelFactory.create_model(name, 10, 2, sequence_length=length)
    with pytest.raises(ModelError, match=message) as caught:
        model(torch.zeros(shape))
    assert f"model={name}" in str(caught.value)


def test_cnn_on_rows_convolves_over_features_and_on_windows_over_time():
    rows = ModelFactory.create_model("cnn", 10, 2, sequence_length=None)
    windows = ModelFactory.create_model("cnn", 10, 2, sequence_length=16)
    assert rows.get_parameters()["conv1.weight"].shape == (32, 1, 3)
    assert windows.get_parameters()["conv1.weight"].shape == (32, 10, 3)


def test_lstm_joins_the_final_states_of_both_directions():
    """The last step of the forward pass, and the first of the backward pass."""
    model = ModelFactory.create_model("lstm", 10, 2, sequence_length=6, dropout_rate=0.0).eval()
    x = inputs(5, 6)
    steps, _ = model.lstm(x)  # (B, T, 2 * 64)
    state = torch.cat([steps[:, -1, :64], steps[:, 0, 64:]], dim=1)
    torch.testing.assert_close(model(x), model.output(model.fc1(state).relu()))


def test_hybrid_reads_the_last_step_of_the_pooled_sequence():
    model = ModelFactory.create_model("hybrid", 10, 2, sequence_length=9, dropout_rate=0.0).eval()
    x = inputs(5, 9)
    pooled = x.transpose(1, 2)
    for number in (1, 2):
        block = getattr(model, f"bn{number}")(getattr(model, f"conv{number}")(pooled))
        pooled = torch.nn.functional.max_pool1d(block.relu(), 2)
    assert pooled.shape == (5, 64, 2)
    steps, _ = model.lstm(pooled.transpose(1, 2))
    torch.testing.assert_close(model(x), model.output(model.fc1(steps[:, -1]).relu()))


def test_trend_starts_with_means_and_slopes_of_the_last_parts_of_a_window():
    """Of the line 3 + 2t over 8 steps: its last half's mean is 14, its slopes 2 a step."""
    shares = (0.125, 0.5, 1.0)
    model = ModelFactory.create_model("trend", 1, 2, sequence_length=8, shares=shares)
    line = (3.0 + 2 * torch.arange(8)).view(1, 1, 8)
    expected = torch.tensor([17.0, 14.0, 10.0, 0.0, 2 * 4 / 2, 2 * 8 / 2])
    torch.testing.assert_close(model.time(line).view(-1), expected)


@pytest.mark.parametrize("shares", [(), (0.5, 0.0), (1.5,)])
def test_trend_refuses_parts_that_are_none(shares):
    with pytest.raises(ModelError, match="model=trend: shares=.* parts of the window"):
        ModelFactory.create_model("trend", 10, 2, sequence_length=12, shares=shares)


def test_the_last_layer_of_every_model_is_called_output():
    for name, length in SHAPES:
        model = ModelFactory.create_model(name, 10, 3, sequence_length=length)
        assert model.parameter_names[-2:] == ("output.weight", "output.bias")
        assert model.get_parameters()["output.weight"].shape[0] == 3
