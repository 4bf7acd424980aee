"""What may follow a command line: a shell asks at every press of the tab key.

Nothing is imported that a line does not need: PyTorch never, Hydra for overrides only.
"""

from __future__ import annotations

import glob
import importlib
import re
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpdm.__main__ import COMMANDS
from fedpdm.config.arguments import flags_of, subcommands

OF_SIMULATE = ("--cfg", "--config-dir", "--help", "--multirun", "--out")
PARSERS = {"predict": "fedpdm.predict.arguments"}
"""Where a command's parser lies, if not beside its ``main``."""
RUNS = ("resume", "split", "init", "init.run")
"""Keys whose value is a run folder."""
MANIFEST = "manifest.json"


def candidates(line: str) -> list[str]:
    """Return the words that the last word of a line may become; none: names of files.

    Args:
        line: up to the cursor, ``python -m fedpdm.simulate strategy=fed`` for example.
    """
    words = line.split()
    last = "" if not words or line[-1:].isspace() else words.pop()
    program, *words = words or [""]
    if "-m" in words and Path(program).name.startswith("python"):
        module, *words = words[words.index("-m") + 1 :] or [""]
        if not module:
            return _starting(last, ("fedpdm", *(f"fedpdm.{name}" for name in COMMANDS)))
        room, _, command = module.partition(".")
        if room != "fedpdm":
            return []
        words = [command, *words] if command else words
    if not words:
        return _starting(last, (*COMMANDS, "--help", "--version"))
    command, *words = words
    return _starting(last, _of_command(command, words, last)) if command in COMMANDS else []


def _starting(last: str, words: Iterable[str]) -> list[str]:
    return sorted({word for word in words if word.startswith(last)})


def _of_command(command: str, words: Sequence[str], last: str) -> Iterable[str]:
    """Return what may follow the words after a command."""
    if command == "simulate":
        return OF_SIMULATE if last.startswith("-") else overrides(words, last)
    if command == "strategies":
        from fedpdm.catalogue import GROUPS, ORDINARY
        from fedpdm.config.command_line import options

        return {name for group in GROUPS for name in options(group, words)} - ORDINARY
    module = importlib.import_module(PARSERS.get(command, COMMANDS[command][0]))
    if not hasattr(module, "parser"):
        return []
    parser: ArgumentParser = module.parser()
    if inner := subcommands(parser):
        if not words:
            return [*inner, "--help"]
        if words[0] not in inner:
            return []
        parser = inner[words[0]]
        if command == "data":
            check = words[0] == "check" and not last.startswith("-")
            return overrides(words[1:], last) if check else flags_of(parser)
        words = words[1:]
    if last.startswith("-"):
        return flags_of(parser)
    if command == "ablate" and any("=" in word for word in (*words, last)):
        return overrides(words, last)
    several = command in ("compare", "ablate")
    return [] if not several and any(not word.startswith("-") for word in words) else runs(last)


def overrides(words: Sequence[str], last: str) -> list[str]:
    """Return overrides that begin like the last word: groups, keys, options and values.

    Args:
        words: the others on the line; what they choose has keys of its own.
        last: as ``strategy=fed``, ``training.``, ``site=detroit,``.
    """
    from fedpdm.config.command_line import groups, options

    sign = re.match(r"[+~]*", last)[0]  # type: ignore[index]  # it matches nothing, too
    key, equals, value = last[len(sign) :].partition("=")
    if equals and key in groups():
        before = re.match(r"(?:.*[,\[])?", value)[0]  # type: ignore[index]
        taken = re.split(r"[,\[]", before)
        return [f"{sign}{key}={before}{o}" for o in options(key, words) if o not in taken]
    if equals and key in RUNS:
        return [f"{sign}{key}={run}" for run in runs(value)]
    node: Any = _config(words)
    *parents, _ = (key if equals else key + "_").split(".")
    for name in (*parents, key.rpartition(".")[2]) if equals else parents:
        node = node.get(name) if isinstance(node, Mapping) else None
    if equals:
        values = ("true", "false") if isinstance(node, bool) else (node,)
        simple = isinstance(node, str | int | float) and " " not in str(node)
        return [f"{sign}{key}={each}" for each in values] if simple else []
    prefix = "".join(f"{name}." for name in parents)
    names = [f"{group}=" for group in groups()]
    for name, value in node.items() if isinstance(node, Mapping) else ():
        if name != "_target_":
            names.append(f"{prefix}{name}{'.' if isinstance(value, Mapping) and value else '='}")
    return [f"{sign}{name}" for name in names]


def _config(words: Sequence[str]) -> dict[str, Any]:
    """Return the config of what the words choose; of nothing where they cannot be read."""
    from fedpdm.config.command_line import config_dirs, groups
    from fedpdm.config.compose import compose
    from fedpdm.config.values import plain

    chosen = [word for word in words if word.partition("=")[0].lstrip("+") in groups()]
    try:
        cfg = compose([*(f"--config-dir={folder}" for folder in config_dirs(words)), *chosen])
    except Exception:
        cfg = compose([])
    found: dict[str, Any] = plain(cfg)
    return found


def runs(text: str) -> list[str]:
    """Return run folders, and folders that hold some, whose paths begin with a text."""
    text = text or "runs/"
    found = [Path(path) for path in glob.glob(f"{glob.escape(text)}*/")]
    named = [str(path) for path in found if (path / MANIFEST).exists()]
    holding = [path for path in found if any(path.glob(f"*/{MANIFEST}"))]
    return [*named, *(f"{path}/" for path in holding if str(path) not in named)]
