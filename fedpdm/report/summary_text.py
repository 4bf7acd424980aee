"""What a run says in sentences, flattering or not, and what its words mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedpdm.baselines.registry import predictors
from fedpdm.evaluation.wording import MISSING, counted, listing, metric, number
from fedpdm.report.alarms import silence
from fedpdm.report.gain_table import GainRow, GainTable, gain_table, part_of

Record = Mapping[str, Any]

GLOSSARY = {
    "Alone": "a site trains the same model on its own data only; the gain is measured from here",
    "Alarm level (threshold)": "the predicted risk from which on an alarm is raised",
    "Average precision": "how many alarms are true, averaged over all alarm levels; guessing "
                         "scores the prevalence, 1 is perfect",
    "Brier score": "mean squared difference between the predicted risk and what happened (0 or "
                   "1); smaller is better",
    "Calibration error (ECE)": "how far predicted risks lie from the share that did fail, on "
                               "average; 5 % means off by five percentage points",
    "Coverage": "share of true remaining lives that lie inside the predicted interval",
    "Episode": "alarms of a machine that follow each other closely; a crew goes out once",
    "Event recall": "share of failures that were warned of by an alarm",
    "F1": "one number for true alarms (precision) and caught failures (recall); 1 is perfect",
    "False alarm": "an alarm that no failure follows within the horizon",
    "Federated": "sites train one model together; weights travel, rows stay where they are",
    "Gain": "federated against alone; plus is better, also where a smaller score is better",
    "Held out": "machines of which no row was seen in training: what to expect of a new machine",
    "Horizon": "how far ahead a failure is asked for",
    "Interval, sure, could be chance": "test machines are drawn again many times; the interval "
        "holds 95 % of the gains that come out, and is too narrow where few machines failed. Sure "
        "takes more: at least 10 machines that failed (of remaining life: 10 machines), and a "
        "range that is wider for few machines and for many sites, so that in about 95 of 100 "
        "such runs without any gain no site is called sure. The luck of training is not in it: "
        "other seeds tell",
    "Lead time": "time from the alarm to the failure: what is left to act",
    "Lift": "average precision over prevalence: how many times better than guessing",
    "Machine-month": "one machine watched for a month",
    "NASA score": "sum over machines of a penalty that grows exponentially with the error; too "
                  "late costs more than too early; smaller is better",
    "Pooled": "one model on all sites' rows in one place, where nobody minds",
    "Prevalence": "share of windows (or rows) that end in a failure within the horizon",
    "Precision": "share of alarms that a failure follows",
    "Recall": "share of windows (or rows) before a failure that raise an alarm",
    "RMSE": "typical error of the predicted remaining life, large errors weigh more; capped: "
            "lives beyond the cap count as the cap, as in training; uncapped: as they are",
    "ROC AUC": "chance that a window before a failure gets a higher risk than another one",
    "Round": "sites train for a while, their weights are averaged, all go on from the average",
    "Test data": "later data (or the official test set) that nothing was chosen on",
    "Update": "the weights that a site sends after training in a round",
    "Validation data": "data that chose the round and the alarm level, and nothing else",
    "Window": "the readings before a moment, from which the risk at that moment is predicted",
}  # fmt: skip
"""Terms of the report, for people who run sites."""


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
    alone, federated = row.values.get("alone"), row.values.get("federated")
    before, after = number(alone, m.digits), number(federated, m.digits)
    if before == after:
        return f"{m.label} stays at {after}"
    verb = "rises" if (federated or 0.0) > (alone or 0.0) else "falls"
    return f"{m.label} {verb} from {before} to {after}"


def _by(rows: Iterable[GainRow]) -> str:
    """Return "detroit by 0.012 and houston by 0.003"."""
    return listing([f"{r.name} by {number(abs(r.gain or 0.0), r.metric.digits)}" for r in rows])


def certainty(table: GainTable) -> str | None:
    """Return at which sites the gain or loss is more than chance; None if nothing is known.

    What is sure is decided by a bootstrap over the sites' test machines, corrected for the
    number of sites (``fedpdm.evaluation.significance``).
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
    result = []
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
    unseen = verdict(gain_table(summary, "heldout")) if many else None
    if unseen:
        result.append(f"On machines never seen in training it {unseen}.")
    result.append(
        f"This is one run with seed {summary.get('seed', MISSING)}. Repeat it with other seeds "
        "before acting on a small difference: python -m fedpdm.compare sets them side by side."
    )
    return result


def left_out(summary: Record) -> list[str]:
    """Return why controls are missing, one sentence each."""
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
