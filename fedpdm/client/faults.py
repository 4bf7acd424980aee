"""Faults injected on purpose, to show that a run survives them: ``faults.nan=houston@4``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod

from fedpdm.errors import ConfigError
from fedpdm.seeding import numpy_generator
from fedpdm.wire.records import ARRAYS, Arrays, arrays_in, config_in, to_record


@dataclass(frozen=True)
class Fault:
    """One fault: what (``nan`` or ``poison``), at which site, in which round."""

    kind: str
    site: str
    round: int


def parse_faults(
    settings: dict[str, str | None], sites: tuple[str, ...], rounds: int
) -> list[Fault]:
    """Read ``{"nan": "houston@4", "poison": None}``.

    Raises:
        ConfigError: a fault is unknown, is not SITE@ROUND, or names a site that is not there.
    """
    faults = []
    for kind, text in settings.items():
        if kind not in _CORRUPT:
            raise ConfigError(f"faults.{kind} is unknown; there are {', '.join(_CORRUPT)}")
        if not text:
            continue
        match = re.fullmatch(r"([\w.-]+)@(\d+)", str(text))
        if match is None or int(match[2]) < 1:
            raise ConfigError(f"faults.{kind}={text} must read SITE@ROUND, e.g. {sites[0]}@4")
        if match[1] not in sites:
            raise ConfigError(
                f"faults.{kind}={text}: there is no site {match[1]!r} in this run; "
                f"it has {', '.join(sites[:10])}{' …' if len(sites) > 10 else ''}"
            )
        if int(match[2]) > rounds:
            raise ConfigError(
                f"faults.{kind}={text} is after the last round ({rounds}) and would never happen"
            )
        faults.append(Fault(kind, match[1], int(match[2])))
    return faults


def fault_mod(faults: list[Fault], seed: int) -> Mod:
    """Return a Flower client mod that corrupts the update of the named sites."""

    def mod(message: Message, context: Context, call: ClientAppCallable) -> Message:
        reply = call(message, context)
        server_round = config_in(message.content).get("server-round")
        for fault in faults:
            if reply.has_error() or (fault.site, fault.round) != (
                context.node_config["site"],
                server_round,
            ):
                continue
            arrays = arrays_in(reply.content, ARRAYS)
            generator = numpy_generator(seed, "fault", fault.kind, fault.site, fault.round)
            reply.content[ARRAYS] = to_record(_CORRUPT[fault.kind](arrays, generator))
        return reply

    return mod


def _nan(arrays: Arrays, generator: np.random.Generator) -> Arrays:
    names = sorted(n for n, array in arrays.items() if array.dtype.kind == "f")  # codes hold none
    name = names[int(generator.integers(len(names)))]
    broken = arrays[name].copy()
    broken.flat[int(generator.integers(broken.size))] = np.nan
    return {**arrays, name: broken}


def _poison(arrays: Arrays, generator: np.random.Generator) -> Arrays:
    """Large noise: finite, of the right shape, and of no use."""
    return {
        name: (array + 10.0 * generator.standard_normal(array.shape)).astype(array.dtype)
        for name, array in arrays.items()
    }


_CORRUPT: dict[str, Callable[[Arrays, np.random.Generator], Arrays]] = {
    "nan": _nan,
    "poison": _poison,
}
