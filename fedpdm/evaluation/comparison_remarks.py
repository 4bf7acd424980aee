"""What a reader must know of the runs of a comparison: other code, splits, versions, seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedpdm.evaluation.comparison_runs import FinishedRun
from fedpdm.evaluation.comparison_settings import Setting
from fedpdm.evaluation.wording import listing

if TYPE_CHECKING:
    from fedpdm.evaluation.comparison_result import Family

SHORT = 10
"""Characters of a commit that are shown."""
NAMED = 6
"""Settings that a remark names."""


def remarks_of(found: Sequence[Family], settings: Sequence[Setting]) -> list[str]:
    """Return remarks on the runs behind the families, and on versions in all settings."""
    return [*_unpaired(found), *_code(found), *_splits(found), *_versions(settings)]


def _runs(family: Family) -> list[tuple[str, FinishedRun]]:
    """Return the runs of a family, each with its setting's name."""
    before = f"{family.name} " if family.name else ""
    return [
        (before + standing.name, standing.setting.runs[seed])
        for standing in family.standings
        for seed in standing.by_seed
    ]


def _code(found: Sequence[Family]) -> list[str]:
    """Say which settings ran with which commit, if not all with the same, and with edited code."""
    ran: dict[str | None, dict[str, None]] = {}
    edited: dict[str, None] = {}
    for name, run in (pair for family in found for pair in _runs(family)):
        commit = run.commit and run.commit.rstrip("+")
        ran.setdefault(commit, {})[name] = None
        if run.commit and run.commit.endswith("+"):
            edited[name] = None
    remarks = []
    if len(ran) > 1:
        by = "; ".join(
            f"{'unknown' if commit is None else commit[:SHORT]} for {listing(list(names), NAMED)}"
            for commit, names in ran.items()
        )
        remarks.append(f"the runs are of different code, and differences may come from it ({by})")
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
        every = set.union(*(set(s.by_seed) for s in family.standings))
        for standing in family.standings:
            if missing := sorted(every - set(standing.by_seed)):
                where = f"{family.name}: " if family.name else ""
                remarks.append(
                    f"{where}{standing.name} has no score for seed "
                    f"{listing([str(m) for m in missing], most=6)}; its pairs leave that out"
                )
    return remarks


def _versions(settings: Sequence[Setting]) -> list[str]:
    """Name packages whose version is not the same in all runs."""
    seen: dict[str, set[str]] = {}
    for setting in settings:
        for run in setting.runs.values():
            for package, version in (run.summary.get("versions") or {}).items():
                seen.setdefault(package, set()).add(str(version))
    different = [f"{p} ({listing(sorted(v))})" for p, v in seen.items() if len(v) > 1]
    if not different:
        return []
    return [f"the runs were made with different versions of {listing(different)}"]
