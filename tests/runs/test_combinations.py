"""Kinds of things together: strategies, servers, transforms, privacy, personal models, attacks.

Every row is a run of several kinds at once; together the rows have every pair of kinds that may go
together (``test_every_pair_of_kinds_is_in_a_row``). Each is stopped between two rounds and
continued, and must come to the bits of one that was left alone: weights, the models of clusters,
what sites and server remember, bytes, simulated time and epsilon.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpdm.config.compose import compose
from fedpdm.errors import ConfigError
from fedpdm.history import History
from fedpdm.runs import run as runs
from fedpdm.runs.experiment import build
from fedpdm.runs.folder import stored_run
from fedpdm.server.base import models_of
from fedpdm.server.loop import RoundLoop
from fedpdm.simulate import simulate
from fedpdm.testing.federated import same
from fedpdm.wire.flower import unpack_state

SITES = ("detroit", "houston", "pune")
TINY = [
    f"site=[{','.join(SITES)}]", "model=mlp", *(f"sites.{site}.machines=4" for site in SITES),
    "data.days=90", "data.step_hours=24", "data.window=8", "data.stride=4", "rounds=3",
    "baselines.controls=[]", "baselines.max_plants=0", "evaluate.bootstrap=0", "engine=serial",
    "training.local_epochs=1",
]  # fmt: skip

LOSSY = "clock=virtual clock.dropout=0.2 clock.late=0.2 clock.duplicate=0.3 clock.delay=20"
UNEVEN = "clock=virtual clock.spread=1.5"
CENTRAL = "privacy=central privacy.epsilon=40 privacy.delta=0.01"
TOPK = "transforms=topk transforms.topk.share=0.1"

ROWS = {
    "everything": f"server=poisson strategy=ditto {CENTRAL} {TOPK} {LOSSY} attack=sign_flip "
                  "attack.sites=[pune] objective=focal",
    "adaptive": f"strategy=fedper privacy=central_adaptive privacy.epsilon=40 privacy.delta=0.01 "
                f"{TOPK} {LOSSY} objective=fedsam faults.nan=houston@2",
    "controls": f"strategy=scaffold privacy=local privacy.epsilon=90 {TOPK} {LOSSY} "
                "attack=label_flip attack.sites=[pune]",
    "windows": f"strategy=ditto privacy=dpsgd privacy.epsilon=40 transforms=sign {LOSSY} "
               "attack=backdoor attack.sites=[pune] server=poisson",
    "clusters": f"server=ifca strategy=ditto {TOPK} transforms.topk.direction=up {LOSSY} "
                "attack=label_flip attack.sites=[pune] objective=moon",
    "splits": "server=cfl server.after=0 server.progress=0 server.epsilon=1 server.gamma=0 "
              "strategy=fedala transforms=quantise transforms.quantise.direction=up "
              "objective=balanced_softmax faults.nan=houston@2",
    "buffer": f"server=fedbuff server.buffer=2 {UNEVEN} strategy=finetune {TOPK} "
              "transforms.topk.direction=up attack=scaling attack.sites=[pune] objective=fedlc",
    "single": f"server=fedasync {UNEVEN} strategy=lgfedavg transforms=powersgd "
              "transforms.powersgd.direction=up objective=feddecorr",
    "deadline": f"server=deadline server.seconds=9 server.late=take {UNEVEN} "
                "strategy=apfl transforms=randomk transforms.randomk.direction=up",
    "robust": f"strategy=fedmedian privacy=local privacy.epsilon=90 transforms=quantise {LOSSY} "
              "attack=gaussian_noise attack.sites=[pune] objective=focal faults.nan=houston@2",
    "moments": "strategy=fedadam 'personal={_target_: fedpdm.training.personal.ditto.Ditto}' "
               f"{TOPK} {LOSSY} attack=free_rider attack.sites=[pune] objective=fedrs",
    "taken back": f"strategy=feddyn {TOPK} monitor.rollback=true faults.poison=houston@2 {LOSSY} "
                  "'personal={_target_: fedpdm.training.personal.ditto.Ditto}'",
}  # fmt: skip


SHORT = ("everything", "windows", "clusters", "buffer", "taken back")
"""The others take a minute, and are run by ``make test-all`` only."""


def words(row: str) -> list[str]:
    quoted = row.split("'")
    return [w for n, part in enumerate(quoted) for w in ([part] if n % 2 else part.split())]


class Stopped(Exception):
    """The process ends here."""


@pytest.fixture(autouse=True)
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the report out: other tests read it, and it takes longer than these runs."""
    monkeypatch.setattr(runs, "write_results", lambda *given, **named: None)


def whole(folder: Path, *overrides: str) -> dict[str, Any]:
    return simulate(compose([*TINY, *overrides]), folder)


def stopped_and_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, after: int, *overrides: str
) -> dict[str, Any]:
    """Run, stop when a round is committed, and go on in fresh objects."""
    commit = RoundLoop._commit

    def stop(loop: RoundLoop, record: Any) -> None:
        commit(loop, record)
        if record.round == after:
            raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(RoundLoop, "_commit", stop)
        with pytest.raises(Stopped):
            whole(folder, *overrides)
    cfg, place = stored_run([f"resume={folder}"])
    return simulate(cfg, place, resumed=True)


def kept(folder: Path) -> dict[str, Any]:
    """Return all that a history holds of each round, but when it was."""
    with History.open(folder) as history:
        return {
            f"{r.round}": {
                "weights": history.weights(r.round), "models": models_of(history, r.round),
                "sites": history.client_states(r.round), "server": history.strategy_state(r.round),
                "bytes": (r.bytes_up, r.bytes_down), "metrics": r.metrics, "sampled": r.sampled,
            }
            for r in history.rounds()
        }  # fmt: skip


@pytest.mark.parametrize("name", [
    name if name in SHORT else pytest.param(name, marks=pytest.mark.long) for name in ROWS
])  # fmt: skip
def test_a_stopped_run_is_one_that_was_left_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = words(ROWS[name])
    expected = whole(tmp_path / "whole", *chosen)

    found = stopped_and_resumed(tmp_path / "parts", monkeypatch, 2, *chosen)

    np.testing.assert_equal(kept(tmp_path / "parts"), kept(tmp_path / "whole"))
    for key in ("bytes", "simulated", "privacy", "clusters", "test"):
        assert json.dumps(found.get(key)) == json.dumps(expected.get(key)), key
    with History.open(tmp_path / "whole") as history:
        records = history.rounds()
        trained = [s for r in records[1:] for s, facts in r.sites.items() if "examples" in facts]
        moved = not same(history.weights(0), history.weights(3))
        states = history.client_states(3)
    assert moved and len(records) == 4 and len(trained) >= 3
    personal = (expected.get("personal") or {}).get("method")
    # Who took part has something of its own.
    assert not personal or {"objective.memory" in unpack_state(s) for s in states.values()} == {
        True
    }
    if (privacy := expected["privacy"]) is not None:
        assert 0 < privacy["epsilon"] <= privacy["target_epsilon"] * 1.001
    if "clock=virtual" in chosen:
        counts = records[-1].metrics
        assert counts["messages_sent"] == sum(
            counts[f"messages_{fate}"] for fate in ("received", "timed_out", "under_way")
        )


def test_models_of_clusters_train_at_the_same_time(tmp_path: Path) -> None:
    """A round lasts as long as its slowest site, however many models there are."""
    clock = ["clock=virtual", "clock.bandwidth=null", "clock.latency=0", "scaling=plant"]
    two = ["server=flhc", "server.after=1", "server.clusters=2"]
    for name, server in (("one", []), ("two", two)):
        whole(tmp_path / name, *clock, *server, "evaluate.fraction=0.34")
    with History.open(tmp_path / "two") as history:
        assert len(history.models(3)) == 2
    seconds = [
        kept(tmp_path / name)["3"]["metrics"]["simulated_seconds"] for name in ("one", "two")
    ]
    assert seconds[0] == pytest.approx(seconds[1]) and seconds[0] > 0


# Which kinds are in which row --------------------------------------------------------------------

KINDS = {
    "personal": ("ditto", "fedper", "fedala", "finetune", "lgfedavg", "apfl", "personal="),
    "strategy of the server": ("scaffold", "fedmedian", "fedadam", "feddyn"),
    "clusters": ("server=ifca", "server=cfl"),
    "asynchronous": ("server=fedbuff", "server=fedasync", "server=deadline"),
    "compression": ("transforms=",),
    "privacy": ("privacy=",),
    "attack": ("attack=",),
    "objective": ("objective=",),
    "clock": ("clock=virtual",),
    "faults": ("faults.",),
}
REFUSED = {
    ("strategy of the server", "clusters"): ("strategy=scaffold server=ifca", "its own way"),
    ("strategy of the server", "asynchronous"): (
        "strategy=scaffold server=fedbuff", "records beside them"),
    ("clusters", "privacy"): (f"server=ifca {CENTRAL}", "IFCA sends otherwise"),
    ("asynchronous", "privacy"): (f"server=fedbuff {CENTRAL}", "FedBuff sends otherwise"),
}  # fmt: skip
"""Pairs of kinds that never go together, an example, and what the refusal says."""
APART = {("clusters", "asynchronous")}
"""Both are ``server=``: nobody can ask for the two."""


def test_every_pair_of_kinds_is_in_a_row() -> None:
    held = {
        name: {kind for kind, signs in KINDS.items() if any(sign in row for sign in signs)}
        for name, row in ROWS.items()
    }
    missing = [
        pair for pair in itertools.combinations(KINDS, 2)
        if pair not in APART and pair not in REFUSED
        and not any({*pair} <= kinds for kinds in held.values())
    ]  # fmt: skip
    assert missing == [("asynchronous", "faults")], "faults are injected by round (test_servers)"


NO = {
    **{" and ".join(pair): case for pair, case in REFUSED.items()},
    "the lengths of updates have no noise": (f"strategy=fedexp {CENTRAL}", "lengths"),
    "every single update and central noise": (f"strategy=krum {CENTRAL}", "every single update"),
    "nobody evaluates": (f"strategy=finetune {CENTRAL}", "privacy.validation=reported"),
    "nobody looks up": ("strategy=knnper privacy=dpsgd privacy.epsilon=9", "no site does"),
    "own steps and windows": ("strategy=apfl privacy=dpsgd privacy.epsilon=9", "single windows"),
    "several models on the way down": (f"server=ifca {TOPK}", "direction=up"),
    "old models on the way down": (f"server=fedbuff {TOPK}", "direction=up"),
    "medians of clusters": ("server=cfl strategy=fedmedian", "its own way"),
    "windows that know each other": (
        "objective=balanced_softmax privacy=dpsgd privacy.epsilon=9", "single windows"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO)
def test_what_cannot_go_together_is_refused_with_the_reason(name: str) -> None:
    chosen, reason = NO[name]
    with pytest.raises(ConfigError, match=reason):
        build(compose([*TINY, *words(chosen)]))


def test_one_site_in_two_federations_has_no_budget(tmp_path: Path) -> None:
    chosen = ["sites.detroit.models=[mlp,lstm]", "privacy=local", "privacy.epsilon=90"]
    with pytest.raises(ConfigError, match="one federation only"):
        whole(tmp_path / "run", *[w for w in TINY if w != "model=mlp"], *chosen)
    assert not (tmp_path / "run").exists()
