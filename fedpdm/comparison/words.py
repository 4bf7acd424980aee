"""A comparison in sentences and tables, and a glossary of its terms."""

from __future__ import annotations

from collections.abc import Sequence

from fedpdm.comparison.result import Comparison, Family, Pair, pairs_needed
from fedpdm.comparison.scores import VIEWS, Spread
from fedpdm.comparison.statistics import FEWEST_PAIRS, LEVEL, Ranking, cliques, smallest_p
from fedpdm.evaluation.wording import MISSING, counted, duration, listing, number

FEW = 6
"""Up to this many settings a sentence names them all."""

GLOSSARY = {
    "Setting": "all options of a run but its seed; the name says only what differs here",
    "Seed": "start of every draw of a run: data where it is generated, first weights, batches; "
            "runs of one seed share all of that, so their difference is what the setting does",
    "± spread": "standard deviation over the seeds",
    "Difference": "setting minus reference, mean over the seeds that both have; plus is better, "
                  "also where a smaller score is better",
    "95 % range": "Student's t interval of the mean difference over seeds, each by itself: with "
                  "several comparisons some leave 0 out by chance; corrected p decides",
    "p": "paired test, two-sided: how often chance alone makes a difference at least as large. The "
         "larger p of a sign-flip permutation test (up to 20 seeds every choice of signs is "
         "counted) and of a t test that allows for skewed differences. It covers what differs "
         "between seeds: where seeds share their test data, training again on the same machines, "
         "not other machines",
    "Corrected p": "the same after Holm's correction: with many comparisons some look good by "
                   f"chance; at most {LEVEL:g} is called better or worse",
    "Open": "chance explains the difference as well; that is not evidence of being equal",
    "Effect": "mean difference in units of its own spread over seeds (Hedges' g of paired "
              "differences, corrected for few seeds); it says how steady a difference is, "
              "not how large",
    "Average rank": "1 is the best setting of a block; mean over blocks. A block is a seed; over "
                    "several data sets, ranked by the mean of its ranks on each",
    "Critical difference": "Nemenyi's: average ranks closer than this cannot be told apart; after "
                           "Friedman's test with Iman and Davenport's correction",
    "Above guessing, per MB and per s": "how far the score lies above a constant answer, for "
                                        "each megabyte exchanged and each second of setup, "
                                        "training and evaluation: the run's own processor time "
                                        "where all runs have it, else time on the wall, which "
                                        "whatever else ran on the machine makes longer",
    "Worst site": "score of the site that is served worst",
}  # fmt: skip

Table = tuple[list[str], list[list[str]]]
"""Heads and rows."""


def settings_table(family: Family) -> Table:
    """Return every setting: the compared score first, then the others, rank and costs."""
    digits = family.metric.digits
    views = sorted(VIEWS, key=lambda view: view != family.view)
    heads = ["Setting", "Seeds", *(f"{VIEWS[view]} (mean ± spread)" for view in views),
             "Average rank", "MB", "Time", "Above guessing per MB", "… per s"]  # fmt: skip
    rows = []
    for s, rank in zip(family.gain_table, ranks_of(family), strict=True):
        scores = [plus_minus(s.scores[view], digits) for view in views]
        costs = [number(s.megabytes, 1), duration(s.seconds)]
        costs += [number(s.per_megabyte, 4), number(s.per_second, 4)]
        rows.append([s.name, str(len(s.by_seed)), *scores, number(rank, 2), *costs])
    return heads, rows


def plus_minus(spread: Spread, digits: int) -> str:
    """Return a mean with its spread; without one for a single seed."""
    mean = number(spread.mean, digits)
    return mean if spread.deviation is None else f"{mean} ± {number(spread.deviation, digits)}"


def ranks_of(family: Family) -> Sequence[float | None]:
    """Return the average rank of each setting; None where no seed is common to all."""
    return family.ranking.mean or [None] * len(family.gain_table)


def pairs_table(pairs: Sequence[Pair], digits: int) -> Table:
    """Return pairs of settings, each with its difference and whether that is beyond chance."""
    heads = ["Setting", "Against", "Difference", "Verdict", "95 % range", "Seeds won", "Effect",
             "p", "Corrected p"]  # fmt: skip
    rows = []
    for pair in pairs:
        e = pair.effect
        between = f"{number(e.low, digits)} to {number(e.high, digits)}"
        rows.append([
            pair.first, pair.second, number(e.mean, digits, sign=True), pair.verdict,
            MISSING if e.low is None else between, f"{pair.better} of {e.pairs}",
            number(e.size, 2), p_value(pair.p), p_value(pair.corrected),
        ])  # fmt: skip
    return heads, rows


def p_value(value: float | None) -> str:
    """Return a p-value as written: three digits, or "< 0.001"."""
    if value is not None and value < 0.0005:
        return "< 0.001"
    return number(value, 3)


def conclusion(comparison: Comparison) -> str:
    """Return what the comparison says, in one or two sentences."""
    pairs = comparison.against
    if len(pairs) == 1:
        return _of_one(pairs[0], comparison.families[0])
    best = _best(comparison)
    found = [pair for pair in comparison.pairs if pair.verdict != "open"]
    judged = any(pair.verdict != "open" for pair in pairs)
    if not judged and not found:
        if can_claim(comparison):
            return f"No setting can be told from another: the differences may be chance. {best}."
        return (
            f"{best}, but with {_at_most(comparison.pairs, 'seed')} no single difference "
            f"can be told from chance: at least {needed(comparison)} are needed."
        )
    against = listing(list(dict.fromkeys(family.reference for family in comparison.families)))
    if judged:
        return f"{_judged(comparison, against)}. {best}."
    twins = any(len(set(family.references.values())) > 1 for family in comparison.families)
    return (
        f"No setting can be told from {f'its twin with {against}' if twins else against}; "
        f"{len(found)} of all {counted(len(comparison.pairs), 'pair')} differ. {best}."
    )


def can_claim(comparison: Comparison) -> bool:
    """Return whether any comparison has seeds enough to be significant, after correction."""
    return any(
        smallest_p(pair.effect.pairs) * len(pairs) <= LEVEL
        for pairs in (comparison.against, comparison.pairs)
        for pair in pairs
    )


def needed(comparison: Comparison) -> int:
    """Return how many seeds the comparisons with the references need."""
    return max(FEWEST_PAIRS, pairs_needed(len(comparison.against)))


def power_lines(comparison: Comparison) -> list[str]:
    """Return what cannot be significant with the seeds there are, and why."""
    most = max((pair.effect.pairs for pair in comparison.pairs), default=0)
    if most < FEWEST_PAIRS:
        count = len(comparison.against)
        more = f", {needed(comparison)} with {count} comparisons" if count > 1 else ""
        return [
            f"With {_at_most(comparison.pairs, 'pair')} of seeds no pair of settings can be "
            f"significant at {LEVEL:g}: the smallest possible p-value is 2/2^{most} = "
            f"{smallest_p(most):.4g}. It takes {FEWEST_PAIRS} seeds or more{more}."
        ]
    lines = []
    few = {f"{f.name} {p.first} and {p.second} ({p.effect.pairs})".strip(): p.effect.pairs
           for f in comparison.families for p in f.pairs
           if p.effect.pairs < FEWEST_PAIRS}  # fmt: skip
    if few:
        best = max(few.values())
        lines.append(
            f"Too few seeds to be significant at {LEVEL:g}, whatever they show: "
            f"{listing(list(few), most=FEW)}. The smallest possible p-value is 2/2^{best} = "
            f"{smallest_p(best):.4g}; it takes {FEWEST_PAIRS} seeds or more."
        )
    for pairs, what in ((comparison.against, "comparisons with a reference"),
                        (comparison.pairs, "pairs")):  # fmt: skip
        most = max((pair.effect.pairs for pair in pairs), default=0)
        if pairs and smallest_p(most) * len(pairs) > LEVEL:
            lines.append(
                f"After correction for {len(pairs)} {what}, {most} seeds cannot be significant; "
                f"it takes {pairs_needed(len(pairs))}."
            )
    return lines


def _at_most(pairs: Sequence[Pair], what: str) -> str:
    """Return "3 seeds", or "at most 3 seeds" where some pairs have fewer."""
    counts = {pair.effect.pairs for pair in pairs}
    most = max(counts, default=0)
    return f"{'at most ' if len(counts) > 1 else ''}{counted(most, what)}"


def _of_one(pair: Pair, family: Family) -> str:
    m, (first, second) = family.metric, (family.get(name) for name in (pair.first, pair.second))
    common = set(first.by_seed) & set(second.by_seed)
    mine, its = (number(sum(s.by_seed[seed] for seed in common) / len(common), m.digits)
                 for s in (first, second))  # fmt: skip
    where = f" ({VIEWS[family.view]})" if family.view != "global" else ""
    scores = f"{m.label}{where} {mine} against {its}"
    seeds = counted(pair.effect.pairs, "seed")
    if pair.verdict != "open":
        return (
            f"{pair.first} is {pair.verdict} than {pair.second}: {scores}, a difference that "
            f"chance does not explain ({seeds}, p {_equals(pair.p)})."
        )
    few = pair.effect.pairs < FEWEST_PAIRS
    why = f"at least {FEWEST_PAIRS} seeds are needed"
    if not few:
        why = f"the difference may be chance ({seeds}, p {_equals(pair.p)})"
    apart = f"{pair.first} and {pair.second} cannot be told apart{f' with {seeds}' * few}"
    return f"{apart}: {scores}; {why}."


def _equals(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _judged(comparison: Comparison, against: str) -> str:
    """Return which settings are better and worse than the reference, and how many are open."""
    m = comparison.families[0].metric
    every = [
        (pair, f"{pair.first} on {family.name}" if family.name else pair.first)
        for family in comparison.families
        for pair in family.against
    ]
    every.sort(key=lambda each: -abs(each[0].effect.mean))
    parts: list[str] = []
    for word in ("better", "worse", "open"):
        chosen = [(name, number(abs(p.effect.mean), m.digits))
                  for p, name in every if p.verdict == word]  # fmt: skip
        if not chosen:
            continue
        than = f"{word} than {against}" if word == "better" or not parts else word
        if word == "open":
            names = listing([name for name, _ in chosen])
            parts.append(f"{names} cannot be told from {'it' if parts else against}")
        elif len(chosen) == 1:
            parts.append(f"{chosen[0][0]} is {than} by {chosen[0][1]}")
        else:
            names = listing([f"{name} by {change}" for name, change in chosen])
            parts.append(f"{len(chosen)} of {len(every)} are {than} ({names})")
    return "; ".join(parts)


def _best(comparison: Comparison) -> str:
    parts = []
    for family in comparison.families:
        score = family.best.scores[family.view].mean
        where = f" on {family.name}" if family.name else ""
        parts.append(f"{family.best.name}{where} ({number(score, family.metric.digits)})")
    label = comparison.families[0].metric.label
    return f"Best on average in {label}: {listing(parts, most=6)}"


def ranking_line(names: Sequence[str], result: Ranking) -> str:
    """Return the ranking in a sentence or two."""
    if result.critical is None or result.p_value is None:
        return f"No critical difference: {result.undefined}."
    alike = "differ" if result.p_value <= LEVEL else "cannot be told apart"
    text = (
        f"Over {counted(result.blocks, 'block')} the settings as a whole {alike} (Friedman's "
        f"test, p {_equals(result.p_value)}); two differ if their average ranks are "
        f"{number(result.critical, 2)} or more apart."
    )
    groups = cliques(result.mean, result.critical)
    if max(result.mean) - min(result.mean) < result.critical:
        text += " None are."
    elif groups and len(names) <= FEW:
        same = [", ".join(names[i] for i in group) for group in groups]
        text += f" Not apart: {'; '.join(same)}."
    if result.blocks < 10:
        text += " With so few blocks this is a rough guide."
    return text


def site_lines(family: Family) -> list[str]:
    """Return for each setting with a reference at how many sites it is better, and where worse."""
    digits = family.metric.digits
    up, down = ("higher", "lower") if family.metric.higher_is_better else ("better", "worse")
    lines = []
    for name, reference in family.references.items():
        changes = [(c.site, c.against or 0.0) for c in family.changes(name)]
        if not changes:
            continue
        gains = sum(round(change, digits) > 0 for _, change in changes)
        text = f"{name} against {reference}: {up} at {gains} of {counted(len(changes), 'site')}"
        losses = [(s, c) for s, c in changes if round(c, digits) < 0]
        if losses:
            losses.sort(key=lambda loss: loss[1])
            named = listing([f"{site} by {number(-change, digits)}" for site, change in losses])
            text += f", {down} at {named}"
        lines.append(f"{text} (means over seeds)")
    return lines
