"""``python -m fedpdm.data check data=files …``: read all data, train nothing, report findings.

python -m fedpdm.data check --config-dir plants data=files data.path=plants site=gdansk,lyon
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpdm.config.arguments import add_out, parser_of
from fedpdm.errors import DataError, FedPdmError, printable, run_command

if TYPE_CHECKING:
    from fedpdm.data.quality.sites import Ranges
    from fedpdm.federation import Federation, Site


@dataclass
class Looked:
    """What there is to say about one site.

    Attributes:
        site: its name.
        understood: what a line is about, and what it says.
        dropped: the same of columns and rows that no model sees.
        odd: sentences.
        refused: why the site cannot take part; None: it can.
    """

    site: str
    understood: list[tuple[str, str]] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    refused: str | None = None


def main(arguments: Sequence[str]) -> int:
    """Check a user's data; return the exit code: 0, or 2 if some of it cannot be used."""
    parser = parser_of(
        "data check",
        "Read the sites' data as a run would, train nothing, and say for each site what was\n"
        "understood, what no model will see, and what looks odd.",
    )
    parser.add_argument("--config-dir", "-cd", action="append", default=[], metavar="FOLDER")
    add_out(parser, "where to write the page; default: data-check.html", "FILE", "--page",
            default=Path("data-check.html"))  # fmt: skip
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="as for fedpdm.simulate")
    given = parser.parse_intermixed_args(arguments)
    from fedpdm.config.compose import translate
    from fedpdm.simulate import explained

    try:
        return checked(given.words, given.config_dir, given.out)
    except Exception as raised:
        error = explained(translate(raised, given.words))
        if not isinstance(error, FedPdmError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def checked(words: Sequence[str], folders: Sequence[str], page: Path) -> int:
    """Look at the data of a config, print what was seen, and write the page.

    Args:
        words: overrides, as on the command line.
        folders: the user's own options.
        page: where the page goes.
    """
    from rich.console import Console

    from fedpdm.config.command_line import rewrite
    from fedpdm.config.compose import compose
    from fedpdm.config.sites import check_own_sites
    from fedpdm.config.values import resolved
    from fedpdm.report.page import render_page
    from fedpdm.runs.experiment import build
    from fedpdm.runs.progress import Working
    from fedpdm.storage import write_bytes

    cfg = compose([*(f"--config-dir={folder}" for folder in folders), *words])
    check_own_sites(cfg, rewrite(words), folders)
    federation = build(resolved(cfg)).federation  # refuses what a run would refuse
    with Working("reading the data", Console(stderr=True)) as working:
        sites, between = look_at_all(federation, working.says)
    for line in said(sites, between):
        print(line)
    html = render_page("data_check.html.j2", sites=sites, between=between)
    write_bytes(page, html.encode("utf-8"))
    print(f"\npage: {page}")
    return 2 if any(site.refused for site in sites) or between.refused else 0


def look_at_all(
    federation: Federation, say: Callable[[str], None] = lambda text: None
) -> tuple[list[Looked], Looked]:
    """Return what there is to say of each site, and of all of them together.

    A site that cannot be read does not keep the others from being looked at.

    Args:
        federation: the sites.
        say: told what is done now.
    """
    from fedpdm.data.leakage import checks
    from fedpdm.data.quality.sensors import place_of
    from fedpdm.data.quality.sites import apart

    source, between = federation.source, Looked("all sites")
    looked: list[Looked] = []
    built: list[Site] = []
    ranges: dict[str, Ranges] = {}
    for name in source.sites:
        say(f"reading {name}")
        one = Looked(name)
        looked.append(one)
        try:
            built.append(_look(federation, one, ranges))
        except DataError as error:
            one.refused = str(error)
    say("comparing the sites")
    names = [site.name for site in built]
    between.odd = [f.text for f in apart({n: place_of(source, n) for n in names}, ranges)]
    try:
        if names:
            found = checks.check(source, names, federation.rows, federation.task.reach)
            between.odd += [*found, *federation.check(built)]
    except DataError as error:
        between.refused = str(error)
    for warning in source.warnings:
        own = [one for one in looked if warning.startswith(f"{one.site}:")]
        (own[0] if own else between).odd.append(warning)
    return looked, between


def _look(federation: Federation, one: Looked, ranges: dict[str, Ranges]) -> Site:
    """Look at one site; return its windows.

    Raises:
        DataError: it cannot be used.
    """
    from fedpdm.data.quality import record
    from fedpdm.data.quality.sensors import look, place_of
    from fedpdm.data.quality.sites import ranges_of
    from fedpdm.runs.look import nearest

    source, horizon, name = federation.source, nearest(federation.task), one.site
    rows, place = federation.rows(name), place_of(federation.source, name)
    one.odd = [finding.text for finding in look(place, rows, horizon)]
    one.dropped = record.dropped(source, name, rows, horizon)
    ranges[name] = ranges_of(place, rows)
    site = federation.site(name, federation.moments(name).scaler())
    one.understood = record.understood(source, rows, horizon, federation.shape(site))
    return site


def said(sites: Sequence[Looked], between: Looked) -> list[str]:
    """Return the lines for the screen."""
    lines: list[str] = []
    for one in (*sites, between):
        parts: list[tuple[str, list[Any]]] = [
            ("cannot be used", [] if one.refused is None else [one.refused]),
            ("understood", [f"{about}: {text}" for about, text in one.understood]),
            ("dropped", [f"{about}: {text}" for about, text in one.dropped]),
            ("odd", one.odd),
        ]
        if not any(texts for _, texts in parts):
            continue
        lines += ["", printable(one.site)]
        for head, texts in parts:
            for number, text in enumerate(texts):
                start = f"  {head if number == 0 else '':<15} "
                lines.append(
                    textwrap.fill(
                        printable(text), 100, initial_indent=start, subsequent_indent=" " * 20,
                        break_long_words=False, break_on_hyphens=False,
                    )
                )  # fmt: skip
    return lines


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(sys.argv[1:])))
