"""Composes the config with Hydra: ``site=a,b``, our own help, and errors in one sentence."""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fedpdm.config.command_line import (
    ANY_SITE,
    check_headers,
    chosen_sites,
    config_dirs,
    groups,
    options,
    rewrite,
    swept,
)
from fedpdm.config.schema import (
    arguments_of,
    check_keys,
    conf_dir,
    located,
    needs_block,
    suggestion,
)
from fedpdm.config.sites import leave_out_sites, name_sites
from fedpdm.config.values import OF_ANY_SITE
from fedpdm.errors import ConfigError, FedPdmError

VERSION_BASE = "1.3"


def run_name() -> str:
    """Return a fresh ``<time>-<random>``: eight runs of one second get eight folders."""
    return f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{secrets.token_hex(3)}"


def register() -> str:
    """Make the resolver known that ``conf/config.yaml`` uses; return the name it resolves to."""
    name = run_name()
    OmegaConf.register_new_resolver("fedpdm_run", lambda: name, replace=True)
    return name


def compose(overrides: Sequence[str], config_dir: str | Path | None = None) -> DictConfig:
    """Return the config for overrides, without running anything (for notebooks and tests).

    Args:
        overrides: as on the command line, for example ``["site=detroit,houston", "rounds=5"]``,
            ``--config-dir=FOLDER`` included.
        config_dir: a folder with options of your own.

    Raises:
        ConfigError: an override is unknown or cannot be read.
    """
    register()
    GlobalHydra.instance().clear()
    arguments = [*overrides] if config_dir is None else [f"--config-dir={config_dir}", *overrides]
    words = [word for word in arguments if not word.startswith("--config-dir=")]
    try:
        rewritten = [*searched(arguments), *rewrite(words)]
        check_headers(rewritten, config_dirs(arguments))
        with hydra.initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
            cfg = hydra.compose("config", overrides=rewritten)
            check(cfg, rewritten)
            from fedpdm.config.parts import add_parts  # it composes, too

            add_parts(cfg, rewritten)
            return cfg
    except Exception as error:
        sentence = translate(error, arguments)
        if sentence is error:
            raise
        raise sentence from error


def searched(arguments: Sequence[str]) -> list[str]:
    """Return the override that makes Hydra look into the folders of ``--config-dir``, too.

    Raises:
        ConfigError: one is not a folder.
    """
    folders = config_dirs(arguments)
    for folder in folders:
        if not Path(folder).is_dir():
            raise ConfigError(f"--config-dir {folder} is not a folder")
    places = ",".join(f"'file://{Path(folder).resolve()}'" for folder in folders)
    return [f"hydra.searchpath=[{places}]"] if folders else []


@dataclass(frozen=True)
class Job:
    """One run of a command.

    Attributes:
        overrides: as ``rewrite`` returns them.
        folder: the run folder; Hydra has made it.
        sweep: the folder of all runs with ``-m``, else None.
        name: with ``-m`` its number, of how many, and what sets it apart: ``2/4  seed=1``.
    """

    overrides: list[str]
    folder: Path
    sweep: Path | None
    name: str = ""

    @classmethod
    def now(cls) -> Job:
        """Return the run that Hydra is at."""
        settings = HydraConfig.get()
        words, folder = list(settings.overrides.task), Path(settings.runtime.output_dir)
        if settings.mode != RunMode.MULTIRUN:
            return cls(words, folder, None)
        grid = [f"{key}={value}" for key, value in (settings.sweeper.get("params") or {}).items()]
        keys, total = swept([*grid, *sys.argv[1:]])
        own = [word for word in words if word.lstrip("+~").partition("=")[0] in keys]
        name = f"{settings.job.num + 1}/{total}  {' '.join(own)}".rstrip()
        return cls(words, folder, Path(settings.sweep.dir), name)


def run_hydra(task: Callable[[DictConfig, Job], object], arguments: Sequence[str]) -> None:
    """Run ``task`` under Hydra: one run, or one per combination with ``-m``.

    A combination that fails does not end a sweep; the first failure is raised at its end.

    Raises:
        ConfigError: Hydra refuses the command line.
        FedPdmError: what the task raises.
    """
    name = register()
    rewritten = rewrite(arguments)
    searched(arguments)
    check_headers(rewritten, config_dirs(arguments))
    if len(folders := config_dirs(arguments)) > 1:  # Hydra would look into the last one only
        raise ConfigError(f"--config-dir is given twice ({', '.join(folders)}): name one folder")
    failures: list[Exception] = []

    def guarded(cfg: DictConfig) -> object:
        try:
            return task(cfg, Job.now())
        except Exception as error:  # Hydra would print a line of its own about it
            failures.append(error)
            return None

    before, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    # Hydra prints its own errors and exits with 1; asked for full errors, it raises them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["fedpdm", *rewritten]
    try:
        main = hydra.main(
            version_base=VERSION_BASE, config_path=str(conf_dir()), config_name="config"
        )
        main(guarded)()
    except Exception:
        _remove_empty_sweep(rewritten, Path("runs") / name)
        raise
    finally:
        sys.argv = before
        os.environ.pop("HYDRA_FULL_ERROR")
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full
    if failures:
        raise failures[0]


def _remove_empty_sweep(overrides: Sequence[str], folder: Path) -> None:
    """Remove what Hydra wrote for jobs of which none could be composed.

    Args:
        overrides: as ``rewrite`` returns them.
        folder: of the sweep, unless they name another.
    """
    for override in overrides:
        key, _, value = override.partition("=")
        folder = Path(value) if key == "hydra.sweep.dir" else folder
    written = folder / "multirun.yaml"
    if {*folder.glob("*")} == {written}:
        written.unlink()
        folder.rmdir()


def check(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse keys that nothing reads, values of another kind than the default, and lost sites.

    Args:
        cfg: the composed config.
        overrides: as ``rewrite`` returns them.

    Raises:
        ConfigError: names the key or the site, and the way out.
    """
    chosen = chosen_sites(overrides)
    name_sites(cfg, chosen)
    leave_out_sites(cfg, chosen, overrides)
    for name in chosen:  # first: such a yaml's keys end up in strange places
        if OmegaConf.is_dict(cfg.sites) and name not in cfg.sites:
            raise ConfigError(
                f"site={name}: {name}.yaml defines no site {name}; its very first line must be "
                f"'# @package sites', and below it one block '{name}:'"
            )
    check_keys(cfg)
    check_types(cfg, overrides)


def check_types(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse text where the default is a number: ``rounds=ten``, ``strategy.eta=big``.

    Raises:
        ConfigError: names the key, the value and the default.
    """
    choices = _choices(overrides)
    if not (changed := _changed([o for o in overrides if o not in choices])):
        return
    default = _default(choices)
    for key in changed:
        old, new = _select(default, key), _select(cfg, key)
        if (own := ANY_SITE.match(f"{key}=")) and own[1] not in (default.sites or {}):
            hint = suggestion(own[1], [str(name) for name in default.sites or {}])
            raise ConfigError(f"{key}: this run has no site {own[1]}; {hint}")
        numeric = isinstance(old, int | float) and not isinstance(old, bool)
        if numeric and (isinstance(new, str | bool) or OmegaConf.is_config(new)):
            raise ConfigError(f"{key}={new} must be a number (default {old})")
        if isinstance(old, bool) and not isinstance(new, bool):
            raise ConfigError(f"{key}={new} must be true or false (default {str(old).lower()})")


def _default(choices: Sequence[str]) -> DictConfig:
    """Compose the choices alone; once if all are of our own yamls, which stay as they are."""
    places = GlobalHydra.instance().config_loader().get_search_path().get_path()
    own = any(place.provider == "command-line" for place in places)
    if own or any("hydra.searchpath" in choice for choice in choices):
        return hydra.compose("config", overrides=[*choices])
    return _default_of_ours(*choices)


@lru_cache
def _default_of_ours(*choices: str) -> DictConfig:
    return hydra.compose("config", overrides=[*choices])


def _choices(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that choose an option of a group, or say where options lie."""
    choosing = {*groups(), "hydra.searchpath"}
    return [o for o in overrides if o.lstrip("+~").split("=")[0].split("@")[0] in choosing]


def _changed(overrides: Sequence[str]) -> list[str]:
    keys = [o.lstrip("+").split("=")[0] for o in overrides if "=" in o and not o.startswith("-")]
    return [key for key in keys if key.split(".")[0] not in ("hydra",)]


def _select(cfg: DictConfig, key: str) -> object:
    try:
        return OmegaConf.select(cfg, key)
    except Exception:
        return None


def translate(error: Exception, arguments: Sequence[str]) -> Exception:
    """Return a config error in one sentence for what Hydra or OmegaConf raised.

    Errors of other kinds are returned as they are.
    """
    from antlr4.error.Errors import ParseCancellationException
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, FedPdmError):
        return error
    if isinstance(error, yaml.YAMLError):
        return ConfigError(f"a yaml file cannot be read: {' '.join(str(error).split())}")
    known = (HydraException, OmegaConfBaseException, ParseCancellationException)
    chain = [error]
    while chain[-1].__cause__ is not None and isinstance(chain[-1].__cause__, Exception):
        chain.append(chain[-1].__cause__)
    if not any(isinstance(e, known) for e in chain):
        return error
    text = "\n".join(str(e) for e in chain)
    if match := re.search(r"Could not (?:find|load) '([\w/.@-]+)/([^/'\n]+)'", text):
        group, name = match[1], match[2]
        return ConfigError(
            f"{group}={name} does not exist; {suggestion(name, options(group, arguments))}"
        )
    if match := re.search(r"[Kk]ey '([^']+)' is not in struct", text):
        path = re.search(r"full_key: (\S+)", text)
        key = path[1] if path else match[1]
        return ConfigError(f"there is no option {key!r}; {_siblings(key, arguments)}")
    if match := re.search(r"Could not override '([^']+)'", text):
        return ConfigError(f"there is no option {match[1]!r}; {_siblings(match[1], arguments)}")
    if match := re.search(r"Could not find '([\w/@-]+)'", text):
        return ConfigError(
            f"there is no option group {match[1]!r}; there are {', '.join(groups())}"
        )
    if match := re.search(r"Error merging override (\w+)=", text):
        return ConfigError(needs_block(match[1]))
    if match := re.search(r"Interpolation key '([^']+)' not found", text):
        return ConfigError(
            f"{match[1]} is missing: it has no default where the yaml of "
            f"{match[1].partition('.')[0]} lacks it; write it there, or on the command line"
        )
    if "Ambiguous value for argument" in text:
        return ConfigError(
            f"{text.split(chr(39))[1]} names several values: add -m to run each, or write [A,B] "
            "for a list"
        )
    lines = [line for line in text.splitlines() if line.strip()]
    return ConfigError(f"the command line cannot be read: {lines[0]}" if lines else "bad options")


def _siblings(key: str, arguments: Sequence[str]) -> str:
    """Say what stands beside a key that does not exist, with the options that were chosen."""
    parent, _, last = key.rpartition(".")
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        try:
            chosen = [*searched(arguments), *_choices(rewrite(arguments))]
            cfg = hydra.compose("config", overrides=chosen)
        except Exception:
            cfg = hydra.compose("config")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if OmegaConf.is_dict(node) and node.get("_target_"):
        known, anything = arguments_of(located(node["_target_"], parent))
        if anything or last in known:
            return f"its yaml does not set it: write +{key}=VALUE"
    names = sorted(str(name) for name in node) if OmegaConf.is_config(node) else []
    if re.fullmatch(r"sites\.[^.]+", parent) and names:
        names = sorted({*names, *OF_ANY_SITE})
    if last in names:
        return f"a block that is given whole holds all its values: write them in {key}={{…}}"
    return suggestion(last, names) if names else "see --help"
