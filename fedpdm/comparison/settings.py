"""Groups runs into settings: their names, what is compared, and the reference."""

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
DATA = ("data", "sites", "partition", "replicas", "task", "split")
"""Groups that decide which rows a site has and how they are split."""
STRATEGY, PERSONAL = "strategy._target_", "personal._target_"
"""The first names a setting that has nothing of what the others are named by."""
REFERENCE = "FedAvg"
"""Part of a setting's name that is the reference unless another is asked for."""
NAMED = 6
"""Settings that a remark names."""


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
        lacking = not parts or (PERSONAL in named and PERSONAL not in config)
        if named and lacking and STRATEGY in config:  # FedAvg beside Ditto, which only adds to it
            parts[STRATEGY] = _label(STRATEGY, config[STRATEGY])
        settings.append(Setting(parts, dict(sorted(seeds.items()))))
    unsaid = [
        key
        for key in differing
        if key not in named and key.split(".")[0] in DERIVED and not _follows(runs, key)
    ]
    if unsaid:
        remarks.append(
            "settings differ in more than their names say, because other options set "
            f"{listing(unsaid, NAMED)}"
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
    """Return whether runs that agree in the keys ``by`` agree in ``key`` too."""
    given = [tuple(_value(run, k) for k in by) for run in runs]
    values = [_value(run, key) for run in runs]
    return bool(by) and len(set(given)) == len(set(zip(given, values, strict=True)))


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
            reasons = {obstacle(setting, member) for member in family}
            if None in reasons and reasons <= {None, UNPAIRED}:
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
        first, second, *others = settings
        more = f" (and likewise {len(others)} more)" if others else ""
        raise ConfigError(
            f"nothing can be compared: {first.name} and {second.name} differ in "
            f"{obstacle(first, second)}{more}"
        )
    return found


UNPAIRED = "their seeds: they have none in common, so nothing can be paired"


def obstacle(first: Setting, second: Setting) -> str | None:
    """Return why the scores of two settings cannot be compared: what differs; None if they can."""
    one, other = first.any, second.any
    pairs = zip(_task(one).items(), _task(other).values(), strict=True)
    for (what, a), b in pairs:
        if a != b:
            return f"{what} ({a} and {b})"
    common = sorted(set(first.runs) & set(second.runs))
    if not common:
        return UNPAIRED
    for seed in common:
        one, other = first.runs[seed], second.runs[seed]
        if one.tested_on[0] != other.tested_on[0] and not _less_sensors(one, other):
            keys = [k for k in differing_keys([one, other]) if k.split(".")[0] in DATA]
            why = f" ({listing(keys)})" if keys else ""
            return f"the rows or splits of their sites{why}"
        if set(one.per_site) != set(other.per_site):
            return "the sites that were evaluated"
        if one.tested_on[1] != other.tested_on[1]:
            return "their test windows"
    return None


def _less_sensors(one: FinishedRun, other: FinishedRun) -> bool:
    """Return whether two runs have the same rows and splits, but other sensors of them."""
    apart = one.config.get("without") != other.config.get("without")
    return apart and one.split is not None and one.split == other.split


def _task(run: FinishedRun) -> dict[str, Any]:
    """Return what must be equal for scores to mean the same."""
    options = {k: v for k, v in run.config.items() if k.startswith("task.")}
    settings = (f"{k}={v}" for k, v in sorted(options.items()) if k != "task._target_")
    return {
        "the task": run.summary.get("task"),
        "the metric": run.metric,
        "the task's settings": ", ".join(settings),
    }


def common_parts(family: Sequence[Setting]) -> dict[str, str]:
    """Return the parts of the name that all settings of a family share."""
    first = family[0].parts
    return {k: v for k, v in first.items() if all(s.parts.get(k) == v for s in family)}


# References -----------------------------------------------------------------------------


def references_of(
    settings: Sequence[Setting], against: str | None
) -> tuple[dict[str, str], list[str]]:
    """Return each setting's reference by name, and remarks on those that have none.

    What is asked for is ``against``, or FedAvg. The first of these that holds decides:

    1. A setting has it for its whole name: it is the reference of all others.
    2. Several settings have it as a part, and others are their twins. A twin agrees in every
       part of the name that both have; left out are the choice itself (the strategy) and parts
       that one of the two does not have (FedProx's ``proximal_mu``), of which there should be
       as few as possible. Settings with the part are references, and not judged. A setting
       with no twin, or with several alike, is judged against none, and a remark says so: any
       choice would compare more than what was asked for.
    3. Settings have it as a part, but none has a twin: the only one, or unless asked for
       the first one, is the reference of all others, with a remark.
    4. Nothing has it: unless it was asked for, the first setting is the reference.

    Whoever is not judged is still compared with everybody in all pairs.

    Args:
        settings: those that can be compared.
        against: name or part of the reference; None for FedAvg if there is one.

    Raises:
        ConfigError: several settings have the part asked for, and none has one twin.
    """
    wanted = (against or REFERENCE).casefold()
    for setting in settings:
        if setting.name.casefold() == wanted:
            return _for_all(setting, settings), []
    parts = ((k, v) for s in settings for k, v in s.parts.items() if v.casefold() == wanted)
    key, label = next(parts, (None, ""))
    if key is None:
        return ({}, []) if against is not None else (_for_all(settings[0], settings), [])
    having = [s for s in settings if s.parts.get(key, "").casefold() == wanted]
    result: dict[str, str] = {}
    alone, remarks = [], []
    for setting in settings:
        found = [] if setting in having else _twins(setting, having, key)
        if len(found) == 1:
            result[setting.name] = found[0].name
        elif found:
            remarks.append(
                f"{setting.name} has several twins with {label} "
                f"({listing([s.name for s in found], NAMED)}), and is compared in all pairs only; "
                "--against with a whole name chooses one"
            )
        elif setting not in having:
            alone.append(setting.name)
    if result and alone:
        has, is_ = ("has", "is") if len(alone) == 1 else ("have", "are")
        remarks.append(f"{listing(alone, NAMED)} {has} no twin with {label} that is else the "
                       f"same, and {is_} compared in all pairs only")  # fmt: skip
    if result:
        return result, remarks
    if against is not None and len(having) > 1:
        raise ConfigError(
            f"--against {against}: {listing([s.name for s in having], NAMED)} have it, and no "
            "setting is the twin of one of them; name one in full"
        )
    return _for_all(having[0], settings), [
        f"there is no twin with {label} that is else the same: all are compared with "
        f"{having[0].name}, and the names say what else differs"
    ]


def _for_all(reference: Setting, settings: Sequence[Setting]) -> dict[str, str]:
    return {s.name: reference.name for s in settings if s is not reference}


def _twins(setting: Setting, having: Sequence[Setting], key: str) -> list[Setting]:
    """Return the twins of a setting; of those, the ones with the fewest parts of one side."""
    mine = _rest(setting.parts, key)
    agreeing: dict[int, list[Setting]] = {}
    for other in having:
        its = _rest(other.parts, key)
        if all(mine[k] == its[k] for k in mine.keys() & its.keys()):
            agreeing.setdefault(len(mine.keys() ^ its.keys()), []).append(other)
    return agreeing[min(agreeing)] if agreeing else []


def _rest(parts: Mapping[str, str], key: str) -> dict[str, str]:
    """Return the parts of a name without the choice that is ``key``."""

    def option(k: str) -> str | None:  # a model is named by two keys, and both are the choice
        return k.split(".")[0] if k.rsplit(".", 1)[-1] in NAMING else None

    return {k: v for k, v in parts.items() if k != key and option(k) != (option(key) or "")}
