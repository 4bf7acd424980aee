"""Runs gathered into settings that differ by name, and settings that can be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedpdm.comparison.runs import FinishedRun
from fedpdm.errors import ConfigError
from fedpdm.evaluation.wording import listing

NAMING = ("_target_", "model_type")
"""Keys that name an option; of what differs in a group they are looked at first."""
DERIVED = {"training": ("model", "strategy")}
"""Groups whose values other groups' options may set: named only where those do not say it."""


@dataclass(frozen=True)
class Setting:
    """Runs that differ in nothing but their seed.

    Attributes:
        parts: what sets it apart from the others, by key: ``{"strategy._target_": "FedProx"}``.
        runs: by seed.
    """

    parts: Mapping[str, str]
    runs: Mapping[int, FinishedRun]

    @property
    def name(self) -> str:
        return " ".join(self.parts.values()) or "this setting"

    @property
    def any(self) -> FinishedRun:
        return next(iter(self.runs.values()))


def settings_of(runs: Sequence[FinishedRun]) -> tuple[list[Setting], list[str]]:
    """Gather runs that differ in their seed alone; return the settings and remarks.

    Settings keep the order of the runs. Of two runs of one setting and seed the later
    folder counts.
    """
    differing = differing_keys(runs)
    named = naming_keys(runs, differing)
    gathered: dict[str, dict[int, FinishedRun]] = {}
    remarks = []
    for run in runs:
        identity = json.dumps([run.config.get(key) for key in differing], sort_keys=True)
        seeds = gathered.setdefault(identity, {})
        if run.seed in seeds:
            first, last = sorted((seeds[run.seed].folder, run.folder))
            remarks.append(f"{first} and {last} are the same setting and seed; the second counts")
            run = run if run.folder == last else seeds[run.seed]
        seeds[run.seed] = run
    settings = []
    for seeds in gathered.values():
        config = next(iter(seeds.values())).config
        parts = {key: _label(key, config[key]) for key in named if key in config}
        settings.append(Setting(parts, dict(sorted(seeds.items()))))
    unsaid = [key for key in differing if key not in named]
    if told := [key for key in unsaid if key.split(".")[0] in DERIVED and not _follows(runs, key)]:
        remarks.append(
            f"settings differ in more than their names say, as their options set it: "
            f"{listing(told, most=6)}"
        )
    return settings, remarks


def differing_keys(runs: Sequence[FinishedRun]) -> list[str]:
    """Return the keys whose values are not the same in all runs, in the order of the config."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    return [key for key in keys if len({_value(run, key) for run in runs}) > 1]


def naming_keys(runs: Sequence[FinishedRun], differing: Sequence[str]) -> list[str]:
    """Return the fewest keys that name the settings: those that others follow are left out.

    ``strategy._target_`` says all that differs between FedAvg and FedProx; that FedProx has a
    ``proximal_mu`` need not be said too, but two values of it must be.
    """
    groups: dict[str, list[str]] = {}
    for key in differing:
        groups.setdefault(key.split(".")[0], []).append(key)
    chosen: dict[str, list[str]] = {}
    for group in sorted(groups, key=lambda name: name in DERIVED):
        base = [key for other in DERIVED.get(group, ()) for key in chosen.get(other, ())]
        kept: list[str] = []
        for key in sorted(groups[group], key=lambda k: k.rsplit(".", 1)[-1] not in NAMING):
            if not _determined(runs, key, [*base, *kept]):
                kept.append(key)
        chosen[group] = kept
    order = ("data", "task", "partition", "features", "model", "strategy")
    listed = sorted(chosen, key=lambda g: order.index(g) if g in order else len(order))
    return [key for group in listed for key in chosen[group]]


def _determined(runs: Sequence[FinishedRun], key: str, by: Sequence[str]) -> bool:
    if not by:
        return False
    seen: dict[tuple[str, ...], str] = {}
    return all(
        seen.setdefault(tuple(_value(run, k) for k in by), _value(run, key)) == _value(run, key)
        for run in runs
    )


def _follows(runs: Sequence[FinishedRun], key: str) -> bool:
    """Return whether ``training.KEY`` is the model's own value in every run."""
    return all(run.config.get(key) == run.config.get(f"model.{key}") for run in runs)


def _value(run: FinishedRun, key: str) -> str:
    return json.dumps(run.config[key], sort_keys=True) if key in run.config else ""


def _label(key: str, value: Any) -> str:
    last = key.rsplit(".", 1)[-1]
    if last == "_target_":
        name = str(value).rsplit(".", 1)[-1]
        return {"Iid": "IID"}.get(name, name)
    if last == "model_type":
        return str(value)
    text = json.dumps(value) if isinstance(value, dict | list | bool) or value is None else value
    short = last if key.count(".") == 1 and not key.startswith("sites.") else key
    return f"{short}={text}"


# Families -------------------------------------------------------------------------------


def families(settings: Sequence[Setting]) -> list[list[Setting]]:
    """Return settings in groups that can be compared: same task, metric and test windows.

    Raises:
        ConfigError: no two settings can be compared; says what differs.
    """
    found: list[list[Setting]] = []
    for setting in settings:
        for family in found:
            reasons = [obstacle(setting, member) for member in family]
            if all(r is None or r == UNPAIRED for r in reasons) and None in reasons:
                family.append(setting)
                break
        else:
            found.append([setting])
    if all(len(family) < 2 for family in found):
        if len(settings) == 1:
            seeds = listing([str(seed) for seed in settings[0].runs], most=10)
            raise ConfigError(
                f"there is one setting only (seeds {seeds}), nothing to compare it with; name runs "
                "that differ in something, for example of strategy=fedavg and strategy=fedprox"
            )
        first, second = settings[:2]
        raise ConfigError(
            f"nothing can be compared: {first.name} and {second.name} differ in "
            f"{obstacle(first, second)}"
            + (f" (and likewise {len(settings) - 2} more)" if len(settings) > 2 else "")
        )
    return found


UNPAIRED = "their seeds: they have none in common, so nothing can be paired"


def obstacle(first: Setting, second: Setting) -> str | None:
    """Return why the scores of two settings cannot be compared: what differs; None if they can."""
    one, other = first.any, second.any
    for what, a, b in (
        ("the task", one.summary.get("task"), other.summary.get("task")),
        ("the metric", one.metric, other.metric),
        ("the task's settings", _task(one), _task(other)),
    ):
        if a != b:
            return f"{what} ({a} and {b})"
    common = sorted(set(first.runs) & set(second.runs))
    if not common:
        return UNPAIRED
    for seed in common:
        one, other = first.runs[seed], second.runs[seed]
        if one.tested_on[0] != other.tested_on[0]:
            keys = [
                key
                for key in differing_keys([one, other])
                if key.split(".")[0] in ("data", "sites", "partition", "replicas", "task", "split")
            ]
            why = f" ({listing(keys)})" if keys else ""
            return f"the rows or splits of their sites{why}"
        if set(one.per_site) != set(other.per_site):
            return "the sites that were evaluated"
        if one.tested_on != other.tested_on:
            return "their test windows"
    return None


def _task(run: FinishedRun) -> str:
    found = {k: v for k, v in run.config.items() if k.startswith("task.")}
    return ", ".join(f"{k}={v}" for k, v in sorted(found.items()) if k != "task._target_")


def common_parts(family: Sequence[Setting]) -> dict[str, str]:
    """Return the parts of the name that all settings of a family share."""
    first = family[0].parts
    return {k: v for k, v in first.items() if all(s.parts.get(k) == v for s in family)}
