"""A look at the data before a run: what cannot train or be tested is refused."""

from __future__ import annotations

from collections.abc import Callable

from fedpdm.data.leakage import checks as guards
from fedpdm.data.partition import PartitionedSource, RepartitionedSource
from fedpdm.data.quality.sites import notes
from fedpdm.errors import DataError
from fedpdm.runs.experiment import Experiment
from fedpdm.tasks import Task


def look_at_data(
    experiment: Experiment, say: Callable[[str], None] = lambda text: None
) -> list[str]:
    """Read the first sites and refuse what cannot train or be tested; return warnings.

    Held-out machines do not matter here: a run draws its conclusions from the test windows of
    machines that were trained on.

    Args:
        experiment: what is to be run.
        say: told what is done now.

    Raises:
        DataError: a site cannot train, or no site has a test window.
    """
    federation = experiment.federation
    names = experiment.looked_at
    for number, name in enumerate(names):
        rows = federation.source.expected_rows(name)
        of = f", {rows:,} rows" if rows else ""
        say(f"reading site {name} ({number + 1} of {len(names)}{of})")
        federation.rows(name)
    say("checking the data")
    found = guards.check(federation.source, names, federation.rows, federation.task.reach)
    for name in names:
        sums, codes = federation.moments(name), federation.source.levels
        guards.require_training_sums(name, federation.rows(name), sums, codes)
    sites = [federation.site(name, federation.moments(name).scaler()) for name in names]
    for site in sites:
        guards.require_real(site.name, site.windows)
    warnings = found + federation.check(sites)
    if all(len(site.test) == 0 for site in sites):
        raise DataError(no_test_window(experiment))
    odd = notes(federation.source, names, federation.rows, nearest(experiment.task))
    return [*warnings, *federation.source.warnings, *odd]


def nearest(task: Task) -> float:
    """Return how long before a failure a row counts as positive, of several horizons the least."""
    return (task.risks[0].horizon if task.risks else None) or task.reach


def no_test_window(experiment: Experiment) -> str:
    """Say that nothing can be tested, and what would help."""
    source = experiment.federation.source
    task = experiment.task
    key = "cap" if task.lives else "horizons" if len(task.risks) > 1 else "horizon"
    ways = [f"task.{key} (now {task.reach:g})"] if task.reach > 0 else []
    if source.window is not None:
        ways.insert(0, f"data.window (now {source.window})")
    if isinstance(source, PartitionedSource):
        ways.insert(0, f"partition.sites (now {len(source.sites)} sites)")
    made = source.generated or isinstance(source, RepartitionedSource)
    longer = "raise data.days" if made else "bring a longer record"
    longer = "bring more machines" if task.by_machine else longer
    lower = f"lower {' or '.join(ways)}, or " if ways else ""
    return f"no site has a test window: {lower}{longer}"
