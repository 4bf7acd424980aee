"""Sites' own findings at the server: by site, nothing pooled, and enough to score with."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict

from fedpdm.deployment.envelope import TESTED, result_content, result_in, why
from fedpdm.deployment.site_results import cards, gathered, inspected, of_site
from fedpdm.evaluation.final_test import run_final_test
from fedpdm.evaluation.protocol import EvaluationProtocol, ThresholdPolicy
from fedpdm.tasks import Task
from tests.evaluation.test_final_test import TASKS, Creep, federation


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_headquarters_gathers_what_sites_say(task: Task) -> None:
    data, details, per_site = federation(task), {}, {}
    for name in data.sites:
        site = data.site(name, data.moments(name).scaler())
        protocol = EvaluationProtocol(
            ThresholdPolicy("cost"), calibration="temperature", interval=0.5
        )
        trial = run_final_test(
            lambda site: Creep(task), [site], data, torch.device("cpu"), protocol
        )
        details[name] = json.loads(json.dumps(of_site(trial, name), allow_nan=False))
        test = trial.parts["test"]
        assert test is not None
        per_site[name] = test["per_site"][name]
        assert details[name]["card"]["threshold"] == trial.threshold
        measured = {"test": per_site[name], "heldout": None, "details": details[name]}
        assert result_in(result_content(measured)) == json.loads(json.dumps(measured))
    found = gathered(details, per_site, task)
    assert found["bootstrap"] is None and found["spread"]["plants"] == 2
    card = cards(details)
    if task.risks:
        assert set(found["alarms"]["per_site"]) == set(data.sites)
        assert found["alarms"]["global"] is None and found["intervals"] is None
        key = task.risks[0].key
        for name in data.sites:
            assert card["thresholds"][name] == found["thresholds"]["per_site"][name][key]
            temperature = found["calibration"]["per_site"][name]["temperature"]
            assert card["calibrations"][name]["temperature"] == temperature
            assert found["thresholds"]["costs"][name]["missed"] == 50.0
            costs = found["costs"]["per_site"][name]
            assert set(costs) == {"level", "never", "always"} and costs["never"] > 0
        assert found["costs"]["global"] is None and found["costs"]["counted"] == "episodes"
    else:
        assert found["alarms"] is None and set(found["intervals"]["per_site"]) == set(data.sites)


def test_of_its_machines_a_site_tells_their_number_only() -> None:
    told = {"a": {"inspect": {"machines": 9, "alarms": 2, "names": "M1"}}, "b": {}}
    found = inspected(told, TASKS[0])
    assert found is not None and found["machines"] == []
    assert found["per_site"] == {"a": {"machines": 9, "alarms": 2}}
    assert inspected({"b": {}}, TASKS[0]) is None


def test_a_site_that_says_nothing_more_is_no_problem() -> None:
    task = TASKS[0]
    found = gathered({"a": {}}, {"a": {"average_precision": 0.5}}, task)
    assert found["alarms"] is None and found["thresholds"] is None
    assert found["spread"]["worst"] == {"site": "a", "value": 0.5}
    assert cards({"a": {}}) == {"thresholds": {}, "calibrations": {}, "intervals": {}}


NESTED: Any = 0
for _ in range(900):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "odd",
    [
        {"test": 5},
        {"test": {"average_precision": 7}},
        {"test": {"brier_24": -0.5}},
        {"test": {"average_precision": "0.5"}},
        {"test": {"<script>": 0.5}},
        {"test": {"average_precision": True}},
        {"test": {str(n): 0.1 for n in range(20_000)}},
        {"heldout": "none"},
        {"details": "all is well"},
        {"details": {"card": "a card of text"}},
        {"details": {"card": {"threshold": "<script>"}}},
        {"details": {"card": {"threshold": 7}}},
        {"details": {"card": {"thresholds": {"24": "high"}}}},
        {"details": {"card": {"interval": {"factor": "wide"}}}},
        {"details": {"card": {"calibration": {"corners": [{"said": ["a"], "calibrated": [0]}]}}}},
        {"details": {"thresholds": {"common": {"24": "<b>"}}}},
        {"details": {"alarms": {"own": {"event_recall": 1.5}}}},
        {"details": {"alarms": {"own": [1, 2]}}},
        {"details": {"alarms": {"own": {"lead_time": {"median": "<img src=x>"}}}}},
        {"details": {"calibration": {"temperature": "hot"}}},
        {"details": {"intervals": {"level": 2}}},
        {"details": {"more": NESTED}},
        {"details": {"more": "x" * 1000}},
        {"details": {"inspect": {"machines": -1, "alarms": 0}}},
        {"details": {"inspect": {"machines": ["M1"], "alarms": 0}}},
        {"details": {"inspect": {"machines": 3, "alarms": 4}}},
        [],
        None,
    ],
)
def test_results_that_are_none_are_refused(odd: Any) -> None:
    good = {"test": {"average_precision": 0.5, "roc_auc": None}, "heldout": None, "details": {}}
    assert result_in(result_content(good)) == good
    with pytest.raises(Exception) as error:
        result_in(result_content({**good, **odd} if isinstance(odd, dict) else odd))
    assert "<" not in why(error.value) and len(why(error.value)) < 200


@pytest.mark.parametrize("text", ['{"test": NaN}', "[" * 100_000, '{"a"', "x" * 3_000_000])
def test_text_that_is_no_result_is_refused(text: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        result_in(RecordDict({TESTED: ConfigRecord({"json": text})}))
