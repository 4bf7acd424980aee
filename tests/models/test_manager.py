"""Several models, their states on disk, and what survives a crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

import fedpdm.models.manager as manager_module
from fedpdm.errors import HistoryError, ModelError
from fedpdm.models import ModelManager, ModelType, ModelWrapper

ROOT = Path(__file__).parents[2]


def shifted(model: ModelWrapper, by: int) -> dict[str, torch.Tensor]:
    """Another state: every parameter and buffer moved."""
    return {key: value + by for key, value in model.get_parameters().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture
def manager(tmp_path: Path) -> ModelManager:
    return ModelManager(tmp_path / "models")


def with_rounds(manager: ModelManager, rounds: int) -> dict[int, dict[str, torch.Tensor]]:
    """Register a CNN as ``detroit_cnn`` and save rounds 0…, each different."""
    model = manager.create_and_register_model("detroit_cnn", "cnn", 10, 2)
    saved = {}
    for number in range(rounds):
        model.set_parameters(shifted(model, 1))
        manager.save_model_state("detroit_cnn", number)
        saved[number] = model.get_parameters()
    return saved


def test_models_are_kept_by_id(manager):
    cnn = manager.create_and_register_model("automotive_detroit_cnn", ModelType.CNN, 10, 2)
    lstm = manager.create_and_register_model(
        model_id="chemical_houston_lstm", model_type=ModelType.LSTM, input_dim=10, num_classes=2
    )
    assert manager.get_model("automotive_detroit_cnn") is cnn
    assert manager.get_model("chemical_houston_lstm") is lstm
    assert manager.list_models() == ["automotive_detroit_cnn", "chemical_houston_lstm"]
    manager.remove_model("automotive_detroit_cnn")
    assert manager.list_models() == ["chemical_houston_lstm"]
    assert not (manager.folder / "automotive_detroit_cnn").exists()
    manager.create_and_register_model("automotive_detroit_cnn", ModelType.MLP, 10, 2)
    assert manager.list_model_states("automotive_detroit_cnn") == []


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.get_model("nobody"),
        lambda m: m.remove_model("nobody"),
        lambda m: m.save_model_state("nobody", 1),
        lambda m: m.restore_model_state("nobody"),
        lambda m: m.list_model_states("nobody"),
    ],
)
def test_an_unknown_id_is_refused_with_the_list(manager, call):
    manager.create_and_register_model("detroit_cnn", "mlp", 10, 2)
    with pytest.raises(ModelError, match=r"no model 'nobody' in .*: there are detroit_cnn"):
        call(manager)


def test_an_id_is_taken_once(manager):
    manager.create_and_register_model("detroit", "mlp", 10, 2)
    with pytest.raises(ModelError, match="already registered"):
        manager.create_and_register_model("detroit", "cnn", 10, 2)
    with pytest.raises(ModelError, match="already registered"):
        ModelManager(manager.folder).create_and_register_model("detroit", "cnn", 10, 2)


@pytest.mark.parametrize("model_id", ["", "../up", "a/b", ".hidden", "with space", "x" * 300])
def test_an_id_that_cannot_name_a_folder_is_refused(manager, model_id):
    with pytest.raises(ModelError, match="use letters, digits"):
        manager.create_and_register_model(model_id, "mlp", 10, 2)
    assert not manager.folder.exists()


def test_any_round_and_the_latest_come_back_with_their_buffers(manager):
    """Defect 11: BatchNorm's buffers were lost in a restore."""
    saved = with_rounds(manager, 4)
    model = manager.get_model("detroit_cnn")
    for number in (1, 3, 0):
        assert manager.restore_model_state("detroit_cnn", round_num=number) is model
        assert same(model.get_parameters(), saved[number])
    model.set_parameters(shifted(model, 40))
    manager.restore_model_state("detroit_cnn")
    assert same(model.get_parameters(), saved[3])


def test_a_round_that_was_not_saved_is_refused_with_the_list(manager):
    manager.create_and_register_model("houston", "mlp", 10, 2)
    with pytest.raises(ModelError, match="no saved state"):
        manager.restore_model_state("houston")
    with_rounds(manager, 3)
    with pytest.raises(ModelError, match="no state of round 7: saved are 0, 1, 2"):
        manager.restore_model_state("detroit_cnn", 7)
    with pytest.raises(ModelError, match="round -1 must be 0 or more"):
        manager.save_model_state("detroit_cnn", -1)


def test_a_round_saved_again_replaces_the_old_one_and_is_the_latest(manager):
    saved = with_rounds(manager, 4)
    model = manager.restore_model_state("detroit_cnn", 1)
    model.set_parameters(shifted(model, 100))
    manager.save_model_state("detroit_cnn", 2)
    again = model.get_parameters()
    model.set_parameters(shifted(model, 5))
    assert same(manager.restore_model_state("detroit_cnn").get_parameters(), again)
    assert same(manager.restore_model_state("detroit_cnn", 3).get_parameters(), saved[3])
    assert [s.round_num for s in manager.list_model_states("detroit_cnn")] == [0, 1, 3, 2]
    assert len(list((manager.folder / "detroit_cnn").glob("00*.safetensors"))) == 4


def test_timestamps_are_the_time_of_saving(manager):
    """Defect 11: the source's timestamp was the seed of the random generator."""
    before = datetime.now(UTC)
    with_rounds(manager, 2)
    torch.manual_seed(7)
    times = [datetime.fromisoformat(s.saved_at) for s in manager.list_model_states("detroit_cnn")]
    assert before <= times[0] <= times[1] <= datetime.now(UTC)
    assert times[0].utcoffset() == timedelta(0)


def test_states_survive_the_process(manager):
    """Defects 11 and 13: the source's persistence was a dict in memory; no model was saved."""
    saved = with_rounds(manager, 3)
    script = (
        "import sys; from pathlib import Path; import torch\n"
        "from fedpdm.models import ModelManager\n"
        "m = ModelManager(Path(sys.argv[1]))\n"
        "assert m.list_models() == ['detroit_cnn']\n"
        "latest = m.get_model('detroit_cnn').get_parameters()\n"
        "first = m.restore_model_state('detroit_cnn', 0).get_parameters()\n"
        "for k in first:\n"
        "    assert torch.equal(latest[k], first[k] + 2), k\n"
        "m.save_model_state('detroit_cnn', 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(manager.folder)], check=True, cwd=ROOT)
    again = ModelManager(manager.folder)
    assert same(again.get_model("detroit_cnn").get_parameters(), saved[0])  # saved as round 9
    assert same(again.restore_model_state("detroit_cnn", 2).get_parameters(), saved[2])


def test_a_model_that_was_never_saved_comes_back_as_it_was_registered(manager):
    """Defect 13: a resume started from freshly initialised weights."""
    first = manager.create_and_register_model(
        "detroit", "hybrid", 7, 3, sequence_length=12, lstm_hidden=16
    ).get_parameters()
    drawn = torch.random.get_rng_state()
    again = ModelManager(manager.folder).get_model("detroit")
    assert torch.equal(torch.random.get_rng_state(), drawn)  # rebuilding draws nothing
    assert again.config["lstm_hidden"] == 16
    assert same(again.get_parameters(), first)


def test_without_a_folder_states_live_as_long_as_the_manager():
    manager = ModelManager()
    saved = with_rounds(manager, 2)
    assert same(manager.restore_model_state("detroit_cnn", 0).get_parameters(), saved[0])
    assert ModelManager().list_models() == []
    folder = manager.folder
    del manager
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_damaged_state_is_named_and_others_still_come_back(manager, damage):
    saved = with_rounds(manager, 3)
    state = manager.list_model_states("detroit_cnn")[2]
    path = manager.folder / "detroit_cnn" / state.file
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[:-100])
    elif damage == "altered":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        path.unlink()
    again = ModelManager(manager.folder)
    for broken in (again.get_model, again.restore_model_state):
        with pytest.raises(HistoryError, match=state.file):
            broken("detroit_cnn")
    assert same(again.restore_model_state("detroit_cnn", 0).get_parameters(), saved[0])
    before = manager.get_model("detroit_cnn").get_parameters()
    with pytest.raises(HistoryError):
        manager.restore_model_state("detroit_cnn", 2)
    assert same(manager.get_model("detroit_cnn").get_parameters(), before)
    assert same(manager.restore_model_state("detroit_cnn", 1).get_parameters(), saved[1])


@pytest.mark.parametrize("content", ["", "{}", '{"schema": 99}', '{"schema": 1, "states": [3]}'])
def test_a_damaged_index_is_named(manager, content):
    with_rounds(manager, 1)
    (manager.folder / "detroit_cnn" / "model.json").write_text(content)
    with pytest.raises(HistoryError, match=r"model\.json is damaged"):
        ModelManager(manager.folder)


def test_a_crash_between_state_and_index_loses_only_the_new_state(manager, monkeypatch):
    saved = with_rounds(manager, 2)
    model = manager.get_model("detroit_cnn")
    model.set_parameters(shifted(model, 9))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(manager_module, "_write_index", crash)
    with pytest.raises(KeyboardInterrupt):
        manager.save_model_state("detroit_cnn", 1)  # would replace round 1
    monkeypatch.undo()
    again = ModelManager(manager.folder)
    assert same(again.get_model("detroit_cnn").get_parameters(), saved[1])
    model = again.restore_model_state("detroit_cnn", 0)
    again.save_model_state("detroit_cnn", 1)
    assert same(ModelManager(manager.folder).get_model("detroit_cnn").get_parameters(), saved[0])


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryError, match="cannot be written"):
        ModelManager(tmp_path / "file").create_and_register_model("detroit", "mlp", 10, 2)


def test_a_failed_save_leaves_the_history_as_it_was(manager, monkeypatch):
    with_rounds(manager, 2)
    before = manager.list_model_states("detroit_cnn")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HistoryError, match=r"cannot be written \(.*No space left"):
        manager.save_model_state("detroit_cnn", 2)
    assert manager.list_model_states("detroit_cnn") == before
    assert ModelManager(manager.folder).list_model_states("detroit_cnn") == before


def test_the_index_is_plain_json_with_checksums(manager):
    with_rounds(manager, 1)
    index = json.loads((manager.folder / "detroit_cnn" / "model.json").read_text())
    assert index["model_type"] == "cnn"
    assert index["config"]["conv_filters"] == [32, 64, 128]
    assert [len(state["sha256"]) for state in index["states"]] == [64, 64]


def test_half_precision_survives(manager):
    model = manager.create_and_register_model("detroit", "mlp", 10, 2).to(torch.bfloat16)
    manager.save_model_state("detroit", 1)
    before = model.get_parameters()
    model.set_parameters(shifted(model, 1))
    after = manager.restore_model_state("detroit", 1).get_parameters()
    assert same(before, after)
    assert {v.dtype for v in after.values()} == {torch.bfloat16}


# Clean-up by threshold ----------------------------------------------------------------


def four(manager: ModelManager) -> None:
    for name in ("bad", "edge", "good", "unjudged"):
        manager.create_and_register_model(name, "mlp", 10, 2)


def test_models_below_the_threshold_are_removed(manager):
    four(manager)
    scores = {"bad": 0.849, "edge": 0.85, "good": 0.9, "unjudged": float("nan")}
    assert manager.remove_underperforming(scores) == ["bad"]
    assert ModelManager(manager.folder).list_models() == ["edge", "good", "unjudged"]
    del scores["bad"], scores["edge"]
    assert manager.remove_underperforming(scores, performance_threshold=0.95) == ["good"]
    assert manager.list_models() == ["edge", "unjudged"]


def test_a_function_can_score(manager):
    four(manager)
    good = manager.get_model("good")
    removed = manager.remove_underperforming(lambda model: float(model is good), 0.5)
    assert sorted(removed) == ["bad", "edge", "unjudged"]
    assert manager.list_models() == ["good"]


def test_nothing_is_removed_if_a_score_fails(manager):
    four(manager)
    with pytest.raises(ModelError, match="no model 'ugly'"):
        manager.remove_underperforming({"bad": 0.1, "ugly": 0.1})

    def fails(model: ModelWrapper) -> float:
        if model is manager.get_model("good"):
            raise RuntimeError("no data")
        return 0.0

    with pytest.raises(RuntimeError, match="no data"):
        manager.remove_underperforming(fails)
    assert len(manager.list_models()) == 4
