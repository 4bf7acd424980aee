"""Trees in the server loop: engines, restarts, sites that go away, and options without meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedpdm.config.compose import compose
from fedpdm.data.summaries import tree_columns
from fedpdm.data.windows import Windows
from fedpdm.errors import ConfigError
from fedpdm.federation import Federation
from fedpdm.models import ModelFactory
from fedpdm.predict import load_predictor
from fedpdm.runs.experiment import build
from fedpdm.server.boosting import Boosting
from fedpdm.simulate import simulate
from fedpdm.storage import read_json
from fedpdm.tasks import Failure, Horizons, RemainingLife, Task
from fedpdm.testing.federated import Federated, check_resume, federate, same
from fedpdm.testing.tiny import TinySource
from fedpdm.training.boosting import Growth, Rows, boost, drive, loss_of
from fedpdm.wire.records import ARRAYS, METRICS, arrays_in, to_record

SMALL = {"rounds": 3, "trees_per_round": 2, "leaves": 5, "bins": 16, "least_rows": 3}
SITES = {f"p{n}": {"machines": 2 + n, "rows": 60 + 10 * n} for n in range(3)}


def config(**changes: Any) -> dict[str, Any]:
    return {"depth": 4, "learning_rate": 0.2, "l2": 0.0, **SMALL, **changes}


def run(folder: Path, rounds: int = 2, **options: Any) -> Federated:
    return federate(
        folder, **{"sites": SITES, **options}, rounds=rounds, model="gbdt",
        model_config=config(), server=lambda: Boosting(config()),
    )  # fmt: skip


@pytest.mark.parametrize("task", [Failure(4.0), Horizons([2, 4, 8]), RemainingLife(12.0)])
def test_the_federations_trees_are_those_of_its_pooled_windows(tmp_path: Path, task: Task) -> None:
    found = run(tmp_path, task=task)
    federation = Federation(TinySource(SITES), task)
    scaler = found.loop.scaler or sum_of(federation)
    train = Windows.concatenate([federation.site(name, scaler).train for name in SITES])
    model = ModelFactory.create_model("gbdt", 3, task.outputs, sequence_length=8, **config())
    trees, loss = model.snapshot(), loss_of(task)
    rows = Rows(tree_columns(train.x), train.y, loss)
    for number in (1, 2):
        drive(
            boost(trees, Growth.of(config()), loss, number),
            lambda request: rows.answer(request, trees),
        )
        assert same(found.weights(number), trees)
    assert (trees["left"] > 0).sum() > 4
    first, second = found.history.rounds()[1:]
    assert second.metrics["train_loss"] < first.metrics["train_loss"]
    assert set(second.sites) == set(SITES) and second.bytes_up > 0 and not found.screen.events


def sum_of(federation: Federation) -> Any:
    first, *rest = (federation.moments(name) for name in SITES)
    for each in rest:
        first = first + each
    return first.scaler()


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    check_resume(lambda folder, rounds: run(tmp_path / folder, rounds))


def test_a_run_that_was_killed_inside_a_tree_begins_its_round_again(tmp_path: Path) -> None:
    seen: list[int] = []

    def power_cut(message: Message, context: Context, call: ClientAppCallable) -> Message:
        seen.append(1)
        if len(seen) == 40:
            raise KeyboardInterrupt
        return call(message, context)

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", mods=[power_cut])
    assert same(whole.weights(), run(tmp_path / "part").weights())


def test_a_rollback_begins_again_from_the_trees_of_its_round(tmp_path: Path) -> None:
    found = run(tmp_path, 3)
    expected = [found.weights(number) for number in range(4)]
    found.history.rollback(1, by="person", reason="a test")
    found.history.close()
    again = run(tmp_path, 3)
    assert all(same(again.weights(number), expected[number]) for number in range(4))


def test_a_site_whose_sums_cannot_be_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    """Its own poison is refused at its first answer, so the trees are those without it."""
    alone = {name: each for name, each in SITES.items() if name != "p1"}
    found = run(tmp_path / "a", 1, faults={"poison": "p1@1"}, federated_scaling=False)
    without = run(tmp_path / "b", 1, sites=alone, federated_scaling=False)
    assert same(found.weights(), without.weights())
    (event,) = found.screen.events
    assert (event["kind"], event["site"]) == ("refused", "p1")
    assert "examples" not in found.history.rounds()[1].sites["p1"]


@pytest.mark.parametrize("when", [3, 6, 9])
@pytest.mark.parametrize("how", ["fails", "other examples", "no sums", "text"])
def test_a_site_that_goes_away_inside_a_round_is_left_out_of_the_rest(
    tmp_path: Path, how: str, when: int
) -> None:
    seen: list[int] = []

    def spoil(message: Message, context: Context, call: ClientAppCallable) -> Message:
        reply = call(message, context)
        if context.node_config["site"] != "p2":
            return reply
        seen.append(1)
        if len(seen) < when:
            return reply
        if how == "fails":
            raise ValueError("its disk is full")
        if how == "other examples":
            reply.content.metric_records[METRICS]["num-examples"] = 1
        elif how == "no sums":
            del reply.content[ARRAYS]
        else:
            sums = arrays_in(reply.content, ARRAYS)
            reply.content[ARRAYS] = to_record({n: a.astype("U9") for n, a in sums.items()})
        return reply

    found = run(tmp_path, 1, mods=[spoil])
    assert [event["site"] for event in found.screen.events] == ["p2"]
    trained = {s for s, v in found.history.rounds()[1].sites.items() if "examples" in v}
    assert trained == {"p0", "p1"}
    assert len(seen) == when  # it is asked no more
    assert (found.weights()["left"][:2, 1, 0] == 1).all()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["strategy=fedprox"], "strategy=fedavg"),
        (["travels=head"], "travels=all"),
        (["+transforms.codec._target_=tests.toys.half_codec.HalfCodec"], "transforms"),
        (["client_mods=[fixedclipping_mod]"], "client_mods"),
        (["faults.nan=houston@1"], "faults.poison"),
        (["engine=batched"], "engine=serial"),
        (["server=synchronous"], "belong together"),
        (["model.config.rounds=3", "rounds=4"], "rounds=4"),
    ],
)
def test_options_that_have_no_meaning_for_trees_are_refused(
    overrides: list[str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        build(compose(["model=gbdt", *overrides]))
    assert "gbdt" in str(caught.value)


def test_the_server_of_trees_wants_trees() -> None:
    with pytest.raises(ConfigError, match="gbdt"):
        build(compose(["server=boosting"]))


def test_a_run_ends_with_scores_baselines_and_predictions(tmp_path: Path) -> None:
    """From the command line's config: the shared trees are the pooled ones, so are their scores.

    Of one round, because the two choose among rounds in their own ways: by the mean of sites, and
    by one list.
    """
    folder = tmp_path / "run"
    cfg = compose([
        "model=gbdt", "rounds=1", "seed=3", "data.days=150", "data.step_hours=24",
        "data.window=8", "sites.detroit.machines=8", "sites.houston.machines=8",
        "baselines.controls=[trivial,alone,pooled]", "evaluate.bootstrap=0",
        "model.config.trees_per_round=4", "model.config.leaves=5", "baselines.processes=0",
    ])  # fmt: skip
    simulate(cfg, folder)
    summary = read_json(folder / "summary.json")
    tested = summary["test"]
    scores = {
        name: [found["global"][metric] for metric in ("average_precision", "brier")]
        for name, found in {"federated": tested, **tested["baselines"]}.items()
        if found is not None
    }
    assert summary["model"] == "gbdt" and None not in scores["federated"]
    assert scores["pooled"] == scores["federated"] != scores["alone"]
    predictor = load_predictor(folder)
    names = [column for column in predictor.mapping.columns.values()]
    random = np.random.default_rng(0)
    rows = pd.DataFrame({name: random.normal(size=30) for name in names})
    rows[predictor.mapping.machine], rows[predictor.mapping.time] = "m", np.arange(30)
    risks = predictor.score(rows)["risk"]
    assert len(risks) == 23 and risks.between(0, 1).all()
