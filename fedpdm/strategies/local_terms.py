"""Registry of what strategies add to a site's local training, by keys of the train config."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from fedpdm.errors import ConfigError
from fedpdm.training.loop import GradientTerm, SiteTerm

Maker = Callable[[Any], GradientTerm | SiteTerm | None]
Term = TypeVar("Term", bound=Maker)

_MAKERS: dict[str, Maker] = {}

ASK_NOTHING = {
    "server-round", "attempt", "job", "base-version", "report-received-loss", "clipping_norm",
}  # fmt: skip
"""Keys that change no gradient: the loop's own, and what Flower's mods read."""


def asks_nothing(*keys: str) -> None:
    """Declare keys of the train config that a mod or a transform reads, and no client half."""
    ASK_NOTHING.update(keys)


def makers() -> list[Maker]:
    """Return what was registered, in no order."""
    return list(_MAKERS.values())


def local_term(key: str) -> Callable[[Term], Term]:
    """Register a term that is the same for every site under the train config's ``key``.

    The decorated function gets the value that the server sent and returns what to add to
    the gradient, or None if that value asks for nothing. Where a site has to remember
    something, or more than weights must travel, see ``fedpdm.strategies.base``.
    """

    def decorate(make: Term) -> Term:
        _MAKERS[key] = make
        return make

    return decorate


def refuse_unknown_keys(keys: Iterable[str], who: str, module: str) -> None:
    """Refuse keys of a train config that nobody registered here.

    Args:
        keys: what the server sends.
        who: what sends them.
        module: where the client half may be.

    Raises:
        ConfigError: names the first key, and the import that is missing.
    """
    if unknown := sorted({*keys} - {*_MAKERS} - ASK_NOTHING):
        package = module.partition(".")[0]
        raise ConfigError(
            f"{who} sends {unknown[0]!r}, and no client half that is imported here knows this "
            f"key; import the module with its @client_half or @local_term: imports=[{package}], "
            f"or imports=[{package}.MODULE]"
        )


def gradient_terms(config: Mapping[str, Any]) -> list[GradientTerm | SiteTerm]:
    """Return the terms that a train config asks for, in the order of their keys.

    Args:
        config: what the server sent.

    Raises:
        ConfigError: a key that nobody registered here: to ignore it would be to train as
            another strategy.
    """
    refuse_unknown_keys(config, "the strategy", "PACKAGE")
    made = [_MAKERS[key](config[key]) for key in sorted(_MAKERS) if key in config]
    return [term for term in made if term is not None]
