"""The whole test of a model on sites: what is chosen on validation data, and what is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from fedpdm.data.leakage.label_shuffle import LabelShuffle
from fedpdm.data.rows import Rows, Split
from fedpdm.evaluation.confidence import certainty
from fedpdm.evaluation.final_test import FinalTest, run_final_test
from fedpdm.evaluation.protocol import EvaluationProtocol, ThresholdPolicy
from fedpdm.evaluation.scoring import machine_numbers
from fedpdm.evaluation.summary_sections import average_precisions, shuffled
from fedpdm.federation import Federation, Site
from fedpdm.tasks import Failure, Horizons, RemainingLife, Task
from fedpdm.testing.tiny import TinySource

CPU = torch.device("cpu")
SITES: dict[str, dict[str, Any]] = {"a": {"rows": 240, "machines": 6}, "b": {"rows": 240}}
TASKS: list[Task] = [Failure(4), Horizons([4, 8]), RemainingLife(20)]


class Creep(nn.Module):
    """Knows what a trained model would learn: the second sensor creeps up before a failure."""

    def __init__(self, task: Task, shift: float = 0.0) -> None:
        super().__init__()
        self._task, self._shift = task, shift

    def forward(self, x: Tensor) -> Tensor:
        creep = 2 * x[:, -1, 1] - 3 + self._shift
        if isinstance(self._task, Failure):
            return torch.stack([torch.zeros_like(creep), creep], dim=1)
        if isinstance(self._task, Horizons):
            return torch.stack([creep, creep + 1], dim=1)
        return (0.8 - 0.25 * (creep + 3))[:, None]


class Whole(TinySource):
    """Machines of other names in validation than in test; the test is cut before the end."""

    test_truncated = True

    def rows(self, site: str) -> Rows:
        rows = super().rows(site)
        number = np.unique(rows.machine, return_inverse=True)[1]
        split = np.array([Split.TRAIN, Split.VALIDATION, Split.TEST])[number % 3]
        return replace(rows, split=split.astype(np.int8))


def federation(task: Task, source: type[TinySource] = TinySource, **options: Any) -> Federation:
    return Federation(source(SITES, reach=task.reach), task, **options)


def sites_of(data: Federation) -> list[Site]:
    return [data.site(name, data.moments(name).scaler()) for name in data.sites]


def tried(task: Task, protocol: EvaluationProtocol | None = None, **options: Any) -> FinalTest:
    data = federation(task, **options)
    return run_final_test(
        lambda site: Creep(task), sites_of(data), data, CPU, protocol or EvaluationProtocol()
    )


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_what_is_told_is_small_plain_json(task: Task) -> None:
    trial = tried(task)
    text = json.dumps([trial.parts, trial.card], allow_nan=False)
    assert len(text) < 40_000
    test = trial.parts["test"]
    assert test is not None
    alarms_are_known = task.name != "rul"
    for key in ("thresholds", "calibration", "alarms"):
        assert (test[key] is not None) == alarms_are_known, key
    assert (test["intervals"] is not None) == (not alarms_are_known)
    assert (trial.threshold is not None) == alarms_are_known
    assert test["spread"]["worst"]["site"] in SITES
    assert set(test["reliability"]) == {risk.key for risk in task.risks}
    for bins in test["reliability"].values():
        assert len(bins) <= 10 and sum(b["n"] for b in bins) == test["global"]["n"]


def test_counts_add_up_and_lift_is_a_ratio() -> None:
    test = tried(Failure(4)).parts["test"]
    assert test is not None
    for values in (test["global"], *test["per_site"].values()):
        assert values["hits"] + values["missed"] == values["positives"]
        four = ("hits", "missed", "false_alarms", "quiet")
        assert sum(values[name] for name in four) == values["n"]
        assert values["lift"] == pytest.approx(values["average_precision"] / values["prevalence"])
    for name in ("hits", "n"):
        per_site = [values[name] for values in test["per_site"].values()]
        assert sum(per_site) == test["global"][name]
        assert name not in test["mean_site"]


def test_thresholds_come_from_validation_windows_alone() -> None:
    task = Failure(4)
    data = federation(task)
    sites = sites_of(data)
    policy = EvaluationProtocol(
        ThresholdPolicy("false_alarms", "plant", 0.1), calibration="temperature"
    )
    before = run_final_test(lambda site: Creep(task), sites, data, CPU, policy)
    for site in sites:
        site.test.y[:] = 1 - site.test.y
        site.heldout.y[:] = 0
    after = run_final_test(lambda site: Creep(task), sites, data, CPU, policy)
    assert after.card == before.card and after.threshold == before.threshold
    first, second = before.parts["test"], after.parts["test"]
    assert first is not None and second is not None
    assert first["thresholds"] == second["thresholds"]
    assert first["global"]["hits"] != second["global"]["hits"]


def test_each_site_can_have_a_threshold_of_its_own() -> None:
    together = tried(Failure(4))
    apart = tried(Failure(4), EvaluationProtocol(ThresholdPolicy(scope="plant")))
    assert together.card["thresholds"] == {} and set(apart.card["thresholds"]) == set(SITES)
    test = apart.parts["test"]
    assert test is not None
    for name, own in apart.card["thresholds"].items():
        assert test["per_site"][name]["threshold"] == own
    assert test["global"]["threshold"] is None  # there is no common one that was used
    hits = sum(values["hits"] for values in test["per_site"].values())
    assert test["global"]["hits"] == hits


def test_a_test_that_is_cut_weighs_validation_like_it() -> None:
    policy = EvaluationProtocol(ThresholdPolicy("false_alarms", budget=0.1))
    cut, whole = (tried(Failure(4), policy, source=kind) for kind in (Whole, TinySource))
    for trial, told in ((cut, True), (whole, False)):
        test = trial.parts["test"]
        assert test is not None and test["thresholds"]["truncated"] == told
        expected = test["thresholds"]["validation"]["4"]["false_alarm_rate"]
        assert 0 < expected <= 0.1 + 1e-9


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
@pytest.mark.parametrize("task", [t for t in TASKS if t.risks], ids=lambda task: task.name)
def test_calibrated_risks_rank_windows_as_they_were(task: Task, method: str) -> None:
    plain, found = (tried(task, EvaluationProtocol(calibration=how)) for how in ("none", method))
    before, after = plain.parts["test"], found.parts["test"]
    assert before is not None and after is not None and after["calibration"]["fitted"]
    assert after["calibration"]["after"] != after["calibration"]["before"]
    for split in ("global", "mean_site"):
        ranked = [n for n in before[split] if n.startswith(("average_precision", "roc_auc"))]
        assert ranked
        for name in ranked:
            assert after[split][name] == before[split][name]


def test_intervals_cover_and_sites_have_their_own_coverage() -> None:
    test = tried(RemainingLife(20), EvaluationProtocol(interval=0.5)).parts["test"]
    assert test is not None
    found = test["intervals"]
    assert found["machines"] == 8 and found["reason"] is None and found["level"] == 0.5
    assert set(found["per_site"]) == set(SITES) and 0 < found["width"] <= 20
    parts = found["per_site"].values()
    whole = sum(part["width_unclipped"] * part["n"] for part in parts) / found["n"]
    assert found["width_unclipped"] == pytest.approx(whole) and whole > found["width"]
    share = sum(part["coverage"] * part["n"] for part in parts) / found["n"]
    assert found["coverage"] == pytest.approx(share)
    assert found["coverage_interval"] is None  # machines have more than one test window each
    few = tried(RemainingLife(20), EvaluationProtocol(interval=0.99)).parts["test"]
    assert few is not None and "too few" in few["intervals"]["reason"]
    assert few["intervals"]["coverage"] == 1.0 and few["intervals"]["width"] == 20.0
    assert few["intervals"]["width_unclipped"] is None, "it is all of [0, cap]"


def test_a_calibration_changes_what_is_said_and_not_the_ranking() -> None:
    plain = tried(Failure(4)).parts["test"]
    warm = tried(Failure(4), EvaluationProtocol(calibration="temperature"))
    test = warm.parts["test"]
    assert plain is not None and test is not None
    assert test["calibration"]["before"] == plain["calibration"]["after"]
    assert test["calibration"]["after"] != test["calibration"]["before"]
    assert test["global"]["brier"] == test["calibration"]["after"]["4"]["brier"]
    same = pytest.approx(plain["global"]["average_precision"], abs=1e-12)
    assert test["global"]["average_precision"] == same
    assert warm.card["calibration"]["temperature"] == test["calibration"]["temperature"]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_intervals_of_results_hold_the_result_and_gains_are_paired(task: Task) -> None:
    sizes = {"a": {"rows": 240, "machines": 20}, "b": {"rows": 240}}
    data = Federation(TinySource(sizes, reach=task.reach), task)
    sites = sites_of(data)
    tested = run_final_test(lambda site: Creep(task), sites, data, CPU, EvaluationProtocol())
    good, test = tested.predictions, tested.parts["test"]
    random = np.random.default_rng(0)
    bad = {
        name: {split: random.permutation(scores) for split, scores in own.items()}
        for name, own in good.items()
    }
    baselines = {"alone": bad, "pooled": good}
    found = certainty(good, baselines, sites, task, resamples=300, seed=1)
    assert found is not None and found["metric"] == task.primary
    assert test is not None
    for name, part in found["per_site"].items():
        assert part["value"] == pytest.approx(test["per_site"][name][task.primary])
    many, few = found["per_site"]["a"], found["per_site"]["b"]
    assert many["low"] < many["value"] < many["high"]
    assert few["machines"] < 8 and few["low"] is None and "too few" in few["reason"]
    assert found["global"]["value"] == pytest.approx(test["global"][task.primary])
    better = found["gain"]["alone"]["per_site"]["a"]
    assert 0 < better["low"] < better["value"] < better["high"]
    same = found["gain"]["pooled"]["global"]
    assert same["value"] == same["low"] == same["high"] == 0.0
    again = certainty(good, baselines, sites, task, resamples=300, seed=1)
    assert again == found
    assert certainty(good, {}, sites, task, resamples=0, seed=1) is None


def test_one_machine_has_no_interval_and_says_why() -> None:
    task = Failure(4)
    data = federation(task)
    lone = data.site("a", data.moments("a").scaler())
    first = lone.test.machine == lone.test.machine[0]
    windows = {**lone.windows, Split.TEST: lone.test.take(first)}
    sites = [Site("a", windows), data.site("b", data.moments("b").scaler())]
    trial = run_final_test(lambda site: Creep(task), sites, data, CPU, EvaluationProtocol())
    found = certainty(trial.predictions, {}, sites, task, resamples=200, seed=1)
    assert found is not None
    assert (
        found["per_site"]["a"]["low"] is None and "one machine" in found["per_site"]["a"]["reason"]
    )


def test_sites_that_share_machines_draw_them_together() -> None:
    data = federation(Failure(4))
    sites = sites_of(data)
    own = machine_numbers(sites, Split.TEST, shared=False)
    assert not set(own["a"]) & set(own["b"])
    twins = [sites[0], Site("twin", sites[0].windows)]
    numbers = machine_numbers(twins, Split.TEST, shared=True)
    np.testing.assert_array_equal(numbers["a"], numbers["twin"])


@pytest.mark.parametrize("kind", ["windows", "rotated"])
def test_with_shuffled_labels_a_model_that_knows_scores_at_prevalence(kind: str) -> None:
    task = Failure(4)
    known = tried(task)
    trial = tried(task, shuffle=LabelShuffle(kind, 5))
    told, test = known.parts["test"], trial.parts["test"]
    assert told is not None and test is not None
    for name in SITES:
        assert told["per_site"][name]["lift"] > 4
        values = test["per_site"][name]
        if kind == "windows":  # labels that turn may change parts
            assert values["prevalence"] == pytest.approx(told["per_site"][name]["prevalence"])
        assert values["lift"] < 2
    found = test["shuffled"]
    assert found["kind"] == kind and "shuffled" in test["alarms"]["reason"]
    for part in (found["global"], found["mean_site"], *found["per_site"].values()):
        assert part["within"] and part["p"] > 0.01
        assert part["low"] < part["prevalence"] < part["high"]
    assert found["global"]["value"] == pytest.approx(test["global"]["average_precision"])


def test_a_leak_past_the_shuffle_is_seen() -> None:
    """The model gets to know the shuffled labels of the test: its score is no chance."""
    task, shuffle = Failure(4), LabelShuffle("rotated", 5)
    data = federation(task, shuffle=shuffle)
    sites = sites_of(data)
    random = np.random.default_rng(0)
    leaked = {
        site.name: {Split.TEST: 0.4 * site.test.y + random.random(len(site.test))} for site in sites
    }
    found = shuffled(leaked, sites, task, shuffle)
    assert not found["global"]["within"] and found["global"]["p"] < 0.01
    assert "rmse" in shuffled({}, [], RemainingLife(20), shuffle)["reason"]


def test_average_precision_of_many_labels_is_scikit_learns() -> None:
    random = np.random.default_rng(2)
    scores = np.round(random.random(50), 1)  # ties
    labels = (random.random((20, 50)) < 0.2).astype(np.int64)
    labels[0] = 0
    found = average_precisions(labels, scores)
    assert np.isnan(found[0])
    expected = [average_precision_score(own, scores) for own in labels[1:]]
    np.testing.assert_allclose(found[1:], expected)
