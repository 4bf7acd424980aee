"""Reads values of a composed config, each checked, and instantiates ``_target_`` nodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedpdm.config.imports import check_kind, note
from fedpdm.config.schema import located, refuse_unknown
from fedpdm.errors import ConfigError, FedPdmError, HistoryError

OF_ANY_SITE = ("costs", "models")
"""Keys of ``sites.NAME`` that a site of any data set may have: no data set reads them."""

Config = DictConfig
"""A composed config, for those who only pass it on."""


def read_config(text: str | Path) -> Any:
    """Return the config in yaml text, or in a yaml file."""
    return OmegaConf.load(text) if isinstance(text, Path) else OmegaConf.create(text)


LARGEST, DEEPEST, MOST = 1 << 24, 64, 100_000
"""Characters, levels and values of a yaml text that others wrote."""


def stored_config(text: str | bytes, where: object) -> Any:
    """Return the config in yaml text from a run folder or a message, as data.

    Args:
        text: the yaml; it is written resolved, so it has neither aliases nor references.
        where: its file or sender, for messages.

    Raises:
        HistoryError: it is no yaml, too large or too deep, or holds an alias or a reference.
    """
    depth = values = 0
    try:
        text = text if isinstance(text, str) else text.decode()
        if len(text) > LARGEST or "${" in text:
            raise ValueError("it is too large, or refers to values elsewhere with ${")
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            values += isinstance(event, yaml.NodeEvent)
            if depth > DEEPEST or values > 2 * MOST or isinstance(event, yaml.AliasEvent):
                raise ValueError(
                    f"it has an alias, more than {MOST:,} values, or more than {DEEPEST} levels"
                )
        cfg = OmegaConf.create(text)
        if not isinstance(cfg, DictConfig):
            raise ValueError("it holds no settings")
    except (ValueError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise HistoryError(f"{where} cannot be read: {' '.join(str(error).split())}") from error
    return cfg


def yaml_of(cfg: Config) -> str:
    """Return a config as yaml text."""
    return OmegaConf.to_yaml(cfg, resolve=True)


def resolved(cfg: Config) -> Config:
    """Return a config with its references resolved, to which keys can be added."""
    return OmegaConf.create(plain(cfg))  # type: ignore[no-any-return]


def rooted(cfg: Config) -> Config:
    """Return a resolved config whose paths do not depend on the folder that it is read in."""
    for key in ("data.path", "split", "init.run", "clock.availability"):
        path = select(cfg, key)
        if key == "clock.availability" and path in ("always", "diurnal"):
            continue
        if path is None and key == "data.path" and needs_folder(cfg):
            path = "."  # where relative paths of the sites start
        if isinstance(path, str) and path:
            OmegaConf.update(cfg, key, str(Path(path).expanduser().absolute()))
    return cfg


def needs_folder(cfg: Config) -> bool:
    """Return whether sites bring files of their own, whose paths may be relative."""
    return str(select(cfg, "data._target_")).endswith(".FilesSource")


def select(cfg: Config, key: str) -> Any:
    """Return what stands under a dotted key, or None."""
    return OmegaConf.select(cfg, key)


def class_of(node: Any, what: str) -> Any:
    """Return the class that a ``_target_`` node names; ``what`` is its key in the config."""
    return located(str(node["_target_"]), what)


def make(node: Any, what: str, **extra: Any) -> Any:
    """Instantiate a ``_target_`` node; its own complaints become one sentence.

    Args:
        node: its arguments stand beside ``_target_``.
        what: its key in the config.
        **extra: further arguments, which no config holds.

    Raises:
        ConfigError: there is no such class, it takes no such arguments, or it is of another
            kind than the key asks for.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"{what}: the yaml needs a _target_, the class to make")
    refuse_unknown(plain(node), what, extra)
    try:
        # What is given beside the yaml goes past OmegaConf: ten thousand sites would take
        # minutes to be wrapped and unwrapped.
        maker = instantiate(node, _convert_="object", _partial_=True)
        note(maker.func.__module__ or "builtins")
        made = maker(**extra)
        check_kind(what, type(made))  # a function may make anything
        return made
    except FedPdmError:
        raise
    except Exception as error:
        cause: BaseException = error
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, FedPdmError):
            raise cause from None
        raise ConfigError(f"{what}: {_first_line(cause)} ({node['_target_']})") from error


def plain(node: Any) -> Any:
    """Return a config node as plain Python values."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def block(cfg: Config, key: str) -> dict[str, Any]:
    """Return a block of the config, as ``check_keys`` left it; an empty one for null."""
    return plain(select(cfg, key)) or {}


def whole(cfg: Config, key: str, least: int, most: int | None = None) -> int:
    """Return a whole number of the config, at least ``least`` and at most ``most``."""
    value = select(cfg, key)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{key}={value} must be a whole number of at least {least}")
    if most is not None and value > most:
        raise ConfigError(f"{key}={value} must be at most {most:,}")
    return value


def positive(cfg: Config, key: str) -> float:
    """Return a number of the config above 0."""
    value = select(cfg, key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"{key}={value} must be a number above 0")
    return float(value)


def share(cfg: Config, key: str) -> float:
    """Return a number of the config above 0 and at most 1."""
    value = positive(cfg, key)
    if value > 1:
        raise ConfigError(f"{key}={value:g} must be above 0 and at most 1")
    return value


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def quoted(key: str, text: str) -> str:
    """Return ``key=text`` as Hydra reads it back: quoted where a comma or a blank would not be."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Quote, QuotedString
    from hydra.errors import HydraException

    try:
        read = OverridesParser.create().parse_override(f"{key}={text}").value()
    except HydraException:
        read = None
    if read == text and "${" not in text:
        return f"{key}={text}"
    literal = text.replace("${", "\\${")  # or OmegaConf would look for a variable
    return f"{key}={QuotedString(literal, Quote.double).with_quotes()}"
