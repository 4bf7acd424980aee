"""Who gains and who loses: the comparison behind the table, the plots and the headline.

Reads the run's summary as it stands in summary.json; nothing here trains or predicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedpdm.evaluation.wording import Metric, listing, metric, number

COLUMNS = {
    "trivial": "Trivial",
    "alone": "Alone",
    "federated": "Federated",
    "pooled": "Pooled",
    "hgb": "Trees",
    "minirocket": "Rocket",
    "rules": "Rules",
}
"""Predictors in the order they are shown, with their headings."""

OPTIONAL = ("minirocket", "rules")
"""Predictors that only some data can have: no column where there is none."""

EXPLAINED = {
    "trivial": "the best constant answer, which knows the training data's average only",
    "alone": "the same model trained on that plant's own data only",
    "federated": "the shared model: plants exchange model weights, never rows",
    "pooled": "the same model trained on all plants' rows in one place, where that is allowed",
    "hgb": "boosted trees on pooled rows, with summary features of each window",
    "minirocket": "MiniRocket's random convolutions of pooled windows, and ridge regression",
    "rules": "the process's known physical rules, without learning",
}


@dataclass(frozen=True)
class Row:
    """One plant, or an aggregate, with the primary metric of every predictor."""

    name: str
    values: Mapping[str, float | None]
    higher_is_better: bool
    digits: int
    counts: Mapping[str, float | None] = field(default_factory=dict)
    """``n``, ``positives`` and ``prevalence`` of the test part, where known."""
    note: str | None = None
    """Why a value is missing."""

    @property
    def gain(self) -> float | None:
        """Federated against alone; positive is better whatever the metric."""
        federated, alone = self.values.get("federated"), self.values.get("alone")
        if federated is None or alone is None:
            return None
        return federated - alone if self.higher_is_better else alone - federated

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``same`` (as far as the digits show), or ``unknown``."""
        if self.gain is None:
            return "unknown"
        rounded = round(self.gain, self.digits)
        return "better" if rounded > 0 else "worse" if rounded < 0 else "same"

    def beats(self, first: str, second: str) -> bool | None:
        """Return whether predictor ``first`` is better than ``second``; None if unknown."""
        a, b = self.values.get(first), self.values.get(second)
        if a is None or b is None:
            return None
        return a > b if self.higher_is_better else a < b


@dataclass(frozen=True)
class Standings:
    """Rows per plant, their mean, and the pooled test rows."""

    metric: Metric
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    mean: Row
    together: Row
    cases: str = "windows"
    """What is judged one by one: windows, or rows where there is no time."""
    left_out: tuple[str, ...] = ()
    """Plants that were not evaluated."""

    def having(self, verdict: str) -> list[Row]:
        """Return the plants with a verdict, the largest change first."""
        chosen = [row for row in self.rows if row.verdict == verdict]
        return sorted(chosen, key=lambda row: -abs(row.gain or 0.0))


def standings(summary: Mapping[str, Any], part: str = "test") -> Standings:
    """Return the standings of ``summary[part]`` in the run's primary metric."""
    chosen = metric(primary(summary))
    tested = summary.get(part) or {}
    baselines = tested.get("baselines") or {}
    columns = tuple(c for c in COLUMNS if c not in OPTIONAL or baselines.get(c))
    per_site = tested.get("per_site") or {}

    def row(name: str, parts: Mapping[str, Any], label: str | None = None) -> Row:
        values = {c: _value(parts.get(c), chosen.name) for c in columns}
        counts = {k: _value(parts.get("federated"), k) for k in ("n", "positives", "prevalence")}
        return Row(
            label or name,
            values,
            chosen.higher_is_better,
            chosen.digits,
            counts,
            _why(values, parts),
        )

    names = [str(name) for name in summary.get("sites") or sorted(per_site)]
    data = summary.get("data") or {}
    rows = tuple(
        row(
            name,
            {
                "federated": per_site[name],
                **{
                    b: ((baselines.get(b) or {}).get("per_site") or {}).get(name) for b in baselines
                },
            },
        )
        for name in names
        if name in per_site
    )
    together = row(
        "All test data together",
        {
            "federated": tested.get("global"),
            **{b: (baselines.get(b) or {}).get("global") for b in baselines},
        },
    )
    return Standings(
        chosen,
        columns,
        rows,
        _mean(rows, columns, chosen),
        together,
        "rows" if "window" in data and data["window"] is None else "windows",
        tuple(name for name in names if name not in per_site),
    )


def primary(summary: Mapping[str, Any]) -> str:
    """Return the name of the metric that chose the round."""
    return str((summary.get("validation") or {}).get("metric") or "average_precision")


def headline(table: Standings) -> str:
    """Return in one sentence whether the shared model helps each plant, and by how much."""
    label, digits = table.metric.label, table.metric.digits
    count = len(table.rows)
    known = sum(row.verdict != "unknown" for row in table.rows)
    if not known:
        reached, where = table.together.values.get("federated"), ""
        if reached is None:  # where nobody may pool
            reached, where = table.mean.values.get("federated"), " on average over the plants"
        if reached is None:
            return (
                "Whether the shared model helps cannot be said: "
                f"{label} could not be computed for any plant."
            )
        return (
            f"The shared model reaches {label} {number(reached, digits)}{where}; "
            "no plant was trained alone to compare it with."
        )
    if count == 1:
        row = table.rows[0]
        return (
            f"{row.name} is the only plant, so nothing was shared: its model reaches {label} "
            f"{number(row.values['federated'], digits)}, a constant answer "
            f"{number(row.values['trivial'], digits)}."
        )
    unknown = count - known
    judged = f" {unknown} could not be judged." if unknown else ""
    return f"The shared model {verdict(table)}. Mean {_from_to(table)}.{judged}"


def verdict(table: Standings) -> str | None:
    """Return what the shared model does, from "helps" or "hurts" on; None if nothing is known."""
    better, worse, same = (table.having(v) for v in ("better", "worse", "same"))
    known, digits = len(better) + len(worse) + len(same), table.metric.digits
    if not known:
        return None
    if len(better) == known:
        detail = f" ({_by(better, digits)})" if known <= 3 else ""
        return f"helps {_every(table, known)}{detail}"
    if len(same) == known:
        return f"changes nothing for {_every(table, known)}"
    hurt = f"hurts {len(worse)} ({_by(worse, digits)})" if worse else ""
    equal = f"changes nothing for {len(same)} ({listing([r.name for r in same])})" if same else ""
    rest = " and ".join(part for part in (hurt, equal) if part)
    if not better:
        return f"helps no plant: it {rest}"
    return f"helps {len(better)} of {known} plants and {rest}"


def _from_to(table: Standings) -> str:
    m = table.metric
    row = table.mean if table.mean.gain is not None else table.together
    alone, federated = row.values.get("alone"), row.values.get("federated")
    before, after = number(alone, m.digits), number(federated, m.digits)
    if before == after:
        return f"{m.label} stays at {after}"
    verb = "rises" if (federated or 0.0) > (alone or 0.0) else "falls"
    return f"{m.label} {verb} from {before} to {after}"


def _every(table: Standings, known: int) -> str:
    if known < len(table.rows):
        return (
            f"all {known} plants that can be judged"
            if known > 1
            else "the one plant that can be judged"
        )
    if table.left_out:
        return f"all {known} plants that were evaluated"
    return "both plants" if known == 2 else f"all {known} plants"


def _by(rows: Iterable[Row], digits: int) -> str:
    return listing([f"{r.name} by {number(abs(r.gain or 0.0), digits)}" for r in rows])


def _value(part: Any, name: str) -> float | None:
    value = part.get(name) if isinstance(part, Mapping) else None
    return None if value is None or value != value else float(value)


def _why(values: Mapping[str, float | None], parts: Mapping[str, Any]) -> str | None:
    """Return why something is missing in a row, in words; None if nothing is."""
    own = parts.get("federated")
    if values["federated"] is None:
        if not isinstance(own, Mapping):
            return "it could not be evaluated"
        n, positives = own.get("n"), own.get("positives")
        if n == 0:
            return "no test data"
        if positives == 0:
            return "no failure in this plant's test part, so the metric cannot be computed"
        if positives is not None and positives == n:
            return "this plant's test part holds nothing but failures"
        return "the metric could not be computed"
    absent = [COLUMNS[c] for c, v in values.items() if v is None]
    return f"{listing(absent)}: not computed in this run" if absent else None


def _mean(rows: tuple[Row, ...], columns: tuple[str, ...], chosen: Metric) -> Row:
    """Return the mean over the plants that have every predictor, so that columns compare."""
    used = [c for c in columns if any(row.values[c] is not None for row in rows)]
    full = [row for row in rows if used and all(row.values[c] is not None for c in used)]
    values: dict[str, float | None] = dict.fromkeys(columns)
    if full:
        values |= {c: sum(row.values[c] or 0.0 for row in full) / len(full) for c in used}
    name = "Mean of plants" if len(full) == len(rows) else f"Mean of {len(full)} plants"
    return Row(name, values, chosen.higher_is_better, chosen.digits)
