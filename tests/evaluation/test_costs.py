"""What alarms cost, against hand counts on two machines, brute force, and never and always."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpdm.data.rows import Split
from fedpdm.evaluation.alarms import Watch
from fedpdm.evaluation.censoring import Censoring, presence
from fedpdm.evaluation.costs import Priced, candidates, cost_table, least_cost, priced, rows_alone
from fedpdm.evaluation.final_test import alarm_costs
from fedpdm.evaluation.protocol import Costs, EvaluationProtocol, ThresholdPolicy
from fedpdm.report.sections.alarms import dearer
from fedpdm.tasks import Failure
from tests.evaluation.test_alarms import WATCH, at, censoring
from tests.evaluation.test_final_test import federation, sites_of, tried
from tests.tasks.test_metrics import Labelled, labelled_scores

COSTS = Costs(missed=70, false_alarm=3, inspection=1)


def both(lives: Censoring, costs: Costs = COSTS, watch: Watch = WATCH) -> Priced:
    return priced([lives], watch, [costs], [np.ones(len(lives))], 30.0)


def rows(target: np.ndarray, costs: Costs, weights: np.ndarray | None = None) -> Priced:
    weight = np.ones(len(target)) if weights is None else weights
    return priced([rows_alone(target)], Watch(1, 0, 1), [costs], [weight], 0.0)


# One machine fails after step 19 (within the horizon of 5 from step 15 on), one never does.
TWO = censoring((20, True), (15, False))


@pytest.mark.parametrize(
    ("places", "cost", "count"),
    [
        ((), 70, 0),  # one failure missed, however many windows it has
        ((16, 17, 18, 19), 1, 1),  # one true episode: an inspection
        ((17,), 70 + 1, 1),  # a lone alarm is no warning, but it is looked at
        ((2, 3, 16, 17), (3 + 1) + 1, 2),  # a false episode and a true one
        ((16, 17, 22, 23, 30), 1 + 2 * (3 + 1), 3),  # two false ones at the other machine
        # 4 blocks of 5 at the first, of which the last is true; 3 false ones at the second
        (tuple(range(35)), 3 * (3 + 1) + 1 + 3 * (3 + 1), 7),
    ],
)
def test_two_machines_counted_by_hand(places: tuple[int, ...], cost: float, count: int) -> None:
    windows = both(TWO)
    assert windows.cost(at(35, *places)) == (cost, count)
    assert windows.periods == pytest.approx(35 / 30)
    mixed = np.random.default_rng(3).permutation(35)
    assert both(TWO.take(mixed)).cost(at(35, *places)[mixed]) == (cost, count)


def test_a_failure_costs_once_and_not_once_per_window() -> None:
    for horizon in (2, 5, 15):
        assert both(TWO, watch=Watch(horizon, horizon)).cost(at(35))[0] == 70


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
    st.builds(Costs, *[st.sampled_from([0.0, 0.5, 1.0, 20.0, 500.0])] * 3),
    st.booleans(),
)
def test_the_choice_is_never_dearer_than_never_or_always(
    lives: list[tuple[int, bool]], seed: int, costs: Costs, cut: bool
) -> None:
    case = censoring(*lives)
    weights = presence(case) if cut else np.ones(len(case))
    windows = priced([case], WATCH, [costs], [weights], 30.0)
    scores = np.random.default_rng(seed).integers(0, 9, len(case)) / 8
    level = least_cost(windows, scores)
    chosen = windows.cost(scores >= level)
    found = [windows.cost(scores >= at_least) for at_least in (0.0, *np.unique(scores), 2.0)]
    least = min(cost for cost, _ in found)
    always, never = found[0][0], found[-1][0]
    assert -1e-9 <= chosen[0] <= min(never, always) + 1e-6
    assert any(chosen[0] == pytest.approx(cost) for cost in (least, never, always))
    if level > 0 and chosen[0] == pytest.approx(least):  # of equal costs the fewest episodes
        assert chosen[1] == min(count for cost, count in found if cost == pytest.approx(least))


@settings(max_examples=60)
@given(labelled_scores(2), st.data())
def test_a_row_without_time_is_an_episode_and_a_failure_of_its_own(
    case: Labelled, data: st.DataObject
) -> None:
    target, scores = case
    fails, alarm = target == 1, scores >= 0.5
    by_row = 70 * (fails & ~alarm).sum() + 3 * (~fails & alarm).sum() + alarm.sum()
    assert rows(target, COSTS).cost(alarm) == (by_row, alarm.sum())
    counts = data.draw(st.lists(st.integers(1, 3), min_size=len(target), max_size=len(target)))
    weighed = rows(target, COSTS, np.array(counts, float)).cost(alarm)[0]
    assert weighed == rows(np.repeat(target, counts), COSTS).cost(np.repeat(alarm, counts))[0]


def test_never_and_always_are_chosen_where_they_are_cheapest() -> None:
    scores = np.linspace(0.1, 1.0, 35)
    assert least_cost(both(TWO, Costs(0, 1, 1)), scores) > 1.0
    blind = np.where(np.nan_to_num(TWO.left, nan=99.0) <= WATCH.horizon, 0.1, 0.5)
    assert least_cost(both(TWO, Costs(100, 1, 1)), blind) == 0.0
    assert least_cost(both(TWO, Costs(5, 1, 1)), blind) > 0.5


def test_never_an_alarm_is_never_one_whatever_the_test_data() -> None:
    level = least_cost(both(TWO, Costs(0, 1, 0)), np.linspace(0.0, 0.4, 35))
    assert not (np.linspace(0.0, 1.0, 1001) >= level).any()


def test_a_level_is_taken_only_where_it_pays_for_failures_that_did_not_choose_it() -> None:
    # Twelve machines that fail and twelve that do not; half of the failures score low.
    case = censoring(*[(20, True)] * 12, *[(20, False)] * 12)
    near = np.nan_to_num(case.left, nan=99.0) <= WATCH.horizon
    clear, graded = np.where(near, 0.8, 0.1), np.where(near, 0.2 + case.life / 40, 0.1)
    dear, cheap = Costs(500, 1, 0), Costs(20, 1, 0)
    assert least_cost(both(case, dear), clear) == 0.8
    assert least_cost(both(case, cheap), graded) == 0.2  # the weakest failure sets the level:
    assert least_cost(both(case, dear), graded) == 0.0  # the next one may lie below it
    plain = both(case, dear).cost(graded >= 0.2)
    assert plain == (0.0, 12)


def test_an_expected_cost_is_the_mean_over_random_cuts() -> None:
    case = censoring((40, True), (40, True))
    alarm = at(80, 3, 4, 20, 36, 37, 38, 39, 60, 61)
    sure = Watch(5, 2, sustained=1)  # else a cut turns the last alarm seen into a sustained one
    found = priced([case], sure, [COSTS], [presence(case)], 30.0).cost(alarm)[0]
    total = 0.0
    for cut in range(40):  # the moment is drawn evenly, and windows up to it are seen
        seen = case.time <= cut
        total += both(case.take(seen), watch=sure).cost(alarm[seen])[0]
    assert found == pytest.approx(total / 40)


def test_of_many_scores_some_are_tried_from_never_to_always() -> None:
    scores = np.random.default_rng(0).random(5000)
    levels = candidates(scores)
    assert len(levels) < 450 and levels[0] == 0.0 and levels[-1] > scores.max()
    assert (np.diff(levels) > 0).all()


def test_sites_of_other_costs_share_the_threshold_that_costs_least_together() -> None:
    task = Failure(4)
    dear, cheap = Costs(5000, 1, 1), Costs(0.5, 9, 1)
    chosen = {}
    for scope in ("global", "plant"):
        policy = ThresholdPolicy("cost", scope, costs=cheap, own_costs={"a": dear})
        chosen[scope] = tried(task, EvaluationProtocol(policy)).levels
    own = {name: levels["4"] for name, levels in chosen["plant"].own.items()}
    assert own["b"] > 0.9 > own["a"]  # a miss that costs little is no reason to go and look
    assert own["a"] <= chosen["global"].common["4"] <= own["b"]
    trial = tried(
        task, EvaluationProtocol(ThresholdPolicy("cost", costs=cheap, own_costs={"a": dear}))
    )
    assert trial.accounts is not None
    (risk,), level = task.risks, trial.levels.common["4"]
    assert level is not None
    sites = list(trial.sites)
    windows = trial.accounts.priced(sites, Split.VALIDATION, risk)
    scores = np.concatenate([trial.predictions[s.name][Split.VALIDATION] for s in sites])
    assert windows.cost(scores >= level)[0] == pytest.approx(
        sum(
            trial.accounts.priced([s], Split.VALIDATION, risk).cost(
                trial.predictions[s.name][Split.VALIDATION] >= level
            )[0]
            for s in sites
        )
    )


@pytest.mark.parametrize("scope", ["global", "plant"])
def test_the_table_has_what_each_choice_costs(scope: str) -> None:
    task = Failure(4)
    (risk,) = task.risks
    trial = tried(task, EvaluationProtocol(ThresholdPolicy("cost", scope, costs=COSTS)))
    assert trial.accounts is not None and trial.parts["test"] is not None
    perfect = {
        site.name: {split: windows.y.astype(float) for split, windows in site.windows.items()}
        for site in sites_of(federation(task))
    }
    halves: Any = {name: {Split.TEST: own[Split.TEST]} for name, own in perfect.items()}
    table = cost_table(
        trial.accounts, risk, trial.predictions, lambda site: trial.levels.at(site, risk),
        {"alone": perfect, "hgb": perfect, "old": halves, "few": {"a": perfect["a"]}},
    )  # fmt: skip
    assert table["counted"] == "episodes" and table["period"] == "machine-month of 720 hours"
    assert table["validation"]["level"] <= min(
        table["validation"]["never"], table["validation"]["always"]
    )
    alarms = trial.parts["test"]["alarms"]
    for name, found in alarms["per_site"].items():
        missed = found["failures"] - found["lead_time"]["known"]
        cost = 70 * missed + 3 * found["false_episodes"] + found["episodes"]
        assert table["per_site"][name]["level"] == pytest.approx(cost * 720 / found["exposure"])
        assert table["per_site"][name]["never"] == pytest.approx(
            70 * found["failures"] * 720 / found["exposure"]
        )
    # Alarms before failures only cost their inspection: less than anything else.
    whole = table["global"]
    assert whole["alone"] == whole["hgb"] < min(whole["never"], whole["always"])
    assert "old" not in whole and "few" not in whole and "few" in table["per_site"]["a"]


def test_a_model_that_is_blind_on_test_data_is_beaten_by_always_an_alarm() -> None:
    trial = tried(Failure(4), EvaluationProtocol(ThresholdPolicy("cost", costs=COSTS)))
    for own in trial.predictions.values():
        own[Split.TEST] = np.zeros_like(own[Split.TEST])
    costs = alarm_costs(trial, {})
    assert costs is not None
    whole = costs["global"]
    assert whole["always"] < whole["level"] == whole["never"]
    said = dearer({"test": {"costs": costs}})
    assert said is not None and "Cheaper would be: an alarm all the time (" in said
    assert "never an alarm" not in said
    assert alarm_costs(tried(Failure(4)), {}) is None
