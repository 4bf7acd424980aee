"""The findings of a run in sentences, good and bad, and what the terms mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedpdm.baselines.registry import predictors
from fedpdm.evaluation.wording import MISSING, counted, listing, metric, number
from fedpdm.report.gain_table import GainRow, GainTable, gain_table, part_of
from fedpdm.report.sections.alarms import dearer, silence

Record = Mapping[str, Any]

FEW = 6
"""Up to so many sites are named; of more it is said how many."""


def headline(table: GainTable) -> str:
    """Return in one sentence whether the federation's model helps each site, and by how much."""
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
            f"{table.subject} reaches {label} {number(reached, digits)}{where}; "
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
    return f"{table.subject} {verdict(table)}. Mean {_from_to(table)}.{judged}"


def verdict(table: GainTable) -> str | None:
    """Return what the shared model does, from "helps" or "hurts" on; None if nothing is known."""
    better, worse, same = (table.having(v) for v in ("better", "worse", "same"))
    known = len(better) + len(worse) + len(same)
    if not known:
        return None
    judged = " that can be judged" if known < len(table.rows) else ""
    every = _all(known, judged or (" that were evaluated" if table.left_out else ""))
    if len(better) == known:
        return f"helps {every}" + (f" ({_by(better)})" if known <= 3 else "")
    if len(same) == known:
        return f"changes nothing for {every}"
    rest = [f"hurts {len(worse)} ({_by(worse)})"] if worse else []
    if same:
        rest.append(f"changes nothing for {len(same)} ({listing([r.name for r in same])})")
    if not better:
        return f"helps no site: it {' and '.join(rest)}"
    return f"helps {len(better)} of {known} sites and {' and '.join(rest)}"


def _from_to(table: GainTable) -> str:
    m = table.metric
    row = table.mean if table.mean.gain is not None else table.together
    alone, federated = row.values.get(table.against), row.values.get("federated")
    before, after = number(alone, m.digits), number(federated, m.digits)
    if before == after:
        return f"{m.label} stays at {after}"
    verb = "rises" if (federated or 0.0) > (alone or 0.0) else "falls"
    return f"{m.label} {verb} from {before} to {after}"


def facts(summary: Record) -> str | None:
    """Return what is known of how generated data came to be; None of other data."""
    known = part_of(summary, "data", "facts")
    if not isinstance(known, Sequence) or isinstance(known, str) or not known:
        return None
    more = f"; and {len(known) - FEW} more" if len(known) > FEW else ""
    return f"Of the data: {'; '.join(str(fact) for fact in known[:FEW])}{more}."


def chosen_alone(summary: Record) -> str | None:
    """Return which kind of model is the best alone at which sites; None with one kind only."""
    chosen = part_of(summary, "test", "baselines", "best_alone", "chosen")
    if not isinstance(chosen, Mapping) or not chosen:
        return None
    kinds: dict[str, list[str]] = {}
    for site, kind in chosen.items():
        kinds.setdefault(str(kind), []).append(str(site))
    known, many = predictors(kinds), len(chosen) > FEW
    where = [
        f"{known[kind].in_sentence} at "
        + (f"{len(names)} of {counted(len(chosen), 'site')}" if many else listing(names))
        for kind, names in sorted(kinds.items(), key=lambda item: -len(item[1]))
    ]
    return (
        "Gain is measured against the best model that a site has by itself, which its validation "
        f"data chose: {'; '.join(where)}."
    )


def hindsight(table: GainTable) -> str | None:
    """Return where another kind of model alone turned out better than the chosen one; else None.

    Validation data chose, and cannot know: the mean gain against the best kind of each site on its
    test data stands beside it. No site could have had that choice, so it is a bound.
    """
    kinds = [name for name, shown in table.columns.items() if shown.per_site]
    better: dict[str, list[GainRow]] = {}
    gains = []
    for row in table.rows:
        known = [kind for kind in kinds if row.values.get(kind) is not None]
        if row.gain is None or not known or table.against in kinds:
            continue
        worth = {kind: row.difference("federated", kind) or 0.0 for kind in known}
        best = min(worth, key=worth.__getitem__)
        gains.append(min(worth[best], row.gain))
        if row.judged(best, table.against) == "better":
            better.setdefault(best, []).append(row)
    if not better:
        return None
    digits, many = table.metric.digits, len(table.rows) > FEW
    where = [
        f"{table.columns[kind].in_sentence} at "
        + (f"{len(rows)} of {counted(len(table.rows), 'site')}" if many else listing(
            [f"{row.name} ({number(row.values[kind], digits)})" for row in rows], most=FEW
        ))
        for kind, rows in better.items()
    ]  # fmt: skip
    return (
        f"On test data another kind alone turned out better: {'; '.join(where)}. Against the best "
        "of each site with that hindsight the mean gain is "
        f"{number(sum(gains) / len(gains), digits, sign=True)}."
    )


def _by(rows: Iterable[GainRow]) -> str:
    """Return "detroit by 0.012 and houston by 0.003"."""
    return listing([f"{r.name} by {number(abs(r.gain or 0.0), r.metric.digits)}" for r in rows])


def certainty(table: GainTable) -> str | None:
    """Return at which sites the gain or loss is more than chance; None if nothing is known.

    What is sure is decided by a bootstrap over the sites' test machines, corrected for the
    number of sites (``fedpdm.evaluation.bootstrap``).
    """
    rows, count = table.rows, len(table.rows)
    judged = [row for row in rows if row.sure is not None]
    few = [row for row in rows if row.too_few]
    unknown = sum(row.gain is not None for row in rows) - len(judged) - len(few)
    if count < 2 or not (judged or few or unknown):
        return None
    if few and not judged:
        where = "" if len(few) == count else f" at {_where(few, rows, count)}"
        return f"{_too_few(few)} whether this is chance{where}{_over_all(table)}."
    if not judged:
        reasons = [row.unsure for row in rows if row.unsure]
        return f"How sure this is is not known: {reasons[0]}." if reasons else None
    sure = [row for row in judged if row.sure]
    parts = [
        f"{word} at {_where(chosen, judged, count)}"
        for word in ("better", "worse")
        if (chosen := [row for row in sure if row.verdict == word])
    ]
    chance = [row for row in judged if not row.sure and row.verdict != "same"]
    if not sure:
        said = f"This could be chance at {_where(judged, judged, count)}"
    else:
        said = f"This is sure: {' and '.join(parts)}"
        if len(sure) == len(judged) and len(parts) == 1:
            said = f"This is sure at {_where(judged, judged, count)}"
        if chance:
            said += f"; at {_where(chance, judged, count)} it could be chance"
    if few:
        words = _too_few(few)
        said += f"; {words[:1].lower()}{words[1:]} at {_where(few, rows, count)}"
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


def _where(rows: Sequence[GainRow], judged: Sequence[GainRow], count: int) -> str:
    """Return names of a few sites, or how many they are of those that can be judged."""
    if len(rows) == len(judged) > 1:
        return _all(len(rows), " that can be judged" if len(rows) < count else "")
    if len(rows) <= 3:
        return listing([row.name for row in rows])
    return f"{len(rows)} of {len(judged)} sites"


def _all(count: int, which: str = "") -> str:
    return {1: "the one site", 2: "both sites"}.get(count, f"all {count} sites") + which


def findings(summary: Record, table: GainTable) -> list[str]:
    """Return what the comparison says, sentence by sentence."""
    m, mean, every = table.metric, table.mean, table.together
    many = len(table.rows) > 1
    reached = number(mean.values.get("federated"), m.digits)
    result = [said for said in (chosen_alone(summary), hindsight(table)) if said]
    if many and mean.gain is not None and mean.interval is not None:
        gain, low, high = (number(x, m.digits, sign=True) for x in (mean.gain, *mean.interval))
        narrow = f", too narrow: {mean.unsure}" if mean.sure is None and mean.unsure else ""
        result.append(
            f"On average over the sites the gain in {m.label} is {gain}; drawing the test machines "
            f"again puts it between {low} and {high} (95 % interval{narrow})."
        )
    of_risks = m.name.startswith(("average", "roc"))
    in_list = (
        f"Over all test data in one list the gain is {number(every.gain, m.digits, sign=True)} and "
    )
    if many and mean.sure and every.sure is False:
        scale = ": a risk at one site does not mean the same as at another" if of_risks else ""
        result.append(f"{in_list}could be chance{scale}.")
    elif many and every.sure and mean.sure is False and of_risks:
        result.append(
            f"{in_list}beyond chance, but there the risks of every site's own model stand in one "
            "list, and they are not on one scale: the mean over the sites is the fairer comparison."
        )
    ahead = {row.name: row.difference("federated", "trivial") for row in table.rows}
    if beaten := [name for name, by in ahead.items() if by is not None and by <= 0]:
        result.append(
            f"At {listing(beaten)} the {'shared ' if many else ''}model is no better than the "
            "constant answer: its output there carries no information."
        )
    average, own = (" on average", "the shared model's") if many else ("", "its own model's")
    words = {"better": "better than", "worse": "worse than", "same": "the same as"}
    for name, shown in table.columns.items():
        compared = words.get(mean.judged(name, "federated"))
        if shown.subject and compared:
            result.append(
                f"{shown.subject} would reach {m.label} {number(mean.values[name], m.digits)}"
                f"{average}, {compared} {own} {reached}."
            )
    if mute := silence(summary, table.cases):
        result.append(mute)
    if other := dearer(summary):
        result.append(other)
    unseen = verdict(gain_table(summary, "heldout")) if many else None
    if unseen:
        result.append(f"On machines never seen in training it {unseen}.")
    result.append(
        f"This is one run with seed {summary.get('seed', MISSING)}. Repeat it with other seeds "
        "before acting on a small difference: python -m fedpdm.compare sets them side by side."
    )
    return result


def left_out(summary: Record) -> list[str]:
    """Return why baselines are missing, one sentence each."""
    reasons = summary.get("baselines_left_out") or {}
    known = predictors(reasons)
    return [f"{known[n].name or known[n].heading}: {reason}." for n, reason in reasons.items()]


def shuffled(summary: Record) -> str | None:
    """Return what a run with shuffled labels found; None for an ordinary run."""
    found = part_of(summary, "test", "shuffled")
    if not found:
        return None
    text = "The labels of this run were shuffled on purpose, to check for leaks: no score counts."
    whole = found.get("global")
    if not whole or whole.get("value") is None:
        return text
    kind = (
        "copies, overlaps or neighbours of training windows in the test, or test labels that "
        "reach the model"
        if found.get("kind") == "rotated"
        else "test labels that reach the model after the shuffle; copies and overlaps show with "
        "shuffle_labels=rotated only"
    )
    if whole.get("within"):
        verdict = f"it scores as chance does: no leak of this kind shows ({kind})"
    elif whole["value"] > (whole.get("high") or 0.0):
        verdict = f"it scores above chance: something may leak ({kind}); look at another seed"
    else:
        verdict = "it scores below chance, which no leak explains; look at another seed"
    m = metric("average_precision")
    return (
        f"{text} Average precision is {number(whole['value'], m.digits)}; labels shuffled again "
        f"give {number(whole.get('low'), m.digits)} to {number(whole.get('high'), m.digits)}, so "
        f"{verdict}. A label hidden among the sensors never shows this way."
    )
