"""Parses a command line as Hydra does: flags, overrides, names of options and sites."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString

from fedpdm.config.kinds import short
from fedpdm.config.schema import conf_dir, suggestion
from fedpdm.config.values import OF_ANY_SITE, quoted
from fedpdm.errors import ConfigError

ANY_SITE = re.compile(rf"sites\.([^.=]+)\.(?:{'|'.join(OF_ANY_SITE)})(?:\.[^=]*)?=")
"""An override of what a site of any data set may have."""
CLOCK_SITE = re.compile(r"clock\.sites\.[^.=]+\.[^=]+=")
"""An override of what the clock knows of a single site."""


def rewrite(arguments: Sequence[str]) -> list[str]:
    """Return arguments as Hydra takes them: flags first, then overrides.

    ``site=a,b`` is one federation of two sites: Hydra would refuse it as ambiguous, or make two
    runs of it with ``-m``. Lists are left alone: ``-m 'site=[a,b],[c]'`` compares two
    federations. Names must differ.

    What a site of any data set may have stands in no yaml of ours, so Hydra would want a ``+``
    before ``sites.houston.costs.missed=500``; here it is put there. So it is before
    ``clock.sites.houston.speed=0.1``.

    ``init=RUN_FOLDER`` is short for ``init.run=RUN_FOLDER``. The overrides in the list of
    ``init.pretrain=[task=reconstruction,rounds=5]`` are put into quotes.

    A whole block, ``strategy={_target_: …}``, takes the place of the chosen option: Hydra would
    mix the two. With ``transforms``, of which there may be several, it comes beside them.

    Raises:
        ConfigError: a site is named twice.
    """
    given = command_line(arguments)
    result = [argument for argument in arguments if argument not in given]
    for argument in given:
        if argument in ("site=", "site=null"):
            raise ConfigError(f"{argument} names no site; write site=detroit,houston, or site=[]")
        if argument.startswith("init=") and not argument.startswith("init={"):
            argument = f"init.run={argument.removeprefix('init=')}"
        if argument.startswith("init.pretrain="):
            argument = quoted_items(argument)
        if argument == "transforms=null":
            argument = "transforms=[]"
        if ANY_SITE.match(argument) or CLOCK_SITE.match(argument):
            argument = f"++{argument}"
        if match := re.fullmatch(r"site=([^\[\]{}()'\"]+)", argument):
            if "" in match[1].split(","):
                raise ConfigError(f"{argument}: a site's name is missing beside a comma")
            argument = f"site=[{match[1]}]"
        if argument.startswith("site=") and "null" not in argument:
            argument = NAME_LIKE_NUMBER.sub(r'\1"\2"', argument)
        argument = readable(argument)
        for group in re.findall(r"\[([^\]]*)\]", argument) if argument.startswith("site=") else ():
            names = named(group)
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ConfigError(
                    f"site: {', '.join(twice)} is named twice; a site takes part once "
                    "(replicas=2 makes two of a kind)"
                )
        if match := re.match(r"(\w+)=\{.*\b_target_:", argument):
            if match[1] in groups() and match[1] != "transforms":
                result.append(f"~{match[1]}")
                argument = f"+{argument}"
        result.append(argument)
    return result


def quoted_items(argument: str) -> str:
    """Return ``KEY=[a=1,b=2]`` with the items that hold a ``=`` in quotes, as Hydra reads it back.

    What stands in quotes or in inner brackets is not taken apart.
    """
    ends, depth, quote = [], 0, ""
    for place, letter in enumerate(argument):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[{(":
            depth += 1
            ends += [place] if depth == 1 else []
        elif letter in "]})":
            ends += [place] if depth == 1 else []
            depth -= 1
        elif letter == "," and depth == 1:
            ends.append(place)
    for begin, end in reversed(list(itertools.pairwise(ends))):
        item = argument[begin + 1 : end].strip()
        if argument[begin] in "[," and "=" in item and item[0] not in "'\"":
            literal = QuotedString(item, Quote.double).with_quotes()
            argument = f"{argument[: begin + 1]}{literal}{argument[end:]}"
    return argument


NAME_LIKE_NUMBER = re.compile(r"([\[,]\s*)([\d.]+|true|false)(?=\s*[,\]])", re.IGNORECASE)
"""Names in a list that Hydra would take for something else than text."""


def command_line(arguments: Sequence[str]) -> list[str]:
    """Return the overrides among arguments: flags may stand before, between and after them.

    Raises:
        ConfigError: there is no such flag, or it lacks its value.
    """
    parser = get_args_parser()
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            given, unknown = parser.parse_known_intermixed_args(arguments)
    except SystemExit as error:
        lines = said.getvalue().strip().splitlines()
        raise ConfigError(
            f"{(lines or ['options'])[-1].partition('error: ')[2]}; see --help"
        ) from error
    if unknown:
        raise ConfigError(f"there is no option {unknown[0]}; see --help")
    return list(given.overrides)


def readable(argument: str) -> str:
    """Return an override as Hydra's grammar reads it: words beyond ASCII are put into quotes.

    Raises:
        ConfigError: it cannot be read, or chooses an option by something that is no name.
    """
    key, sign, value = argument.partition("=")
    words = re.sub(r"[^\s,\[\]{}:'\"=()]*[^\x00-\x7f][^\s,\[\]{}:'\"=()]*", r'"\g<0>"', value)
    for text in (argument, f"{key}{sign}{words}"):
        override = _parsed(text)
        if override is not None:
            break
    else:
        # A path with blanks and letters beyond ASCII; nothing that has quotes or lists of its own.
        plain_text = sign and not set(value) & set("[]{}'\"")
        text = quoted(key, value) if plain_text else argument
        override = _parsed(text)
    if override is None:
        why = "its key has other letters than ASCII ones; write it in a yaml" if (
            not key.isascii()) else "put its value in quotes"  # fmt: skip
        raise ConfigError(f"{short(argument)} cannot be read: {why}")
    chosen = override.key_or_group
    if (
        chosen in groups()
        and sign
        and not override.is_delete()
        and not override.is_sweep_override()
    ):
        names = override.value()
        for name in names if isinstance(names, list) else [names]:
            if not isinstance(name, str | QuotedString | dict):
                raise ConfigError(
                    f"{chosen}={short(value)}: an option is chosen by its name; "
                    f"{suggestion(str(name), options(chosen))}"
                )
    return text


def _parsed(argument: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(argument)
    except Exception:  # its lexer raises errors of its own, and of the library below it
        return None


def named(listed: str) -> list[str]:
    """Return the names in a list of names, without the quotes that some need."""
    return [name.strip(" '\"") for name in listed.split(",") if name.strip(" '\"")]


def options(group: str, arguments: Sequence[str] = ()) -> list[str]:
    """Return the names of a config group's options, of the user's ``--config-dir`` too."""
    folders = [conf_dir(), *(Path(d) for d in config_dirs(arguments))]
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def groups() -> list[str]:
    """Return the names of all config groups."""
    return sorted(folder.name for folder in conf_dir().iterdir() if folder.is_dir())


def config_dirs(arguments: Sequence[str]) -> list[str]:
    """Return the folders given with ``--config-dir`` (``-cd``)."""
    found = []
    for position, argument in enumerate(arguments):
        if argument.startswith("--config-dir="):
            found.append(argument.split("=", 1)[1])
        elif argument in ("--config-dir", "-cd") and position + 1 < len(arguments):
            found.append(arguments[position + 1])
    return found


HEADERS = {"site": "sites", "experiment": "_global_", "debug": "_global_"}
"""Groups whose yamls need a header: where it says that their settings belong."""
HEADER = re.compile(r"^#\s*@package\s+\S+", re.MULTILINE)


def check_headers(overrides: Sequence[str], folders: Sequence[str]) -> None:
    """Refuse a chosen yaml of the user's that lacks the header that its group needs.

    Args:
        overrides: as ``rewrite`` returns them.
        folders: those of ``--config-dir``.

    Raises:
        ConfigError: names the file and the line.
    """
    for override in overrides:
        group, _, value = override.lstrip("+").partition("=")
        for name in re.findall(r"[^\s,\[\]'\"]+", value) if group in HEADERS else ():
            for file in (Path(folder) / group / f"{name}.yaml" for folder in folders):
                if file.is_file() and not HEADER.search(file.read_text("utf-8", errors="replace")):
                    raise ConfigError(
                        f"{file} has no header: write '# @package {HEADERS[group]}' as its first "
                        f"line, or its settings end up in a block {group}"
                    )


def chosen_sites(overrides: Sequence[str]) -> list[str]:
    """Return the sites that ``site=[…]`` names in overrides; said twice, the last one counts."""
    for override in reversed(overrides):
        if match := re.fullmatch(r"site=\[([^\[\]]*)\]", override):
            return named(match[1])
    return []


def swept(words: Sequence[str]) -> tuple[set[str], int]:
    """Return the keys to which words of a command line give several values, and how many runs.

    Args:
        words: overrides as ``rewrite`` returns them; flags and their values may stand between.
    """
    found = [override for word in words if (override := _parsed(word)) is not None]
    sweeps = [override for override in found if override.is_sweep_override()]
    counts = [sum(1 for _ in override.sweep_string_iterator()) for override in sweeps]
    return {override.key_or_group for override in sweeps}, math.prod(counts)


def placed(arguments: Sequence[str]) -> list[str]:
    """Return arguments with ``--out FOLDER`` as Hydra's own words for it, of a run or a sweep.

    Raises:
        ConfigError: no folder follows.
    """
    result: list[str] = []
    words = iter(arguments)
    for word in words:
        flag, equals, folder = word.partition("=")
        if flag != "--out":
            result.append(word)
            continue
        folder = folder if equals else next(words, "")
        if not folder:
            raise ConfigError("--out needs a folder")
        result += [quoted("hydra.run.dir", folder), quoted("hydra.sweep.dir", folder)]
    return result


def combinations(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the runs that overrides with several values make: ``a=1,2 b=3`` makes two.

    Args:
        words: as on the command line.
    """
    each = []
    for override in OverridesParser.create().parse_overrides(rewrite(words)):
        values = [str(override.input_line)]
        if override.is_sweep_override():
            values = [f"{override.key_or_group}={v}" for v in override.sweep_string_iterator()]
        each.append(values)
    return list(itertools.product(*each))
