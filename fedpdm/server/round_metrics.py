"""Metrics of a round from what sites reported, and which round is the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message

from fedpdm.aggregation.collector import Note
from fedpdm.aggregation.screening import beyond
from fedpdm.aggregation.update import Base, Contribution
from fedpdm.history import RoundRecord
from fedpdm.server.clock import MESSAGES, SIMULATED
from fedpdm.server.dispatch import Dispatcher
from fedpdm.server.monitor import Judged
from fedpdm.server.reported import flaw_of
from fedpdm.server.strategy_calls import StrategyCalls
from fedpdm.tasks import Task
from fedpdm.wire.flower import wire_bytes
from fedpdm.wire.records import EXAMPLES, Arrays, metrics_in, to_record

CONTRIBUTION = "contribution_"
"""Prefix of the metrics that say how a round's updates were valued."""
OUTLIER_FACTOR = 5.0
"""An update this many times the usual norm is left out when a round is repeated. With two
sites a z-score could never tell (it cannot pass sqrt(n - 1)), so past rounds count too."""


KEPT = "kept"
"""Where a round says what a site elsewhere calls what it remembers, if not by the round's version:
it worked for another one."""


def evaluate(
    dispatcher: Dispatcher,
    calls: StrategyCalls,
    model: Base,
    panel: Sequence[str],
    config: ConfigRecord,
    note: Note,
) -> tuple[dict[str, dict[str, float]], int, int]:
    """Let sites evaluate a model.

    Args:
        dispatcher: carries the messages.
        calls: into the strategy, which writes them and is told of the answers.
        model: what is evaluated.
        panel: the sites that are asked.
        config: goes to the sites.
        note: remembers who could not.

    Returns:
        What each site measured, and the bytes down and up.
    """
    parameters = to_record(model.arrays)
    asked = dispatcher.ask(
        panel, note,
        lambda grid: calls.configure_evaluate(model.version, parameters, config, grid),
        model.buffers,
    )  # fmt: skip
    result: dict[str, dict[str, float]] = {}
    counted: list[Message] = []
    bytes_up = 0
    for site, answer in dispatcher.answers(asked, note):
        if answer.has_error():
            note("site-failed", f"{site} could not evaluate: {answer.error.reason}", site)
            continue
        bytes_up += wire_bytes([answer.content])
        try:
            measured = metrics_in(answer.content)
            weight = measured[EXAMPLES]
        except Exception as error:  # whatever a site sends, the others' round goes on
            reason = f"{type(error).__name__}: {error}"
            note("refused", f"{site}: its evaluation cannot be read ({reason})", site)
            continue
        flaw = beyond(EXAMPLES, weight) or flaw_of(measured)
        if flaw is not None:
            note("refused", f"{site}: its evaluation is refused, {flaw}", site)
            continue
        result[site] = measured
        # Strategies may keep state of their own; our means skip what a site cannot know.
        if weight > 0:
            counted.append(answer)
    if counted:
        calls.aggregate_evaluate(model.version, counted)
    return result, asked.bytes_down, bytes_up


def describe(
    updates: Sequence[Contribution],
    validation: Mapping[str, Mapping[str, float]],
    arrays: Arrays,
    task: Task,
    reported: Mapping[str, float] = MappingProxyType({}),
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a round's metrics over all sites (means by examples), and each site's.

    Args:
        updates: the accepted updates.
        validation: what each site answered when it evaluated.
        arrays: the new parameters.
        task: names the primary metric, which is there even if nobody could compute it.
        reported: metrics that the strategy returned; those of the same name stay the loop's own.
    """
    squares = (float(np.sum(array.astype(np.float64) ** 2)) for array in arrays.values())
    metrics: dict[str, Any] = {
        "train_loss": weighted((u.metrics.get("train_loss"), u.examples) for u in updates),
        "validation_loss": None,
        task.primary: None,
        "parameter_norm": float(np.sqrt(sum(squares))),
    }
    for name in sorted({name for values in validation.values() for name in values} - {EXAMPLES}):
        label = "validation_loss" if name == "loss" else name
        metrics[label] = over_sites(name, [(v[name], v[EXAMPLES]) for v in validation.values()])
    sites: dict[str, Any] = {
        site: {"validation": {name: finite(value) for name, value in values.items()}}
        for site, values in validation.items()
    }
    own = {*metrics, "validation", "examples", "update_norm"}  # what the loop itself says
    labels = {  # what else sites said of their training, beside what they measured
        name: f"train_{name}" if name in own else name
        for update in updates
        for name in update.metrics
        if name not in (EXAMPLES, "train_loss")
    }
    for name, label in labels.items():
        metrics[label] = weighted((u.metrics.get(name), u.examples) for u in updates)
    for update in updates:
        said = {labels[n]: finite(v) for n, v in update.metrics.items() if n in labels}
        sites.setdefault(update.site, {}).update(
            said,
            examples=int(update.examples),
            train_loss=finite(update.metrics.get("train_loss")),
            update_norm=update.norm,
        )
    metrics |= {name: finite(v) for name, v in reported.items() if name not in metrics}
    return metrics, sites


def further_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """Return what the strategy or the sites reported of a round beyond what every run has.

    Args:
        record: a round as ``RoundRecord.to_dict`` gives it.
    """
    sites, metrics = record.get("sites") or {}, record.get("metrics") or {}
    measured = {name for site in sites.values() for name in site.get("validation") or ()}
    usual = {"train_loss", "validation_loss", "parameter_norm", *measured}
    elsewhere = (SIMULATED, MESSAGES, CONTRIBUTION)
    return {
        n: v
        for n, v in metrics.items()
        if n not in usual and v is not None and not n.startswith(elsewhere)
    }


def deciding(metrics: Mapping[str, Any], task: Task) -> float | None:
    """Return the metric that judges and chooses rounds; None where labels only measure a result."""
    return metrics.get(task.primary) if task.learns_labels else None


def judged(number: int, metrics: Mapping[str, Any], task: Task) -> Judged:
    """Return what a round is judged by: the loss on validation data where there is any."""
    loss = metrics.get("validation_loss")
    loss = metrics.get("train_loss") if loss is None else loss
    return Judged(number, loss, deciding(metrics, task), metrics.get("parameter_norm"))


def best_round(records: Iterable[RoundRecord], task: Task) -> int | None:
    """Return the round with the best validation metric, the earliest of equals.

    Where no site's validation part lets the metric be computed, and where the task does not learn
    labels, the lowest loss decides.
    """
    best: tuple[int, float] | None = None
    fallback: tuple[int, float] | None = None
    for record in records:
        if record.round == 0:
            continue
        value, loss = deciding(record.metrics, task), record.metrics.get("validation_loss")
        if value is not None and task.better(value, best[1] if best else None):
            best = (record.round, value)
        if loss is not None and (fallback is None or loss < fallback[1]):
            fallback = (record.round, loss)
    chosen = best or fallback
    return chosen[0] if chosen else None


def last_counted(records: Iterable[RoundRecord]) -> dict[str, str]:
    """Return, by site, the name of what it remembered when an update of it last counted."""
    return {
        site: said.get(KEPT, record.version)
        for record in records
        for site, said in record.sites.items()
        if "examples" in said
    }


def over_sites(name: str, values: Sequence[tuple[float, float]]) -> float | None:
    """Return one number for all sites from (value, examples) of each.

    Counts add up, root mean squares average as squares, all else averages by examples.
    """
    if name in ("n", "positives"):
        return sum(value for value, _ in values)
    if name.startswith("rmse"):
        mean = weighted((value**2, examples) for value, examples in values)
        return None if mean is None else float(np.sqrt(mean))
    return weighted(values)


def weighted(pairs: Iterable[tuple[float | None, float]]) -> float | None:
    """Return the weighted mean of the known values, or None if none is known."""
    known = [(v, w) for v, w in pairs if v is not None and not math.isnan(v) and w > 0]
    total = sum(w for _, w in known)
    return sum(v * w for v, w in known) / total if known else None


def finite(value: float | None) -> float | None:
    """Return the value, or None for NaN and infinity."""
    return None if value is None or not math.isfinite(value) else float(value)


def outliers(updates: Sequence[Contribution], records: Iterable[RoundRecord]) -> list[str]:
    """Return the sites whose update is far larger than usual, against this and past rounds."""
    past: list[float] = [
        site["update_norm"]
        for record in records
        for site in record.sites.values()
        if site.get("update_norm") is not None
    ]
    found = []
    for update in updates:
        if update.norm is None:
            continue
        others = past + [o.norm for o in updates if o is not update and o.norm is not None]
        if others and update.norm > OUTLIER_FACTOR * float(np.median(others)):
            found.append(update.site)
    return found
