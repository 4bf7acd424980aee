"""Sites' own findings at the server: by site, nothing pooled, and enough to score with."""

from __future__ import annotations

import json

import pytest
import torch

from fedpdm.deployment.test_details import cards, gathered, of_site
from fedpdm.evaluation.final_test import run_final_test
from fedpdm.evaluation.settings import Policy, Protocol
from fedpdm.tasks import Task
from tests.evaluation.test_final_test import TASKS, Creep, federation


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_headquarters_gathers_what_sites_say(task: Task) -> None:
    data, details, per_site = federation(task), {}, {}
    for name in data.sites:
        site = data.site(name, data.moments(name).scaler())
        protocol = Protocol(Policy("cost"), calibration="temperature", interval=0.5)
        trial = run_final_test(
            lambda site: Creep(task), [site], data, torch.device("cpu"), protocol
        )
        details[name] = json.loads(json.dumps(of_site(trial, name), allow_nan=False))
        test = trial.parts["test"]
        assert test is not None
        per_site[name] = test["per_site"][name]
        assert details[name]["card"]["threshold"] == trial.threshold
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


def test_a_site_that_says_nothing_more_is_no_problem() -> None:
    task = TASKS[0]
    found = gathered({"a": {}}, {"a": {"average_precision": 0.5}}, task)
    assert found["alarms"] is None and found["thresholds"] is None
    assert found["spread"]["worst"] == {"site": "a", "value": 0.5}
    assert cards({"a": {}}) == {"thresholds": {}, "calibrations": {}, "intervals": {}}
