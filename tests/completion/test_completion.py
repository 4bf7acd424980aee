"""What the tab key does, asked of the code and of a real bash on a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedpdm.__main__ import COMMANDS, main
from fedpdm.completion.candidates import candidates
from fedpdm.simulate import main as simulate

PATIENCE = 120.0


@pytest.fixture()
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two runs, one of them in a sweep, and data; it is the current one."""
    for name in ("runs/a-1", "runs/b-2/0"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "manifest.json").touch()
    (tmp_path / "plant.csv").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("fedpdm pro", {"promote"}),
        ("python -m fedpdm.pro", {"fedpdm.promote"}),
        ("python -m fedpdm prom", {"promote"}),
        (".venv/bin/python -X dev -m fedpdm.simulate strategy=fedpr", {"strategy=fedprox"}),
        ("fedpdm simulate site=detroit,hou", {"site=detroit,houston"}),
        ("fedpdm simulate -m site=[detroit],[hou", {"site=[detroit],[houston"}),
        ("fedpdm simulate training.batch", {"training.batch_size="}),
        ("fedpdm simulate strategy=fedprox strategy.prox", {"strategy.proximal_mu="}),
        ("fedpdm simulate strategy.prox", set()),
        ("fedpdm simulate promote=", {"promote=true", "promote=false"}),
        ("fedpdm simulate rounds=", {"rounds=10"}),
        ("fedpdm simulate +sites.houston.mach", {"+sites.houston.machines="}),
        ("fedpdm simulate resume=", {"resume=runs/a-1", "resume=runs/b-2/"}),
        ("fedpdm simulate --o", {"--out"}),
        ("fedpdm compare runs/b-2/", {"runs/b-2/0"}),
        ("fedpdm predict ", {"runs/a-1", "runs/b-2/"}),
        ("fedpdm predict runs/a-1 pl", set()),
        ("fedpdm predict runs/a-1 plant.csv --dr", {"--drift"}),
        ("fedpdm history exp", {"export"}),
        ("fedpdm history list runs/a", {"runs/a-1"}),
        ("fedpdm history export runs/a-1 3 --o", {"--out"}),
        ("fedpdm data check data=mil", {"data=milling"}),
        ("fedpdm strategies fedpro", {"fedprox"}),
        ("python other.py strategy=fedp", set()),
        ("python -m other strategy=fedp", set()),
        ("fedpdm nonsense a", set()),
    ],
)  # fmt: skip
def test_a_line_goes_on(line: str, expected: set[str], place: Path) -> None:
    assert {*candidates(line)} == expected


def test_options_of_ones_own_are_offered_and_a_broken_line_is_borne(place: Path) -> None:
    (place / "own" / "strategy").mkdir(parents=True)
    (place / "own" / "strategy" / "mine.yaml").write_text("eta: 1\n")
    assert candidates("fedpdm simulate --config-dir own strategy=mi") == ["strategy=mine"]
    for line in ("", "fedpdm", "fedpdm simulate strategy=nonsense round", "fedpdm simulate 'si"):
        assert isinstance(candidates(line), list)
    assert "round_timeout=" in candidates("fedpdm simulate strategy=nonsense round")


@pytest.mark.parametrize("command", [*COMMANDS])
def test_every_command_can_be_asked(command: str, place: Path) -> None:
    assert isinstance(candidates(f"fedpdm {command} "), list)
    assert isinstance(candidates(f"fedpdm {command} --"), list)


def test_no_torch_is_loaded_for_a_tab() -> None:
    code = "import sys\nfrom fedpdm.completion.candidates import candidates\n" + "\n".join(
        f"candidates('fedpdm {command} --')" for command in COMMANDS
    )
    code += "\ncandidates('fedpdm simulate training.')\nassert 'torch' not in sys.modules"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0


def test_hydras_own_completion_names_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(["--shell-completion", "install=bash"]) == 2
    assert "fedpdm.completion" in capsys.readouterr().err
    assert main(["completion"]) == 0
    assert "complete -o" in capsys.readouterr().out


class Shell:
    """A bash that reads keys from a terminal."""

    def __init__(self, folder: Path) -> None:
        programs = folder / "bin"
        programs.mkdir()
        for name, words in (("python", ""), ("fedpdm", "-m fedpdm ")):
            script = f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n'
            (programs / name).write_text(script)
            (programs / name).chmod(0o755)
        paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            environment = {
                "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": paths, "TERM": "dumb",
                "HOME": str(folder), "INPUTRC": "/dev/null", "PS1": "$ ",
            }  # fmt: skip
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 400, 0, 0))
        self.keys('eval "$(python -m fedpdm.completion)"; echo ready\n')
        self.hear(r"\r\nready\r\n")

    def keys(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def hear(self, pattern: str) -> re.Match[str]:
        """Return where the terminal shows what is waited for."""
        text, deadline = "", time.monotonic() + PATIENCE
        while (found := re.search(pattern, text)) is None:
            ready, _, _ = select.select([self.terminal], [], [], deadline - time.monotonic())
            assert ready, f"bash showed {text!r}"
            text += os.read(self.terminal, 4096).decode()
        return found

    def tab(self, line: str) -> str:
        """Type a line and the tab key; return what the line is then."""
        start_of_line, end_of_line = "\x01", "\x05"
        self.keys(f"{line}\t{start_of_line}echo 'MARK {end_of_line}|'\n")
        return self.hear(r"\r\nMARK ([^\r\n]*)\|\r\n")[1]

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


@pytest.fixture()
def bash(place: Path) -> Iterator[Shell]:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    shell = Shell(place)
    yield shell
    shell.close()


def test_a_real_bash_completes_lines(bash: Shell) -> None:
    for typed, becomes in (
        ("fedpdm promo", "fedpdm promote "),
        ("fedpdm simulate strategy=fedpro", "fedpdm simulate strategy=fedprox "),
        ("python -m fedpdm simulate site=pune,tu", "python -m fedpdm simulate site=pune,turin "),
        ("fedpdm simulate training.batch", "fedpdm simulate training.batch_size="),
        ("fedpdm simulate resume=runs/a", "fedpdm simulate resume=runs/a-1 "),
        ("python -m fedpdm.compare runs/b", "python -m fedpdm.compare runs/b-2/"),
        ("fedpdm predict runs/a-1 pla", "fedpdm predict runs/a-1 plant.csv "),
        ("python pla", "python plant.csv "),
        ("fedpdm simulate strategy=nonsens", "fedpdm simulate strategy=nonsens"),
    ):  # fmt: skip
        assert bash.tab(typed) == becomes
    bash.keys("COMP_WORDBREAKS=${COMP_WORDBREAKS//=}; echo words\n")  # as other tools set it
    bash.hear(r"\r\nwords\r\n")
    assert bash.tab("fedpdm simulate strategy=fedpro") == "fedpdm simulate strategy=fedprox "
