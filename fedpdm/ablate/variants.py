"""Variants of a setting, each trained on every seed and compared with it, paired by seed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedpdm.comparison.output import print_comparison, write_comparison
from fedpdm.comparison.result import Comparison, compare
from fedpdm.comparison.runs import find_runs
from fedpdm.comparison.settings import DATA, settings_of
from fedpdm.config.command_line import combinations, config_dirs, placed
from fedpdm.config.compose import run_hydra
from fedpdm.errors import ConfigError
from fedpdm.simulate import run_composed, simulate
from fedpdm.sweep import Sweep

REFERENCE = "reference"
"""The folder of the runs that variants are compared with."""
SEEDS = "seed=0,1,2,3,4"
"""What is run unless the command names seeds."""

Variant = tuple[str, ...]
"""The overrides in which a variant differs from the reference."""


def variants_of(words: Sequence[str]) -> list[Variant]:
    """Return the variants that words ask for: one for each value, or combination of values.

    Args:
        words: as ``objective.gamma=0,1,2,3``, or ``"objective=focal objective.gamma=1,2"``.

    Raises:
        ConfigError: a word is no override, or changes the data.
    """
    found: list[Variant] = []
    for word in words:
        parts = shlex.split(word)
        for part in parts:
            key, equals, _ = part.partition("=")
            if not equals:
                raise ConfigError(f"--variants {part} must be KEY=VALUE or KEY=VALUE,VALUE")
            if key.lstrip("+~").split(".")[0] in (*DATA, "seed", "site", "experiment"):
                raise ConfigError(
                    f"--variants {word}: a variant changes the model or its training, and {key} "
                    "changes the data, so that scores could not be paired; compare such runs with "
                    "python -m fedpdm.compare"
                )
        found += combinations(parts)
    return list(dict.fromkeys(found))


def folder_of(variant: Variant) -> str:
    """Return the name of a variant's folder."""
    return re.sub(r"[^\w.]+", "-", " ".join(variant)).strip("-")[:120] or REFERENCE


def train(overrides: Sequence[str], variants: Iterable[Variant], folder: Path) -> None:
    """Run the seeds of every variant in a folder of its own; what is finished there is kept.

    Args:
        overrides: of the reference, with its seeds.
        variants: ``()`` is the reference.
        folder: of all.

    Raises:
        FedPdmError: what a run raises.
    """
    sweep, own = Sweep(simulate), config_dirs(overrides)
    for variant in variants:
        words = ["-m", *overrides, *variant, "--out", str(folder / folder_of(variant))]
        print(f"{' '.join(variant) or 'the setting itself'}:", flush=True)
        run_hydra(lambda cfg, job: run_composed(cfg, job, sweep, own), placed(words))
        if sweep.failed is not None:
            raise sweep.failed


def compare_variants(variants: Sequence[Variant], folder: Path) -> Comparison:
    """Compare variants with the reference, print it and write it to ``folder/variants``.

    Raises:
        UserError: nothing can be compared.
    """
    runs, left_out = find_runs([folder / folder_of(variant) for variant in ((), *variants)])
    settings, notes = settings_of(runs)
    own = next(run for run in runs if run.folder.parent.name == REFERENCE)
    name = next(s.name for s in settings if s.any.config == own.config)
    comparison = compare(settings, against=name, remarks=notes, left_out=left_out)
    print_comparison(comparison, write_comparison(comparison, folder / "variants"))
    return comparison
