"""Type checks of config values: plain data everywhere, and the annotations of a class."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fedpdm.errors import ConfigError

LONGEST = 4096
"""Characters of a text: as long as a path may be."""
LARGEST = 2**63
"""No whole number of a config is so large: the history and Flower's records could not hold it."""
DEEPEST = 20
"""Levels of a config."""

PLAIN = (int, float, bool, str, type(None), Any)
"""Annotations that say what may stand in a yaml; ``list``, mappings and unions of them do, too."""


def short(value: object) -> str:
    """Return a value as one short line for a message."""
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:40]}… ({len(text)} characters)"


def check_plain(value: Any, where: str = "", depth: int = 0) -> None:
    """Refuse what no option can be: NaN, infinity, numbers and texts without bound.

    Args:
        value: plain values of a config.
        where: its key; empty for the whole config.
        depth: levels above it.

    Raises:
        ConfigError: names the key.
    """
    if depth > DEEPEST:
        raise ConfigError(f"{short(where)} lies over {DEEPEST} levels deep; use fewer")
    if isinstance(value, Mapping):
        for key, inside in value.items():
            check_plain(str(key), f"a key of {where or 'the config'}", depth + 1)
            check_plain(inside, f"{where}.{key}" if where else str(key), depth + 1)
    elif isinstance(value, list):
        for inside in value:
            check_plain(inside, where, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}={value} must be a finite number")
    elif isinstance(value, int) and abs(value) >= LARGEST:
        raise ConfigError(f"{where} is a number of {len(hex(value)) - 2} hexadecimal digits; "
                          "it must be below 2^63")  # fmt: skip
    elif isinstance(value, str) and (
        len(value) > LONGEST or not value.replace("\t", "").isprintable()  # sep: "\t"
    ):
        what = "control characters" if len(value) <= LONGEST else f"{len(value)} characters"
        raise ConfigError(f"{where}={short(value)} has {what}; it must be one line of at most "
                          f"{LONGEST} characters")  # fmt: skip


def check_arguments(target: Any, given: Mapping[str, Any], where: str) -> None:
    """Refuse arguments that are of another kind than a class or function declares.

    Only annotations of plain data are looked at: numbers, texts, lists and mappings of them.

    Args:
        target: the class or function.
        given: arguments by name, as a yaml gives them.
        where: the key that they stand under.

    Raises:
        ConfigError: names the argument and what it must be.
    """
    hints = annotations_of(target)
    for name, value in given.items():
        if name not in hints or not _is_plain(hints[name]):
            continue
        adapter = TypeAdapter(hints[name], config=ConfigDict(strict=True))
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            must = " or ".join(dict.fromkeys(_rule(each) for each in error.errors()))
            raise ConfigError(f"{where}.{name}={short(value)} must be {must}") from None


def annotations_of(target: Any) -> dict[str, Any]:
    """Return the annotations of a function's or class's arguments, of its bases, too."""
    makers = [target]
    if isinstance(target, type):
        makers = [vars(c)["__init__"] for c in reversed(target.__mro__) if "__init__" in vars(c)]
    found: dict[str, Any] = {}
    for maker in makers:
        try:
            found |= get_type_hints(maker)
        except Exception:  # written in C, or of names that only a type checker imports
            continue
    return found


def _is_plain(hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is None:
        return hint in PLAIN
    if origin in (list, dict, Sequence, Mapping, Union, types.UnionType):
        return all(_is_plain(inside) for inside in get_args(hint))
    return origin is Literal


_RULES = {
    "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
    "string_type": "a text", "string_sub_type": "a text", "bool_type": "true or false",
    "list_type": "a list", "sequence_str": "a list",
    "dict_type": "a block of settings", "mapping_type": "a block of settings",
    "is_instance_of": "a list", "none_required": "null",
}  # fmt: skip


def _rule(error: Any) -> str:
    rule = _RULES.get(error["type"], error["msg"].removeprefix("Input should be "))
    place = [str(part) for part in error["loc"] if isinstance(part, int)]
    return f"{rule} (at {place[0]})" if place else str(rule)
