"""Refuses sizes that no memory holds and runs that would take weeks, before they start."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch

from fedpdm.data.sources.base import Source
from fedpdm.engines.hardware import memory, require_memory
from fedpdm.errors import ConfigError
from fedpdm.evaluation.wording import duration
from fedpdm.models import ModelWrapper

ROW_BYTES = 450
"""Of a generated row, at its most, while its site is made (2.5 million rows: 1.1 GB)."""
ROWS_PER_SECOND = 300_000
"""Generated on one core; of the largest sites half as many."""
EPOCH_SECONDS = 0.001
"""Of the shortest epoch of a site; the usual one takes a hundred times as long."""
COPIES = 8
"""Of a model's weights that a run holds: at server and site, gradients, the optimizer's."""
LONGEST = 14 * 86400.0
"""Seconds that a run may be expected to take, at least."""


def check_data(source: Source, names: Sequence[str]) -> None:
    """Refuse sites whose rows and windows do not fit in memory.

    Args:
        source: the data; sites of which it does not know the rows beforehand pass.
        names: sites to look at; sites made from one yaml have the same size.

    Raises:
        ConfigError: names the site.
    """
    for name in names:
        rows = source.expected_rows(name)
        if rows is None:
            return
        step = min(source.stride, source.evaluation_stride)
        length = source.window or 1
        # A window longer than the record makes none; its own check says so.
        windows = rows / step * length * len(source.features) * 4 if length < rows else 0
        require_memory(
            rows * ROW_BYTES + windows,
            f"site {name}: its {rows:,} rows (data.days x machines) and their windows",
            f"lower data.days, sites.{name}.machines or data.window",
        )


def check_model(build_model: Callable[[], ModelWrapper]) -> None:
    """Refuse a model whose weights do not fit in memory; none of them is made for it.

    Raises:
        ConfigError: says how many parameters it would have.
    """
    try:
        with torch.device("meta"):
            count = sum(weight.numel() for weight in build_model().module.parameters())
    except Exception:  # it cannot be built without memory: its own building says what is wrong
        return
    require_memory(
        4 * COPIES * count,
        f"{COPIES} copies of the model's {count:,} parameters",
        "lower the sizes in model.config",
    )


def check_duration(source: Source, sampled: int, rounds: int, epochs: int) -> None:
    """Refuse a run that cannot end in ``LONGEST``, however fast the machine is.

    Args:
        source: the data.
        sampled: sites in a round.
        rounds: of the run.
        epochs: of a site in a round.

    Raises:
        ConfigError: names the numbers that make it so long, and the estimate.
    """
    rows = source.expected_rows(source.sites[0]) or 0
    # Sites beyond the memory are made again each round; a few stay.
    made = sampled * rows / ROWS_PER_SECOND * (rounds if sampled * rows * 50 > memory() else 1)
    least = rounds * sampled * epochs * EPOCH_SECONDS + made / (os.cpu_count() or 1)
    if least > LONGEST:
        said = duration(least) if least < 1e9 else f"{least / 3.2e7:,.0f} years"
        raise ConfigError(
            f"this run takes {said} at the very least: rounds={rounds} of {sampled:,} sites with "
            f"training.local_epochs={epochs}; lower one of them, or strategy.fraction_train"
        )
