"""The table of personal models is made of stored numbers, and candidates never see test data."""

from __future__ import annotations

import json

import pytest

from benchmarks import personal
from benchmarks.personal_page import BEGIN, END, page
from fedpdm.config.compose import compose


def test_the_page_is_the_result() -> None:
    assert personal.PAGE.read_text() == page(personal.load(), personal.DATA)


@pytest.mark.parametrize("method", personal.CANDIDATES)
def test_every_candidate_composes_and_is_told_apart(method: str) -> None:
    known = set()
    for candidate in personal.CANDIDATES[method]:
        cfg = compose([*personal.overrides_of("ai4i", method, candidate)])
        assert cfg.rounds == 60 and cfg.model.model_type == "mlp"
        known.add(personal.digest("ai4i", method, candidate))
    assert len(known) == len(personal.CANDIDATES[method])


def test_candidates_are_compared_by_validation_alone() -> None:
    for data in personal.load().values():
        for entry in data.values():
            for tried in entry["choice"].values():
                assert set(tried) == {"overrides", "commit", "validation"}
    for described in personal.DATA.values():
        assert personal.CHOICE not in described.seeds
    first, second = personal.CANDIDATES["apfl"]
    choice = {
        personal.digest("ai4i", "apfl", first): {"validation": 0.3},
        personal.digest("ai4i", "apfl", second): {"validation": 0.4},
    }
    assert personal.chosen({"choice": choice, "seeds": {}}, "ai4i", "apfl") == second
    choice.popitem()
    assert personal.chosen({"choice": choice, "seeds": {}}, "ai4i", "apfl") is None


def scores(mean: float, *sites: float) -> dict[str, object]:
    return {"mean": mean, "sites": {f"s{n}": value for n, value in enumerate(sites)}}


def test_differences_are_paired_and_the_worst_site_is_told() -> None:
    average = {
        str(seed): {"federated": scores(0.5, 0.4, 0.6), "best_alone": scores(0.55, 0.5, 0.6)}
        for seed in (0, 1)
    }
    ditto = {str(seed): {"federated": scores(0.6 + seed / 10, 0.5, 0.7 + seed / 5)}
             for seed in (0, 1)}  # fmt: skip
    stored = {"ai4i": {"fedavg": {"seeds": average}, "ditto": {"seeds": ditto}}}
    text = page(json.loads(json.dumps(stored)), personal.DATA)
    table = text.partition(BEGIN)[2].partition(END)[0]
    assert "| fedavg | 0.500 | – | −0.050 | −0.100 |" in table
    assert "| ditto | 0.650 | +0.150 | +0.100 | +0.000 |" in table
    assert "(not yet: 2, 3, 4, 5)" in table
    assert table.count("not measured yet") == len(personal.DATA) - 1
