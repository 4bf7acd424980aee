"""What a user's own class raises: one sentence says class, hook and cause, and exit code 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpdm import simulate
from tests.test_bad_values import QUICK

CODE = """
from fedpdm.data.fleet.source import FleetSource
from fedpdm.strategies.base import ClientHalf, ServerHalf, client_half
from fedpdm.tasks.failure import Failure
from fedpdm.transforms.base import Stage, Transform


@client_half("raises")
class Half(ClientHalf):
    pass


class Combine(ServerHalf):
    client = Half

    def combine(self, server_round, sent, sums):
        raise KeyError("no such layer")


class Configure(Combine):
    def configure_train(self, *arguments):
        return [1 / 0]


class Sum(Transform):
    stage = Stage.CLIP

    def after_sum(self, totals, contributions, generator):
        raise ValueError("no sum")


class Rows(FleetSource):
    def rows(self, site):
        raise RuntimeError(f"nothing of {site}")


class Measured(Failure):
    def metrics(self, *arguments, **named):
        raise AssertionError


from fedpdm.baselines.registry import Baseline, register_baseline


@register_baseline("raises", Baseline("Raises"))
def raises(inputs):
    raise LookupError("nothing learned")
"""


@pytest.mark.parametrize(
    ("words", "hook", "cause"),
    [
        (["strategy={_target_: owncode.Combine}"], "owncode.Combine.combine", "KeyError: 'no such"),
        (["strategy={_target_: owncode.Configure}"], "Configure.configure_train", "ZeroDivision"),
        (["+transforms.odd={_target_: owncode.Sum}"], "owncode.Sum.after_sum", "ValueError: no su"),
        (["data._target_=owncode.Rows"], "owncode.Rows.rows", "RuntimeError: nothing of detroit"),
        (["task._target_=owncode.Measured"], "owncode.Measured.metrics", "AssertionError"),
        (["baselines.controls=[raises]", "baselines.max_plants=1"], "owncode.raises", "LookupErr"),
    ],
    ids=["combine", "configure", "transform", "source", "task", "baseline"],
)
def test_what_an_own_class_raises_names_it_its_hook_and_the_line(
    words: list[str], hook: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "owncode.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert simulate.main([*QUICK, "imports=[owncode]", *words]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1, said
    assert hook in said and cause in said and "owncode.py:" in said
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises((ArithmeticError, LookupError, ValueError, RuntimeError, AssertionError)):
        simulate.main([*QUICK, "imports=[owncode]", *words, "hydra.run.dir=again"])
