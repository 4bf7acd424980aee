"""docs/peers.md: its number of our methods is the catalogue's, and what it says we lack we lack."""

from __future__ import annotations

import re
from pathlib import Path

from fedpdm.catalogue.methods import methods

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "peers.md").read_text("utf-8")
ALL = list(methods())


def part(name: str) -> str:
    """Return what stands between a mark of the page and the next ``end``."""
    return PAGE.split(f"<!-- {name} -->")[1].split("<!-- end -->")[0]


def test_our_number_is_that_of_the_catalogue() -> None:
    left_out = re.findall(r"`(\w+=\w+)`", part("not counted"))
    assert len(left_out) == len(set(left_out))
    assert set(left_out) < {method.override for method in ALL}
    assert re.findall(r"catalogue has (\d+) overrides", PAGE) == [str(len(ALL))]
    counted = str(len(ALL) - len(left_out))
    assert re.findall(r"fedpdm \| \*\*(\d+)\*\*", PAGE) == [counted], "count again"


def test_what_is_said_to_be_missing_is_not_in_the_catalogue() -> None:
    named = {word.casefold() for word in re.findall(r"[A-Za-z]+", part("not here"))}
    assert {"ccvr", "fedproto", "fedamp"} & named
    ours = {method.name for method in ALL} - {"local"}  # "local" is a plain word, too
    assert not named & ours
