"""What sites bring to rounds: against sums by hand, the same bits, resume, rollback, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import FedAvg

from fedpdm.client.attacks.base import Attack
from fedpdm.config.compose import compose
from fedpdm.data.windows import Windows
from fedpdm.errors import ConfigError
from fedpdm.history import RoundRecord
from fedpdm.report.sections.contribution import lines
from fedpdm.runs.experiment import build
from fedpdm.runs.run import Run
from fedpdm.seeding import numpy_generator
from fedpdm.server.base import Round
from fedpdm.server.monitor import MonitorSettings
from fedpdm.server.valuation import ERROR, VALUE, Kept, LeaveOneOut, Shapley, Valuer
from fedpdm.simulate import simulate
from fedpdm.testing.federated import Federated, federate, same, states
from fedpdm.wire.records import ARRAYS

TINY = [
    "model=mlp", "site=detroit,houston,seattle", "data.days=200", "data.stride=8",
    "baselines.controls=[]", "evaluate.bootstrap=0", "engine=serial", "contribution=shapley",
]  # fmt: skip


def values(record: RoundRecord, key: str = VALUE) -> dict[str, float]:
    return {site: said[key] for site, said in record.sites.items() if key in said}


def score(record: RoundRecord) -> float:
    return float(record.metrics["average_precision"])


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "scaffold", "feddyn", "fedavgm"])
def test_values_add_up_and_the_run_has_the_same_bits(tmp_path: Path, strategy: str) -> None:
    """Whatever the strategy remembers, coalitions are made by a copy of it."""
    plain = federate(tmp_path / "plain", strategy, rounds=2)
    asked = federate(tmp_path / "asked", strategy, rounds=2, valuation=Shapley())
    assert all(same(plain.weights(r), asked.weights(r)) for r in range(3))
    assert states(plain) == states(asked)
    np.testing.assert_equal(asked.history.strategy_state(), plain.history.strategy_state())
    of_plain, of_asked = plain.history.rounds()[1:], asked.history.rounds()[1:]
    for before, old, new in zip([None, *of_asked], of_plain, of_asked, strict=False):
        metrics = new.metrics
        start = metrics["contribution_start"]
        assert sum(values(new).values()) == pytest.approx(score(new) - start, abs=1e-12)
        assert metrics["contribution_end"] == score(new) == score(old)
        assert before is None or start == score(before)
        # Nothing but what was asked for is different.
        kept = {k: v for k, v in metrics.items() if not k.startswith("contribution_")}
        assert kept == old.metrics
        up, down = metrics["contribution_bytes_up"], metrics["contribution_bytes_down"]
        assert (new.bytes_up - up, new.bytes_down - down) == (old.bytes_up, old.bytes_down)
        assert min(up, down) > 0
        assert not any(values(new, ERROR).values())


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "scaffold", "fednova"])
def test_the_coalition_of_all_is_the_round_and_that_of_one_its_site(
    tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit what the server made of all; with FedAvg, a site alone is what it sent."""
    seen: list[tuple[Round, Kept]] = []
    inner = Valuer.value

    def watched(self: Valuer, round: Round, kept: Kept, *rest: Any) -> Any:
        seen.append((round, kept))
        return inner(self, round, kept, *rest)

    monkeypatch.setattr(Valuer, "value", watched)
    run = federate(tmp_path, strategy, model="cnn", rounds=2, valuation=Shapley())
    for round, kept in seen:
        assert kept.sites == ["p0", "p1", "p2"]
        again = kept.model(round.number, (0, 1, 2), round.model, 0)
        assert same({**again.arrays, **again.buffers}, run.weights(round.number))
        nobody = kept.model(round.number, (), round.model, 0)
        assert same(nobody.arrays, round.model.arrays)
        if strategy == "fedavg":
            alone = kept.model(round.number, (1,), round.model, 0)
            update = kept.updates[1][0]
            assert same({**alone.arrays, **alone.buffers}, {**update.arrays, **update.buffers})


def test_leave_one_out_is_the_score_without_the_site(tmp_path: Path) -> None:
    """A first round without p1 is the round of a run that p1 did not train in."""
    asked = federate(tmp_path / "asked", rounds=1, valuation=LeaveOneOut())
    broken = federate(tmp_path / "without", rounds=1, faults={"nan": "p1@1"})
    first, without = asked.history.rounds()[1], broken.history.rounds()[1]
    assert values(first)["p1"] == pytest.approx(score(first) - score(without), abs=1e-12)


def returned(message: Message, context: Context, call: ClientAppCallable) -> Message:
    """A client mod: whatever was trained, the site sends what it received."""
    reply = call(message, context)
    reply.content[ARRAYS] = message.content[ARRAYS]
    return reply


def test_sites_that_return_what_they_received_bring_nothing(tmp_path: Path) -> None:
    run = federate(tmp_path, rounds=2, valuation=Shapley(), mods=[returned])
    for record in run.history.rounds()[1:]:
        assert values(record) == {"p0": 0.0, "p1": 0.0, "p2": 0.0}


def test_values_are_the_same_after_a_stop_and_a_rollback(tmp_path: Path) -> None:
    valuation = Shapley(permutations=4, tolerance=0.0)

    def run(name: str, rounds: int, **more: Any) -> Federated:
        return federate(tmp_path / name, sites=5, rounds=rounds, valuation=valuation, **more)

    whole = run("whole", 3)
    run("parts", 2).history.close()
    parts = run("parts", 3)
    told = [[(r.sites, r.metrics) for r in each.history.rounds()] for each in (whole, parts)]
    assert told[0] == told[1]
    assert all(values(whole.history.rounds()[1], ERROR).values())  # sampled
    back = run("back", 3, faults={"poison": "p1@2"}, monitor=MonitorSettings(rollback=True))
    undone = [r for r in back.history.rounds(undone=True) if r.undone]
    assert undone and not values(undone[0])  # nothing is spent on a round that is taken back
    live = back.history.rounds()
    assert [r.round for r in live] == [0, 1, 2, 3]
    assert set(values(live[2])) == {"p0", "p2", "p3", "p4"}
    assert live[2].metrics["contribution_start"] == score(live[1])


def test_a_round_whose_sites_do_not_all_answer_has_no_values(tmp_path: Path) -> None:
    """Scores of different windows are not compared; the run goes on and says so."""
    calls = []

    class Tired(FedAvg):
        """Lets p2 evaluate the first two models of a run only."""

        def configure_evaluate(self, number: int, arrays: Any, config: Any, grid: Any) -> Any:
            messages = list(super().configure_evaluate(number, arrays, config, grid))
            calls.append(number)
            return messages if len(calls) < 3 else messages[:-1]

    run = federate(tmp_path, Tired(), rounds=1, valuation=Shapley())
    record = run.history.rounds()[1]
    assert not values(record) and "contribution_start" not in record.metrics
    assert any("could not be valued" in event["message"] for event in record.events)


class Shuffled(Attack):
    """Trains on shuffled labels."""

    name = "shuffled"
    poisons = True

    def windows(self, windows: Windows, site: str) -> Windows:
        order = numpy_generator(self.seed, "shuffled", site).permutation(len(windows))
        return replace(windows, y=windows.y[order])


def test_on_the_generated_fleet_shuffled_labels_bring_least(tmp_path: Path) -> None:
    cfg = compose([*TINY, "rounds=2", "seed=100"])
    attack = Shuffled(["houston"])
    experiment = build(cfg)
    attack.settle(experiment.federation, 2, 100)
    summary = Run(replace(experiment, attack=attack), cfg, tmp_path / "run").execute()
    found = summary["contribution"]
    brought = {site: own["value"] for site, own in found["sites"].items()}
    assert min(brought, key=lambda site: brought[site]) == "houston" and brought["houston"] < 0
    assert sum(brought.values()) == pytest.approx(found["end"] - found["start"], abs=1e-9)
    assert found["end"] == summary["validation"]["best"]
    assert "What each site brought" in (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "Shapley" in lines(summary)[0] and "houston" in lines(summary)[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["strategy=krum"], "side by side"),
        (["server=poisson"], "server=synchronous"),
        (["strategy=ditto"], "personal"),
        (["transforms=topk", "transforms.topk.direction=both"], "direction=up"),
        (["privacy=local", "privacy.epsilon=null", "privacy.noise_multiplier=1"], "privacy=none"),
        (["contribution.permutations=1"], "permutations"),
        (["contribution.tolerance=-1"], "tolerance"),
    ],
)
def test_what_cannot_be_valued_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(compose([*TINY, "rounds=1", *words]))


def test_a_run_that_was_not_asked_says_nothing(tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith("contribution")]
    summary = simulate(compose([*words, "rounds=1", "site=detroit"]), tmp_path / "run")
    assert "contribution" not in summary and lines(summary) == []
    assert "What each site brought" not in (tmp_path / "run" / "report.html").read_text("utf-8")
