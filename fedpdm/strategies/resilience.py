"""How many malicious sites a strategy bears by its own condition, and when none can be relied on.

Conditions of Flower's strategies, with n updates in a round and f of them malicious:

    Krum, MultiKrum      n ≥ 2f + 3        Blanchard et al. 2017 (NeurIPS)
    Bulyan               n ≥ 4f + 3        El Mhamdi et al. 2018 (ICML)
    FedTrimmedAvg        f ≤ ⌊β·n⌋, β < ½  Yin et al. 2018 (ICML)
    FedMedian            f < n/2           Yin et al. 2018 (ICML)

Those of ours stand in their classes. All of them assume that honest sites' updates are alike, up
to chance. With three sites that says nothing: one malicious site stands against two honest ones
with different data, and no rule that sees updates alone can tell which of the three is the odd
one.
"""

from __future__ import annotations

from dataclasses import dataclass

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from fedpdm.strategies.robust import RobustStrategy
from fedpdm.strategies.wrappers import unwrap

LEAST = 4
"""With fewer sites no defence can be relied on."""


@dataclass(frozen=True)
class Condition:
    """What a defence bears in a round.

    Attributes:
        name: of its class.
        tolerated: how many malicious sites.
        rule: where that comes from, with the setting that changes it.
    """

    name: str
    tolerated: int
    rule: str


def condition_of(strategy: Strategy, sampled: int) -> Condition | None:
    """Return what a strategy, or one that it holds, bears; None if it is no defence.

    Args:
        strategy: the outermost layer.
        sampled: sites in a round.
    """
    for layer in unwrap(strategy):
        name = type(layer).__name__
        if isinstance(layer, RobustStrategy):
            return Condition(name, max(0, layer.tolerated(sampled)), layer.rule)
        if isinstance(layer, flower.Bulyan):
            most = max(0, (sampled - 3) // 4)
            return Condition(name, min(layer.num_malicious_nodes, most), _told("n ≥ 4f + 3", most))
        if isinstance(layer, flower.MultiKrum):
            most = max(0, (sampled - 3) // 2)
            told = min(layer.num_malicious_nodes, most, sampled - layer.num_nodes_to_select)
            rule = _told("n ≥ 2f + 3", most)
            if layer.num_nodes_to_select > 1:
                rule += f", and averages {layer.num_nodes_to_select} of {sampled} updates"
            return Condition(name, max(0, told), rule)
        if isinstance(layer, flower.FedTrimmedAvg):
            cut = f"it cuts ⌊β·n⌋ updates at each end, strategy.beta={layer.beta:g}"
            return Condition(name, int(layer.beta * sampled), cut)
        if isinstance(layer, flower.FedMedian):
            return Condition(name, (sampled - 1) // 2, "f < n/2")
    return None


def _told(rule: str, most: int) -> str:
    return f"{rule}, so {most} at most; it expects strategy.num_malicious_nodes"


def statements(
    strategy: Strategy, sampled: int, malicious: int | None = None
) -> list[tuple[str, str]]:
    """Return what a person must know of a defence before a run starts: sentences with their kinds.

    Args:
        strategy: the outermost layer.
        sampled: sites in a round.
        malicious: how many sites attack; None where nobody attacks on purpose.

    Returns:
        A ``note`` says what the defence bears, a ``warning`` that it cannot be relied on.
    """
    found, attacking = condition_of(strategy, sampled), min(malicious or 0, sampled)
    who = type(strategy).__name__ if found is None else found.name
    sites = f"{sampled} {'site' if sampled == 1 else 'sites'} in a round"
    if found is None:
        said = f"strategy {who} has no defence: one malicious site can move the model anywhere"
        return [("warning", said)] if attacking else []
    if sampled < LEAST:
        said = (
            f"with {sites} no defence can be relied on, {who} neither: nobody can tell which of so "
            f"few updates is the odd one; take {LEAST} sites or more, better 2f + 3 against f"
        )
        return [("warning", said)]
    bears = f"{found.tolerated} malicious {'site' if found.tolerated == 1 else 'sites'}"
    said = f"strategy {who} with {sites} bears {bears} ({found.rule})"
    if attacking <= found.tolerated:
        return [("note", said)]
    return [("warning", f"{said}, and {attacking} may attack: it cannot be relied on")]
