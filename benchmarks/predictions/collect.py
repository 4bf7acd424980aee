"""From the summaries of several seeds to means, deviations and the values themselves."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def at(tree: Any, path: str) -> Any:
    """Return the value at a dotted path, None where there is none."""
    for part in path.split("."):
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(part)
    return tree


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Return mean, sample deviation and the values themselves."""
    known = [v for v in values if v is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "sd": statistics.stdev(known) if len(known) > 1 else None,
        "values": list(values),
    }


def sites_covered(summary: dict[str, Any], level: float = 0.9) -> float | None:
    """Return the share of sites whose exact interval of the coverage holds the level.

    None where no site has one.
    """
    intervals = [
        site["coverage_interval"] for site in summary["test"]["intervals"]["per_site"].values()
    ]
    known = [pair for pair in intervals if pair is not None]
    return statistics.fmean(low <= level <= high for low, high in known) if known else None


def collect(
    summaries: Sequence[dict[str, Any]], metric: str, also: Mapping[str, str]
) -> dict[str, Any]:
    """Return the metric of the federation and its baselines: over all, and per site.

    Args:
        summaries: one per seed.
        metric: the metric to collect.
        also: further values: a name and its dotted path in a summary.
    """

    def over(read: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        return spread([read(s) for s in summaries])

    arms = sorted({name for s in summaries for name in s["test"]["baselines"]})
    result: dict[str, Any] = {
        "metric": metric,
        "global": {"federated": over(lambda s: s["test"]["global"][metric])},
        "mean_site": {"federated": over(lambda s: s["test"]["mean_site"][metric])},
        "validation": over(lambda s: s["validation"]["best"]),
        "seconds": over(lambda s: s["seconds"]["total"]),
        "prevalence": over(lambda s: s["test"]["global"].get("prevalence")),
    }
    result["gain_against"] = summaries[0].get("gain_against")
    if len(summaries[0]["sites"]) <= 10:
        result["gain_over_alone"] = {
            site: over(lambda s, site=site: s["gain"].get(site))  # type: ignore[misc]
            for site in summaries[0]["sites"]
        }
    for arm in arms:
        for scope in ("global", "mean_site"):
            path = f"test.baselines.{arm}.{scope}.{metric}"
            result[scope][arm] = over(lambda s, path=path: at(s, path))  # type: ignore[misc]
    if also:
        result["also"] = {
            name: over(lambda s, path=path: at(s, path))  # type: ignore[misc]
            for name, path in also.items()
        }
    if all(at(s, "test.intervals.per_site") for s in summaries):
        result["plants_covered"] = spread([sites_covered(s) for s in summaries])
    if all("full_windows" in s["test"] for s in summaries):
        result["full_windows"] = {
            metric: over(lambda s: s["test"]["full_windows"][metric]),
            "n": over(lambda s: s["test"]["full_windows"]["n"]),
            "prevalence": over(lambda s: s["test"]["full_windows"].get("prevalence")),
            "short_machines": summaries[0]["test"]["full_windows"]["short_machines"],
        }
    return result
