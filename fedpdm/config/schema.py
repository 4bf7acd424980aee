"""The config's schema: which options and keys exist, and which arguments a class takes."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fedpdm.config.imports import check_kind
from fedpdm.config.kinds import check_arguments, check_plain, short
from fedpdm.errors import ConfigError

OFF = {"baselines": "baselines.controls=[] or baselines.max_plants=0 for a run without any"}
"""Blocks that people switch off: how it is done."""
NULL_BLOCKS = {"faults", "transforms", "features", "model.config", "baselines.minirocket",
               "baselines.training", "baselines.alone.training", "evaluate", "monitor",
               "training.augment"}  # fmt: skip
"""Blocks whose null says: nothing of it, or all of it as usual."""
HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}
"""Keys of a ``_target_`` block that are no arguments."""


def conf_dir() -> Path:
    """Return the folder with ``config.yaml``, as an absolute path.

    A wheel carries it as ``fedpdm/conf``; a checkout and an editable install have it beside
    the package. ``pkg://`` and a relative ``../conf`` each fail in one of the ways in which
    people start fedpdm (docs/decisions/001-library-and-two-apps.md).

    Raises:
        ConfigError: it is in neither place.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError(
        f"fedpdm is not whole: there is no conf/config.yaml in {package} or beside it; install "
        "fedpdm again, or run it from a complete checkout"
    )


def check_keys(cfg: DictConfig) -> None:
    """Refuse keys that nothing reads: at the top level and in every block of fixed keys.

    Hydra refuses them on the command line only. Blocks with a ``_target_`` are checked against
    the signature of their class (``refuse_unknown``), sites by their data set.

    Raises:
        ConfigError: names the key, its block and the nearest key there is.
    """
    given: Any = OmegaConf.to_container(cfg, resolve=False)
    check_plain(given)
    _check_block("", given, _keys_of(conf_dir()))


@cache
def _keys_of(folder: Path) -> dict[str, Any]:
    """Return the keys that a config may have, by block; an empty block is checked elsewhere."""
    known: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=False)
    groups = {next(iter(choice)) for choice in known.pop("defaults") if isinstance(choice, dict)}
    del known["hydra"]
    training = dict.fromkeys(known["training"])
    of_model = [k for k in training if f"${{model.training.{k}}}" == known["training"][k]]
    known["model"] = {"model_type": "", "config": {}, "training": dict.fromkeys(of_model)}
    known["baselines"]["training"] = known["baselines"]["alone"]["training"] = training
    named = {group for group in groups if not group.startswith("override ")}
    known |= {name: {} for name in named - {"site", "experiment", "debug", "model"}}
    return dict(known)


def _check_block(place: str, block: Any, known: Mapping[str, Any]) -> None:
    for key, value in block.items():
        if key not in known:
            hint = suggestion(str(key), sorted(known))
            raise ConfigError(f"there is no option {place}{key}; {hint}")
        if not isinstance(known[key], dict) or (value is None and place + key in NULL_BLOCKS):
            continue
        if not isinstance(value, dict):
            hint = f"; did you mean site={value}?" if key == "sites" else ""
            raise ConfigError(f"{needs_block(f'{place}{key}')}{hint}")
        if known[key]:
            _check_block(f"{place}{key}.", value, known[key])


def needs_block(key: str) -> str:
    """Say that a key holds settings, and how one is set or all are switched off."""
    return f"{key} is a block of settings: {OFF.get(key, f'{key}.NAME=VALUE sets one of them')}"


def suggestion(name: str, names: Collection[str]) -> str:
    """Return a hint at the nearest of the names, and all of them."""
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}there {'is' if len(names) == 1 else 'are'} {', '.join(names) or 'none'}"


def located(path: str, what: str) -> Any:
    """Return the class or function that a dotted path names.

    Args:
        path: for example ``mylab.drift.Drift``.
        what: the key of the config that names it.

    Raises:
        ConfigError: the module or the name in it does not exist, or the module fails.
    """
    what = f"{what}: _target_={short(path)}"
    module, _, name = path.rpartition(".")
    if not module:
        raise ConfigError(f"{what} must be a dotted path: package.module.Class")
    try:
        return pkgutil.resolve_name(path)
    except Exception:  # said below in one sentence
        pass
    try:
        home = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{what}: there is no module {error.name!r}, which it needs; install its "
            "package, or set PYTHONPATH to its folder"
        ) from None
    except Exception as error:
        raise ConfigError(
            f"{what}: module {module} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    close = difflib.get_close_matches(name, vars(home), n=1)
    hint = f"; did you mean {close[0]}?" if close else ", or it is in another module"
    raise ConfigError(f"{what}: module {module} has no class or function {name}{hint}")


def arguments_of(target: Any) -> tuple[set[str], bool]:
    """Return the arguments that a class or function takes by name, and whether it takes any.

    A class that hands ``**rest`` on to its base takes those of the base, too.
    """
    makers: list[Any] = [target]
    if isinstance(target, type):
        classes = [cls for cls in target.__mro__ if cls is not object]
        makers = [vars(cls)["__init__"] for cls in classes if "__init__" in vars(cls)]
        if not makers:
            return set(), any("__new__" in vars(cls) for cls in classes)
    names: set[str] = set()
    for maker in makers:
        try:
            parameters = inspect.signature(maker).parameters.values()
        except (TypeError, ValueError):  # written in C
            return names, True
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names |= {p.name for p in parameters if p.kind in by_name}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names - {"self"}, False
    return names - {"self"}, True


def refuse_unknown(node: Any, what: str, given: Collection[str] = ()) -> None:
    """Refuse arguments of a ``_target_`` block, and of those inside, that its class lacks.

    Args:
        node: plain values; anything that is no such block passes.
        what: its key in the config.
        given: arguments that the library passes itself.

    Raises:
        ConfigError: names the argument and the nearest one, or says that there is no such class.
    """
    if isinstance(node, Mapping):
        if node.get("_target_") is not None:
            target = located(str(node["_target_"]), what)
            check_kind(what, target)
            names, anything = arguments_of(target)
            unknown = sorted({str(key) for key in node} - names - HYDRA_KEYS)
            if unknown and not anything:
                hint = suggestion(unknown[0], sorted(names - set(given)))
                raise ConfigError(
                    f"{what}.{unknown[0]} is no argument of {target.__name__}; {hint}"
                )
            check_arguments(target, node, what)
    inside = node if isinstance(node, Mapping) else {}
    if isinstance(node, list):
        inside = dict(enumerate(node))
    for key, value in inside.items():
        refuse_unknown(value, f"{what}.{key}")
