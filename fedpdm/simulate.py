"""``python -m fedpdm.simulate site=detroit,houston``: a federation, from one command."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpdm.config.compose import Job
    from fedpdm.config.values import Config
    from fedpdm.sweep import Sweep

from fedpdm.errors import ConfigError, FedPdmError

RUNS = Path("runs")
"""The folder of run folders, unless another is chosen (``hydra.run.dir``)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 for our failures, 2 for mistakes."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from fedpdm.config.compose import translate
    from fedpdm.config.help import help_text

    if "--help" in arguments or "-h" in arguments:
        print(help_text(arguments))
        return 0
    try:
        if any(argument.startswith("resume=") for argument in arguments):
            resume(arguments)
        else:
            run_jobs(arguments)
    except KeyboardInterrupt:
        print("\nstopped; every finished round is kept: resume=RUN_FOLDER", file=sys.stderr)
        return 130
    except Exception as raised:
        error = mended(translate(raised, arguments))
        if not isinstance(error, FedPdmError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run_jobs(arguments: Sequence[str]) -> None:
    """Run one config, or with ``-m`` one per combination, and compare those."""
    from fedpdm.config.compose import config_dirs, run_hydra
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
    from fedpdm.config.compose import check_own_sites, check_sites, check_types, chosen_sites
    from fedpdm.config.values import resolved
    from fedpdm.sweep import remove_if_empty

    if job.sweep is not None:
        sweep.folder = job.sweep
        print(f"\n{' '.join(job.overrides)}", flush=True)
    try:
        check_sites(cfg, chosen_sites(job.overrides))
        check_types(cfg, job.overrides)
        check_own_sites(cfg, job.overrides, folders)
        cfg = resolved(cfg)
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
    from fedpdm.report.table import print_summary
    from fedpdm.runs.assembly import one_thread
    from fedpdm.runs.experiment import build
    from fedpdm.runs.run import Run

    one_thread()
    experiment = build(cfg)
    summary = Run(experiment, cfg, folder).execute(resume=resumed)
    print_summary(summary, folder)
    return summary


def resume(arguments: Sequence[str]) -> dict[str, Any]:
    """Continue the run of ``resume=FOLDER`` with the config that is stored there."""
    from fedpdm.runs.folder import stored_run

    cfg, folder = stored_run(arguments)
    return simulate(cfg, folder, resumed=True)


def mended(error: Exception) -> Exception:
    """Return a sentence about the disk for an error of the operating system."""
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


if __name__ == "__main__":
    sys.exit(main())
