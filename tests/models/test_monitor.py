"""A diagnosis of the last five rounds."""

from __future__ import annotations

import math

import pytest
import torch

from fedpdm.models import ModelManager, ModelPerformanceMonitor


def tracked(rows: list[dict[str, float | None]], metric: str = "accuracy"):
    monitor = ModelPerformanceMonitor(metric=metric)
    for number, row in enumerate(rows, start=1):
        monitor.track_round_performance("detroit", number, row)
    return monitor.detect_training_issues("detroit")


def test_without_data_nothing_is_healthy():
    nothing = ModelPerformanceMonitor().detect_training_issues("nobody")
    assert (nothing["status"], nothing["issues"]) == ("no_data", [])
    assert tracked([{"rmse": 3.0}])["status"] == "no_data"


def test_a_healthy_run():
    rows = [{"accuracy": 0.5 + 0.1 * i, "loss": 1 / i, "parameter_norm": 20.0 + i}
            for i in range(1, 5)]  # fmt: skip
    assert tracked(rows) == {"status": "healthy", "issues": [], "skipped": []}


@pytest.mark.parametrize(
    ("rows", "issue"),
    [
        ([{"accuracy": a} for a in (0.5, 0.8, 0.805, 0.809)], "accuracy_stagnation"),
        ([{"loss": 10.5}, {"loss": 1.0}], "loss_explosion"),
        ([{"loss": math.nan}], "loss_explosion"),
        ([{"parameter_norm": 10.0}, {"parameter_norm": 20.1}], "parameter_instability"),
        ([{"parameter_norm": 10.0}, {"parameter_norm": math.nan}], "parameter_instability"),
    ],
)
def test_each_rule_finds_its_issue(rows, issue):
    found = tracked(rows)
    assert (found["status"], found["issues"]) == ("issues_detected", [issue])
    assert issue not in found["skipped"]
    assert len(found["skipped"]) == 2  # skipped is not passed


@pytest.mark.parametrize(
    "rows",
    [
        [{"accuracy": a} for a in (0.80, 0.809, 0.82)],
        [{"loss": 10.0}],
        [{"parameter_norm": 10.0}, {"parameter_norm": 20.0}],
        [{"loss": 99.0}, *[{"loss": 1.0}] * 5],  # the explosion is six rounds ago
    ],
)
def test_limits_themselves_are_healthy(rows):
    assert tracked(rows)["status"] == "healthy"


def test_a_metric_that_is_not_known_is_not_zero():
    """The source took a missing accuracy for 0 and a missing loss for infinity."""
    found = tracked([{"accuracy": None, "loss": None, "parameter_norm": n} for n in (1.0, 1.1)])
    assert (found["status"], found["issues"]) == ("healthy", [])
    assert found["skipped"] == ["accuracy_stagnation", "loss_explosion"]


def test_another_metric_can_be_watched():
    found = tracked([{"average_precision": 0.3}] * 3, metric="average_precision")
    assert found["issues"] == ["average_precision_stagnation"]


def test_rounds_tracked_again_after_a_rollback_replace_the_undone():
    monitor = ModelPerformanceMonitor()
    for number, loss in ((1, 1.0), (2, 50.0), (3, 90.0), (2, 0.9)):
        monitor.track_round_performance("detroit", number, {"loss": loss})
    assert monitor.detect_training_issues("detroit")["issues"] == []


def test_the_norm_of_a_managed_model_is_measured():
    manager = ModelManager()
    model = manager.create_and_register_model("detroit", "mlp", 10, 2)
    monitor = ModelPerformanceMonitor(manager)
    monitor.track_round_performance("detroit", 1, {"loss": 1.0})
    model.set_parameters({k: 3 * v for k, v in model.get_parameters().items()})
    monitor.track_round_performance("detroit", 2, {"loss": 1.0})
    assert monitor.detect_training_issues("detroit")["issues"] == ["parameter_instability"]
    norm = monitor.performance_history["detroit"][1]["parameter_norm"]
    flat = torch.cat([p.flatten() for p in model.parameters()])
    assert norm == pytest.approx(flat.norm().item(), rel=1e-5)
