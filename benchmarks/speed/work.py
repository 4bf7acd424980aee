"""The work that every contender does: data, model, settings. Needs torch and numpy only.

100 samples a site, batch 32, one local epoch, Adam with learning rate 1e-3, fixed shapes:
rows of 10 features for mlp and cnn (2,978 and 97,666 parameters), windows of 10 steps by 10
features for lstm and hybrid (55,682 and 115,106), the sizes that the models' source names.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fedpdm.models import ModelWrapper

MODELS = ("mlp", "cnn", "lstm", "hybrid")
SAMPLES, BATCH, EPOCHS, LEARNING_RATE, CLASSES = 100, 32, 1, 1e-3, 2
STEPS, FEATURES = 10, 10
ROWS = ("mlp", "cnn")
"""Models of single rows here; at ten features they have the parameter counts of their source."""
SEED = 0


@dataclass(frozen=True)
class Work:
    """One run of one contender."""

    contender: str
    model: str
    sites: int
    rounds: int
    device: str = "cpu"
    workers: int = 2

    @property
    def features(self) -> int:
        return FEATURES

    @property
    def window(self) -> int | None:
        return None if self.model in ROWS else STEPS


def site_data(model: str, site: int) -> tuple[Any, Any]:
    """Return a site's (100, 10, 10) or (100, 10) float32 inputs and (100,) int64 classes.

    The classes follow from the inputs, the same way in every site, so a loss can fall.
    """
    random = np.random.default_rng([SEED, site])
    shape = (SAMPLES, FEATURES) if model in ROWS else (SAMPLES, STEPS, FEATURES)
    x = random.standard_normal(shape, dtype=np.float32)
    level = random.standard_normal(SAMPLES, dtype=np.float32)
    x[..., 0] += level if model in ROWS else level[:, None]
    y = (level + 0.5 * random.standard_normal(SAMPLES, dtype=np.float32) > 0).astype(np.int64)
    return x, y


@functools.cache
def cached_site_data(model: str, site: int) -> tuple[Any, Any]:
    """Return ``plant_data``, made once per process."""
    return site_data(model, site)


def build_model(model: str) -> ModelWrapper:
    """Return fedpdm's model with its own defaults; the same weights in every process."""
    from fedpdm.models import ModelFactory
    from fedpdm.seeding import torch_seeded

    work = Work("", model, 0, 0)
    with torch_seeded(SEED, "model"):
        return ModelFactory.create_model(model, work.features, CLASSES, sequence_length=work.window)


def read_work() -> tuple[Work, Path]:
    """Return what the command line of a contender asks for, and where its result goes."""
    import torch

    torch.set_num_threads(1)
    return Work(**json.loads(sys.argv[1])), Path(sys.argv[2])


def write_result(path: Path, stamps: list[float], losses: list[float], **more: Any) -> None:
    """Write what a contender measured itself.

    Args:
        path: the file.
        stamps: clock at the start and after every round.
        losses: mean training loss of each round over all sites.
        more: anything else to keep.
    """
    rounds = [b - a for a, b in itertools.pairwise(stamps)]
    path.write_text(json.dumps({"round_seconds": rounds, "train_loss": losses, **more}))


def as_argument(work: Work) -> str:
    return json.dumps(asdict(work))
