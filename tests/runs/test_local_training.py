"""From a config to local training: schedules of the learning rate and the run's length."""

from __future__ import annotations

import pytest

from fedpdm.config.compose import compose
from fedpdm.runs.local_training import build_schedule, build_settings, rate_warning


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
