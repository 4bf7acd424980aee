"""``python -m fedpdm.data describe FILE [LOG …]``: a first yaml for an unknown file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fedpdm.data.quality.guess import Guess, columns_without, guess
from fedpdm.data.sources.dialect import DIALECT_KEYS, MISSING
from fedpdm.data.sources.mapping import KINDS
from fedpdm.data.sources.units import convert
from fedpdm.errors import DataError, printable

CATEGORIES = 12  # a column with more words is a note or a name
FAILS = r"fail|break|broke|fault|defect|trip|stop|crash|down|ausfall|störung|defekt|bruch|panne"
REPAIRS = (
    r"repair|maint|service|replac|inspect|overhaul|fix|instand|wartung|reparatur|austausch|inspekt"
    r"|répar|entretien|rempla"
)
UNITS = {"C": "degC", "F": "degF"}
"""What one letter behind a column's name means; elsewhere C is a charge and F a capacity."""
SWITCHES = {"on", "off", "yes", "no", "true", "false"}
NEXT = """\
# Save this as FOLDER/site/{site}.yaml, look at what is marked "unsure", then see how it is read:
#   python -m fedpdm.data check --config-dir FOLDER data=files site={site}
# Names of features, on the left, must be the same at all sites: rename them here.
# Columns left out: {left_out}"""


def describe(paths: Sequence[str], site: str | None = None) -> str:
    """Return a site's yaml for its files.

    Args:
        paths: the file with sensor rows, and logs of events, in any order.
        site: its name; None: from the file's.

    Raises:
        DataError: a file cannot be read, or none of them, or several, hold sensor rows.
    """
    guesses = [guess(path) for path in paths]
    sensors = [one for one in guesses if not one.is_log]
    if len(sensors) > 1:  # an event may be measured, too: how long it took, what it cost
        sensors = [one for one in sensors if one.end is None] or sensors
    logs = [one for one in guesses if all(one is not other for other in sensors)]
    if len(sensors) != 1:
        raise DataError(
            f"{', '.join(paths)}: {'none' if not sensors else 'more than one'} of these holds "
            "sensor readings; name one file with rows of sensors, or one pattern in quotes, and "
            "the logs of its machines"
        )
    made = sensors[0]
    name = site or re.sub(r"\W+", "_", Path(made.path).name.split(".")[0]).strip("_") or "site"
    label = next(
        (c for c in columns_without(made, (made.time, made.machine))
         if made.called(c, "label") and set(np.unique(_there(made, c))) == {0.0, 1.0}), None,
    )  # fmt: skip
    label = None if logs else label
    features, left_out = _features(made, label)
    if not features:
        raise DataError(f"{made.path}: no column varies; bring a file with sensor readings")
    lines = [f"path: {_yaml(made.path)}", *_dialect(made, {})]
    if not made.zoned and any(log.zoned for log in logs if len(log.frame)):
        lines.append("time_zone: UTC  # unsure: the log states its zone, the rows do not")
    if made.machine is not None:
        lines.append(f"machine: {_yaml(made.machine)}{_unsure(made, 'machine')}")
    lines.append(f"time: {_yaml(made.time)}{_unsure(made, 'time')}")
    if made.long is not None:
        variable, value = map(_yaml, made.long)
        lines += [f"variable: {variable}{_unsure(made, 'long')}", f"value: {value}"]
    lines.append("features:")
    lines += [f"  {line}" for line in features]
    if label is not None:
        lines.append(f"label: {_yaml(label)}  # unsure: 1 where a failure is near or present?")
    elif logs:
        lines.append("failures:")
        for log in logs:
            block = _log(log, made)
            lines += [f"  - {block[0]}", *(f"    {line}" for line in block[1:])]
    else:
        lines.append("failures: LOG.csv  # missing: name a log of failures, or label: COLUMN")
    body = "\n".join(f"  {line}" for line in lines)
    note = NEXT.format(site=name, left_out=_comment(", ".join(left_out) or "none"))
    return f"# @package sites\n{_yaml(name)}:\n{body}\n{note}\n"


def _there(made: Guess, column: str) -> Any:
    values = made.numbers.get(column, np.zeros(0))
    return values[~np.isnan(values)]


def _features(made: Guess, label: str | None) -> tuple[list[str], list[str]]:
    """Return the lines of the features, and the columns that are none, with the reason."""
    lines: list[str] = []
    left_out: list[str] = []
    if made.long is not None:
        sensors = sorted(set(made.frame[made.long[0]]))
        others = columns_without(made, (made.time, made.machine, *made.long))
        return [f"{_yaml(_name(s))}: {_yaml(s)}" for s in sensors], others
    columns = columns_without(made, (made.time, made.machine, label))
    measured = {column: unit_of(column) for column in columns}
    bare = [_name(name) for name, _ in measured.values()]
    for column in columns:
        shown, unit = measured[column]
        name = _name(shown if bare.count(_name(shown)) == 1 else column)
        if column in made.numbers:
            values = np.unique(_there(made, column))
            counts = np.arange(len(made.frame)) + made.numbers[column][0]
            if len(values) < 2:
                left_out.append(f"{column} (constant)")
            elif np.array_equal(made.numbers[column], counts):
                left_out.append(f"{column} (counts the rows)")
            else:
                again = made.called(column, "label")
                doubt = "  # unsure: known before the failure?" if again else ""
                value = {"column": column, "unit": unit} if unit else column
                doubt = doubt or ("  # unsure: the unit" if unit else "")
                lines.append(f"{_yaml(name)}: {_yaml(value)}{doubt}")
            continue
        cells = made.frame[column]
        words = sorted({word for word in cells if word not in MISSING})
        if len(words) == 2 and {word.lower() for word in words} <= SWITCHES:
            lines.append(f"{_yaml(name)}: {_yaml(column)}")
        elif 2 <= len(words) <= CATEGORIES and len(words) < len(cells) / 10:
            lines.append(f"{_yaml(name)}: {_yaml({'column': column, 'values': words})}")
        else:
            left_out.append(f"{column} ({'constant' if len(words) < 2 else 'text'})")
    return lines, left_out


def unit_of(column: str) -> tuple[str, str | None]:
    """Return a column's name without the unit that it ends with in brackets, and the unit."""
    found = re.fullmatch(r"(.*\w)\s*[\[(]\s*((?:[^\W\d_]|[°%])[^\[\]()]*?)\s*[\])]", column)
    if found is None:
        return column, None
    unit = UNITS.get(found[2], found[2])
    try:
        convert(np.zeros(1), unit, unit)
    except ValueError:
        return column, None
    return found[1], unit


def _log(log: Guess, made: Guess) -> list[str]:
    """Return the lines of a log's block: what differs from the sensor file."""
    lines = [f"path: {_yaml(log.path)}", *_dialect(log, made.keys)]
    if log.machine is not None and log.machine != made.machine:
        lines.append(f"machine: {_yaml(log.machine)}{_unsure(log, 'machine')}")
    if log.time != made.time:
        lines.append(f"time: {_yaml(log.time)}{_unsure(log, 'time')}")
    if log.end is not None:
        lines.append(f"end: {_yaml(log.end)}  # unsure: when the machine ran again?")
    if len(log.frame) and made.zoned and not log.zoned:
        lines.append("time_zone: UTC  # unsure: the rows state their zone, the log does not")
    if made.machine is not None and log.machine is not None:
        ids, there = (set(g.frame[g.machine].str.removesuffix(".0")) for g in (log, made))
        strangers = ids - there
        if strangers and strangers != ids:
            lines.append(f"unknown_machines: ignore  # unsure: {len(strangers)} have no rows")
    kinds = {
        column: words
        for column in columns_without(log, (log.time, log.machine, log.end))
        if 1
        <= len(words := {w.lower() for w in log.frame[column] if w not in MISSING})
        <= CATEGORIES
        and (log.frame[column] != "").all()
    }
    if not kinds:
        return lines
    kind = next((c for c in kinds if any(re.search(FAILS, w) for w in kinds[c])), next(iter(kinds)))
    if kind != "kind":
        lines.append(f"kind: {_yaml(kind)}  # unsure: failures and repairs by this column?")
    if kinds[kind] <= {word for words in KINDS.values() for word in words}:
        return lines
    repairs = sorted(w for w in kinds[kind] if re.search(REPAIRS, w))
    fails = sorted(kinds[kind] - set(repairs))
    for key, listed in (("failure_kinds", fails), ("repair_kinds", repairs)):
        if listed:
            lines.append(f"{key}: {_yaml(listed)}  # unsure")
    return lines


def _dialect(made: Guess, default: dict[str, Any]) -> list[str]:
    """Return the lines that say how a file is written, where ``default`` does not."""
    usual = {"sep": ",", "decimal": ".", "encoding": "utf-8", "skip_rows": 0, "missing": []}
    lines = []
    for key in DIALECT_KEYS:
        value = made.keys.get(key)
        if value is None and default.get(key) is not None and key not in ("skip_rows", "missing"):
            value = {**usual, "time_format": "ISO8601"}.get(key)
        if value is not None and value != default.get(key):
            lines.append(f"{key}: {_yaml(value)}{_unsure(made, key)}")
    return lines


def _unsure(made: Guess, key: str) -> str:
    return f"  # unsure: {_comment(made.doubts[key])}" if key in made.doubts else ""


def _comment(text: str) -> str:
    """Return text that stays in its line, whatever names of columns hold."""
    return printable(" ".join(text.split()))


def _name(column: str) -> str:
    """Return a feature's name for a column; none that YAML would take for something else."""
    name = re.sub(r"\W+", "_", column).strip("_").lower() or "sensor"
    return name if isinstance(yaml.safe_load(name), str) else f"sensor_{name}"


def _yaml(value: Any) -> str:
    """Return a value in one line of yaml."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("...\n").strip()
