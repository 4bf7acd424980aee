"""The page about compression is made of its results; what it shows is not what chose."""

from __future__ import annotations

from typing import Any

from benchmarks import compression as bench
from benchmarks.compression_page import page


def kept(validation: float, times: float, score: float | None = None) -> dict[str, Any]:
    sizes = {what: 1e6 / times for what in ("up", "down", "total", "round")}
    return {"validation": validation, **sizes} | ({} if score is None else {"score": score})


def stored(lines: dict[bench.Line, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line, seeds in lines.items():
        kind = "choosing" if line.choosing else "reported"
        entry = {"command": line.stated, "seeds": seeds}
        found.setdefault(line.part, {}).setdefault(kind, {})[line.name] = entry
    return found


def candidates(part: str, values: dict[str, tuple[float, float]]) -> dict[bench.Line, Any]:
    known = {bench.NONE: (), **bench.CANDIDATES}
    return {
        bench.Line(part, name, known[name], choosing=True): {"100": kept(*pair)}
        for name, pair in values.items()
    }


FOUND = {
    "none": (10.0, 1.0),
    "top-k, 5 %": (10.5, 20.0),
    bench.LOW: (12.0, 33.0),
    bench.FOUR: (9.0, 7.0),
}


def test_the_page_is_the_result() -> None:
    found = bench.load()
    assert bench.PAGE.read_text() == page(found, list(bench.reported(found)), bench.chosen(found))


def test_the_best_on_validation_data_that_saves_enough_is_chosen() -> None:
    found = stored(candidates("FD001", FOUND))
    assert bench.chosen(found)["FD001"] == {8: ("top-k, 5 %", "total"), 30: (bench.LOW, "total")}
    found = stored(candidates("fleet", FOUND))  # here higher is better
    assert bench.chosen(found)["fleet"][8] == (bench.LOW, "total")
    few = candidates("FD001", {"none": (10.0, 1.0), bench.LOW: (12.0, 33.0)})
    for seeds in few.values():
        seeds["100"]["total"] = 1e6  # the first model is most of the run
    few[bench.Line("FD001", "none", (), choosing=True)]["100"]["round"] = 33e6
    assert bench.chosen(stored(few))["FD001"][8] == (bench.LOW, "round")


def test_the_page_says_what_was_reached_missed_and_not_measured() -> None:
    lines = candidates("FD001", FOUND)
    lines[bench.Line("FD001", "none", ())] = {"60": kept(10, 1, 20.0), "61": kept(10, 1, 30.0)}
    lines[bench.Line("FD001", "top-k, 5 %", bench.CANDIDATES["top-k, 5 %"])] = {
        "60": kept(10, 20, 20.2)
    }
    found = stored(lines)
    text = page(found, list(bench.reported(found)), bench.chosen(found))
    assert "8 times fewer bytes, at most 2% lost: **reached** by top-k, 5 %, 20.0 times" in text
    assert "| top-k, 5 % | 20.20 | +1.0% | 20.0 ×" in text
    assert f"at most 5% lost: {bench.LOW} was chosen, and is not measured" in text
    assert "| none, 12 rounds | not measured" in text
    assert "10.5" not in text  # no score that chose is shown
    line = bench.Line("FD001", "top-k, 5 %", ("transforms=topk",))
    assert line.entry(found) == {}  # other settings
    assert bench.PARTS["fleet"].lost(0.45, 0.5) > 0 > bench.PARTS["FD001"].lost(9, 10)
