"""docs/source-systems.md: what source documents claim, what is wrong, and what is measured here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from benchmarks.predictions.claims import DOCUMENTS

Stored = Mapping[str, Any]
NOT_MEASURED = "not measured"
NAMES = {
    "trivial": "trivial", "alone": "alone", "federated": "federated", "pooled": "pooled",
    "hgb": "trees", "hgb_alone": "trees alone", "best_alone": "best alone",
    "minirocket": "MiniRocket", "rules": "rules", "language": "no sensors",
    "isolation_forest": "isolation forest",
}  # fmt: skip
METRICS = {
    "average_precision": "AP", "macro_f1": "macro F1", "accuracy": "accuracy", "brier": "Brier",
    "ece": "ECE", "exact_match": "exact match", "token_accuracy": "token accuracy",
}  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """One experiment of ``systems.json``.

    Attributes:
        system: the document that it belongs to.
        title: its name on the page.
        command: shown where no run states one.
        claimed: the claim it stands against.
        metrics: what is shown; the first is compared.
        simple: the baselines that need no federation and no network.
        networks: the network at each site alone and on pooled data.
    """

    system: str
    title: str
    command: str
    claimed: str
    metrics: tuple[str, ...]
    simple: tuple[str, ...]
    networks: tuple[str, ...] = ("alone", "pooled")


RUN = "python -m fedpdm.simulate experiment="
EXPERIMENTS = {
    "moola": Experiment(
        "moola", "moola", f"{RUN}moola", "accuracy 70.0 %, weighted F1 57.6 %",
        ("average_precision", "brier", "ece"), ("trivial", "hgb", "minirocket"),
    ),
    "gcode": Experiment(
        "gcode", "G-code", f"{RUN}gcode", "token accuracy 90.23 %, teacher-forced",
        ("exact_match", "token_accuracy"), ("trivial", "language"),
    ),
    "asset_type": Experiment(
        "homeiq", "HomeIQ, kind of machine", f"{RUN}homeiq", "F1 100 %", ("macro_f1", "accuracy"),
        ("trivial", "hgb", "minirocket"),
    ),
    "device_failure": Experiment(
        "homeiq", "HomeIQ, what will fail", f"{RUN}homeiq task=device_failure", "F1 98.2 %",
        ("macro_f1", "accuracy"), ("trivial", "hgb", "minirocket"),
    ),
    "anomaly": Experiment(
        "homeiq", "HomeIQ, unusual windows", f"{RUN}homeiq task=anomaly", "no score",
        ("average_precision",), ("trivial", "isolation_forest"),
        ("alone", "pooled", "hgb"),
    ),
}  # fmt: skip
"""Trees see labels, which the anomaly score does not: there they are no simple baseline."""
SUBSETS, HORIZONS = ("FD001", "FD002", "FD003", "FD004"), (30, 60, 90)


@dataclass(frozen=True)
class Series:
    """A value per seed."""

    by_seed: Mapping[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        return fmean(self.by_seed.values())

    def __str__(self) -> str:
        """Return ``mean ± deviation``, or that there is no value."""
        if not self.by_seed:
            return NOT_MEASURED
        spread = f" ± {stdev(self.by_seed.values()):.3f}" if len(self.by_seed) > 1 else ""
        return f"{self.mean:.3f}{spread}"

    def beyond(self, other: Series) -> tuple[float, float, float] | None:
        """Return the mean difference, paired by seed, and its 95 % interval of Student's t.

        The ends are NaN for one seed. None where no seed has both values.
        """
        seeds = [seed for seed in self.by_seed if seed in other.by_seed]
        differences = [self.by_seed[seed] - other.by_seed[seed] for seed in seeds]
        if not differences:
            return None
        mean, half = fmean(differences), math.nan
        if len(differences) > 1:
            half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
        return mean, mean - half, mean + half


def of_system(stored: Stored, name: str, arm: str, metric: str) -> Series:
    """Return the values of a predictor in ``systems.json``."""
    return Series({
        seed: value
        for seed, run in stored.get("systems", {}).get(name, {}).items()
        if (value := run["scores"].get(arm, {}).get(metric)) is not None
    })  # fmt: skip


def of_horizons(stored: Stored, arm: str, subset: str, horizon: int) -> Series:
    """Return the mean of sites of an arm in ``horizons.json``."""
    return Series({
        seed: value
        for seed, run in stored.get("horizons", {}).get(arm, {}).get(subset, {}).items()
        if (value := run["mean_site_ap"].get(str(horizon))) is not None
    })  # fmt: skip


def of_evidence(stored: Stored, name: str, arm: str) -> Series:
    """Return the mean of sites of a predictor in ``evidence.json``."""
    values = stored.get("evidence", {}).get(name, {}).get("mean_site", {}).get(arm, {})
    return Series({
        str(place): value for place, value in enumerate(values.get("values", ()))
        if value is not None
    })  # fmt: skip


def row(*cells: object) -> str:
    """Return a row of a table in Markdown."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def table(head: Sequence[str], rows: Sequence[str]) -> list[str]:
    """Return a table in Markdown, and an empty line."""
    return [row(*head), "|" + "---|" * len(head), *rows, ""]


@dataclass(frozen=True)
class Compared:
    """Ours beside the strongest of what needs no federation: a row of the summary."""

    title: str
    command: str
    claimed: str
    metric: str
    ours: Series
    others: Mapping[str, Series]

    @property
    def strongest(self) -> str | None:
        known = [name for name, series in self.others.items() if series.by_seed]
        return max(known, key=lambda name: self.others[name].mean) if known else None

    @property
    def gain(self) -> tuple[float, float, float] | None:
        return self.ours.beyond(self.others[self.strongest]) if self.strongest else None

    @property
    def verdict(self) -> str:
        """What the gain allows to say."""
        if self.gain is None:
            return NOT_MEASURED
        _, low, high = self.gain
        return "better" if low > 0 else "worse" if high < 0 else "undecided"

    def __str__(self) -> str:
        beside, gain = NOT_MEASURED, NOT_MEASURED
        if self.strongest:
            beside = f"{NAMES[self.strongest]} {self.others[self.strongest]}"
        if self.gain:
            mean, low, high = self.gain
            sure = "one seed" if math.isnan(low) else f"{low:+.3f}, {high:+.3f}"
            gain = f"{mean:+.3f} [{sure}]"
        ours = f"{self.metric} {self.ours}"
        return row(self.title, f"`{self.command}`", self.claimed, ours, beside, gain,
                   self.verdict, len(self.ours.by_seed))  # fmt: skip


def summary(stored: Stored) -> Iterator[Compared]:
    """Yield the rows of the summary."""
    yield Compared(
        "NetworkFed, on AI4I in order of time", f"{RUN}ai4i", "accuracy 94.15 %", "AP",
        of_evidence(stored, "ai4i", "federated"),
        {arm: of_evidence(stored, "ai4i", arm)
         for arm in ("trivial", "hgb", "rules", "alone", "hgb_alone", "best_alone")},
    )  # fmt: skip
    for horizon, claimed in zip(HORIZONS, ("0.2771", "0.2756", "0.2840"), strict=True):
        yield Compared(
            f"HVAC, within {horizon}, FD001", f"{RUN}hvac", f"F1 {claimed}", "AP",
            of_horizons(stored, "mixer", "FD001", horizon),
            {"hgb": of_horizons(stored, "trees pooled", "FD001", horizon),
             "hgb_alone": of_horizons(stored, "trees alone", "FD001", horizon)},
        )  # fmt: skip
    for name, what in EXPERIMENTS.items():
        metric = what.metrics[0]
        yield Compared(
            what.title, what.command, what.claimed, METRICS[metric],
            of_system(stored, name, "federated", metric),
            {arm: of_system(stored, name, arm, metric)
             for arm in (*what.simple, *(arm for arm in what.networks if arm == "alone"))},
        )  # fmt: skip


def of_networkfed(stored: Stored) -> list[str]:
    """Return the table of models, strategies and splits in ``networkfed.json``."""
    found = stored.get("networkfed", {})
    cells = {(each["data"], each["setting"]): each for each in found.get("settings", ())}
    strategies = ("FedAvg", "FedProx", "FedDyn", "FedNova")
    rows = []
    for data in ("IID", "Dirichlet"):
        for model in ("cnn", "lstm", "hybrid"):
            scores = [cells.get((data, f"{model} {strategy}")) for strategy in strategies]
            rows.append(row(data, model, *(
                f"{s['mean_mean']:.3f} ± {s['mean_deviation']:.3f}" if s else NOT_MEASURED
                for s in scores
            )))  # fmt: skip
    seeds = {len(each["seeds"]) for each in cells.values()} or {0}
    commands = "; ".join(f"`{c}`" for c in found.get("commands", ())) or NOT_MEASURED
    return [
        f"AP on generated machines, mean of sites, {min(seeds)} seeds. Commands: {commands}.",
        "", *table(("rows", "model", *strategies), rows),
    ]  # fmt: skip


def of_hvac(stored: Stored) -> list[str]:
    """Return the table of subsets and horizons in ``horizons.json``."""
    rows = []
    for subset in SUBSETS:
        for arm, title in {"mixer": "federated", "trees alone": "trees, alone",
                           "trees pooled": "trees, pooled"}.items():  # fmt: skip
            series = [of_horizons(stored, arm, subset, horizon) for horizon in HORIZONS]
            rows.append(row(subset, title, *series, max(len(s.by_seed) for s in series)))
    return [
        "AP on C-MAPSS, mean of ten sites. Command: `python -m benchmarks.horizons`.",
        "", *table(("subset", "predictor", "within 30", "60", "90", "seeds"), rows),
    ]  # fmt: skip


def of_experiments(stored: Stored, system: str) -> list[str]:
    """Return the table of all predictors of a system in ``systems.json``."""
    names = [name for name, what in EXPERIMENTS.items() if what.system == system]
    asked = {name: {"federated", *EXPERIMENTS[name].simple, *EXPERIMENTS[name].networks}
             for name in names}  # fmt: skip
    arms = [arm for arm in NAMES if any(arm in asked[name] for name in names)]
    rows = []
    for name in names:
        for metric in EXPERIMENTS[name].metrics:
            cells = [
                of_system(stored, name, arm, metric) if arm in asked[name] else "not asked"
                for arm in arms
            ]
            seeds = len(of_system(stored, name, "federated", metric).by_seed)
            rows.append(row(EXPERIMENTS[name].title, METRICS[metric], *cells, seeds))
    runs = [run for name in names for run in stored.get("systems", {}).get(name, {}).values()]
    commands = sorted({run["command"] for run in runs})
    return [
        "Mean of sites. Commands, each with `seed=N`: "
        + ("; ".join(f"`{command}`" for command in commands) or NOT_MEASURED) + ".",
        "", *table(("experiment", "metric", *(NAMES[arm] for arm in arms), "seeds"), rows),
    ]  # fmt: skip


def of_pretraining(stored: Stored) -> str:
    """Return what federated pretraining gains in ``pretraining.json``."""
    gains = stored.get("pretraining", {}).get("gain", {})
    parts = []
    for labels in ("all", "an eighth"):
        found = gains.get(labels, {}).get("lstm, pretrained - lstm, fresh")
        said = (
            f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
            if found else NOT_MEASURED
        )  # fmt: skip
        parts.append(f"{said} AP with {labels} of the labels")
    return (
        "Federated pretraining of an LSTM gains " + ", ".join(parts)
        + " (`python benchmarks/pretraining.py runs/pretraining`, [how](pretraining.md))."
    )  # fmt: skip


def of_trees(stored: Stored) -> str:
    """Return the errors of federated trees beside scikit-learn's in ``trees.json``."""
    parts = []
    for subset in SUBSETS:
        runs = stored.get("trees", {}).get(subset, {}).get("seeds", {}).values()
        errors = [[run["rmse"].get(arm) for run in runs] for arm in ("federated", "hgb")]
        if runs and all(value is not None for values in errors for value in values):
            said = f"{fmean(errors[0]):.2f} and {fmean(errors[1]):.2f}, {len(runs)} seeds"
        else:
            said = NOT_MEASURED
        parts.append(f"{subset} {said}")
    return (
        "No document has a federated form of its strongest baseline. `model=gbdt` is one: error of "
        "remaining life in cycles, federated and scikit-learn's on pooled rows: "
        + "; ".join(parts) + " (`python benchmarks/trees.py`)."
    )  # fmt: skip


def page(stored: Stored) -> str:
    """Return the page.

    Args:
        stored: by file name in ``benchmarks/results/``, its content; empty where it is missing.
    """
    lines = [
        "# The source systems: claimed and measured", "",
        "Five published documents are the source of this project's systems. This page is made by",
        "`python -m benchmarks.systems --show` from `benchmarks/results/`; do not edit it. Except",
        "for AI4I, our data is not the documents': our number repeats no claim.",
        f"“{NOT_MEASURED}” means that no result file has the number.", "",
        "Gain is federated minus the strongest of what needs no federation: simple baselines, most",
        "of them on pooled rows, and the same network at each site alone; paired by seed, with a",
        "95 % interval of Student's t. Where it is not surely better, use that. With one seed",
        "nothing is decided.", "",
        *table(("system", "command", "claimed", "ours, federated", "strongest without a federation",
                "gain", "which is", "seeds"), [str(each) for each in summary(stored)]),
        "AP is average precision, the mean of the sites. Trees and MiniRocket see pooled rows,",
        "which sites would have to hand over. Unusual windows are found without labels: trees,",
        "which see them, stand in the table below. HVAC has further subsets below.", "",
    ]  # fmt: skip
    for name, document in DOCUMENTS.items():
        lines += [f"## {document.title}", "", "Claimed:", ""]
        lines += [f"- {claim} ({section})" for claim, section in document.claims]
        lines += ["", *table(("wrong in it", "here"), [row(*pair) for pair in document.defects])]
        if name == "networkfed":
            lines += of_networkfed(stored)
        elif name == "hvac":
            lines += [*of_hvac(stored)]
        else:
            lines += of_experiments(stored, name)
        if name == "moola":
            lines += [of_pretraining(stored), ""]
    lines += ["## Trees", "", of_trees(stored)]
    return "\n".join(lines) + "\n"
