"""What the documentation tells people to type works as written.

Checked are commands (they compose, or their module exists), overrides in tables, ``make``
targets, links, and blocks that begin with ```` ```python runnable ````.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from fedpdm.__main__ import COMMANDS
from fedpdm.config.command_line import placed, rewrite
from fedpdm.config.compose import compose
from fedpdm.simulate import help_text

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(
    r"(?:^ {2,}|`|^(?=python))(python -m fedpdm(?:\.\w+)?|fedpdm)((?: [^`\n]*)?)", re.MULTILINE
)
TABLE_ROW = re.compile(r"^\| (`[^|]+) \|", re.MULTILINE)
OVERRIDE = re.compile(r"`([\w.]+=[^`]*)`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
RUNNABLE = re.compile(r"^```python runnable\n(.*?)^```", re.MULTILINE | re.DOTALL)


def texts() -> list[tuple[str, str]]:
    """Return each page's name and text, and the help, which is documentation too."""
    pages = [(str(page.relative_to(ROOT)), page.read_text("utf-8")) for page in PAGES]
    return [*pages, ("--help", help_text())]


def commands() -> list[tuple[str, str, str]]:
    """Return page, program and arguments of every command in the documentation."""
    return [
        (page, program, arguments.strip())
        for page, text in texts()
        for program, arguments in COMMAND.findall(text)
    ]


def simulations() -> list[tuple[str, str]]:
    """Return page and arguments of the simulations that compose without anybody's own folder."""
    found = [
        (page, arguments.removeprefix("simulate "))
        for page, program, arguments in commands()
        if program == "python -m fedpdm.simulate" or arguments.startswith("simulate ")
    ]
    elsewhere = ("--config-dir", "resume=", "--help", "…")
    return [(page, text) for page, text in found if not any(word in text for word in elsewhere)]


def single_runs(arguments: str) -> list[list[str]]:
    """Return the overrides of each run that a command line makes: several, with ``-m``."""
    words = shlex.split(arguments, comments=True)
    if "--cfg" in words:
        del words[words.index("--cfg") : words.index("--cfg") + 2]
    overrides = [word for word in rewrite(placed(words)) if not word.startswith("-")]
    assert all("=" in override for override in overrides), f"not overrides: {overrides}"
    if "-m" not in words:
        return [overrides]
    parsed = OverridesParser.create().parse_overrides(overrides)
    values = [
        [f"{one.key_or_group}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [one.input_line or ""]
        for one in parsed
    ]
    return [list(run) for run in itertools.product(*values)]


@pytest.mark.parametrize(("page", "arguments"), simulations())
def test_every_simulation_composes(page: str, arguments: str) -> None:
    for overrides in single_runs(arguments):
        assert compose(overrides)["rounds"] > 0, page


def overrides_in_tables() -> list[str]:
    page = (ROOT / "docs" / "options.md").read_text("utf-8")
    return [found for row in TABLE_ROW.findall(page) for found in OVERRIDE.findall(row)]


@pytest.mark.parametrize("overrides", overrides_in_tables())
def test_every_override_in_the_tables_composes(overrides: str) -> None:
    compose(shlex.split(overrides))


def test_the_readme_is_short_and_begins_with_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "    make simulate\n    make test\n" in "".join(readme.splitlines(keepends=True)[:40])
    assert len(readme.split()) <= 1500
    assert ("README.md", "site=detroit,houston") in simulations()
    assert len(overrides_in_tables()) > 25


def test_a_sweep_is_taken_apart_as_hydra_does() -> None:
    assert single_runs("-m strategy=fedavg,fedprox site=detroit,houston") == [
        ["strategy=fedavg", "site=[detroit,houston]"],
        ["strategy=fedprox", "site=[detroit,houston]"],
    ]
    assert single_runs("-m 'site=[detroit],[detroit,houston]'  # two runs") == [
        ["site=[detroit]"],
        ["site=[detroit,houston]"],
    ]


def test_every_command_exists() -> None:
    for page, program, arguments in commands():
        if program == "python -m fedpdm" or program == "fedpdm":
            named = re.match(r"[a-z]+(?:\|[a-z]+)*", arguments)
            names = named[0].split("|") if named else []
            assert set(names) <= set(COMMANDS), f"{page}: {program} {arguments}"
        else:
            module = program.removeprefix("python -m ")
            assert importlib.util.find_spec(module), f"{page}: {program}"


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page, text in texts():
        named = set(re.findall(r"(?:^ {4}|`)make ([a-z]+)", text, re.MULTILINE))
        assert named <= targets, f"{page} names {named - targets}"


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ((), "-m fedpdm.simulate site=detroit,houston"),
        (("ARGS=site=houston rounds=20",), "-m fedpdm.simulate site=houston rounds=20"),
    ],
)
def test_make_simulate_runs_the_readme_s_command(given: tuple[str, ...], command: str) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    # Tests may themselves run below make, whose settings must not leak in.
    inherited = {"ARGS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"}
    clean = {name: value for name, value in os.environ.items() if name not in inherited}
    done = subprocess.run(
        [make, "--dry-run", "simulate", *given], cwd=ROOT, env=clean, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(command)


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in LINK.findall(page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text("utf-8")
    decisions = {file.name for file in folder.glob("[0-9]*.md")}
    assert len(decisions) >= 5
    assert set(re.findall(r"\((\d{3}-[\w-]+\.md)\)", index)) == decisions
    for name in decisions:
        first, _, dated = (folder / name).read_text("utf-8").split("\n", 3)[:3]
        assert first.startswith(f"# {name[:3]} ")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", dated), f"{name}: third line is its date"


def runnable() -> list[tuple[str, str]]:
    return [(page, block) for page, text in texts() for block in RUNNABLE.findall(text)]


@pytest.mark.parametrize(("page", "block"), runnable(), ids=lambda value: value[:20])
def test_every_runnable_example_runs(
    page: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, page, "exec"), {"__name__": "__main__"})


def test_the_tables_of_results_are_those_of_the_result_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.predictions import tables

    stored = json.loads((ROOT / "benchmarks/results/evidence.json").read_text())
    (tmp_path / "docs").mkdir()
    pages = ("README.md", "docs/evidence.md")
    for page in pages:
        (tmp_path / page).write_text((ROOT / page).read_text("utf-8"), "utf-8")
    tables.write(tmp_path, stored)
    for page in pages:
        assert (tmp_path / page).read_text("utf-8") == (ROOT / page).read_text("utf-8"), page
    assert len(stored) > 0
