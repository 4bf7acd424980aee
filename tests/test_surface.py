"""What fedpdm shows to the outside, and which way its parts may know each other."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fedpdm
from fedpdm import __main__ as door

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "fedpdm").rglob("*.py"))
NAMES = [
    "FedPdmError",
    "History",
    "ModelFactory",
    "ModelManager",
    "ModelWrapper",
    "__version__",
    "make_client_app",
    "make_server_app",
]


def test_the_surface_is_these_names_sorted() -> None:
    assert fedpdm.__all__ == NAMES == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name: str) -> None:
    value = getattr(fedpdm, name)
    assert name in dir(fedpdm)
    assert name == "__version__" or value.__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'simulator'"):
        fedpdm.simulator  # noqa: B018


def test_importing_fedpdm_imports_nothing_heavy() -> None:
    code = "import sys, fedpdm, fedpdm.__main__; print(*sorted(sys.modules))"
    loaded = run(sys.executable, "-c", code).stdout.split()
    heavy = {"torch", "flwr", "numpy", "pandas", "hydra", "ray", "matplotlib", "sklearn"}
    assert "fedpdm" in loaded
    assert not heavy & set(loaded)


def test_the_version_is_said_once_more_in_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == fedpdm.__version__


def imports(file: Path) -> set[str]:
    """Return the modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute here"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def importing(names: set[str], files: list[Path]) -> dict[str, list[str]]:
    """Return the files that import one of these packages, and what."""
    return {
        str(file.relative_to(ROOT)): sorted(hits)
        for file in files
        if (hits := {name for name in imports(file) if within(name, names)})
    }


def within(module: str, packages: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in packages)


def test_the_library_knows_neither_program() -> None:
    assert importing({"clients", "server"}, FILES) == {}


def test_models_data_evaluation_and_training_know_neither_flower_nor_hydra() -> None:
    pure = [
        file
        for file in FILES
        if file.relative_to(ROOT / "fedpdm").parts[0]
        in {"models", "data", "evaluation", "training", "tasks", "seeding.py"}
    ]
    assert len(pure) > 20
    assert importing({"flwr", "ray", "hydra", "omegaconf"}, pure) == {}


def test_ray_is_imported_by_its_engine_only() -> None:
    engine = set((ROOT / "fedpdm" / "engines" / "ray").glob("*.py"))
    files = [file for file in FILES if file not in engine]
    assert importing({"ray"}, files) == {}


def test_nothing_is_ever_unpickled() -> None:
    unsafe = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    # check_model pickles a model that it has just built, and reads nothing else.
    files = [file for file in FILES if "testing" not in file.parts]
    assert importing(unsafe, files) == {}


@pytest.mark.parametrize("asked", ["--help", "-h", "help", ""])
def test_help_names_every_command(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main([asked] if asked else []) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {command} " in printed for command in door.COMMANDS)


def test_an_unknown_command_exits_2_and_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["simulte", "site=detroit"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "did you mean simulate?" in captured.err


def test_an_option_in_the_place_of_a_command_is_explained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert door.main(["site=detroit,houston"]) == 2
    assert "fedpdm simulate site=detroit,houston" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(door.COMMANDS))
def test_every_command_has_a_help_of_its_own(command: str) -> None:
    shown = run(sys.executable, "-m", "fedpdm", command, "--help")
    assert f"fedpdm.{command}" in shown.stdout


def test_the_version_is_printed() -> None:
    assert run(sys.executable, "-m", "fedpdm", "--version").stdout == (
        f"fedpdm {fedpdm.__version__}\n"
    )


def run(*command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def test_hydra_and_omegaconf_stay_in_the_room_of_the_config() -> None:
    outside = [file for file in FILES if file.parent.name != "config"]
    assert importing({"hydra", "omegaconf"}, outside) == {}
