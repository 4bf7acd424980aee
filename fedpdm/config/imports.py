"""A user's own modules, imported in every process that has a part in a run.

    imports=[mylab]     in a config: commands, sweeps, Python, workers of engine=ray, flwr run
    --imports mylab     of ``predict``; ``imports="mylab"`` of a supernode's ``--node-config``

Such a module registers what it brings: models, client halves of strategies, baselines, ….
A config that came in a message or lies in a run folder is data, whoever wrote it: it can name
classes of fedpdm, of Flower and of what was imported on the spot, and nothing else.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from inspect import isfunction
from typing import Any

from fedpdm.errors import ConfigError

OURS = {"fedpdm", "flwr"}
"""Packages whose classes any config can name."""

MODS = "flwr.clientapp.mod."
"""Flower's client mods are functions."""

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


def refuse_foreign(config: Any, imports: Sequence[str], way_out: str) -> None:
    """Refuse a config, from a message or a run folder, that names classes of other packages.

    Args:
        config: plain values.
        imports: modules that were imported on the spot; their packages are allowed.
        way_out: what to do, with ``{}`` for the package that is missing.

    Raises:
        ConfigError: a ``_target_`` is not allowed.
    """
    for target in targets(config):
        if allowed(target, imports) is None:
            raise ConfigError(
                f"_target_={target} is no class of fedpdm, Flower or imports=[…]; if you know and "
                f"trust this code, {way_out.format(target.partition('.')[0])}"
            )


def allowed(target: str, imports: Sequence[str]) -> Any:
    """Return the class or client mod that a config of others may name, or None.

    Args:
        target: its dotted path.
        imports: modules that were imported on the spot; their packages are allowed.
    """
    own = {name.partition(".")[0] for name in imports}
    packages = OURS | own
    if target.partition(".")[0] not in packages:
        return None
    from hydra.utils import get_object  # workers start without Hydra

    try:
        found = get_object(target)
    except Exception:  # there is no such thing
        return None
    # A path through a package can lead out of it again: fedpdm.storage.os.system.
    home = str(getattr(found, "__module__", ""))
    kind = isinstance(found, type) and home.partition(".")[0] in packages
    mod = isfunction(found) and (home.startswith(MODS) or home.partition(".")[0] in own)
    return found if kind or mod else None


def targets(config: Any) -> Iterator[str]:
    """Yield every ``_target_`` in a config of plain values, and every client mod by its name."""
    if isinstance(config, dict):
        yield from (mod for mod in config.get("client_mods") or () if isinstance(mod, str))
        if config.get("_target_") is not None:
            yield str(config["_target_"])
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from targets(value)
