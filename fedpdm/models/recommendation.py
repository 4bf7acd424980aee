"""Which model for which data: what each takes and costs.

No accuracy stands here. The source system's 92-94 % lie below the 96.6 % of a rule that
never announces a failure, so they recommend nothing; compare on your own validation data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MODEL_PERFORMANCE_GUIDE: dict[str, dict[str, Any]] = {
    "mlp": {
        "best_for": ["tabular data", "a control for the others", "thousands of sites"],
        "takes": "(B, F), or (B, T, F) flattened",
        "minimum_features": 1,
        "minimum_steps": 1,
        "parameters": 2_978,
        "buffers": 0,
        "update_bytes": 11_912,
        "note": "on windows the first layer grows with T * F",
    },
    "cnn": {
        "best_for": ["local patterns in time", "tabular data"],
        "takes": "(B, F) with F >= 8, or (B, T, F) with T >= 8",
        "minimum_features": 8,
        "minimum_steps": 8,
        "parameters": 97_666,
        "buffers": 451,
        "update_bytes": 392_480,
        "note": "on rows it convolves over the order of the columns, which is arbitrary; "
        "BatchNorm's running statistics must be federated too",
    },
    "lstm": {
        "best_for": ["slow wear over a window", "windows of changing length"],
        "takes": "(B, T, F) with any T",
        "minimum_features": None,
        "minimum_steps": 1,
        "parameters": 55_682,
        "buffers": 0,
        "update_bytes": 222_728,
        "note": "time steps follow each other, so the cost grows with T",
    },
    "hybrid": {
        "best_for": ["long windows with local patterns"],
        "takes": "(B, T, F) with T >= 4",
        "minimum_features": None,
        "minimum_steps": 4,
        "parameters": 115_106,
        "buffers": 194,
        "update_bytes": 461_208,
        "note": "pooling leaves the LSTM T // 4 steps; BatchNorm's running statistics must "
        "be federated too",
    },
    "trend": {
        "best_for": ["remaining life", "long windows", "many rounds at little cost"],
        "takes": "(B, T, F) with the T it was built for",
        "minimum_features": None,
        "minimum_steps": 1,
        "parameters": 21_614,
        "buffers": 0,
        "update_bytes": 86_456,
        "note": "counted at windows of 30 steps; no recurrence, so a step is cheap",
    },
}
"""What each model takes and costs, at 10 features and 2 classes.

``minimum_features`` is the smallest F of rows (B, F), None where it takes no rows;
``minimum_steps`` the smallest T of windows. ``parameters`` and ``buffers`` count values,
``update_bytes`` is their size as stored, one way. For cnn and mlp the counts are of rows.
"""

ANY = [
    (name, "none of them wins everywhere: compare on your validation data")
    for name in ("lstm", "mlp", "cnn", "hybrid")
]


def recommend_model_for_usecase(
    data_characteristics: Mapping[str, Any], performance_requirements: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Return (model, reason) pairs in order of preference, each model once.

    Args:
        data_characteristics: ``sequence_length`` (None = tabular), ``feature_count``, and
            truth values: ``temporal_dominant`` or ``has_temporal_patterns``,
            ``spatial_dominant`` or ``has_spatial_patterns``, ``complex_patterns``. Without
            ``sequence_length`` the data is taken to be windows if patterns in time are named,
            else tabular.
        performance_requirements: truth values ``fastest_training``, ``smallest_update``,
            ``comprehensive_analysis``, ``max_accuracy``.

    Models that cannot take the data are never named.
    """
    data, wanted = data_characteristics, performance_requirements
    temporal = bool(data.get("temporal_dominant") or data.get("has_temporal_patterns"))
    spatial = bool(data.get("spatial_dominant") or data.get("has_spatial_patterns"))
    windows = (
        data["sequence_length"] is not None
        if "sequence_length" in data
        else (temporal or bool(data.get("complex_patterns")))
    )
    found: list[tuple[str, str]] = []
    if wanted.get("fastest_training") or wanted.get("smallest_update"):
        found.append(("mlp", "fewest parameters: 11,912 bytes an update at 10 features"))
    if wanted.get("comprehensive_analysis") or data.get("complex_patterns"):
        found.append(("hybrid", "local patterns by convolution, their order by an LSTM"))
    if temporal:
        found.append(("lstm", "reads every step of a window in order, of any length"))
    if spatial:
        found.append(("cnn", "local patterns, in parallel over the window or the columns"))
    if wanted.get("max_accuracy"):
        found += ANY
    # Where every wish falls away because its model does not take the data, any other may do.
    possible = [pair for pair in found if _takes(pair[0], data, windows)] or [
        pair for pair in ANY if _takes(pair[0], data, windows)
    ]
    first: dict[str, str] = {}
    for name, reason in possible:
        first.setdefault(name, reason)
    return list(first.items())


def _takes(name: str, data: Mapping[str, Any], windows: bool) -> bool:
    guide = MODEL_PERFORMANCE_GUIDE[name]
    size = data.get("sequence_length") if windows else data.get("feature_count")
    minimum = guide["minimum_steps"] if windows else guide["minimum_features"]
    return minimum is not None and (size is None or bool(size >= minimum))
