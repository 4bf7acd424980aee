"""``python -m fedpdm.simulate site=detroit,houston``: a federation, from one command."""

from __future__ import annotations

import errno
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpdm.config.compose import Job
    from fedpdm.config.values import Config
    from fedpdm.sweep import Sweep

from fedpdm.errors import ConfigError, FedPdmError, run_command

LEAST_MEMORY = 1.3e9
"""Bytes that any run needs; with less, libraries abort before they can raise a MemoryError."""
RUNS = Path("runs")
"""The folder of run folders, unless another is chosen (``--out``)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 for our failures, 2 for mistakes."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from fedpdm.config.command_line import placed
    from fedpdm.config.compose import translate
    from fedpdm.engines.hardware import require_memory

    if "--help" in arguments or "-h" in arguments:
        print(help_text(arguments))
        return 0
    try:
        require_memory(LEAST_MEMORY, "Python and PyTorch", "raise ulimit -v")
        if {"-sc", "--shell-completion"} & {word.partition("=")[0] for word in arguments}:
            raise ConfigError('a shell learns it from eval "$(python -m fedpdm.completion)"')
        arguments = placed(arguments)
        if any(argument.startswith("resume=") for argument in arguments):
            resume(arguments)
            return 0
        return run_jobs(arguments)
    except KeyboardInterrupt:
        print("\nstopped; every finished round is kept: resume=RUN_FOLDER", file=sys.stderr)
        return 130
    except Exception as raised:
        error = explained(translate(raised, arguments))
        if not isinstance(error, FedPdmError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def run_jobs(arguments: Sequence[str]) -> int:
    """Run one config, or with ``-m`` one per combination, and compare those.

    Returns:
        The exit code: of a sweep, that of the first job that failed.
    """
    from fedpdm.config.command_line import config_dirs
    from fedpdm.config.compose import run_hydra
    from fedpdm.sweep import Sweep, remove_if_empty

    sweep, stood = Sweep(simulate), RUNS.exists()
    try:
        run_hydra(lambda cfg, job: run_composed(cfg, job, sweep, config_dirs(arguments)), arguments)
        sweep.compare()
    except Exception:
        sweep.compare()  # an error of ours does not take the others' results
        raise
    except KeyboardInterrupt:
        if sweep.folder is None:
            raise
        print(f"\nstopped; the same command with --out {sweep.folder} goes on", file=sys.stderr)
        return 130
    finally:
        if not stood:
            remove_if_empty(RUNS)
    return 0 if sweep.failed is None else sweep.failed.exit_code


def run_composed(cfg: Config, job: Job, sweep: Sweep, folders: Sequence[str] = ()) -> float | None:
    """Run one composed config in Hydra's folder; return the validation metric, for sweepers.

    Args:
        cfg: the composed config.
        job: which run of the command it is.
        sweep: runs it, if it is one of several.
        folders: the user's own options (``--config-dir``).
    """
    from fedpdm.config.compose import translate
    from fedpdm.sweep import remove_if_empty

    sweep.folder = job.sweep
    try:
        cfg = checked(cfg, job, folders)
        if job.sweep is None:
            summary: dict[str, Any] | None = simulate(cfg, job.folder)
        else:
            summary = sweep.run(cfg, job.folder, job.name)
    except BaseException as raised:
        remove_if_empty(job.folder)
        if job.sweep is None or not isinstance(raised, Exception):
            raise
        error = explained(translate(raised, job.overrides))
        if not isinstance(error, FedPdmError):
            raise
        sweep.fails(job.name, error)
        return None
    best = None if summary is None else summary["validation"]["best"]
    return None if best is None else float(best)


def checked(cfg: Config, job: Job, folders: Sequence[str]) -> Config:
    """Return a job's config, checked and resolved.

    Raises:
        ConfigError: an option, or a combination of options, cannot work.
    """
    from fedpdm.config.compose import check
    from fedpdm.config.parts import add_parts
    from fedpdm.config.sites import check_own_sites
    from fedpdm.config.values import resolved, rooted

    check(cfg, job.overrides)
    check_own_sites(cfg, job.overrides, folders)
    add_parts(cfg, job.overrides)
    cfg = rooted(resolved(cfg))
    if job.sweep is not None and cfg.federations:
        raise ConfigError("sites.NAME.models makes several federations, which no sweep runs; "
                          "leave -m out, or sweep over model=…")  # fmt: skip
    return cfg


def simulate(cfg: Config, folder: Path, *, resumed: bool = False) -> dict[str, Any]:
    """Run a federation and return its summary. The function behind the command.

    Args:
        cfg: a composed config, e.g. ``fedpdm.config.compose.compose(["site=detroit,houston"])``.
        folder: where the run goes.
        resumed: continue what the folder holds.

    Raises:
        UserError: some option, file, site or folder cannot work.
        SiteError: sites failed, or the run gave up.
    """
    from fedpdm.runs.progress import Working

    if cfg.get("federations"):
        from fedpdm.runs.federations import run_federations

        return run_federations(cfg, folder, simulate, resumed)
    with Working("starting"):  # torch and Flower are imported here
        from fedpdm.report.table import print_summary
        from fedpdm.runs.assembly import one_thread
        from fedpdm.runs.experiment import build, build_stored
        from fedpdm.runs.run import Run
        from fedpdm.runs.stages import after_first_stage

        one_thread()
    asked, resumed = after_first_stage(cfg, folder, simulate, resumed)
    with Working("starting"):
        run = Run(build_stored(asked, folder) if resumed else build(asked), cfg, folder)
    summary = run.execute(resume=resumed)
    del run  # with its windows: the gates make them again
    print_summary(summary, folder)
    if cfg.get("promote"):
        ask_gates(cfg, folder)
    return summary


def ask_gates(cfg: Config, folder: Path) -> None:
    """Keep in a finished run's folder what the gates of ``fedpdm.promote`` say of it."""
    from fedpdm.promote.promotion import decide
    from fedpdm.runs.progress import Working

    try:
        with Working("asking the gates"):
            decide(folder, cfg)
    except FedPdmError as error:  # the run is finished all the same
        print(f"no decision record: {error}")


def resume(arguments: Sequence[str]) -> dict[str, Any]:
    """Continue the run of ``resume=FOLDER`` with the config that is stored there."""
    from fedpdm.runs.folder import stored_run

    cfg, folder = stored_run(arguments)
    return simulate(cfg, folder, resumed=True)


def explained(error: Exception) -> Exception:
    """Return one sentence for an error of the operating system or of a user's own class."""
    from fedpdm.config.imports import own_code_error

    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return ConfigError("memory ran out: take fewer or smaller sites (replicas, data.days, "
                           "sites.NAME.machines), a smaller model, or raise ulimit -v")  # fmt: skip
    error = own_code_error(error)
    if not isinstance(error, OSError) or error.errno is None:
        return error
    where = error.filename or "the run folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ConfigError(f"the disk is full: {where} could not be written; free some space, then "
                           "resume=RUN_FOLDER continues after the last finished round")  # fmt: skip
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ConfigError(f"{where} cannot be read or written ({error.strerror}); choose another "
                           "folder with --out FOLDER, or change its permissions")  # fmt: skip
    if error.errno in (errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG):
        return ConfigError(f"{where}: {error.strerror}; choose another folder: --out FOLDER")
    return error


def help_text(arguments: Sequence[str] = ()) -> str:
    """Return the help of ``python -m fedpdm.simulate``, with every option that exists."""
    from fedpdm.config.command_line import groups, options

    ordered = sorted(groups(), key=lambda g: HELP_ORDER.index(g) if g in HELP_ORDER else 99)
    listed = "\n".join(
        textwrap.fill(
            "  ".join(options(group, arguments)) or "(yours, with --config-dir)",
            width=100, initial_indent=f"  {group:<12} ", subsequent_indent=" " * 15,
            break_on_hyphens=False, break_long_words=False,
        )
        for group in ordered
    )  # fmt: skip
    return HELP.format(options=listed)


HELP_ORDER = ["site", "data", "task", "partition", "model", "strategy", "attack", "engine", "debug"]

HELP = """\
Simulate federated learning for predictive maintenance across factory sites.

  python -m fedpdm.simulate site=detroit,houston

One command: the sites train a shared model, and the result stands beside each site
alone, all data pooled, boosted trees and a constant. Everything is kept in runs/….

Choose (NAME=OPTION):
{options}

Change (KEY=VALUE):
  rounds=20 seed=7                 length and seed
  strategy.proximal_mu=0.1         any value of a chosen option
  strategy.fraction_train=0.5      share of sites per round
  task.horizon=30 data.window=50   what is predicted, from how many rows
  training.local_epochs=1          local training: batch_size, learning_rate, clip_norm, …
  sites.houston.machines=40        one site
  replicas=50                      each named site becomes fifty
  partition=machine partition.sites=10 site=[]   the partition makes the sites
  monitor.rollback=true            return to the last good round by itself
  faults.nan=houston@4             put a fault in: SITE@ROUND
  attack=sign_flip attack.sites=[houston]   malicious sites, to measure strategies that defend
  init.pretrain=[task=reconstruction,rounds=10]   pretrain without labels first
  promote=true                     ask the gates at the end (fedpdm.promote)
  --out my/run                     where to write (runs/<time>-<random>)

Continue:   python -m fedpdm.simulate resume=runs/2026-01-31_12-00-00-ab12cd
Sweep:      python -m fedpdm.simulate -m strategy=fedavg,fedprox seed=0,1,2,3,4,5
            a line for each run, then the comparison; --out FOLDER again goes on with a
            stopped one; log=screen shows all that the runs say
Federations python -m fedpdm.simulate -m 'site=[detroit],[houston],[detroit,houston]'
Look:       python -m fedpdm.simulate --cfg job        (the composed config)
Your own:   python -m fedpdm.simulate --config-dir my_conf strategy=mine

Watch it:   python -m fedpdm.watch               (a page in the browser while it works)
After it:   python -m fedpdm.history list RUN · show RUN ROUND · rollback RUN ROUND
            python -m fedpdm.predict RUN plant.csv
            python -m fedpdm.compare RUN RUN …
"""


if __name__ == "__main__":
    sys.exit(run_command(main))
