"""Sections of the report: one file each, which registers its template and what that shows.

Every module of this folder is found by itself. A section of your own is a function in a module
that the run imports:

    @register_section("wear", template="<section><h2 id=wear>Wear</h2>{{ worst }}</section>",
                      links={"wear": "Wear"})
    def wear(page):
        return {"worst": page.summary["test"]["spread"]["worst"]["site"]}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedpdm.report.gain_table import GainRow, GainTable

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Page:
    """What a section may look at.

    Attributes:
        summary: the content of summary.json.
        rounds: the history's rounds that trained, in the order of training.
        manifest: the content of manifest.json.
        data_shape: per site, as ``Federation.shape`` returns it.
        table: the scores of every predictor at every site.
        few: whether every site is listed.
        ordered: the sites in the order of the page.
    """

    summary: Record
    rounds: Sequence[Record]
    manifest: Record
    data_shape: Sequence[Record]
    table: GainTable
    few: bool
    ordered: Sequence[GainRow]


Values = Callable[[Page], dict[str, Any]]


@dataclass(frozen=True)
class Section:
    """A part of the page: what its template shows, the template, and where it stands."""

    values: Values
    template: str
    links: Mapping[str, str]
    order: float


SECTIONS: dict[str, Section] = {}
"""Every section by its name."""


def register_section(
    name: str, *, template: str, links: Mapping[str, str] | None = None, order: float = 45
) -> Callable[[Values], Values]:
    """Decorate a function that returns what a section's template shows, by name.

    Args:
        name: of the section.
        template: a Jinja template as text, or a file in ``templates/`` (``….html.j2``). It sees
            what the function returns, ``summary`` and ``table``; text is escaped,
            ``markupsafe.Markup`` is not.
        links: titles at the top of the page by the ids in the template that they lead to. No
            link is shown to an id whose value is None.
        order: where it stands; those of ours have 10, 20, 30, 40, and 50 for the last one.
    """

    def add(values: Values) -> Values:
        SECTIONS[name] = Section(values, template, links or {}, order)
        return values

    return add
