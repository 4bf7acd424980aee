"""Client mods, Flower's own among them, that wrap a site's training.

Flower's mods for clipping and noise refuse messages with more than one array record, and
draw from the global generators. Here a mod is shown the parameters, the config and the metrics
alone, as in Flower's own apps; what else travels is put back behind it. On ``engine=batched``
mods act on each site's reply: what they change of the received parameters comes too late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flwr.app import Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.serverapp.strategy import Strategy

from fedpdm.seeding import seeded_globals
from fedpdm.strategies.wrappers import unwrap
from fedpdm.wire.flower import RecordType, content_of, rebuilt
from fedpdm.wire.records import ARRAYS, CONFIG, METRICS, config_in

SHOWN = (ARRAYS, CONFIG, METRICS)


@dataclass(frozen=True)
class AdaptedMod:
    """A Flower client mod that sees of a message what Flower's own apps send.

    Args:
        mod: any Flower client mod.
        seed: the run's seed. The mod's draws are keyed by it, the mod's name, the site, the
            round and the attempt.
    """

    mod: Mod
    seed: int

    def __call__(self, message: Message, context: Context, call: ClientAppCallable) -> Message:
        down, up = beside(message), dict[str, RecordType]()

        def train(shown: Message, context: Context) -> Message:
            content = content_of({**shown.content, **down})
            reply = call(rebuilt(content, shown.metadata), context)
            if not reply.has_error():
                up.update(beside(reply))
                reply.content = visible(reply)
            return reply

        config, site = config_in(message.content), str(context.node_config["site"])
        key = site, int(config["server-round"]), int(config.get("attempt", 0))
        with seeded_globals(self.seed, "mod", mod_name(self.mod), *key):
            reply = self.mod(rebuilt(visible(message), message.metadata), context, train)
        if not reply.has_error():
            reply.content = content_of({**reply.content, **up})
        return reply


def visible(message: Message) -> RecordDict:
    """Return what a mod is shown of a message."""
    return content_of({key: r for key, r in message.content.items() if key in SHOWN})


def beside(message: Message) -> dict[str, RecordType]:
    """Return what a mod is not shown of a message."""
    return {key: record for key, record in message.content.items() if key not in SHOWN}


def mod_name(mod: Mod) -> str:
    """Return the name of a mod: of its function or its class."""
    mod = getattr(mod, "func", mod)  # of functools.partial
    return str(getattr(mod, "__name__", type(mod).__name__))


def unprotected(
    mods: Sequence[Mod], strategy: Strategy, buffers: Sequence[str], scaling: bool
) -> str | None:
    """Say what client mods and wrappers of the strategy do not see; None where there are none.

    Args:
        mods: the configured client mods.
        strategy: the outermost strategy.
        buffers: names of the model's buffers.
        scaling: whether sites send sums for a shared scaler.
    """
    held = list(unwrap(strategy))
    who = [*map(mod_name, mods), *(type(layer).__name__ for layer in held[:-1])]
    if not who:
        return None
    records = [name for layer in held for name in getattr(layer, "replies", ())]
    parts = [
        *(["the model's buffers"] if buffers else []),
        *(f"the strategy's {name} records" for name in records),
        *(["sums of training rows for the shared scaler (not with scaling=plant)"] * scaling),
        "losses and metrics",
    ]
    return f"{', '.join(who)}: only the parameters pass through; sites also send {', '.join(parts)}"
