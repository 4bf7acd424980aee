"""Which code a config can name, and which it cannot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedpdm.config import imports
from fedpdm.config.compose import compose
from fedpdm.config.imports import import_all, lookup, names_of, refuse_foreign
from fedpdm.config.schema import conf_dir
from fedpdm.config.values import make
from fedpdm.errors import ConfigError


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "_imported", {})


@pytest.mark.parametrize(
    ("value", "names"),
    [(None, []), ("", []), ("[]", []), ("a", ["a"]), ("[a, b.c]", ["a", "b.c"]),
     ("a,b", ["a", "b"]), (["a", "b"], ["a", "b"])],
)  # fmt: skip
def test_imports_are_a_list_or_text(value: Any, names: list[str]) -> None:
    assert names_of(value) == names


@pytest.mark.parametrize("value", ["../x", "a b", "a..b", 5, ["a", 3]])
def test_what_is_no_module_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="is not a module name"):
        names_of(value)


def test_modules_are_imported_and_remembered_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("second_of_two", "first_of_two"):
        (tmp_path / f"{name}.py").write_text("class Thing:\n    pass\n")
    import_all(["first_of_two", "second_of_two"])
    assert imports.imported() == ["first_of_two", "second_of_two"]
    assert list(sys.modules).index("first_of_two") < list(sys.modules).index("second_of_two")


def test_a_target_is_remembered_for_workers() -> None:
    make({"_target_": "tests.strategies.test_local_terms.AsksForMore"}, "strategy")
    make({"_target_": "fedpdm.tasks.Failure", "horizon": 4}, "task")
    assert imports.imported() == ["tests.strategies.test_local_terms"]


FOREIGN = [
    "os.system", "subprocess.Popen", "torch.utils.collect_env.run", "fedpdm.storage.os.system",
    "torch.nn.modules.module.torch.utils.collect_env.run", "fedpdm.storage.json.JSONDecoder",
    "fedpdm.tasks.base.np.load", "fedpdm.tasks.Failure.__init__", "fedpdm.storage.read_json",
    "flwr.serverapp.strategy.fedavg.FedAvg.__class__", "flwr.simulation.run_simulation",
    "fedpdm.nothing.There", "mylab.Model", "fedpdm", "", ".", "fedpdm..x", "builtins.eval",
]  # fmt: skip


@pytest.mark.parametrize("target", FOREIGN)
def test_a_config_of_others_names_no_code_but_the_registry(target: str) -> None:
    for block in imports.KINDS:
        assert lookup(block, target, []) is None
        assert lookup(block, target, [], nested=True) is None
    inner = {"_target_": "flwr.serverapp.strategy.FedAvg", "x": [{"y": {"_target_": target}}]}
    for config in (
        {"task": {"_target_": target}}, {"unknown": [{"b": {"_target_": target}}]},
        {"strategy": inner}, {"transforms": {"a": {"_target_": target}}},
        {"client_mods": [{"_target_": target}]}, {"client_mods": [target]},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="add imports="):
            refuse_foreign(config, [], "add imports=[{}]")


def test_a_config_of_others_names_classes_of_ours_of_flower_and_of_imports() -> None:
    fedavg = "flwr.serverapp.strategy.FedAvg"
    assert lookup("task", "fedpdm.tasks.Failure", []) is not None
    assert lookup("strategy", fedavg, []) is not None
    assert lookup("client_mods", "flwr.clientapp.mod.fixedclipping_mod", []) is not None
    refuse_foreign({"client_mods": ["fixedclipping_mod"]}, [], "")
    asks = "tests.strategies.test_local_terms.AsksForMore"
    assert lookup("strategy", asks, ["tests"]) is not None
    assert lookup("strategy", asks, ["test"]) is None and lookup("strategy", asks, []) is None
    refuse_foreign({"engine": {"_target_": "fedpdm.engines.serial.SerialGrid"}}, [], "")
    refuse_foreign({"strategy": {"_target_": fedavg, "strategy": {"_target_": fedavg}}}, [], "")


def test_a_class_stands_only_in_the_block_of_its_kind() -> None:
    fedavg, asks = "flwr.serverapp.strategy.FedAvg", "tests.strategies.test_local_terms.AsksForMore"
    for block in imports.KINDS:
        assert (lookup(block, fedavg, []) is not None) == (block == "strategy")
        assert (lookup(block, asks, ["tests"]) is not None) == (
            block in ("strategy", "client_mods")
        )


def test_every_option_of_ours_is_in_the_registry() -> None:
    for block in imports.KINDS:
        for file in sorted((conf_dir() / block).glob("*.yaml")):
            text = file.read_text()
            content = yaml.safe_load(text)
            whole = text.startswith("# @package _global_")
            refuse_foreign(content if whole else {block: content}, [], "")


def test_python_has_the_users_own_options(tmp_path: Path) -> None:
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "mine.yaml").write_text(
        "_target_: flwr.serverapp.strategy.FedAvg\nfraction_train: 0.5\n"
    )
    for cfg in (
        compose(["strategy=mine", "imports=[os.path]"], config_dir=tmp_path),
        compose([f"--config-dir={tmp_path}", "strategy=mine", "imports=[os.path]"]),
    ):
        assert cfg.strategy.fraction_train == 0.5 and names_of(cfg.imports) == ["os.path"]
    with pytest.raises(ConfigError, match="mine does not exist"):
        compose(["strategy=mine"])
    with pytest.raises(ConfigError, match="there are.* mine"):
        compose(["strategy=nobodys"], config_dir=tmp_path)
    with pytest.raises(ConfigError, match="is not a folder"):
        compose([], config_dir=tmp_path / "absent")
