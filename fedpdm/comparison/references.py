"""Whom each setting is judged against: its twin, or one setting for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedpdm.comparison.scores import Standing
from fedpdm.comparison.settings import NAMING
from fedpdm.errors import ConfigError
from fedpdm.evaluation.wording import listing

REFERENCE = "FedAvg"
NAMED = 6
"""Settings that a remark names."""


def references_of(
    gain_table: Sequence[Standing], against: str | None
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
    3. Settings have it as a part, but nobody has a twin: the only one, or unless asked for
       the first one, is the reference of all others, with a remark.
    4. Nothing has it: unless it was asked for, the first setting is the reference.

    Whoever is not judged is still compared with everybody in all pairs.

    Args:
        standings: settings that can be compared.
        against: name or part of the reference; None for FedAvg if there is one.

    Raises:
        ConfigError: several settings have the part asked for, and nobody has one twin.
    """
    wanted = (against or REFERENCE).casefold()
    for standing in gain_table:
        if standing.name.casefold() == wanted:
            return _for_all(standing, gain_table), []
    key = next((k for s in gain_table for k, v in s.setting.parts.items()
                if v.casefold() == wanted), None)  # fmt: skip
    if key is None:
        return ({}, []) if against is not None else (_for_all(gain_table[0], gain_table), [])
    having = [s for s in gain_table if s.setting.parts.get(key, "").casefold() == wanted]
    label = having[0].setting.parts[key]
    result: dict[str, str] = {}
    alone, remarks = [], []
    for standing in gain_table:
        if standing in having:
            continue
        found = _twins(standing, having, key)
        if len(found) == 1:
            result[standing.name] = found[0].name
        elif found:
            remarks.append(
                f"{standing.name} has several twins with {label} "
                f"({listing([s.name for s in found], NAMED)}), and is compared in all pairs only; "
                "--against with a whole name chooses one"
            )
        else:
            alone.append(standing.name)
    if result:
        if alone:
            has, is_ = ("has", "is") if len(alone) == 1 else ("have", "are")
            remarks.append(f"{listing(alone, NAMED)} {has} no twin with {label} that is else the "
                           f"same, and {is_} compared in all pairs only")  # fmt: skip
        return result, remarks
    if against is not None and len(having) > 1:
        raise ConfigError(
            f"--against {against}: {listing([s.name for s in having], NAMED)} have it, and no "
            "setting is the twin of one of them; name one in full"
        )
    return _for_all(having[0], gain_table), [
        f"there is no twin with {label} that is else the same: all are compared with "
        f"{having[0].name}, and the names say what else differs"
    ]


def _for_all(reference: Standing, gain_table: Sequence[Standing]) -> dict[str, str]:
    return {s.name: reference.name for s in gain_table if s is not reference}


def _twins(standing: Standing, having: Sequence[Standing], key: str) -> list[Standing]:
    """Return the twins of a setting; of those, the ones with the fewest parts of one side."""
    mine = _rest(standing.setting.parts, key)
    agreeing: dict[int, list[Standing]] = {}
    for other in having:
        its = _rest(other.setting.parts, key)
        if all(mine[k] == its[k] for k in mine.keys() & its.keys()):
            agreeing.setdefault(len(mine.keys() ^ its.keys()), []).append(other)
    return agreeing[min(agreeing)] if agreeing else []


def _rest(parts: Mapping[str, str], key: str) -> dict[str, str]:
    """Return the parts of a name without the choice that is ``key``."""

    def option(k: str) -> str | None:  # a model is named by two keys, and both are the choice
        return k.split(".")[0] if k.rsplit(".", 1)[-1] in NAMING else None

    return {k: v for k, v in parts.items() if k != key and option(k) != (option(key) or "")}
