"""The wheel: what is in it, and that it runs in another folder without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from fedpdm import errors
from fedpdm.config import schema as _conf

ROOT = Path(__file__).parents[1]


def build(source: Path, folder: Path, target: str) -> Path:
    """Build a wheel or an sdist of a source tree, without the network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def site_packages(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def tracked(*folders: str) -> set[str]:
    """Return the files below folders of the checkout that belong to it."""
    return {
        str(file.relative_to(ROOT))
        for folder in folders
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_the_wheel_holds_the_package_the_config_and_the_report_and_nothing_else(
    wheel: Path,
) -> None:
    held = names(wheel)
    assert {name.split("/")[0] for name in held} == {"fedpdm"}
    assert {"fedpdm/conf/config.yaml", "fedpdm/py.typed"} <= held
    assert any(name.endswith(".html.j2") for name in held)
    assert held == tracked("fedpdm") | {f"fedpdm/{name}" for name in tracked("conf")}


def test_the_sdist_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "sdist").mkdir()
    sdist = build(ROOT, tmp_path / "sdist", "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    held = {entry.name for entry in source.iterdir()}
    assert {"LICENSE", "Makefile", "clients", "conf", "constraints.txt", "docs"} <= held
    assert {"README.md", "notebooks", "server", "tests"} <= held
    (tmp_path / "again").mkdir()
    assert names(build(source, tmp_path / "again", "wheel")) == names(wheel)


def test_metadata_names_licence_and_console_script(site_packages: Path) -> None:
    (info,) = site_packages.glob("fedpdm-*.dist-info")
    metadata = Parser().parsestr((info / "METADATA").read_text("utf-8"))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Apache License" in (info / "licenses" / "LICENSE").read_text("utf-8")
    assert "fedpdm = fedpdm.__main__:script" in (info / "entry_points.txt").read_text("utf-8")


def in_wheel(site_packages: Path, folder: Path, *arguments: str) -> str:
    """Run Python on the unpacked wheel in a folder that has nothing of the checkout."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site_packages)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_away_from_the_checkout_the_wheel_finds_its_own_config(
    site_packages: Path, tmp_path: Path
) -> None:
    code = "from fedpdm.config.schema import conf_dir; print(conf_dir())"
    found = in_wheel(site_packages, tmp_path, "-c", code).strip()
    assert found == str(site_packages.resolve() / "fedpdm" / "conf")


def test_away_from_the_checkout_the_wheel_shows_help_and_composes(
    site_packages: Path, tmp_path: Path
) -> None:
    shown = in_wheel(site_packages, tmp_path, "-m", "fedpdm.simulate", "--help")
    assert "site=detroit,houston" in shown
    composed = in_wheel(
        site_packages, tmp_path, "-m", "fedpdm.simulate", "site=detroit,houston", "--cfg", "job"
    )
    assert "detroit:" in composed
    assert list(tmp_path.iterdir()) == [], "a look at the config writes nothing"


def test_away_from_the_checkout_the_wheel_runs_a_federation(
    site_packages: Path, tmp_path: Path
) -> None:
    options = ["model=mlp", "data.days=120", "debug=quick", "baselines.max_plants=0"]
    in_wheel(site_packages, tmp_path, "-m", "fedpdm", "simulate", "site=houston", *options)
    (run,) = (tmp_path / "runs").iterdir()
    assert {"summary.json", "report.html"} <= {file.name for file in run.iterdir()}


def test_in_a_checkout_the_config_is_the_one_beside_the_package() -> None:
    assert _conf.conf_dir() == ROOT / "conf"


def test_without_any_config_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_conf, "__file__", str(tmp_path / "fedpdm" / "config" / "schema.py"))
    with pytest.raises(errors.ConfigError, match="install fedpdm again"):
        _conf.conf_dir()
