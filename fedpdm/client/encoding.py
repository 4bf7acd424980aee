"""A site's half of the transforms: what they make of its update, and what they remember."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from flwr.app import ArrayRecord, Context, Message

from fedpdm.aggregation.screening import not_finite
from fedpdm.aggregation.update import Base, Update
from fedpdm.client.state import STRATEGY, remember
from fedpdm.transforms.chain import Chain, Memory
from fedpdm.wire.records import ARRAYS, BUFFERS, EXAMPLES, Arrays, arrays_in, config_in, from_record


def encoded(
    chain: Chain,
    site: str,
    records: Mapping[str, Arrays],
    metrics: Mapping[str, float],
    message: Message,
    context: Context,
) -> Update:
    """Return a site's update as it is sent.

    Args:
        chain: the run's transforms.
        site: its name.
        records: what it would send: arrays, buffers, and the strategy's.
        metrics: what it reports, ``num-examples`` among it.
        message: what it answers.
        context: of the site; what transforms remember goes into its state.
    """
    config = config_in(message.content)
    number, attempt = int(config["server-round"]), int(config.get("attempt", 0))
    sent = {name: arrays_in(message.content, name) for name in (ARRAYS, BUFFERS)}
    base = Base(number - 1, sent[ARRAYS], sent[BUFFERS], config)
    memory: Memory = {}
    for each in chain.transforms:
        start = f"{STRATEGY}transform-{each.name}."
        memory[each.name] = {
            name.removeprefix(start): from_record(cast(ArrayRecord, record))
            for name, record in context.state.items()
            if name.startswith(start)
        }
    update = Update(site, base, records, metrics, metrics[EXAMPLES])
    update = chain.encode(update, memory, site, number, attempt, str(config.get("job", "")))
    for name, groups in memory.items():
        # The server refuses an update that is not finite; remembered, it would spoil later ones.
        if all(not_finite(arrays) is None for arrays in groups.values()):
            remember(context.state, f"transform-{name}", groups)
    return update
