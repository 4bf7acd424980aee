"""How often fedpdm.compare claims a difference where there is none, and where there is one.

    python benchmarks/comparison.py          # a second; results/comparison.json

Both questions are put to the raw permutation test of one pair of settings, 1,000 times each:
two score sets over ten seeds, drawn from one distribution, and with a planted difference of
1.2 standard deviations of the paired differences.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fedpdm.comparison.statistics import LEVEL, sign_flip
from fedpdm.seeding import numpy_generator

RESULTS = Path(__file__).resolve().parent / "results" / "comparison.json"
DRAWS, PAIRS, PLANTED, SEED = 1000, 10, 1.2, 2026
MOST_FALSE, LEAST_FOUND = 0.065, 0.80


def claims(draws: int, pairs: int, effect_size: float, seed: int) -> dict[str, Any]:
    """Return how often the raw test of one pair of settings claims a difference.

    ``draws`` times, two score sets over ``pairs`` seeds are drawn from one distribution
    (a common level per seed, and noise of each setting), and the first is shifted by
    ``effect_size`` standard deviations of the paired differences. With 0 every claim is
    false; ``found`` are the claims that name the better one.
    """
    generator = numpy_generator(seed, "claims", draws, pairs, str(effect_size))
    level = generator.normal(0.5, 0.05, size=(draws, pairs))
    noise = 0.02
    scores = level + generator.normal(0, noise, size=(2, draws, pairs))
    scores[0] += effect_size * noise * math.sqrt(2)
    p_values = np.concatenate([sign_flip(part) for part in np.split(scores[0] - scores[1], 10)])
    claimed = p_values <= LEVEL
    return {
        "draws": draws,
        "pairs": pairs,
        "effect_size": effect_size,
        "seed": seed,
        "claimed": float(claimed.mean()),
        "found": float(np.mean(claimed & (scores[0].mean(axis=-1) > scores[1].mean(axis=-1)))),
    }


def measure(draws: int = DRAWS, seed: int = SEED) -> dict[str, Any]:
    """Return what the test claims without and with a difference, and whether that will do."""
    alike = claims(draws, PAIRS, 0.0, seed)
    planted = claims(draws, PAIRS, PLANTED, seed)
    return {
        "level": LEVEL,
        "alike": alike,
        "planted": planted,
        "goals": {"most_false": MOST_FALSE, "least_found": LEAST_FOUND},
        "met": alike["claimed"] <= MOST_FALSE and planted["found"] >= LEAST_FOUND,
    }


def main() -> int:
    """Measure, print and write the results; return 1 where a goal is missed."""
    found = measure()
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{DRAWS} pairs of score sets over {PAIRS} seeds, claims at p <= {LEVEL}:")
    print(f"  drawn from one distribution: {found['alike']['claimed']:.1%} (goal: at most 6.5 %)")
    print(f"  apart by {PLANTED} sd:              {found['planted']['found']:.1%} "
          "(goal: at least 80 %)")  # fmt: skip
    print("goals met" if found["met"] else "GOALS MISSED")
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
