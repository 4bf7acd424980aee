"""The comparison behind the report's table, plots and headline: who gains, who loses.

Reads the run's summary as it stands in summary.json; nothing here trains or predicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fedpdm.baselines.best_alone import kinds_alone
from fedpdm.baselines.registry import Baseline, predictors
from fedpdm.evaluation.wording import Metric, counted, gain_against, listing, primary_metric
from fedpdm.report.page import part_of as part_of

ALL = "All test data together"


@dataclass(frozen=True)
class GainRow:
    """One site, or an aggregate, with the primary metric of every predictor."""

    name: str
    metric: Metric
    values: Mapping[str, float | None]
    counts: Mapping[str, float | None] = field(default_factory=dict)
    """``n``, ``positives`` and ``prevalence`` of the test part, where known."""
    note: str | None = None
    """Why a value is missing."""
    interval: tuple[float, float] | None = None
    """Between which values the gain lies: 95 % of a bootstrap over machines."""
    unsure: str | None = None
    """Why it is not said whether the gain is sure."""
    beyond_chance: bool | None = None
    """What the bootstrap says of the gain; None where it cannot say."""
    against: str = "alone"
    """The predictor that the gain is measured against."""

    @property
    def sure(self) -> bool | None:
        """Whether the gain or loss is more than chance; None where that cannot be said.

        A gain is not where another kind of model alone turned out as good.
        """
        if self.gain is None or self.beyond_chance is None:
            return None
        if self.verdict == "better":
            kinds = [kind for kind in kinds_alone(self.values) if self.values[kind] is not None]
            if any(self.judged("federated", kind) != "better" for kind in kinds):
                return False
        return self.verdict != "same" and self.beyond_chance

    @property
    def too_few(self) -> bool:
        """Whether there is an interval of the gain, but of too few machines for a verdict."""
        return self.gain is not None and self.interval is not None and self.sure is None

    @property
    def gain(self) -> float | None:
        """Federated against ``against``; positive is better whatever the metric."""
        return self.difference("federated", self.against)

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``same`` (as far as the digits show), or ``unknown``."""
        return self.judged("federated", self.against)

    def difference(self, first: str, second: str) -> float | None:
        """Return by how much predictor ``first`` is better than ``second``; None if unknown."""
        a, b = self.values.get(first), self.values.get(second)
        if a is None or b is None:
            return None
        return a - b if self.metric.higher_is_better else b - a

    def judged(self, first: str, second: str) -> str:
        """Return predictor ``first`` against ``second`` in a word of ``verdict``."""
        difference = self.difference(first, second)
        if difference is None:
            return "unknown"
        rounded = round(difference, self.metric.digits)
        return "better" if rounded > 0 else "worse" if rounded < 0 else "same"


@dataclass(frozen=True)
class GainTable:
    """Rows per site, their mean, and the pooled test rows."""

    metric: Metric
    columns: Mapping[str, Baseline]
    rows: tuple[GainRow, ...]
    mean: GainRow
    together: GainRow
    cases: str = "windows"
    """What is judged one by one: windows, or rows where there is no time."""
    left_out: tuple[str, ...] = ()
    """Sites that were not evaluated."""
    against: str = "alone"
    """The predictor that the gain is measured against: the best that a site has by itself."""
    subject: str = "The shared model"
    """What is compared with it, at the beginning of a sentence."""

    def having(self, verdict: str) -> list[GainRow]:
        """Return the sites with a verdict, the largest change first."""
        chosen = [row for row in self.rows if row.verdict == verdict]
        return sorted(chosen, key=lambda row: -abs(row.gain or 0.0))


def gain_table(summary: Mapping[str, Any], part: str = "test") -> GainTable:
    """Return the scores of ``summary[part]`` in the run's primary metric.

    Args:
        summary: the content of summary.json.
        part: ``test``, or ``heldout`` for machines that were never seen in training.
    """
    chosen = primary_metric(summary)
    tested = summary.get(part) or {}
    baselines = tested.get("baselines") or {}
    scored = {"federated": tested, **baselines}
    columns = {
        name: shown
        for name, shown in predictors(baselines).items()
        if shown.column == "always"
        or baselines.get(name)
        or (shown.column == "asked" and (name in baselines or not baselines))
    }
    reasons = summary.get("baselines_left_out") or {}
    against = gain_against(summary)
    against = against if against in columns else "alone"
    drawn = part_of(tested, "bootstrap", "gain", against) or {}

    def row(name: str, *path: str) -> GainRow:
        parts = {c: part_of(scored.get(c), *path) for c in columns}
        values = {c: _value(found, chosen.name) for c, found in parts.items()}
        own = parts["federated"]
        counts = {k: _value(own, k) for k in ("n", "positives", "prevalence")}
        note = _why(values, own, columns, reasons)
        sure = _certainty(part_of(drawn, *path))
        return GainRow(name, chosen, values, counts, note, **sure, against=against)

    tested_sites = tested.get("per_site") or {}
    names = [str(name) for name in summary.get("sites") or sorted(tested_sites)]
    rows = tuple(row(name, "per_site", name) for name in names if name in tested_sites)
    data = summary.get("data") or {}
    return GainTable(
        chosen,
        columns,
        rows,
        _mean(rows, columns, chosen, drawn, against),
        row(ALL, "global"),
        "rows" if "window" in data and data["window"] is None else "windows",
        tuple(name for name in names if name not in tested_sites),
        against,
        "Each site's own model" if summary.get("personal") else "The shared model",
    )


def _value(part: Any, name: str) -> float | None:
    value = part_of(part, name)
    return None if value is None or value != value else float(value)


def _why(
    values: Mapping[str, float | None],
    own: Any,
    columns: Mapping[str, Baseline],
    reasons: Mapping[str, str],
) -> str | None:
    """Return why something is missing in a row, in words; None if nothing is."""
    if values["federated"] is None:
        if not isinstance(own, Mapping):
            return "it could not be evaluated"
        n, positives = own.get("n"), own.get("positives")
        if n == 0:
            return "no test data"
        if positives == 0:
            return "no failure in this site's test part, so the metric cannot be computed"
        if positives is not None and positives == n:
            return "this site's test part holds nothing but failures"
        return "the metric could not be computed"
    absent = [c for c, v in values.items() if v is None]
    if known := [f"{columns[c].heading}: {reasons[c]}" for c in absent if c in reasons]:
        return "; ".join(known)
    names = [columns[c].heading for c in absent]
    return f"{listing(names)}: not computed in this run" if absent else None


def _certainty(drawn: Any) -> dict[str, Any]:
    """Return what a bootstrap says of a gain, as fields of a row."""
    if not isinstance(drawn, Mapping):
        return {}
    low, high, sure = drawn.get("low"), drawn.get("high"), drawn.get("sure")
    if low is None or high is None:
        return {"unsure": drawn.get("reason")}
    reason = None
    if sure is None:  # a run of an older version has no such key
        reason = drawn.get("reason") or "this run did not count the machines that failed"
    return {"interval": (float(low), float(high)), "unsure": reason, "beyond_chance": sure}


def _mean(
    rows: tuple[GainRow, ...], columns: Iterable[str], chosen: Metric, drawn: Any, against: str
) -> GainRow:
    """Return the mean over the sites that have every predictor, so that columns compare."""
    used = [c for c in columns if any(row.values[c] is not None for row in rows)]
    full = [row for row in rows if used and all(row.values[c] is not None for c in used)]
    values: dict[str, float | None] = dict.fromkeys(columns)
    if full:
        values |= {c: sum(row.values[c] or 0.0 for row in full) / len(full) for c in used}
    name = "Mean of sites" if len(full) == len(rows) else f"Mean of {counted(len(full), 'site')}"
    row = GainRow(name, chosen, values, against=against)
    # The bootstrap's mean is of all sites that both have; it may be of others than ours.
    own = drawn.get("per_site") or {}
    theirs = {name for name, part in own.items() if part.get("value") is not None}
    if not full or not theirs:
        return row
    if theirs != {each.name for each in full}:
        return replace(row, unsure="its interval is of other sites")
    return replace(row, **_certainty(drawn.get("mean_site")))
