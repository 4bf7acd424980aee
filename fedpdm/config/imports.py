"""Imports a user's own modules in every process of a run, and limits what a config may name.

    imports=[mylab]     in a config: commands, sweeps, Python, workers of engine=ray, flwr run
    --imports mylab     of ``predict``; ``imports="mylab"`` of a supernode's ``--node-config``

Such a module registers what it brings: models, client halves of strategies, baselines, ….
A config that came in a message or lies in a run folder is data, whoever wrote it: it can name
classes of fedpdm, of Flower and of what was imported on the spot, and nothing else.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from inspect import isfunction
from typing import Any

from fedpdm.errors import ConfigError, FedPdmError, OwnCodeError

OURS = {"fedpdm", "flwr"}

MODULES = ("flwr.serverapp.strategy", "flwr.clientapp.mod")
"""Flower's modules whose public names any config can name."""

KINDS: dict[str, tuple[str, ...]] = {
    "task": ("fedpdm.tasks.base:Task",),
    "strategy": ("flwr.serverapp.strategy:Strategy",),
    "data": ("fedpdm.data.sources.base:Source",),
    "partition": ("fedpdm.data.partition.base:Partition",),
    "features": ("fedpdm.data.features:WindowFeatures",),
    "engine": ("flwr.serverapp:Grid", "fedpdm.engines.auto:Auto"),
    "server": ("fedpdm.server.base:Server",),
    "clock": ("fedpdm.server.clock:Clock",),
    "objective": ("fedpdm.training.objective:Objective",),
    "personal": ("fedpdm.training.personal.base:Personal",),
    "travels": ("fedpdm.models.policy:ParameterPolicy",),
    "tracker": ("fedpdm.trackers:Tracker",),
    "privacy": ("fedpdm.privacy.base:Privacy",),
    "transforms": ("fedpdm.transforms.base:Transform",),
    "contribution": ("fedpdm.server.valuation:Valuation",),
    "attack": ("fedpdm.client.attacks.base:Attack",),
    "client_mods": (),
}
"""The blocks of a config that name a class, and what it must be."""

_imported: dict[str, None] = {}


def names_of(value: Any) -> list[str]:
    """Return the modules that ``imports`` names: a list, or text such as ``a,b`` or ``[a,b]``.

    Raises:
        ConfigError: it holds something else than names of modules.
    """
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    parts = value if listed else str(value or "").strip("[] ").split(",")
    names = [str(part).strip(" '\"") for part in parts if part != ""]
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(
                f"imports: {name!r} is not a module name; write imports=[mylab,mylab.models]"
            )
    return names


def import_all(names: Iterable[str]) -> None:
    """Import modules in their order.

    Args:
        names: dotted names.

    Raises:
        ConfigError: one does not exist here, or cannot be imported.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise ConfigError(f"imports: {name} needs {error.name}, which is missing") from None
            raise ConfigError(
                f"imports: there is no module {error.name!r} for {sys.executable}; install it "
                "there, start python -m in its folder, or set PYTHONPATH to that folder"
            ) from None
        except Exception as error:
            raise ConfigError(f"imports: {name} fails: {type(error).__name__}: {error}") from error
        note(name)


def note(name: str) -> None:
    """Remember that this process uses a module, so that its workers import it, too."""
    if name.partition(".")[0] not in {*OURS, "__main__", "builtins"}:
        _imported[name] = None


def imported() -> list[str]:
    """Return the modules of others that this process uses, in the order of their import."""
    return list(_imported)


def own_code_error(error: Exception) -> Exception:
    """Return an error in one sentence for what a user's own class raised, others as they are.

    ``HYDRA_FULL_ERROR=1`` asks for the traceback: then the error stays as it is, too.
    """
    trace = error.__traceback__
    if isinstance(error, FedPdmError) or os.environ.get("HYDRA_FULL_ERROR") == "1":
        return error
    for frame, line in traceback.walk_tb(trace):
        module = str(frame.f_globals.get("__name__"))
        if any(f"{module}.".startswith(f"{name}.") for name in _imported):
            code, said = frame.f_code, " ".join(str(error).split()) or "no message"
            return OwnCodeError(
                f"{module}.{code.co_qualname} ({code.co_filename}:{line}) raised "
                f"{type(error).__name__}: {said}; HYDRA_FULL_ERROR=1 shows the traceback"
            )
    return error


def refuse_foreign(config: Mapping[str, Any], imports: Sequence[str], way_out: str) -> None:
    """Refuse a config, from a message or a run folder, that names other code than it may.

    Args:
        config: plain values, by block.
        imports: modules that were imported on the spot.
        way_out: what to do, with ``{}`` for the module that is missing.

    Raises:
        ConfigError: a ``_target_`` is not in the registry, or not of the kind of its block.
    """
    for block, value in config.items():
        nested = block in ("transforms", "client_mods") and isinstance(value, list | dict)
        parts = (value.values() if isinstance(value, dict) else value) if nested else [value]
        for part in parts:
            for target, outermost in targets(part, block == "client_mods"):
                if lookup(block, target, imports, nested=not outermost) is None:
                    raise ConfigError(
                        f"{block}: _target_={target} is not one of the classes that this block can "
                        "name, of fedpdm, Flower or imports=[…]; if you know and trust this code, "
                        f"{way_out.format(target.rpartition('.')[0] or target)}"
                    )


def lookup(block: str, target: str, imports: Sequence[str], nested: bool = False) -> Any:
    """Return the class or client mod that others may name in a block, or None.

    The name must be the exact one: a module of the registry, and a class or mod that is defined
    there or below. Attributes are never walked through: ``fedpdm.storage.os`` is no module.

    Args:
        block: key at the top of the config: says the kind.
        target: the dotted name.
        imports: modules that were imported on the spot; they and what is below them count.
        nested: an argument of another target, which may be of any kind.
    """
    home, _, name = target.rpartition(".")
    foreign = any(f"{home}.".startswith(f"{own}.") for own in imports)
    if block not in KINDS or not (home in MODULES or home in our_modules() or foreign):
        return None
    try:
        found = vars(importlib.import_module(home)).get(name)
    except Exception:  # there is no such module, or it lacks a package
        return None
    where = str(getattr(found, "__module__", ""))
    if getattr(found, "__qualname__", None) != name or not f"{where}.".startswith(f"{home}."):
        return None
    if not isinstance(found, type):
        return found if block == "client_mods" and isfunction(found) and not nested else None
    if block == "client_mods" and (foreign or home == MODULES[1]):
        return found
    bases = [base for kinds in KINDS.values() for base in kinds] if nested else KINDS[block]
    return found if (foreign and nested) or any(map(partial(_is, found), bases)) else None


def check_kind(block: str, found: Any) -> None:
    """Refuse a class of another kind than a block's; a function passes, what it makes does not.

    Args:
        block: its key in the config, for example ``task`` or ``transforms.clip``.
        found: what its ``_target_`` names, or the class of what that made.

    Raises:
        ConfigError: names both.
    """
    outer, _, name = block.partition(".")
    bases = KINDS.get(outer if outer == "transforms" or not name else "", ())
    chooses = outer == "engine" and hasattr(found, "choose")
    if isinstance(found, type) and bases and not chooses and not any(_is(found, b) for b in bases):
        kinds = " or ".join(base.replace(":", ".") for base in bases)
        raise ConfigError(f"{block}: {found.__module__}.{found.__qualname__} is no {kinds}")


def _is(found: type, base: str) -> bool:
    """Return whether a class is one, or has all methods where the kind is a protocol."""
    kind: Any = pkgutil.resolve_name(base)
    if getattr(kind, "_is_protocol", False):
        return all(
            callable(getattr(found, name, None)) for name in vars(kind) if not name.startswith("_")
        )
    return issubclass(found, kind)


@cache
def our_modules() -> frozenset[str]:
    """Return the modules whose classes conf/ or a base class of ``KINDS`` names."""
    from fedpdm.config.schema import conf_dir  # workers start without Hydra

    text = "\n".join(file.read_text("utf-8") for file in conf_dir().rglob("*.yaml"))
    named = re.findall(r"_target_: (fedpdm[\w.]+)", text)
    bases = [base.replace(":", ".") for kinds in KINDS.values() for base in kinds]
    return frozenset(n.rpartition(".")[0] for n in [*named, *bases] if n.startswith("fedpdm."))


def targets(config: Any, mod: bool = False, outermost: bool = True) -> Iterator[tuple[str, bool]]:
    """Yield each ``_target_`` in plain values, and whether it is the outermost one.

    Args:
        config: plain values.
        mod: a text is the name of a client mod.
        outermost: no target stands around it.
    """
    if mod and isinstance(config, str):
        yield (config if "." in config else f"{MODULES[1]}.{config}"), True
    if isinstance(config, dict):
        if config.get("_target_") is not None:
            yield str(config["_target_"]), outermost
            outermost = False
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from targets(value, outermost=outermost)
