"""Evaluation by the sites: the same panel of sites measures every round's model."""

from __future__ import annotations

from collections.abc import Sequence

from flwr.app import ConfigRecord, Message

from fedpdm.aggregation.collector import Note
from fedpdm.aggregation.update import Base
from fedpdm.server.dispatch import Dispatcher
from fedpdm.server.strategy_calls import StrategyCalls
from fedpdm.wire.flower import wire_bytes
from fedpdm.wire.records import EXAMPLES, metrics_in, to_record


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
        result[site] = measured
        # Strategies may keep state of their own; our means skip what a site cannot know.
        if weight > 0:
            counted.append(answer)
    if counted:
        calls.aggregate_evaluate(model.version, counted)
    return result, asked.bytes_down, bytes_up
