"""``python -m fedpdm.ablate RUN…``: what is each group of sensors, or part of a model, worth?"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fedpdm.config.arguments import add_imports, add_out, parser_of
from fedpdm.errors import ConfigError, FedPdmError, HistoryError, run_command

DESCRIPTION = """\
Take something away and see how far the score on test windows falls, over seeds.

Groups of sensors, of finished runs that differ in their seed alone; nothing is trained:
  python -m fedpdm.ablate runs/2026-01-31_12-00-00-ab12cd
Of a setting, whose seeds are trained first (the same command goes on where it was):
  python -m fedpdm.ablate experiment=gcode seed=0,1,2,3,4
  python -m fedpdm.ablate data=ai4i model=mlp --retrain
Losses and architectures, each variant trained and paired with the setting by seed:
  python -m fedpdm.ablate objective=focal --variants objective.gamma=0,1,3
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    made = parser_of("ablate", DESCRIPTION)
    made.add_argument("what", nargs="+", metavar="RUN|KEY=VALUE",
                      help="run or multirun folders; or a setting, as for simulate")  # fmt: skip
    made.add_argument("--groups", action="append", default=[], metavar="NAME=SENSOR+SENSOR",
                      help="a group; also a sensor or a group of the data by its name (the data's "
                      "own groups, else each sensor by itself)")  # fmt: skip
    made.add_argument(
        "--how",
        default="permute,mean,zero",
        metavar="HOW,HOW",
        help="how readings are replaced; the first one ranks (permute,mean,zero)",
    )
    made.add_argument(
        "--retrain",
        action="store_true",
        help="also train without each group (without=[GROUP]), and compare",
    )
    made.add_argument("--variants", action="append", default=[], metavar="KEY=VALUE,VALUE",
                      help="changes of the setting, each by itself: trained and compared instead "
                      "of groups of sensors")  # fmt: skip
    add_out(made, "where everything goes (ablation/ beside the run or in the folder of runs; of a "
            "setting runs/ablation-…)", "FOLDER")  # fmt: skip
    made.add_argument("--config-dir", metavar="FOLDER", help="options of your own")
    add_imports(made)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 for mistakes."""
    given = parser().parse_intermixed_args(arguments)
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from fedpdm.config.compose import translate
    from fedpdm.simulate import explained

    try:
        folders = [word for word in given.what if Path(word).is_dir()]
        if folders and len(folders) < len(given.what):
            raise ConfigError("name run folders, or a setting as KEY=VALUE, not both")
        if folders:
            of_runs(given)
        else:
            of_setting(given)
    except Exception as raised:
        error = explained(translate(raised, given.what))
        if not isinstance(error, FedPdmError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def of_runs(given: argparse.Namespace) -> None:
    """Ablate the sensors of finished runs."""
    if given.retrain or given.variants:
        raise ConfigError(
            f"{'--retrain' if given.retrain else '--variants'} trains again, and finished runs are "
            "left as they are: name their setting as KEY=VALUE, and not their folders"
        )
    from fedpdm.compare import default_folder

    paths = [Path(word) for word in given.what]
    beside = default_folder(paths)
    out = given.out or beside.with_name(beside.name.replace("comparison", "ablation"))
    ablate_sensors(paths, given, out)


def of_setting(given: argparse.Namespace) -> None:
    """Train a setting's seeds, then ablate its sensors, or compare it with its variants."""
    if strange := [word for word in given.what if "=" not in word]:
        raise HistoryError(f"{strange[0]} is no folder of runs, and no KEY=VALUE")
    from fedpdm.ablate.variants import SEEDS, compare_variants, train, variants_of
    from fedpdm.config.compose import compose
    from fedpdm.config.values import quoted

    seeds = [word for word in given.what if word.startswith("seed=")] or [SEEDS]
    setting = [word for word in given.what if not word.startswith("seed=")]
    if given.config_dir:
        setting.append(f"--config-dir={given.config_dir}")
    variants = variants_of(given.variants)
    if variants and given.groups and not given.retrain:
        raise ConfigError(
            "--groups takes sensors away and --variants compares settings: ask one after the other"
        )
    for variant in variants:  # a wrong key is found before anything is trained
        compose([*setting, *variant])
    hows_of(given.how)
    if given.retrain or not variants:
        groups = known_groups(setting, given.groups)
    if given.retrain:
        new = {word.partition("=")[0] for word in given.groups if "=" in word}
        left_out = [members if name in new else [name] for name, members in groups.items()]
        lists = [",".join(quoted("x", name)[2:] for name in names) for names in left_out]
        variants += [(f"without=[{names}]",) for names in lists]
    digest = hashlib.sha256("\0".join(sorted(setting)).encode()).hexdigest()[:8]
    out = given.out or Path("runs") / f"ablation-{digest}"
    train([*setting, *seeds], [()], out)
    if given.retrain or not given.variants:
        ablate_sensors([out / "reference"], given, out)
    if variants:
        train([*setting, *seeds], variants, out)
        compare_variants(variants, out)


def known_groups(setting: Sequence[str], asked: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the groups of a setting's data, before anything is trained.

    Raises:
        UserError: the setting cannot work, or there is no such sensor.
    """
    from typing import cast

    from fedpdm.ablate.groups import groups_of
    from fedpdm.config.compose import compose
    from fedpdm.config.imports import import_all, names_of
    from fedpdm.config.values import make, resolved, rooted, select, whole
    from fedpdm.runs.sources import build_source
    from fedpdm.tasks import Task

    cfg = rooted(resolved(compose(setting)))
    import_all(names_of(select(cfg, "imports")))
    task = cast(Task, make(cfg.task, "task"))
    return dict(groups_of(build_source(cfg, task, whole(cfg, "seed", 0)), asked))


def hows_of(text: str) -> list[str]:
    """Return ways to replace readings.

    Raises:
        ConfigError: there is no such way.
    """
    from fedpdm.ablate.replacing import HOW

    hows = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for how in hows:
        if how not in HOW:
            raise ConfigError(f"--how {how or text} is unknown; choose {', '.join(HOW)}")
    return hows


def ablate_sensors(paths: Sequence[Path], given: argparse.Namespace, out: Path) -> None:
    """Score finished runs with each group of sensors replaced; print and write the result.

    Args:
        paths: run folders, or folders that hold some.
        given: the command line.
        out: the folder of the result.

    Raises:
        UserError: the runs are of several settings, or cannot be scored again.
    """
    from fedpdm.ablate.output import print_ablation, write_ablation
    from fedpdm.ablate.result import ablation_of
    from fedpdm.ablate.scores import ablate_run
    from fedpdm.comparison.runs import find_runs
    from fedpdm.comparison.settings import settings_of
    from fedpdm.config.imports import names_of
    from fedpdm.evaluation.wording import listing
    from fedpdm.runs.assembly import one_thread
    from fedpdm.runs.progress import Working

    one_thread()
    hows = hows_of(given.how)
    runs, notes = find_runs(paths)
    if not runs:
        raise HistoryError("no run is finished: " + "; ".join(notes))
    settings, remarks = settings_of(runs)
    if len(settings) > 1:
        raise ConfigError(
            f"the runs are of {len(settings)} settings ({listing([s.name for s in settings])}); "
            "name those of one, which differ in their seed alone"
        )
    of_seed = settings[0].runs
    with Working("scoring the runs") as working:
        found = [
            ablate_run(
                run.folder, given.groups, hows, imports=names_of(given.imports), say=working.says
            )
            for run in of_seed.values()
        ]
        ablation = ablation_of([one for one, _ in found], found[0][1], hows, [*of_seed.values()])
        page = write_ablation(ablation, out)
    print_ablation(ablation, page)
    for note in (*notes, *remarks):
        print(f"note: {note}")


if __name__ == "__main__":
    sys.exit(run_command(main))
