"""The catalogue of methods: what each does and changes, from its yaml and its docstring.

A method is one override: an option of one of ``GROUPS``. Its yaml says in the first comment what
it does, and its arguments; the module of the class that it names says the rest. Where Flower
wrote the class, the yaml does: after an empty comment line. So a method of your own, in
``--config-dir``, is listed like ours.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from flwr.serverapp.strategy import FedAvg

from fedpdm.catalogue import GROUPS, ORDINARY
from fedpdm.config.command_line import config_dirs, options
from fedpdm.config.schema import conf_dir, located, suggestion
from fedpdm.errors import ConfigError
from fedpdm.strategies.local_terms import makers

HOOKS = ("aggregate_train", "combine")
"""What a server half overrides that changes how updates become a model."""


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        group: its config group.
        name: of the option.
        file: its yaml.
    """

    group: str
    name: str
    file: Path

    @property
    def override(self) -> str:
        """What a person types."""
        return f"{self.group}={self.name}"

    @cached_property
    def text(self) -> str:
        """The yaml."""
        return self.file.read_text("utf-8")

    @cached_property
    def comment(self) -> tuple[list[str], list[str]]:
        """The lines that the yaml begins with: its first paragraph, and what comes after it."""
        lines = takewhile(lambda line: line.startswith("#"), self.text.splitlines())
        texts = [line[1:].removeprefix(" ").rstrip() for line in lines if "@package" not in line]
        end = texts.index("") if "" in texts else len(texts)
        return texts[:end], texts[end + 1 :]

    @property
    def header(self) -> list[str]:
        """The first paragraph of the comment that the yaml begins with."""
        return self.comment[0]

    @property
    def command(self) -> str:
        """What a person types to try it: what its first paragraph says, or its override alone."""
        said = [line.strip() for line in self.header if "python -m" in line]
        return said[0] if said else f"python -m fedpdm.simulate {self.override}"

    @property
    def line(self) -> str:
        """What it does, in one sentence."""
        whole = " ".join(line for line in self.header if "python -m" not in line)
        found = re.match(r"(.+?[.])(?=\s+[A-Z]|$)(?<!al\.)", whole)
        return (found[1] if found else whole).rstrip(".")

    @cached_property
    def config(self) -> dict[str, Any]:
        """What the yaml sets, by block of the config."""
        read = yaml.safe_load(self.text) or {}
        return read if "@package _global_" in self.text else {self.group: read}

    @cached_property
    def targets(self) -> dict[str, Any]:
        """The classes that it names, by block."""
        found = {}
        for block, value in self.config.items():
            if block in GROUPS or block == "personal":
                named = value if "_target_" in (value or {}) else (value or {}).get(self.name, {})
                if isinstance(named, dict) and named.get("_target_"):
                    found[block] = located(str(named["_target_"]), f"{self.override}: {block}")
        return found

    @property
    def explained_by(self) -> Any:
        """The class whose page says the most: a personal model's, else that of its own group."""
        return self.targets.get("personal") or self.targets.get(self.group)

    @property
    def document(self) -> str:
        """The docstring of the class's module; where Flower wrote it, what the yaml says."""
        target = self.explained_by
        if target is None or target.__module__.startswith("flwr."):
            return "\n".join(self.comment[1]).strip()
        return inspect.cleandoc(sys.modules[target.__module__].__doc__ or "")

    @property
    def arguments(self) -> str:
        """The yaml below its header."""
        lines = self.text.splitlines()
        return "\n".join(line for line in lines if not line.startswith("#")).strip()

    @property
    def where(self) -> str:
        """Who works differently: ``server``, ``sites``, or ``both``."""
        if self.group in ("objective", "attack"):
            return "sites"
        if self.group == "server":
            return "both" if getattr(self.targets["server"], "at_sites", False) else "server"
        if self.group in ("transforms", "privacy"):
            return "both"
        strategy = self.targets["strategy"]
        sites = hasattr(strategy, "client") or len(self.config) > 1
        sites |= any(make.__module__ == strategy.__module__ for make in makers())
        server = strategy is not FedAvg and any(
            getattr(strategy, hook, None) is not getattr(FedAvg, hook, None) for hook in HOOKS
        )
        if sites and server:
            return "both"
        return "sites" if sites else "server" if server else "-"

    @property
    def costs(self) -> list[str]:
        """What it costs beside FedAvg, as far as its classes say."""
        client = getattr(self.targets.get("strategy"), "client", None)
        found = []
        if client is not None:
            if client.groups:
                found.append(f"a site remembers {_models(len(client.groups))}")
            if client.reads:
                found.append(f"down: {_models(len(client.reads))} more")
            if client.replies:
                found.append(f"up: {_models(len(client.replies))} more")
        if self.group == "server":
            found += getattr(self.targets["server"], "costs", ())
        if "personal" in self.targets:
            found.append("a site keeps tensors of its own")
        travels = self.config.get("travels")
        if travels is not None:
            found.append(f"only the part travels={travels} is sent, the rest stays at its site")
        return found


def _models(count: int) -> str:
    return "one model" if count == 1 else f"{count} models"


def methods(arguments: Sequence[str] = ()) -> Iterator[Method]:
    """Yield every method, group by group.

    Args:
        arguments: with ``--config-dir FOLDER`` for options of your own.
    """
    folders = [conf_dir(), *(Path(folder) for folder in config_dirs(arguments))]
    for group in GROUPS:
        for name in options(group, arguments):
            if name not in ORDINARY:
                files = [folder / group / f"{name}.yaml" for folder in folders]
                yield Method(group, name, next(file for file in files if file.exists()))


def find(name: str, arguments: Sequence[str] = ()) -> Method:
    """Return a method by its name, or by its override.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    every = list(methods(arguments))
    for method in every:
        if name in (method.name, method.override):
            return method
    raise ConfigError(f"there is no method {name!r}; {suggestion(name, [m.name for m in every])}")
