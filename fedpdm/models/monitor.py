"""A diagnosis of training for people: what looks wrong in the last rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedpdm.models.manager import ModelManager

STAGNATION_RANGE = 0.01
EXPLODED_LOSS = 10.0
UNSTABLE_GROWTH = 2.0
LOOK_BACK = 5


class ModelPerformanceMonitor:
    """Keeps the metrics of every round and names what looks wrong in the last five.

    Args:
        model_manager: If given, a round tracked without ``parameter_norm`` gets the norm of
            the registered model.
        metric: The metric whose stagnation is watched. The source watches accuracy.
    """

    def __init__(self, model_manager: ModelManager | None = None, metric: str = "accuracy") -> None:
        self.model_manager = model_manager
        self.metric = metric
        self.performance_history: dict[str, list[dict[str, float]]] = {}

    def track_round_performance(
        self, model_id: str, round_num: int, metrics: Mapping[str, float | None]
    ) -> None:
        """Remember the metrics of a round: ``loss``, ``parameter_norm``, the watched one.

        A round that was tracked before was rolled back: it and all later ones are forgotten.
        """
        known = {name: float(value) for name, value in metrics.items() if value is not None}
        manager = self.model_manager
        if "parameter_norm" not in known and manager and model_id in manager.list_models():
            known["parameter_norm"] = manager.get_model(model_id).parameter_norm()
        history = self.performance_history.get(model_id, [])
        earlier = [entry for entry in history if entry["round"] < round_num]
        self.performance_history[model_id] = [*earlier, {**known, "round": round_num}]

    def detect_training_issues(self, model_id: str) -> dict[str, Any]:
        """Return ``status``, ``issues`` and ``skipped`` over the last five rounds.

        ``status`` is ``no_data`` (no rule could be applied), ``issues_detected`` or
        ``healthy``. Rules: ``<metric>_stagnation``, the last three values lie within .01;
        ``loss_explosion``, a loss over 10 or not finite; ``parameter_instability``, the last
        norm not finite or over twice the one before. ``skipped`` names the rules for which
        rounds or metrics are missing: skipped is not passed.
        """
        history = self.performance_history.get(model_id, [])[-LOOK_BACK:]

        def values(name: str) -> list[float]:
            return [entry[name] for entry in history if name in entry]

        watched, losses, norms = values(self.metric)[-3:], values("loss"), values("parameter_norm")
        rules: dict[str, bool | None] = {
            f"{self.metric}_stagnation": max(watched) - min(watched) < STAGNATION_RANGE
            if len(watched) == 3
            else None,
            "loss_explosion": any(not loss <= EXPLODED_LOSS for loss in losses) if losses else None,
            "parameter_instability": not (
                math.isfinite(norms[-1]) and norms[-1] <= UNSTABLE_GROWTH * norms[-2]
            )
            if len(norms) >= 2
            else None,
        }
        issues = [name for name, found in rules.items() if found]
        skipped = [name for name, found in rules.items() if found is None]
        status = "issues_detected" if issues else "healthy"
        if len(skipped) == len(rules):
            status = "no_data"
        return {"status": status, "issues": issues, "skipped": skipped}
