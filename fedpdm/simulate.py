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
"""The folder of run folders, unless another is chosen (``hydra.run.dir``)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 for our failures, 2 for mistakes."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from fedpdm.config.compose import translate
    from fedpdm.engines.hardware import require_memory

    if {"-sc", "--shell-completion"} & {word.partition("=")[0] for word in arguments}:
        return completion(arguments)
    if "--help" in arguments or "-h" in arguments:
        print(help_text(arguments))
        return 0
    try:
        require_memory(LEAST_MEMORY, "Python and PyTorch", "raise ulimit -v")
        if any(argument.startswith("resume=") for argument in arguments):
            resume(arguments)
        else:
            run_jobs(arguments)
    except KeyboardInterrupt:
        print("\nstopped; every finished round is kept: resume=RUN_FOLDER", file=sys.stderr)
        return 130
    except Exception as raised:
        error = explained(translate(raised, arguments))
        if not isinstance(error, FedPdmError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run_jobs(arguments: Sequence[str]) -> None:
    """Run one config, or with ``-m`` one per combination, and compare those."""
    from fedpdm.config.command_line import config_dirs
    from fedpdm.config.compose import run_hydra
    from fedpdm.sweep import Sweep, remove_if_empty

    sweep, stood = Sweep(simulate), RUNS.exists()
    try:
        run_hydra(lambda cfg, job: run_composed(cfg, job, sweep, config_dirs(arguments)), arguments)
    except FedPdmError:
        sweep.compare()  # a combination that cannot work does not take the others' results
        raise
    finally:
        if not stood:
            remove_if_empty(RUNS)
    sweep.compare()


def run_composed(cfg: Config, job: Job, sweep: Sweep, folders: Sequence[str] = ()) -> float | None:
    """Run one composed config in Hydra's folder; return the validation metric, for sweepers.

    Args:
        cfg: the composed config.
        job: which run of the command it is.
        sweep: runs it, if it is one of several.
        folders: the user's own options (``--config-dir``).
    """
    from fedpdm.config.compose import check
    from fedpdm.config.parts import add_parts
    from fedpdm.config.sites import check_own_sites
    from fedpdm.config.values import resolved, rooted
    from fedpdm.sweep import remove_if_empty

    if job.sweep is not None:
        sweep.folder = job.sweep
        print(f"\n{' '.join(job.overrides)}", flush=True)
    try:
        check(cfg, job.overrides)
        check_own_sites(cfg, job.overrides, folders)
        add_parts(cfg, job.overrides)
        cfg = rooted(resolved(cfg))
        if job.sweep is not None and cfg.federations:
            raise ConfigError("sites.NAME.models makes several federations, which no sweep runs; "
                              "leave -m out, or sweep over model=…")  # fmt: skip
        if job.sweep is None:
            summary: dict[str, Any] | None = simulate(cfg, job.folder)
        else:
            summary = sweep.run(cfg, job.folder)
    except BaseException:
        remove_if_empty(job.folder)
        raise
    best = None if summary is None else summary["validation"]["best"]
    return None if best is None else float(best)


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
        from fedpdm.runs.experiment import build
        from fedpdm.runs.initial import stored_start
        from fedpdm.runs.run import Run
        from fedpdm.runs.stages import after_first_stage

        one_thread()
    asked, resumed = after_first_stage(cfg, folder, simulate, resumed)
    with Working("starting"):
        run = Run(build(asked, start=stored_start(folder) if resumed else None), cfg, folder)
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


def completion(arguments: Sequence[str]) -> int:
    """Print Hydra's script for a shell, or what may follow a command line; never an error."""
    from fedpdm.config.compose import run_hydra

    if any(word.startswith("query=") for word in arguments) and "COMP_LINE" not in os.environ:
        print("error: a shell asks this; install it with --shell-completion install=bash",
              file=sys.stderr)  # fmt: skip
        return 2
    run_hydra(lambda cfg, job: None, arguments)
    return 0


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
                           "folder with hydra.run.dir=…, or change its permissions")  # fmt: skip
    if error.errno in (errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG):
        return ConfigError(f"{where}: {error.strerror}; choose another folder: hydra.run.dir=…")
    return error


def help_text(arguments: Sequence[str] = ()) -> str:
    """Return the help of ``python -m fedpdm.simulate``, with every option that exists."""
    from fedpdm.config.command_line import groups, options

    ordered = sorted(groups(), key=lambda g: HELP_ORDER.index(g) if g in HELP_ORDER else 99)
    listed = "\n".join(
        textwrap.fill(
            "  ".join(options(group, arguments)) or "(yours, with --config-dir)",
            width=100, initial_indent=f"  {group:<10} ", subsequent_indent=" " * 13,
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
  hydra.run.dir=my/run             where to write

Continue:   python -m fedpdm.simulate resume=runs/2026-01-31_12-00-00-ab12cd
Sweep:      python -m fedpdm.simulate -m strategy=fedavg,fedprox seed=0,1,2,3,4,5
            compared at its end; hydra.sweep.dir=FOLDER again continues a stopped one
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
