"""Site archetypes: bundles of settings that a site's yaml may start from.

``archetype: machine_shop`` gives a site what a site of its industry is like; what its own
yaml says wins. The numbers are round ones in the range that such sites have, not surveys.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SIZES: dict[str, tuple[int, int]] = {
    "small": (10, 20),
    "medium": (20, 40),
    "large": (40, 60),
    "very_large": (60, 100),
}
"""Machines of a site by size class: from, to."""
MIXED = {"small": 0.3, "medium": 0.4, "large": 0.2, "very_large": 0.1}
"""How common each class is where ``size: mixed``."""

ARCHETYPES: dict[str, dict[str, Any]] = {
    "machine_shop": {
        "industry": "metalworking",
        "size": "medium",
        "assets": {"spindle": 6, "pump": 2, "compressor": 1, "fan": 1},
        "life_days": 60,
        "load": 0.7,
        "daily_cycle": 0.05,
        "shifts": 2,
        "weekend": 0.8,
        "holidays": 10,
        "regimes": 3,
        "ambient_c": 22,
        "ambient_daily_c": 2,
        "ambient_yearly_c": 4,
        "modes": {"bearing": 3, "drive": 2, "alignment": 2, "cooling": 1, "lubrication": 1},
        "scenarios": {"progressive": 6, "sudden": 2, "intermittent": 1, "depletion": 1},
        "service_days": 120,
    },
    "process_plant": {
        "industry": "chemical",
        "size": "large",
        "assets": {"pump": 6, "compressor": 3, "fan": 2},
        "life_days": 70,
        "load": 0.85,
        "daily_cycle": 0.03,
        "shifts": 3,
        "weekend": 0.0,
        "ambient_c": 26,
        "ambient_daily_c": 4,
        "ambient_yearly_c": 6,
        "modes": {"cooling": 3, "lubrication": 3, "filter": 3, "bearing": 2, "alignment": 1},
        "scenarios": {"progressive": 7, "sudden": 1, "depletion": 3, "communication": 1},
        "service_days": 180,
    },
    "water_works": {
        "industry": "water",
        "size": "small",
        "assets": {"pump": 9, "fan": 1},
        "life_days": 80,
        "load": 0.65,
        "daily_cycle": 0.25,
        "weekend": 0.1,
        "ambient_c": 15,
        "ambient_daily_c": 4,
        "ambient_yearly_c": 9,
        "modes": {"bearing": 2, "lubrication": 2, "filter": 4, "alignment": 1, "drive": 1},
        "scenarios": {"progressive": 5, "intermittent": 1, "depletion": 4, "communication": 2},
    },
    "cold_chain": {
        "industry": "food",
        "size": "medium",
        "assets": {"compressor": 6, "fan": 3, "pump": 2},
        "life_days": 65,
        "load": 0.7,
        "daily_cycle": 0.12,
        "weekend": 0.05,
        "regimes": 2,
        "ambient_c": 18,
        "ambient_daily_c": 3,
        "ambient_yearly_c": 10,
        "modes": {"cooling": 4, "lubrication": 3, "filter": 1, "bearing": 1, "alignment": 1},
        "scenarios": {"progressive": 6, "sudden": 1, "depletion": 2, "communication": 1},
        "service_days": 150,
    },
    "warehouse": {
        "industry": "logistics",
        "size": "large",
        "assets": {"conveyor": 8, "fan": 2, "compressor": 1},
        "life_days": 60,
        "load": 0.65,
        "daily_cycle": 0.1,
        "shifts": 3,
        "weekend": 0.5,
        "holidays": 6,
        "regimes": 2,
        "ambient_c": 20,
        "ambient_daily_c": 5,
        "ambient_yearly_c": 9,
        "modes": {"drive": 4, "alignment": 3, "bearing": 2, "lubrication": 1},
        "scenarios": {"progressive": 5, "sudden": 3, "intermittent": 2, "communication": 1},
    },
}


def draw_size(size: str, generator: np.random.Generator) -> int:
    """Return a number of machines for a size class, or for ``mixed`` of a drawn class."""
    shares = np.array(list(MIXED.values()))
    drawn = list(MIXED)[int(generator.choice(len(MIXED), p=shares))]
    low, high = SIZES[drawn if size == "mixed" else size]
    return int(generator.integers(low, high + 1))
