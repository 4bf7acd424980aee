"""What a run says, sentence by sentence, flattering or not; and what its words mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpdm.baselines.registry import predictors
from fedpdm.evaluation.wording import MISSING, listing, metric, number
from fedpdm.report.alarms import silence
from fedpdm.report.gain_table import GainTable, gain_table
from fedpdm.report.summary_text import verdict

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


def findings(summary: Record, table: GainTable) -> list[str]:
    """Return what the comparison says, sentence by sentence."""
    m, mean = table.metric, table.mean
    many = len(table.rows) > 1
    average, own = (" on average", "the shared model's") if many else ("", "its own model's")
    result = []
    federated = mean.values.get("federated")
    shared = number(federated, m.digits)
    if many and mean.gain is not None and mean.interval is not None:
        low, high = (number(end, m.digits, sign=True) for end in mean.interval)
        result.append(
            f"On average over the sites the gain in {m.label} is "
            f"{number(mean.gain, m.digits, sign=True)}; "
            f"drawing the test machines again puts it between {low} and {high} (95 % interval"
            + (f", too narrow: {mean.unsure})." if mean.sure is None and mean.unsure else ").")
        )
    every = table.together
    if many and mean.sure and every.sure is False:
        result.append(
            f"Over all test data in one list the gain is {number(every.gain, m.digits, sign=True)} "
            "and could be chance: a risk at one site does not mean the same as at another."
            if m.name.startswith(("average", "roc"))
            else f"Over all test data in one list the gain is "
            f"{number(every.gain, m.digits, sign=True)} and could be chance."
        )
    elif many and every.sure and mean.sure is False and m.name.startswith(("average", "roc")):
        result.append(
            f"Over all test data in one list the gain is {number(every.gain, m.digits, sign=True)} "
            "and beyond chance, but there the risks of every site's own model stand in one list, "
            "and they are not on one scale: the mean over the sites is the fairer comparison."
        )
    beaten = [r.name for r in table.rows if r.beats("federated", "trivial") is False]
    if beaten:
        result.append(
            f"At {listing(beaten)} the {'shared ' if many else ''}model is no better than the "
            "constant answer: its output there carries no information."
        )
    for name, shown in table.columns.items():
        value = mean.values.get(name)
        if not shown.subject or value is None or federated is None:
            continue
        comparison = _compared(value, federated, m.higher_is_better, m.digits)
        result.append(
            f"{shown.subject} would reach {m.label} {number(value, m.digits)}{average}, "
            f"{comparison} {own} {shared}."
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
    found = (summary.get("test") or {}).get("shuffled")
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


def _compared(value: float, reference: float, higher_is_better: bool, digits: int) -> str:
    difference = round(value - reference, digits)
    if difference == 0:
        return "the same as"
    return "better than" if (difference > 0) == higher_is_better else "worse than"
