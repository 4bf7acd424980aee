"""Does federation help each site, by how much, and is that sure: in a sentence or two."""

from __future__ import annotations

from collections.abc import Iterable

from fedpdm.evaluation.wording import counted, listing, number
from fedpdm.report.gain_table import GainRow, GainTable


def headline(table: GainTable) -> str:
    """Return in one sentence whether the shared model helps each site, and by how much."""
    label, digits = table.metric.label, table.metric.digits
    count = len(table.rows)
    known = sum(row.verdict != "unknown" for row in table.rows)
    if not known:
        reached, where = table.together.values.get("federated"), ""
        if reached is None:  # where nobody may pool
            reached, where = table.mean.values.get("federated"), " on average over the sites"
        if reached is None:
            return (
                "Whether the shared model helps cannot be said: "
                f"{label} could not be computed for any site."
            )
        return (
            f"The shared model reaches {label} {number(reached, digits)}{where}; "
            "no site was trained alone to compare it with."
        )
    if count == 1:
        row = table.rows[0]
        return (
            f"{row.name} is the only site, so nothing was shared: its model reaches {label} "
            f"{number(row.values['federated'], digits)}, a constant answer "
            f"{number(row.values['trivial'], digits)}."
        )
    unknown = count - known
    judged = f" {unknown} could not be judged." if unknown else ""
    return f"The shared model {verdict(table)}. Mean {_from_to(table)}.{judged}"


def verdict(table: GainTable) -> str | None:
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
        return f"helps no site: it {rest}"
    return f"helps {len(better)} of {known} sites and {rest}"


def _from_to(table: GainTable) -> str:
    m = table.metric
    row = table.mean if table.mean.gain is not None else table.together
    alone, federated = row.values.get("alone"), row.values.get("federated")
    before, after = number(alone, m.digits), number(federated, m.digits)
    if before == after:
        return f"{m.label} stays at {after}"
    verb = "rises" if (federated or 0.0) > (alone or 0.0) else "falls"
    return f"{m.label} {verb} from {before} to {after}"


def _every(table: GainTable, known: int) -> str:
    if known < len(table.rows):
        return (
            f"all {known} sites that can be judged"
            if known > 1
            else "the one site that can be judged"
        )
    if table.left_out:
        return f"all {known} sites that were evaluated"
    return "both sites" if known == 2 else f"all {known} sites"


def _by(rows: Iterable[GainRow], digits: int) -> str:
    return listing([f"{r.name} by {number(abs(r.gain or 0.0), digits)}" for r in rows])


def certainty(table: GainTable) -> str | None:
    """Return at which sites the gain or loss is more than chance; None if nothing is known.

    What is sure is decided by a bootstrap over the sites' test machines, corrected for the
    number of sites (``fedpdm.evaluation.bootstrap``).
    """
    judged = [row for row in table.rows if row.sure is not None]
    few = [row for row in table.rows if row.too_few]
    count = len(table.rows)
    if len(table.rows) < 2 or not any(row.gain is not None for row in table.rows):
        return None
    if not judged:
        if few:
            where = "" if len(few) == count else f" at {_where(few, few, count)}"
            return f"{_too_few(few)} whether this is chance{where}{_over_all(table)}."
        reasons = list(dict.fromkeys(row.unsure for row in table.rows if row.unsure))
        return f"How sure this is is not known: {reasons[0]}." if reasons else None
    better, worse = (
        [row for row in judged if row.sure and row.verdict == verdict]
        for verdict in ("better", "worse")
    )
    open_ = [row for row in judged if not row.sure and row.verdict != "same"]
    if not better and not worse:
        said = "This could be chance " + ("at both sites" if len(judged) == count == 2 else
                f"at every one of {count} sites" if len(judged) == count else
                f"at {_where(judged, judged, count)}")  # fmt: skip
    else:
        parts = [
            f"{word} at {_where(rows, judged, count)}"
            for word, rows in (("better", better), ("worse", worse))
            if rows
        ]
        said = f"This is sure: {' and '.join(parts)}"
        if len(better) == len(judged) or len(worse) == len(judged):
            said = f"This is sure at {_where(better or worse, judged, count)}"
        if open_:
            said += f"; at {_where(open_, judged, count)} it could be chance"
    if few:
        words = _too_few(few)
        said += f"; {words[:1].lower()}{words[1:]} at {_named(few)}"
    unknown = sum(row.gain is not None for row in table.rows) - len(judged) - len(few)
    return said + (f"; {counted(unknown, 'site')} cannot be judged." if unknown else ".")


def _too_few(rows: list[GainRow]) -> str:
    """Return "Too few failures to say", or machines where no failure is foretold."""
    reasons = [row.unsure or "" for row in rows]
    if all("did not count" in reason for reason in reasons):
        return "Machines that failed were not counted, so this run cannot say"
    failures = any("failed" in reason for reason in reasons)
    return f"Too few {'failures' if failures else 'machines'} to say"


def _over_all(table: GainTable) -> str:
    """Return what can be said of all sites together, where no single one can be judged."""
    for row, words in (
        (table.mean, "on average over the sites"), (table.together, "over all test data"),
    ):  # fmt: skip
        if row.sure:
            change = "gain" if row.verdict == "better" else "loss"
            return f"; {words} the {change} is sure"
        if row.sure is False and row.verdict != "same":
            return f"; {words} it could be chance"
    return ""


def _named(rows: list[GainRow]) -> str:
    return listing([row.name for row in rows]) if len(rows) <= 3 else f"{len(rows)} sites"


def _where(rows: list[GainRow], judged: list[GainRow], count: int) -> str:
    if len(rows) == len(judged):
        every = {1: rows[0].name, 2: "both sites"}.get(len(rows), f"all {len(rows)} sites")
        judgeable = " that can be judged" if 1 < len(rows) < count else ""
        return every.replace("both", "the two") + judgeable if judgeable else every
    if len(rows) <= 3:
        return listing([row.name for row in rows])
    return f"{len(rows)} of {len(judged)} sites"
