"""Machine programs: lines of G-code as tokens of several parts, and what may follow what.

A line such as ``G1 X-12.50 F400`` is a command and up to two of its parameters in a fixed
order. As tokens it is start, command, (parameter, number)*, end: at most ``LENGTH`` of them.
A token has eight parts, each a small number, 0 where it says nothing: type, command,
parameter, sign, and four digits. The 4-digit tokens are those of the source document
(gcode-training-results); its vocabulary of whole numbers is only used in its files.

Shapes: N lines, L = ``LENGTH`` tokens, P = ``len(PARTS)`` parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fedpdm.errors import DataError

Tokens = NDArray[np.uint8]

LENGTH = 7
"""Tokens of a line, start and end among them; what is left is padding."""
PARTS = ("type", "command", "parameter", "sign", "digit1", "digit2", "digit3", "digit4")
SPECIAL, COMMAND, PARAMETER, NUMBER = range(4)
"""Types. The first special token of a line starts it, the second ends it."""
COMMANDS = ("", "G0", "G1", "G2", "G3", "G53", "M3", "M30")
PARAMETERS = ("", "X", "Y", "Z", "R", "F", "S")
SIGNS = ("", "+", "-")
DIGITS = 4
SIZES = (4, len(COMMANDS), len(PARAMETERS), len(SIGNS), *[10] * DIGITS)
"""How many values each part has."""
DECIMALS = {"X": 2, "Y": 2, "Z": 2, "R": 2, "F": 0, "S": 0}
"""Of the four digits, so many stand behind the point."""
SIGNED = frozenset("XYZ")
TAKES = {
    "G0": "XYZ", "G1": "XYZF", "G2": "XYR", "G3": "XYR", "G53": "XYZ", "M3": "S", "M30": "",
}  # fmt: skip
"""Which parameters a command takes, each at most once, in the order of ``PARAMETERS``."""
START, END, PAD, UNKNOWN = "SOS", "EOS", "PAD", "UNK"
"""Names of special tokens in vocabularies."""

_WORD = re.compile(r"([A-Z])([+-]?)(\d+)(?:\.(\d+))?")
_COMMAND_PLACE = {name: place for place, name in enumerate(COMMANDS)}
_PARAMETER_PLACE = {name: place for place, name in enumerate(PARAMETERS)}


def encode(lines: Sequence[str] | NDArray[np.str_]) -> Tokens:
    """Return (N, L, P) tokens of lines.

    Raises:
        DataError: a line is not of this language; names it.
    """
    unique, index = np.unique(np.asarray(lines, dtype=np.str_), return_inverse=True)
    if len(unique) == 0:
        return np.zeros((0, LENGTH, len(PARTS)), dtype=np.uint8)
    return np.asarray(np.stack([_encoded(str(line)) for line in unique])[index.reshape(-1)])


@cache
def _encoded(line: str) -> Tokens:
    """Return (L, P) tokens of a line."""
    first, *words = line.split() or [""]
    if first not in TAKES:
        known = ", ".join(TAKES)
        raise DataError(f"program line '{line}': it must begin with one of {known}")
    if 2 * len(words) + 3 > LENGTH:
        raise DataError(f"program line '{line}': at most {(LENGTH - 3) // 2} parameters are known")
    tokens = np.zeros((LENGTH, len(PARTS)), dtype=np.uint8)
    tokens[1, :2] = COMMAND, _COMMAND_PLACE[first]
    last = 0
    for place, word in enumerate(words):
        found = _WORD.fullmatch(word)
        name = found[1] if found else ""
        number = _PARAMETER_PLACE.get(name, 0)
        if found is None or name not in TAKES[first] or number <= last:
            raise DataError(
                f"program line '{line}': {first} takes {', '.join(TAKES[first]) or 'nothing'}, "
                f"each at most once, in this order, with a number; '{word}' is none of it"
            )
        tokens[2 + 2 * place, :3] = PARAMETER, 0, number
        tokens[3 + 2 * place] = NUMBER, 0, 0, *_digits(line, name, found)
        last = number
    return tokens


def _digits(line: str, name: str, found: re.Match[str]) -> tuple[int, ...]:
    """Return sign and digits of a parameter's number."""
    sign, whole, part = found[2], found[3], (found[4] or "").rstrip("0")
    decimals = DECIMALS[name]
    digits = (whole + part.ljust(decimals, "0")).lstrip("0").rjust(DIGITS, "0")
    if len(part) > decimals or len(digits) > DIGITS or (sign == "-" and name not in SIGNED):
        raise DataError(
            f"program line '{line}': {name} must be a number with at most "
            f"{DIGITS - decimals} digits before and {decimals} behind the point"
            f"{'' if name in SIGNED else ', and not negative'}"
        )
    return 2 if sign == "-" else 1, *(int(digit) for digit in digits)


def decode(tokens: NDArray[np.generic]) -> list[str]:
    """Return the text of (N, L, P) well-formed tokens; numbers as ``encode`` reads them."""
    return [_decoded(line) for line in tokens.astype(np.int64)]


def _decoded(line: NDArray[np.int64]) -> str:
    words = []
    for kind, command, parameter, sign, *digits in line[1:].tolist():
        if kind == SPECIAL:
            break
        if kind == COMMAND:
            words.append(COMMANDS[command])
        elif kind == PARAMETER:
            words.append(PARAMETERS[parameter])
        else:
            value = int("".join(map(str, digits)))
            decimals = DECIMALS[words[-1]]
            minus = "-" if SIGNS[sign] == "-" else ""
            words[-1] += f"{minus}{value / 10**decimals:.{decimals}f}"
    return " ".join(words)


def well_formed(tokens: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Return (N,) whether (N, L, P) tokens are a line of the language, and nothing beside it."""
    found = np.zeros(len(tokens), dtype=bool)
    for place, line in enumerate(tokens.astype(np.int64)):
        try:
            found[place] = np.array_equal(_encoded(_decoded(line)), line)
        except (DataError, IndexError, KeyError):
            continue
    return found


def names_of(tokens: NDArray[np.generic]) -> list[str]:
    """Return the L names of a line's (L, P) tokens in a vocabulary: ``NUM_X_-1250``."""
    names, parameter = [START], ""
    ended = False
    for kind, command, place, sign, *digits in tokens.astype(np.int64)[1:].tolist():
        if kind == SPECIAL:
            names.append(PAD if ended else END)
            ended = True
        elif kind == COMMAND:
            names.append(COMMANDS[command])
        elif kind == PARAMETER:
            parameter = PARAMETERS[place]
            names.append(parameter)
        else:
            number = "".join(map(str, digits))
            names.append(f"NUM_{parameter}_{'-' if SIGNS[sign] == '-' else ''}{number}")
    return names


def line_of(names: Sequence[str]) -> str:
    """Return the line that token names stand for.

    Raises:
        DataError: they are no line of this language.
    """
    words: list[str] = []
    for name in names:
        if name == END:
            break
        if name in (START, PAD):
            continue
        kind, _, rest = name.partition("_")
        parameter, _, number = rest.partition("_")
        if kind != "NUM":
            words.append(name)
            continue
        decimals = DECIMALS.get(parameter)
        if decimals is None or not words or words[-1] != parameter:
            raise DataError(f"tokens {' '.join(names)}: {name} does not follow its parameter")
        if re.fullmatch(r"-?\d+", number) is None:
            raise DataError(f"tokens {' '.join(names)}: {name} holds no number")
        words[-1] += f"{int(number) / 10**decimals:.{decimals}f}"
    line = " ".join(words)
    _encoded(line)
    return line


def takes() -> NDArray[np.bool_]:
    """Return (commands, parameters): which parameters each command takes."""
    return np.array([[p != "" and p in TAKES.get(c, "") for p in PARAMETERS] for c in COMMANDS])
