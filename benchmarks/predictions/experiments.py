"""Every experiment behind a number about predictions: its command and its seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BOTH = ("global", "mean_site")
FIVE = (0, 1, 2, 3, 4)
FRESH = tuple(range(30, 40))
"""Seeds that nothing of the generated fleet was chosen on (docs/decisions/043)."""
CHOICE = 100
"""The seed that candidates are compared on, by validation data alone; it is reported nowhere."""


@dataclass(frozen=True)
class Experiment:
    """A command, repeated over seeds.

    Attributes:
        overrides: what follows ``python -m fedpdm.simulate``.
        seeds: one run each.
        metric: what is collected of it.
        title: its line in the table.
        scopes: ``global`` (all test data), ``mean_site`` (mean of the sites), or both in the
            table. Average precision of sites alone over all test data lists the risks of
            several models together, so the mean of the sites stands beside it.
        also: further values to collect: a name and a dotted path in ``summary.json``.
    """

    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    metric: str
    title: str = ""
    scopes: tuple[str, ...] = ("global",)
    also: Mapping[str, str] = field(default_factory=dict)


INTERVALS = {
    "coverage": "test.intervals.coverage",
    "width": "test.intervals.width",
    "width_unclipped": "test.intervals.width_unclipped",
    "rmse_uncapped": "test.global.rmse_uncapped",
    "nasa_score": "test.global.nasa_score",
}
ALARMS = {
    "false_alarm_rate": "test.global.false_alarm_rate",
    "recall": "test.global.recall",
    "event_recall": "test.alarms.global.event_recall",
}
BUDGET = ("evaluate.threshold=false_alarms", "evaluate.false_alarm_budget=0.05")
FEWER = ("baselines.controls=[trivial,pooled,hgb]",)
"""Subsets after the first, and FedCMAPSS, stand beside fewer baselines: networks alone take most
of the time, and the subsets' own lines have pooled."""
SUBSETS = ("FD001", "FD002", "FD003", "FD004")

FEDCMAPSS = {
    f"fedcmapss_{task}": Experiment(
        (f"experiment=fedcmapss_{task}", "baselines.controls=[trivial,hgb]"), FIVE, "rmse",
        title=f"FedCMAPSS {task.upper()}, {what}, RMSE in cycles",
        also={"nasa_score": "test.global.nasa_score", "rmse_uncapped": "test.global.rmse_uncapped"},
    )
    for task, what in {
        "a": "FD001, 10 sites alike",
        "b": "one subset per site",
        "c": "FD004, 10 sites by life",
        "d": "FD004, 6 sites by operating condition",
        "e": "FD001, 85 sites of one engine",
    }.items()
}  # fmt: skip
RUL = {
    f"rul_{subset.lower()}": Experiment(
        ("experiment=cmapss_rul", f"data.subset={subset}", *fewer), FIVE, "rmse",
        title=f"{subset}, remaining life, RMSE in cycles", also=INTERVALS,
    )
    for subset, fewer in zip(SUBSETS, ((), *[FEWER] * 3), strict=True)
}  # fmt: skip
FAILURE = {
    f"failure_{subset.lower()}": Experiment(
        ("experiment=cmapss_failure", f"data.subset={subset}", *BUDGET, *fewer), FIVE,
        "average_precision",
        title=f"{subset}, failure within 30 cycles, AP", also=ALARMS,
        scopes=("global",) if fewer else BOTH,
    )
    for subset, fewer in zip(SUBSETS, ((), *[FEWER] * 3), strict=True)
}  # fmt: skip

EXPERIMENTS: dict[str, Experiment] = {
    "fleet": Experiment(
        ("site=detroit,houston",), FRESH, "average_precision",
        title="generated, detroit and houston, default run, AP", scopes=BOTH,
    ),
    "fleet_chosen": Experiment(
        ("experiment=fleet", "site=detroit,houston"), FRESH, "average_precision",
        title="generated, detroit and houston, experiment=fleet, AP", scopes=BOTH,
    ),
    "fleet_all": Experiment(
        ("experiment=fleet", "site=detroit,houston,seattle,rotterdam,nagoya,pune"), FRESH[:5],
        "average_precision", title="generated, all six sites, AP", scopes=BOTH,
    ),
    "fleet_unchanging": Experiment(
        ("experiment=fleet", "site=detroit,houston", "sites.detroit.modes_later=null",
         "sites.houston.modes_later=null"),
        FRESH[:5], "average_precision",
        title="generated, sites that never change, AP", scopes=BOTH,
    ),
    "ai4i": Experiment(
        ("experiment=ai4i",), FIVE, "average_precision",
        title="AI4I, sites by product type, forward in time, AP", scopes=BOTH,
    ),
    **{
        f"ai4i_fold_{fold}": Experiment(
            ("experiment=ai4i", "data.split=stratified", f"data.fold={fold}"), (0,),
            "average_precision", title=f"AI4I, stratified, fold {fold + 1} of 5, AP",
        )
        for fold in range(5)
    },
    **FAILURE,
    **RUL,
    **FEDCMAPSS,
    **{
        f"shuffled_{name}": Experiment(
            (*overrides, "debug=shuffled_labels"), (0, 1, 2), "average_precision",
            title=f"labels shuffled, {name}, AP",
            also={"within": "test.shuffled.global.within", "p": "test.shuffled.global.p"},
        )
        for name, overrides in {
            "fleet": ("site=detroit,houston",),
            "ai4i": ("experiment=ai4i",),
            "cmapss": ("experiment=cmapss_failure",),
        }.items()
    },
}  # fmt: skip

GROUPS = {
    "fedcmapss": tuple(FEDCMAPSS), "rul": tuple(RUL), "failure": tuple(FAILURE),
    "folds": tuple(f"ai4i_fold_{fold}" for fold in range(5)),
    "shuffled": ("shuffled_fleet", "shuffled_ai4i", "shuffled_cmapss"),
}  # fmt: skip
