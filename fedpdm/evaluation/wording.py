"""Names, meanings and number formats of metrics: one place for table and report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedpdm.evaluation.locales import marked

MISSING = "\u2013"  # en dash
MINUS = "\u2212"

EVENTS = {
    "refused": "Update refused",
    "suspected": "Update left out",
    "attack": "Attacked on purpose",
    "site-failed": "Site failed",
    "timeout": "Site too late",
    "disconnected": "Site disconnected",
    "connected": "Site back",
    "plant-refused": "Site not let in",
    "rollback": "Rolled back",
    "stopped": "Run stopped",
    "damaged-round": "Damaged round file",
    "fault": "Fault injected on purpose",
    "warning": "Warning",
    "clusters": "Sites grouped",
}
"""Kinds of events, in words."""


@dataclass(frozen=True)
class Metric:
    """How one metric is named, written and explained.

    Attributes:
        name: key in summary.json.
        label: name in a sentence.
        short: name where there is little room.
        higher_is_better: whether more is better.
        digits: digits after the point.
        meaning: plain words; ``{unit}`` stands for the data's time unit, ``{cases}`` for what
            is judged one by one: windows or rows.
    """

    name: str
    label: str
    short: str
    higher_is_better: bool = True
    digits: int = 3
    meaning: str = ""

    @property
    def sign(self) -> float:
        """1 where more is better, -1 where less is: times a difference, plus is better."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def aim(self) -> str:
        """In which direction it is better, in a word."""
        return "higher" if self.higher_is_better else "lower"


_KNOWN = {
    m.name: m
    for m in (
        Metric(
            "average_precision", "average precision", "AP", True, 3,
            "Average precision asks how many alarms are true, averaged over every alarm level from "
            "the strictest to the one that misses no failure. 1 is perfect; guessing scores the "
            "share of {cases} that do end in a failure.",
        ),
        Metric(
            "roc_auc", "ROC AUC", "AUC", True, 3,
            "ROC AUC is the chance that one of the {cases} before a failure gets a higher risk "
            "than one of the others. 1 is perfect, 0.5 is guessing.",
        ),
        Metric(
            "rmse", "RMSE", "RMSE", False, 2,
            "RMSE is the typical error of the predicted remaining life, in {unit}; large errors "
            "weigh more, and lives beyond the task's cap count as the cap. 0 is perfect.",
        ),
        Metric(
            "exact_match", "exact match", "exact", True, 3,
            "Exact match is the share of {cases} whose program line is written without a mistake "
            "in any token, each token from those that the model wrote before. 1 is perfect.",
        ),
        Metric(
            "macro_f1", "macro F1", "macro F1", True, 3,
            "Macro F1 is the mean over the classes of the F1 of finding each: rare classes count "
            "as much as frequent ones. 1 is perfect.",
        ),
        Metric("token_accuracy", "right tokens, the end not counted", "tokens"),
        Metric("type_accuracy", "type of a token", "type"),
        Metric("command_accuracy", "command", "command"),
        Metric("parameter_accuracy", "parameter", "parameter"),
        Metric("sign_accuracy", "sign of a number", "sign"),
        Metric("digit_accuracy", "digit of a number", "digits"),
        Metric("number_accuracy", "whole number", "number"),
        Metric("well_formed", "well-formed lines", "well formed"),
        Metric("accuracy", "accuracy", "accuracy"),
        Metric("rmse_uncapped", "RMSE, life not capped", "RMSE uncapped", False, 2),
        Metric("mae", "mean absolute error", "MAE", False, 2),
        Metric("nasa_score", "NASA score (late costs more)", "NASA", False, 0),
        Metric("f1", "F1 at the threshold", "F1"),
        Metric("precision", "precision at the threshold", "precision"),
        Metric("recall", "recall at the threshold", "recall"),
        Metric("mcc", "Matthews correlation", "MCC"),
        Metric("lift", "lift (average precision over prevalence)", "lift", digits=1),
        Metric("false_alarm_rate", "share of healthy windows in alarm", "false-alarm rate", False),
        Metric("hits", "alarms before a failure", "hits", digits=0),
        Metric("false_alarms", "alarms without a failure to come", "false alarms", False, 0),
        Metric("missed", "missed before a failure", "missed", False, 0),
        Metric("quiet", "no alarm, and no failure to come", "quiet", digits=0),
        Metric("ece_mass", "calibration error (bins of equal size)", "ECE mass", False),
        Metric("nasa_score_mean", "NASA score per machine", "NASA mean", False, 2),
        Metric("nasa_score_uncapped", "NASA score, life not capped", "NASA uncapped", False, 0),
        Metric("mae_uncapped", "mean absolute error, life not capped", "MAE uncapped", False, 2),
        Metric("brier", "Brier score", "Brier", False),
        Metric("ece", "calibration error (ECE)", "ECE", False),
        Metric("prevalence", "prevalence (share before a failure)", "prevalence"),
        Metric("n", "size of the test part", "n", digits=0),
        Metric("positives", "failures in the test part", "positives", digits=0),
        Metric(
            "reconstruction_error", "reconstruction error", "error", False, 4,
            "The reconstruction error is the mean squared error of readings that were hidden from "
            "the model, in units of their deviation. 0 is perfect; 1 is about what the mean of "
            "the training data reaches.",
        ),
        Metric("mean_error", "error of the training mean", "mean", False, 4),
        Metric("last_error", "error of the last reading seen", "last", False, 4),
        Metric("interpolation_error", "error of a line between neighbours", "line", False, 4),
        Metric(
            "macro_f1", "macro F1", "macro F1", True, 3,
            "Macro F1 is the mean over classes of F1, the balance of how many answers of a class "
            "are right and how many of its {cases} are found, so that a rare class counts like a "
            "common one. 1 is perfect.",
        ),
        Metric("accuracy", "accuracy", "accuracy"),
        Metric("macro_precision", "macro precision", "precision"),
        Metric("macro_recall", "macro recall", "recall"),
        Metric("log_loss", "log loss", "log loss", False),
        Metric("threshold", "alarm threshold", "threshold"),
        Metric("validation_loss", "validation loss", "loss", False, 4),
        Metric("loss", "loss", "loss", False, 4),
    )
}  # fmt: skip


_OURS = frozenset(_KNOWN)


def describe(*metrics: Metric) -> None:
    """Make metrics of a task known to table, plots and report, by their names."""
    _KNOWN.update({each.name: each for each in metrics})


def described(name: str, higher_is_better: bool) -> dict[str, Any]:
    """Return a metric as summary.json keeps it: nothing of ours, all of a task's own.

    Args:
        name: of the task's primary metric.
        higher_is_better: as the task says; nobody may have described its metric.
    """
    if name in _OURS:
        return {}
    return {"described": vars(replace(metric(name), higher_is_better=higher_is_better))}


def primary_metric(summary: Mapping[str, Any]) -> Metric:
    """Return the metric that chose the round of a summary."""
    said = summary.get("validation") or {}
    if own := said.get("described"):
        return Metric(**own)
    return metric(str(said.get("metric") or "average_precision"))


def gain_against(summary: Mapping[str, Any]) -> str:
    """Return the predictor that a summary's gain is measured against: once always ``alone``."""
    return str(summary.get("gain_against") or "alone")


def metric(name: str) -> Metric:
    """Return how ``name`` is written; ``average_precision_30`` is that of horizon 30.

    A name nobody has described is shown as it is; "error" or "loss" in it means less is better.
    """
    if name in _KNOWN:
        return _KNOWN[name]
    base, _, horizon = name.rpartition("_")
    if base in _KNOWN and horizon.replace(".", "").isdigit():
        known = _KNOWN[base]
        return replace(
            known,
            name=name,
            label=f"{known.label}, horizon {horizon}",
            short=f"{known.short} {horizon}",
        )
    lower = any(word in name for word in ("loss", "error", "rmse", "mae", "mse"))
    return Metric(name, name.replace("_", " "), name, higher_is_better=not lower)


def number(value: object, digits: int = 3, sign: bool = False) -> str:
    """Return a number with a real minus sign and thousands apart; a dash for None and NaN."""
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return f"{MINUS if value < 0 else ''}∞"
    rounded = round(float(value), digits) + 0.0  # + 0.0 turns -0.0 into 0.0
    text = marked(f"{abs(rounded):,.{digits}f}".replace(",", "\u202f"))
    if rounded < 0:
        return MINUS + text
    return ("±" if rounded == 0 else "+") + text if sign else text


def percent(value: object, digits: int = 1) -> str:
    """Return a share as a percentage."""
    if not isinstance(value, int | float) or math.isnan(value):
        return MISSING
    return f"{number(100 * value, digits)}\u00a0%"


def size(count: object) -> str:
    """Return a number of bytes in decimal units."""
    if not isinstance(count, int | float):
        return MISSING
    for unit, factor, digits in (("GB", 1e9, 2), ("MB", 1e6, 1), ("kB", 1e3, 1)):
        if count >= factor:
            return f"{number(count / factor, digits)} {unit}"
    return f"{number(count, 0)} B"


def duration(seconds: object) -> str:
    """Return seconds as people say them: 0.4 s, 12 s, 3 min 20 s, 2 h 05 min."""
    if not isinstance(seconds, int | float):
        return MISSING
    if seconds < 10:
        return f"{number(seconds, 1)} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def listing(names: Sequence[str], most: int = 3) -> str:
    """Return names as in a sentence: "a", "a and b", "a, b, c and 4 more"."""
    shown, rest = list(names[:most]), len(names) - most
    if rest > 0:
        shown.append(f"{rest} more")
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """Return "1 site", "12 sites"."""
    return f"{number(count, 0)} {singular if count == 1 else plural or singular + 's'}"


def direction(chosen: Metric) -> str:
    """Return a metric's label with the direction in which it is better."""
    return f"{chosen.label} ({chosen.aim} is better)"


def attack_sentence(found: Mapping[str, Any]) -> str:
    """Return who attacks a run, and how.

    Args:
        found: ``attack`` of summary.json.
    """
    names, (first, last) = found["sites"], found["rounds"]
    if not names:
        return f"No site attacks: this run is the control of {found['name']} attacks"
    until = "to the end" if last is None else f"to {last}"
    return (
        f"ATTACKED ON PURPOSE ({found['name']}): {len(names)} of {found['of_sites']} sites are "
        f"malicious from round {first} {until} ({listing(names)})"
    )
