"""The rooms of ``fedpdm`` import each other downwards only, and stay small."""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.test_surface import FILES, ROOT, imports

PACKAGE = ROOT / "fedpdm"
LAYERS = [
    {
        "simulate",
        "predict",
        "compare",
        "sweep",
        "check",
        "promote",
        "ablate",
        "catalogue",
        "audit",
        "contribution",
        "watch",
        "completion",
    },
    {"runs", "deployment"},
    {"report", "comparison", "baselines", "trackers"},
    {"server", "client", "engines", "testing"},
    {"history", "evaluation", "strategies", "transforms", "aggregation", "privacy"},
    {"wire", "training", "models", "tasks", "data", "federation"},
    {"config", "seeding", "errors", "storage"},
]
"""Rooms, top to bottom (docs/architecture.md). A room imports its own layer and those below."""
DOORS = {"__init__", "__main__"}
"""Names of the package itself, which load a room when it is asked for."""


def room_of(name: str) -> str:
    """Return the room of a dotted module name below ``fedpdm``."""
    return name.split(".")[1]


def edges() -> dict[str, dict[str, str]]:
    """Return for each room the rooms that it imports, each with a file that does."""
    rooms = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in FILES} - DOORS
    found: dict[str, dict[str, str]] = {room: {} for room in rooms}
    for file in FILES:
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room in DOORS or file.stem == "__main__":  # a command may hand on to another
            continue
        for name in imports(file):
            if name.startswith("fedpdm.") and (other := room_of(name)) in rooms - {room}:
                found[room][other] = str(file.relative_to(ROOT))
    return found


EDGES = edges()


def test_every_room_is_in_one_layer() -> None:
    named = [room for layer in LAYERS for room in layer]
    assert len(named) == len(set(named))
    assert set(EDGES) <= set(named)
    assert sum(len(others) for others in EDGES.values()) > 50  # the imports were really read


@pytest.mark.parametrize("room", sorted(EDGES))
def test_imports_point_down_the_layers(room: str) -> None:
    rank = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    up = {other: file for other, file in EDGES[room].items() if rank[other] < rank[room]}
    assert up == {}


def test_rooms_do_not_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(EDGES).prepare()
    except CycleError as error:
        pytest.fail(f"these rooms import each other: {' -> '.join(error.args[1])}")


def test_few_modules_are_loose() -> None:
    loose = sorted(file.name for file in PACKAGE.glob("*.py") if file.name != "__init__.py")
    assert len(loose) <= 10, loose


def test_no_file_is_long() -> None:
    long = {
        str(file.relative_to(ROOT)): lines
        for file in FILES
        if (lines := len(file.read_text("utf-8").splitlines())) > 400
    }
    assert long == {}


PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def test_the_page_on_architecture_has_the_same_layers() -> None:
    found: dict[int, set[str]] = {}
    for layer, rooms in re.findall(r"^\| (\d) \| ([^|]+) \|", PAGE, re.MULTILINE):
        found.setdefault(int(layer), set()).update(re.findall(r"`(\w+)`", rooms))
    assert [found[number] for number in sorted(found)] == LAYERS


def test_every_file_that_the_page_names_is_there() -> None:
    places = set(re.findall(r"`((?:fedpdm|conf|docs|tests|clients|server)/[\w/.-]+)`", PAGE))
    named = {place for place in places if "NAME" not in place}
    assert len(named) > 30
    assert sorted(place for place in named if not (ROOT / place).exists()) == []
