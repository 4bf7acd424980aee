"""The report on what alarms cost, where the alarm level was chosen by cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedpdm.evaluation.wording import listing
from fedpdm.report.alarms import PRICES, horizons, of_risk, price

Record = Mapping[str, Any]

OTHERWISE = {"never": "never to raise an alarm", "always": "to raise an alarm every time"}


class Bill(NamedTuple):
    """What alarms on test data cost, and what it would cost to do without the model."""

    level: float
    never: float
    always: float

    @property
    def cheaper(self) -> str | None:
        """The cheaper of "never" and "always", where one is cheaper than the chosen level."""
        least = "never" if self.never <= self.always else "always"
        return least if min(self.never, self.always) < self.level * (1 - 1e-9) else None


def cost_table(summary: Record) -> dict[str, Any] | None:
    """Return what the template shows of costs; None where the level was chosen otherwise."""
    tested = summary.get("test") or {}
    thresholds = tested.get("thresholds") or {}
    keys, costs = horizons(thresholds), thresholds.get("costs") or {}
    if thresholds.get("aim") != "cost" or not keys:
        return None
    bills = {
        name: found
        for name, part in (tested.get("per_site") or {}).items()
        if name in costs and (found := bill(part, keys[0], costs[name]))
    }
    if not bills:
        return None
    total = Bill(*(sum(parts) for parts in zip(*bills.values(), strict=True)))
    column = {key: [costs[name][key] for name in bills] for key in PRICES}
    # Sums of thousands need no cents.
    like = [1.0] if max(total) >= 1000 else [one for known in column.values() for one in known]
    return {
        "rows": [
            (name, [*(price(costs[name][key], column[key]) for key in PRICES),
                    *(price(amount, like) for amount in found)])
            for name, found in bills.items()
        ],
        "all": [*([""] * len(PRICES)), *(price(amount, like) for amount in total)]
        if len(bills) > 1
        else None,
        "said": remarks(bills, total, like),
    }  # fmt: skip


def bill(part: Record, key: str, costs: Record) -> Bill | None:
    """Return the costs of a site's test data; None where its alarms were not counted.

    The formula is that by which the level was chosen (``thresholds.least_cost``).

    Args:
        part: the site's part of ``test.per_site``.
        key: the horizon.
        costs: ``missed``, ``false_alarm`` and ``inspection``, of one window or row each.
    """
    counts = [of_risk(part, name, key) for name in ("hits", "missed", "false_alarms", "quiet")]
    if any(count is None for count in counts):
        return None
    hits, missed, false, quiet = (float(count or 0.0) for count in counts)
    miss, alarm, visit = (float(costs[name]) for name in PRICES)
    return Bill(
        level=miss * missed + alarm * false + visit * (hits + false),
        never=miss * (hits + missed),
        always=alarm * (false + quiet) + visit * (hits + missed + false + quiet),
    )


def remarks(bills: Mapping[str, Bill], total: Bill, like: Sequence[float]) -> list[str]:
    """Return where it would have been cheaper to do without the model."""
    said = []
    if total.cheaper and len(bills) > 1:
        amount = getattr(total, total.cheaper)
        said.append(
            f"Over all sites it would have been cheaper {OTHERWISE[total.cheaper]}: "
            f"{price(amount, like)} instead of {price(total.level, like)}."
        )
    for choice, words in OTHERWISE.items():
        names = [name for name, found in bills.items() if found.cheaper == choice]
        if names:
            said.append(f"At {listing(names)} it would have been cheaper {words}.")
    return said
