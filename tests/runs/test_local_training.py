"""From a config to local training: schedules of the learning rate and the run's length."""

from __future__ import annotations

import pytest

from fedpdm.config.compose import compose
from fedpdm.errors import ConfigError
from fedpdm.runs.local_training import build_schedule, build_settings, idle_warning, rate_warning


@pytest.mark.parametrize(
    ("schedule", "rounds", "warned"),
    [("step", 10, None), ("step", 24, None), ("step", 205, 25), ("constant", 205, None),
     ("cosine", 205, None)],
)  # fmt: skip
def test_a_spent_rate_is_said(schedule: str, rounds: int, warned: int | None) -> None:
    cfg = compose([f"training.schedule={schedule}", f"rounds={rounds}"])
    said = rate_warning(build_settings(cfg, rounds), rounds)
    # Three epochs a round: 0.5 ** 7 < 1/100 from epoch 70 on, which round 24 reaches inside.
    assert [f"round {warned} of {rounds}" in text for text in said] == [True] * (warned is not None)


def test_networks_without_a_federation_follow_their_own_length() -> None:
    cfg = compose(["training.schedule=cosine", "rounds=10", "baselines.rounds=20"])
    alone = build_schedule(cfg, "baselines").settings
    assert build_settings(cfg, 10).rate(15) == pytest.approx(alone.rate(30))


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        ([], []),
        (["evaluate.costs.missed=7", "sites.houston.costs.missed=9"],
         ["evaluate.costs.missed, sites.houston.costs"]),
        (["evaluate.costs.missed=7", "evaluate.threshold=cost"], []),
        (["evaluate.false_alarm_budget=.1"], ["evaluate.false_alarm_budget"]),
        (["evaluate.false_alarm_budget=.1", "evaluate.threshold=false_alarms"], []),
        (["training.step_size=3", "training.gamma=.9"], ["training.step_size, training.gamma"]),
        (["training.step_size=3", "training.schedule=step"], []),
        (["training.step_size=3", "+baselines.training.schedule=step"], []),
    ],
)  # fmt: skip
def test_settings_without_effect_are_said(words: list[str], idle: list[str]) -> None:
    said = idle_warning(compose(words))
    assert len(said) == len(idle)
    for text, keys in zip(said, idle, strict=True):
        assert f"{keys};" in text


def test_a_rate_cannot_rise() -> None:
    with pytest.raises(ConfigError, match="training.gamma"):
        build_settings(compose(["training.gamma=5", "training.schedule=step"]), 3)
