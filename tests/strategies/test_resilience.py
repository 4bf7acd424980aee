"""What a defence bears is said before a run, and that three sites are too few for any."""

from __future__ import annotations

import pytest

from fedpdm.strategies.resilience import condition_of, statements
from fedpdm.testing.federated import named


@pytest.mark.parametrize(
    ("overrides", "sites", "tolerated"),
    [
        (["strategy=krum", "strategy.num_malicious_nodes=3"], 12, 3),
        (["strategy=krum", "strategy.num_malicious_nodes=9"], 12, 4),  # n ≥ 2f + 3
        (["strategy=krum"], 12, 0),  # it expects none
        (["strategy=multikrum", "strategy.num_malicious_nodes=3",
          "strategy.num_nodes_to_select=9"], 12, 3),
        (["strategy=multikrum", "strategy.num_malicious_nodes=3",
          "strategy.num_nodes_to_select=11"], 12, 1),  # it averages all but one
        (["strategy=bulyan", "strategy.num_malicious_nodes=3"], 12, 2),  # n ≥ 4f + 3
        (["strategy=bulyan", "strategy.num_malicious_nodes=3"], 15, 3),
        (["strategy=fedtrimmedavg", "strategy.beta=0.25"], 12, 3),
        (["strategy=fedtrimmedavg", "strategy.beta=0.2"], 4, 0),
        (["strategy=fedmedian"], 12, 5), (["strategy=fedmedian"], 13, 6),
        (["strategy=rfa"], 12, 5), (["strategy=outlier_detection"], 4, 1),
        (["strategy=outlier_detection"], 3, 0), (["strategy=centred_clipping"], 12, 1),
        (["strategy=norm_clipping"], 12, 0), (["strategy=fltrust"], 12, 11),
        (["strategy=dnc", "strategy.num_malicious=3"], 12, 3), (["strategy=dnc"], 12, 1),
    ],
)  # fmt: skip
def test_every_defence_has_its_own_condition(
    overrides: list[str], sites: int, tolerated: int
) -> None:
    found = condition_of(named(overrides), sites)
    assert found is not None and found.tolerated == tolerated


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "scaffold", "fedadam"])
def test_other_strategies_are_no_defence(name: str) -> None:
    strategy = named([f"strategy={name}"])
    assert condition_of(strategy, 12) is None and statements(strategy, 12) == []
    [(kind, said)] = statements(strategy, 12, 1)
    assert kind == "warning" and "no defence" in said


@pytest.mark.parametrize(
    "name",
    ["rfa", "norm_clipping", "centred_clipping", "fltrust", "outlier_detection", "fedmedian",
     "fedtrimmedavg", "krum"],
)  # fmt: skip
def test_with_three_sites_no_defence_can_be_relied_on(name: str) -> None:
    [(kind, said)] = statements(named([f"strategy={name}"]), 3)
    assert kind == "warning" and "3 sites" in said and "no defence can be relied on" in said


def test_more_malicious_sites_than_it_bears_are_a_warning_and_else_a_note() -> None:
    median = named(["strategy=fedmedian"])
    assert [statements(median, 12, f)[0][0] for f in (0, 5, 6)] == ["note", "note", "warning"]


def test_a_defence_inside_another_strategy_is_found() -> None:
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping as Private

    wrapped = Private(named(["strategy=rfa"]), 1.0, 1.0, 5)
    found = condition_of(wrapped, 12)
    assert found is not None and found.name == "RFA"
