"""Sensors that no model sees: ``without=[…]``, by their names or those of their groups."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedpdm.data.rows import Bools, Rows
from fedpdm.data.sources.base import Source, WrappedSource
from fedpdm.errors import ConfigError


def sensors_of(source: Source, names: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the sensors that names mean, in the order of the source.

    Args:
        source: the data.
        names: of sensors, or of their groups (``Source.groups``).
        where: what named them, for the message.

    Raises:
        ConfigError: a name is neither.
    """
    chosen: set[str] = set()
    for name in names:
        if name in source.groups:
            chosen |= set(source.groups[name])
        elif name in source.features:
            chosen.add(name)
        else:
            known = [*source.groups, *source.features]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            shown = [*(source.groups or source.features)]
            kind = "groups" if source.groups else "sensors"
            raise ConfigError(
                f"{where}: {name} is no sensor of data={source.name}, and no group of them; {hint}"
                f"its {kind} are {', '.join(shown[:30])}{' …' if len(shown) > 30 else ''}"
            )
    return tuple(name for name in source.features if name in chosen)


class WithoutSource(WrappedSource):
    """The rows of another source, without some of their sensors.

    Rows, labels and splits stay as they are, whatever is left out.

    Args:
        inner: the data.
        names: sensors, or groups of them.

    Raises:
        ConfigError: there is no such sensor, or none is left.
    """

    def __init__(self, inner: Source, names: Sequence[str]) -> None:
        super().__init__(inner)
        gone = set(sensors_of(inner, names, "without"))
        self.kept = np.array([name not in gone for name in inner.features], dtype=bool)
        self.features = tuple(name for name in inner.features if name not in gone)
        if not self.features:
            raise ConfigError("without leaves out every sensor; leave one in")
        self.categorical = tuple(name for name in inner.categorical if name not in gone)
        self.levels = {name: n for name, n in inner.levels.items() if name not in gone}
        for group, members in inner.groups.items():
            kinds = set(members) & set(inner.categorical) - set(inner.levels)
            if kinds and gone & kinds and not kinds <= gone:
                raise ConfigError(
                    f"without={','.join(names)} leaves out a part of {group} only, whose values "
                    f"are told by {', '.join(sorted(kinds))} together; leave out {group}"
                )
        left = {
            group: tuple(name for name in members if name not in gone)
            for group, members in inner.groups.items()
        }
        self.groups = {group: members for group, members in left.items() if members}

    def rows(self, site: str) -> Rows:
        rows = self.inner.rows(site)
        return replace(
            rows, features=self.features, values=np.ascontiguousarray(rows.values[:, self.kept])
        )

    def rules(self, rows: Rows) -> Bools | None:
        return None  # rules are about sensors that need not be there
