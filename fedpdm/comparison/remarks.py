"""Warnings about compared runs: different code, splits, seeds or test data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedpdm.comparison.runs import FinishedRun
from fedpdm.comparison.scores import PROCESSOR, clock_of
from fedpdm.comparison.settings import NAMED, Setting
from fedpdm.evaluation.wording import counted, gain_against, listing

if TYPE_CHECKING:
    from fedpdm.comparison.result import Family

SHORT = 10
"""Characters of a commit that are shown."""


def remarks_of(found: Sequence[Family], settings: Sequence[Setting]) -> list[str]:
    """Return remarks on the runs behind the families, and on versions in all settings."""
    return [
        *_unjudged(found), *_unpaired(found), *_same_tests(found), *_code(found), *_splits(found),
        *_baselines(found), *_alone(found), *_started(found), *_versions(settings),
    ]  # fmt: skip


def _unjudged(found: Sequence[Family]) -> list[str]:
    return [f"{f.name}: {remark}" if f.name else remark for f in found for remark in f.remarks]


def _same_tests(found: Sequence[Family]) -> list[str]:
    """Say where several seeds are tested on the same rows of the same machines."""
    where: dict[str, list[str]] = {}
    for family in found:
        # Settings of a family have the same test data in a seed: one run stands for it.
        runs = list({run.seed: run for _, run in _runs(family)}.values())
        sets = _test_sets(runs)
        if sets == len(runs):
            continue
        share = "seeds share their" if sets == 1 else f"{len(runs)} seeds share {sets} sets of"
        where.setdefault(share, []).append(family.name)
    remarks = []
    for share, names in where.items():
        on = f" on {listing(names, NAMED)}" if all(names) else ""
        remarks.append(f"{share} test data{on}: p speaks of training again on the same machines, "
                       "not of other machines")  # fmt: skip
    return remarks


def _test_sets(runs: Sequence[FinishedRun]) -> int:
    """Return how many different sets of test data runs have; unknown ones are different."""
    if len({run.test_size for run in runs}) == len(runs):  # data drawn again: no file is read
        return len(runs)
    if runs[0].tested_on[0] is not None and len({run.tested_on for run in runs}) == 1:
        return 1
    return len({_tested(run) for run in runs})


def _tested(run: FinishedRun) -> Any:
    """Return what is the same for runs that were tested on the same data, and for no others."""
    if machines := run.test_machines():
        return run.test_size, machines
    return run.seed if run.tested_on[0] is None else run.tested_on


def _baselines(found: Sequence[Family]) -> list[str]:
    """Say where other baselines ran beside the training: it shares the processors with them."""
    ran = _named(
        (_beside(run.baselines, len(run.per_site)), name)
        for f in found if not _own_clock(f) for name, run in _runs(f) if run.baselines
    )  # fmt: skip
    if len(ran) < 2:
        return []
    return ["baselines did not run alike beside the training, and slow it: seconds cannot be "
            f"compared ({_by(ran)})"]  # fmt: skip


def _alone(found: Sequence[Family]) -> list[str]:
    """Say where runs measure their sites' gain against other baselines."""
    ran = _named(
        (against.replace("_", " "), name)
        for f in found for name, run in _runs(f)
        if run.baseline(against := gain_against(run.summary))
    )  # fmt: skip
    if len(ran) < 2:
        return []
    return ["what sites gain over working alone (against_alone) is not measured alike in all "
            f"runs ({_by(ran)})"]  # fmt: skip


def _started(found: Sequence[Family]) -> list[str]:
    """Say which settings began with weights of another run, that took bytes and seconds too."""
    began = dict.fromkeys(name for f in found for name, run in _runs(f) if run.summary.get("init"))
    if not began:
        return []
    return [f"{listing(list(began), NAMED)} began with the weights of another run: what that sent "
            "and took is in none of the numbers (init.cost in summary.json)"]  # fmt: skip


def _own_clock(family: Family) -> bool:
    """Return whether times are of the runs' own processes, whatever ran beside them."""
    return clock_of([standing.setting for standing in family.gain_table]) == PROCESSOR


def _beside(options: Mapping[str, Any], sites: int) -> str:
    """Return what ran in processes of its own; without processes it runs after the training."""
    processes, most = options.get("processes") or 0, options.get("max_plants") or 0
    names = options.get("controls")
    names = ["baselines"] if names is None else names  # all there are
    if not (processes and most and names):
        return "none"
    return (f"{listing(list(map(str, names)), NAMED)} of {counted(min(most, sites), 'site')} "
            f"in {counted(processes, 'process', 'processes')}")  # fmt: skip


def _named(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return for each thing the different names that go with it, in their order."""
    result: dict[str, list[str]] = {}
    for what, name in dict.fromkeys(pairs):
        result.setdefault(what, []).append(name)
    return result


def _by(named: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{what} for {listing(names, NAMED)}" for what, names in named.items())


def _runs(family: Family) -> list[tuple[str, FinishedRun]]:
    """Return the runs of a family, each with its setting's name."""
    before = f"{family.name} " if family.name else ""
    return [
        (before + standing.name, standing.setting.runs[seed])
        for standing in family.gain_table
        for seed in standing.by_seed
    ]


def _code(found: Sequence[Family]) -> list[str]:
    """Say which settings ran with which commit, if not all with the same, and with edited code."""
    runs = [(name, run.commit or "unknown") for f in found for name, run in _runs(f)]
    ran = _named((commit.rstrip("+")[:SHORT], name) for name, commit in runs)
    edited = dict.fromkeys(name for name, commit in runs if commit.endswith("+"))
    remarks = []
    if len(ran) > 1:
        remarks.append(
            f"the runs are of different code, and differences may come from it ({_by(ran)})"
        )
    if edited:
        remarks.append(
            f"uncommitted code ran in {listing(list(edited), NAMED)}: their commit does not say "
            "what code that was, and it need not be the same in all runs"
        )
    return remarks


def _splits(found: Sequence[Family]) -> list[str]:
    """Say where runs of one seed have the same data but another split."""
    remarks = []
    for family in found:
        seeds: dict[int, dict[str, str]] = {}
        for name, run in _runs(family):
            if run.split is not None:
                seeds.setdefault(run.seed, {})[name] = run.split
        apart = {seed: own for seed, own in seeds.items() if len(set(own.values())) > 1}
        if not apart:
            continue
        names = dict.fromkeys(name for own in apart.values() for name in own)
        many = "seeds" if len(apart) > 1 else "seed"
        remarks.append(
            f"{listing(list(names), NAMED)} have different splits of the same data at {many} "
            f"{listing([str(seed) for seed in sorted(apart)], NAMED)} (split.csv.gz): these pairs "
            "are not strictly paired, and part of a difference may come from the split"
        )
    return remarks


def _unpaired(found: Sequence[Family]) -> list[str]:
    remarks = []
    for family in found:
        every = set.union(*(set(s.by_seed) for s in family.gain_table))
        where = f"{family.name}: " if family.name else ""
        for standing in family.gain_table:
            if missing := [str(seed) for seed in sorted(every - set(standing.by_seed))]:
                remarks.append(f"{where}{standing.name} has no score for seed "
                               f"{listing(missing, NAMED)}; its pairs leave that out")  # fmt: skip
    return remarks


def _versions(settings: Sequence[Setting]) -> list[str]:
    """Name packages whose version is not the same in all runs."""
    seen = _named(
        (package, str(version))
        for setting in settings
        for run in setting.runs.values()
        for package, version in (run.summary.get("versions") or {}).items()
    )
    different = [f"{p} ({listing(sorted(v))})" for p, v in seen.items() if len(v) > 1]
    if not different:
        return []
    return [f"the runs were made with different versions of {listing(different)}"]
