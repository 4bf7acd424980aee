"""The first of two stages: which overrides of a command make the config of its pretraining."""

from __future__ import annotations

from collections.abc import Sequence

from fedpdm.config.command_line import groups, rewrite
from fedpdm.errors import ConfigError

ITS_OWN = {"init", "promote", "pretraining", "resume", "hydra"}
"""Keys that mean the second stage alone, and those that only a command can have."""
OF_THE_TASK = {"task", "model", "objective"}
"""Groups that belong together: a stage with another task has another of each."""


def first_stage(overrides: Sequence[str], listed: object) -> list[str]:
    """Return the overrides of the first stage: those of the command, and its own after them.

    A group that the stage chooses itself leaves behind all that the command says of it. A stage
    that chooses a task, a model or an experiment leaves behind what is said of any task, model
    or objective.

    Args:
        overrides: of the command, as ``rewrite`` returns them.
        listed: the value of ``init.pretrain``.

    Raises:
        ConfigError: it is no list of overrides, or sets what a first stage does not have.
    """
    texts = listed if isinstance(listed, list) else []
    if not texts or not all(isinstance(text, str) and "=" in text for text in texts):
        raise ConfigError(
            f"init.pretrain={listed} must be a list of overrides, for example "
            "init.pretrain=[task=reconstruction,rounds=10]"
        )
    own = rewrite(texts)
    for text in own:
        if _head(text) in ITS_OWN:
            raise ConfigError(
                f"init.pretrain: {text} is not for a first stage, which starts from fresh weights "
                "in the folder of the second"
            )
    left = ITS_OWN | {_head(text) for text in own if _chooses(text)}
    if left & (OF_THE_TASK | {"experiment"}):
        left |= OF_THE_TASK
    kept = [o for o in overrides if o.startswith("hydra.searchpath=") or _head(o) not in left]
    return [*kept, *own]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


def _head(override: str) -> str:
    """Return the group, or the block at the top of the config, that an override is of."""
    return _key(override).partition(".")[0].partition("/")[0]


def _chooses(override: str) -> bool:
    return _key(override) in groups()
