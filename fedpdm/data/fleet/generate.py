"""``python -m fedpdm.data generate``: writes a generated fleet as files.

The sites are those that ``python -m fedpdm.simulate`` would generate with the same options,
so the run that reads the files is the run that generates them. Nothing is written under the
wanted name before everything is there and every gate was passed.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import shlex
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedpdm.data.fleet import gates
from fedpdm.data.fleet.adapt import MACHINES
from fedpdm.data.fleet.assets import KINDS, MODES
from fedpdm.data.fleet.folder import FORMAT, SUMMARY, FleetFolder, write_site
from fedpdm.data.fleet.life import FAILURE, MAINTENANCE
from fedpdm.data.fleet.record import Record
from fedpdm.data.fleet.settings import SCENARIOS
from fedpdm.data.fleet.source import FleetSource
from fedpdm.data.rows import Ints, Rows, within_horizon
from fedpdm.errors import ConfigError, DataError, FedPdmError
from fedpdm.storage import sha256_of

HORIZON = 7.0
"""Days before a failure that count as positive in the summary and the gates."""
OPTIONS = ("data.", "sites.", "replicas=")
"""What an override may begin with: all else has no effect on the data."""
ELSEWHERE = {
    "path": "data that lies in files need not be generated",
    "sites": "sites are named with --sites",
    "seed": "the seed is given with --seed",
    "reach": "how far labels look is the task's matter (task.horizon of the run), not the data's",
    "partition": "every site has machines of its own; the run may deal them (partition=…)",
    "task_defaults": "what is predicted is the task's matter (task.horizon of the run)",
    "_target_": "only data=fleet can be generated",
}
"""Keys of ``data`` that are no matter of the files, and why."""
SMALLER = "lower --days or sites.NAME.machines, or raise data.step_hours"
ROW_BYTES = 700
"""Memory that a row takes while its site is generated and checked; measured, rounded down."""
SITES = 1_000_000
"""More sites than are kept as files."""


@dataclass(frozen=True)
class Made:
    """A fleet that was written.

    Attributes:
        folder: where.
        summary: what its summary.json says.
        command: trains on it.
    """

    folder: Path
    summary: dict[str, Any]
    command: str


def generate(
    out: str | Path,
    sites: Sequence[str] = ("detroit", "houston"),
    days: float | None = None,
    seed: int = 42,
    overrides: Sequence[str] = (),
    csv: bool = False,
) -> Made:
    """Generate sites, write them to a new folder, and check them.

    Args:
        out: folder to make; it must not exist.
        sites: names of sites, as in ``site=``.
        days: length of the record; None: ``data.days``.
        seed: of every draw.
        overrides: further options as ``python -m fedpdm.simulate`` takes them, of ``data``,
            ``sites`` and ``replicas``.
        csv: write CSV instead of Parquet.

    Raises:
        UserError: the options, the folder, or a gate that the options make fail.
        FedPdmError: a gate failed that no option explains.
    """
    folder = Path(out).expanduser()
    if seed < 0:
        raise ConfigError(f"--seed {seed} must be a whole number of at least 0")
    options = _options(overrides, days)
    source = _source(sites, seed, options)
    least = HORIZON / 0.2 + source.step_days
    if source.days < least:
        raise ConfigError(
            f"--days {source.days:g} is too short to be cut into training, validation and test "
            f"with labels that look {HORIZON:g} days ahead: give at least {least:g}"
        )
    _require_memory(source)
    hidden = _room(folder)
    try:
        summary, verdicts = _write(hidden, source, seed, csv, options)
        # The folder may be moved: what it says does not depend on where it lies.
        summary["train"] = _train("FOLDER", sites, seed, options)
        text = json.dumps(summary, indent=2, allow_nan=False)
        (hidden / SUMMARY).write_text(text + "\n", "utf-8")
        _judge(verdicts, options)
        hidden.chmod(0o755)
        try:
            hidden.rename(folder)
        except OSError:
            raise _taken(folder) from None
    except MemoryError:
        raise ConfigError(
            f"the sites are too large for this machine's memory; nothing is left: {SMALLER}"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"--out {out}: the files cannot be written ({error.strerror or error}); nothing is left"
        ) from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return Made(folder, summary, _train(str(out), sites, seed, options))


def _options(overrides: Sequence[str], days: float | None) -> list[str]:
    """Return the options with the length of the record, or refuse one that changes no data."""
    known = sorted(set(inspect.signature(FleetSource).parameters) - set(ELSEWHERE))
    for override in overrides:
        if not override.lstrip("+").startswith(OPTIONS) or "=" not in override:
            raise ConfigError(
                f"{override} has no effect on generated data: options here begin with "
                f"{', '.join(OPTIONS)}, e.g. data.prevalence=0.05"
            )
        where, _, key = override.lstrip("+").partition("=")[0].partition(".")
        key = key.split(".")[0]
        if where == "data" and key in ELSEWHERE:
            raise ConfigError(f"{override}: {ELSEWHERE[key]}")
        # Without a plus, a key that does not exist is refused with the closest name.
        if where == "data" and key not in known and override.startswith("+"):
            raise ConfigError(
                f"{override}: data=fleet has no setting data.{key}; there are {', '.join(known)}"
            )
    return [*([] if days is None else [f"data.days={days:g}"]), *overrides]


def _source(sites: Sequence[str], seed: int, options: Sequence[str]) -> FleetSource:
    from fedpdm.config.compose import compose
    from fedpdm.config.values import OF_ANY_SITE, block, plain, whole
    from fedpdm.data.sources.base import expand_replicas

    cfg = compose(["data=fleet", f"site={','.join(sites)}", f"seed={seed}", *options])
    data = plain(cfg.data)
    for key in ("_target_", "task_defaults"):
        data.pop(key)
    named, replicas = block(cfg, "sites"), whole(cfg, "replicas", 1)
    for own in named.values():  # what alarms cost is no matter of the data
        for key in OF_ANY_SITE if isinstance(own, dict) else ():
            own.pop(key, None)
    if replicas * len(named) > SITES:
        raise ConfigError(
            f"replicas={replicas} makes {replicas * len(named):,} sites; {SITES:,} is the most "
            "that is written as files"
        )
    try:
        return FleetSource(
            sites=expand_replicas(named, replicas), seed=int(cfg.seed), reach=HORIZON, **data
        )
    except OverflowError:
        raise ConfigError(
            "a number among the options is larger than a computer can count with: " + SMALLER
        ) from None


def _require_memory(source: FleetSource) -> None:
    """Refuse a site that does not fit in memory before any of it is made.

    Raises:
        ConfigError: names the site, its rows, and what to lower.
    """
    calm = replace(source.dials, prevalence=None)  # which changes the lives, not the rows
    tried = 0 if source.dials.prevalence is None else MACHINES
    memory = _memory()
    for site in source.sites:
        machines = source.spec(site, calm).profile.machines
        rows = source.steps * max(machines, tried)
        if rows * ROW_BYTES > memory:
            raise ConfigError(
                f"{site}: {rows:.3g} rows ({machines:,} machines, {source.days:g} days) need "
                f"about {rows * ROW_BYTES / 1e9:,.0f} GB of memory at once, and this machine has "
                f"{memory / 1e9:,.0f}: {SMALLER}"
            )


def _memory() -> float:
    """Return this machine's memory in bytes, infinite where it does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def _room(folder: Path) -> Path:
    """Return a hidden folder beside the wanted one, or say why there cannot be one."""
    if folder.exists() or folder.is_symlink():
        raise _taken(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise ConfigError(
            f"--out {folder}: {folder.parent} cannot be written to ({error.strerror}); choose "
            "another folder"
        ) from None


def _taken(folder: Path) -> ConfigError:
    return ConfigError(
        f"--out {folder} exists already and is not overwritten: choose a new name, or remove it"
    )


def _write(
    folder: Path, source: FleetSource, seed: int, csv: bool, options: Sequence[str]
) -> tuple[dict[str, Any], list[gates.Gate]]:
    """Write and check all sites; return the summary, but for the command, and the verdicts."""
    files: dict[str, str] = {}
    profiles: dict[str, Any] = {}
    found: list[gates.Gate] = []
    summary: dict[str, Any] = {
        "format": FORMAT,
        "seed": seed,
        "options": list(options),
        "settings": {"data": source.settings, "plants": source.site_settings},
        "horizon_days": HORIZON,
        "files": files,
        "plants": profiles,
    }
    counted = np.zeros((2, 2), dtype=np.int64)  # at both horizons: positive rows, known rows
    for site in source.sites:
        made = source.record(site)
        rows = source.labelled(site, made.machine, made.time, made.values, made.log)
        for name in write_site(folder, site, made, csv):
            files[name] = sha256_of(folder / name)
        close = near(rows, HORIZON)
        counted += close, near(rows, source.dials.prevalence_horizon)
        profiles[site] = counts(source, site, made, rows) | {"prevalence": share(close)}
        found += check(source, site, made, rows)
        # The folder is read back as a run will read it.
        (folder / SUMMARY).write_text(json.dumps(summary), "utf-8")
        found.append(_read_back(folder, source, site, rows))
    dials = source.dials
    found.append(gates.wanted_prevalence(dials.prevalence, dials.label_skew > 0, share(counted[1])))
    total = {
        key: sum(profile[key] for profile in profiles.values())
        for key in ("rows", "machines", "failures", "maintenance")
    }
    summary["total"] = total | {"prevalence": share(counted[0])}
    tally = Counter(gate.status for gate in found)
    summary["gates"] = {status: tally[status] for status in ("passed", "failed", "skipped")}
    summary["verdicts"] = [gate.as_dict() for gate in found]
    return summary, found


def near(rows: Rows, horizon: float) -> tuple[int, int]:
    """Return how many rows precede a failure, and of how many that is known."""
    positive, known = within_horizon(rows, horizon)
    return int((positive & known).sum()), int(known.sum())


def share(near: Sequence[int] | Ints) -> float | None:
    """Return the first of two counts as a share of the second; None of nothing."""
    return float(near[0] / near[1]) if near[1] else None


def counts(source: FleetSource, site: str, made: Record, rows: Rows) -> dict[str, Any]:
    """Return what there is of a site, and what became of it."""
    ended = Counter(life.end for _, _, life in made.lives)
    failed = [life for _, _, life in made.lives if life.end == FAILURE]
    latent, profile = made.latent, source.spec(site).profile
    assets = Counter(latent.kind[np.unique(made.machine, return_index=True)[1]].tolist())
    running = len(made.time) * source.step_days
    return {
        "rows": len(made.time),
        "machines": profile.machines,
        "life_days": profile.life_days,
        "failures": ended[FAILURE],
        "maintenance": ended[MAINTENANCE],
        "failures_per_machine_year": 365 * len(failed) / running if running else None,
        "link_failures": len(made.links),
        "missing": float(np.isnan(made.values).mean()),
        "by_mode": _named(Counter(life.mode for life in failed), MODES),
        "by_scenario": _named(Counter(life.scenario for life in failed), SCENARIOS),
        "assets": _named(assets, KINDS),
        "sha256": rows.sha256(),
    }


def _named(counts: Counter[int], names: Sequence[str]) -> dict[str, int]:
    return {name: counts[index] for index, name in enumerate(names) if counts[index]}


def check(source: FleetSource, site: str, made: Record, rows: Rows) -> list[gates.Gate]:
    """Return the verdicts on one site, but for whether it can be reproduced."""
    profile = source.spec(site).profile
    return [
        *gates.completeness(site, made),
        *gates.events(site, profile, made),
        *gates.scenario_recall(site, profile, made),
        *gates.link_failures(site, profile, made),
        gates.single_feature(site, rows, HORIZON),
    ]


def _read_back(folder: Path, source: FleetSource, site: str, rows: Rows) -> gates.Gate:
    """Generate once more, and compare with what a run would read."""
    again = source.rows(site).sha256()
    written = source.labelled(site, *FleetFolder(folder).readings(site)).sha256()
    return gates.reproducible(site, written if written == rows.sha256() else "", again)


def _judge(verdicts: Sequence[gates.Gate], options: Sequence[str]) -> None:
    """Raise for the first gate that failed: the user's mistake if an option can explain it."""
    for gate in verdicts:
        if gate.status == "failed":
            mine = any(option.lstrip("+").startswith(gate.settings) for option in options)
            raise (DataError if mine else FedPdmError)(f"{gate.sentence}; nothing was written")


def _train(folder: str, sites: Sequence[str], seed: int, options: Sequence[str]) -> str:
    """Return the command that trains on the files of a folder."""
    from fedpdm.config.values import quoted

    run = ["data=fleet", quoted("data.path", folder), f"site={','.join(sites)}", f"seed={seed}"]
    return " ".join(["python -m fedpdm.simulate", *map(shlex.quote, [*run, *options])])
