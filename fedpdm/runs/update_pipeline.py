"""From a config to what handles an update: client mods, transforms and the server."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, cast

from flwr.app import ConfigRecord
from flwr.clientapp import mod as flower
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import Strategy

from fedpdm.config.imports import note
from fedpdm.config.schema import HYDRA_KEYS, located
from fedpdm.config.values import Config, block, make, plain, select
from fedpdm.engines.grid_view import GridView
from fedpdm.errors import ConfigError
from fedpdm.privacy.base import Protection
from fedpdm.seeding import seeded_globals
from fedpdm.server.base import Server
from fedpdm.server.clock import Clock
from fedpdm.server.synchronous import Synchronous
from fedpdm.strategies.local_terms import refuse_unknown_keys
from fedpdm.strategies.wrappers import check_mods, is_ours, unwrap
from fedpdm.training.loop import TrainingSettings, batch_sizes
from fedpdm.transforms.base import Chain
from fedpdm.wire.flower import become_server, has_identity
from fedpdm.wire.records import Arrays, config_in, to_record


def build_mods(cfg: Config, strategy: Strategy) -> list[Mod]:
    """Make the mods of ``client_mods``, the outermost first.

    Raises:
        ConfigError: one cannot be made, one that the strategy needs is missing, or transforms
            would hide from them what they work on.
    """
    entries = plain(select(cfg, "client_mods")) or []
    if not isinstance(entries, list):
        raise ConfigError(f"client_mods={entries} must be a list: [fixedclipping_mod]")
    if entries and (transforms := list(block(cfg, "transforms"))):
        raise ConfigError(
            f"client_mods would see updates as transforms.{transforms[0]} leaves them; use either "
            "client_mods or transforms"
        )
    mods = [build_mod(entry) for entry in entries]
    check_mods(strategy, mods)
    return mods


def build_mod(entry: Any) -> Mod:
    """Make one client mod: of the name of one of Flower's, or of a node with ``_target_``.

    The target is a class whose objects are mods, or with ``_partial_`` a function; the node's
    other keys are its arguments.

    Raises:
        ConfigError: it is no mod, or its arguments are not those of the target.
    """
    if isinstance(entry, str):
        if entry not in flower.__all__:
            raise ConfigError(
                f"client_mods: Flower has no mod {entry}; it has {', '.join(flower.__all__)}, and "
                "others are blocks with a _target_"
            )
        entry = {"_target_": f"{flower.__name__}.{entry}", "_partial_": True}
    if not isinstance(entry, dict):
        raise ConfigError(f"client_mods: {entry} is neither a name nor a block with _target_")
    path = str(entry.get("_target_", ""))
    target = located(path, "client_mods")
    note(target.__module__)
    if isinstance(target, type):
        if entry.get("_partial_"):
            names = "".join(f", {name}: …" for name in inspect.signature(target).parameters)
            raise ConfigError(
                f"client_mods: {target.__name__} is a class with settings of its own; write "
                f"client_mods=[{{_target_: {path}{names}}}], without _partial_"
            )
        mod, arguments = make(entry, "client_mods"), dict[str, Any]()
    else:
        if not entry.get("_partial_"):
            raise ConfigError(
                f"client_mods: {path} is a function, and the sites call it; add _partial_: true "
                "beside its _target_"
            )
        arguments = {key: value for key, value in entry.items() if key not in HYDRA_KEYS}
        mod = partial(target, **arguments) if arguments else target
    try:
        inspect.signature(getattr(mod, "func", mod)).bind("message", "context", "next", **arguments)
    except TypeError as error:
        raise ConfigError(
            f"client_mods: {path} cannot be called with a message, its context and the next app: "
            f"{error}; a mod takes these three first, and then what stands beside its _target_"
        ) from None
    return cast(Mod, mod)


def build_transforms(
    cfg: Config, seed: int, strategy: Strategy, privacy: Protection | None = None
) -> Chain:
    """Make the chain of ``transforms``, and of those that the run's privacy brings.

    Raises:
        ConfigError: an entry cannot be made, or the chain cannot work.
    """
    nodes = block(cfg, "transforms")
    made: dict[str, Any] = {name: make(nodes[name], f"transforms.{name}") for name in nodes}
    chain = Chain(made | dict(privacy.transforms if privacy else {}), seed)
    chain.check(strategy)
    if chain.down is not None and not vars(type(build_server(cfg))).get("one_model"):
        name = next(each.name for each in chain.transforms if getattr(each, "down", False))
        raise ConfigError(
            f"transforms.{name} compresses the model that sites get, and with this server they may "
            f"hold different ones; set transforms.{name}.direction=up, or server=synchronous"
        )
    return chain


class _Nodes(GridView):
    """A Grid that shows nodes and carries nothing."""

    def __init__(self, count: int) -> None:
        self._count = count

    def get_node_ids(self) -> Iterable[int]:
        return range(1, self._count + 1)


def check_sent(strategy: Strategy, arrays: Arrays, nodes: int, seed: int) -> None:
    """Refuse a strategy from elsewhere that sends what no client half imported here knows.

    A client would refuse it in round 1, when the run has its folder.

    Args:
        strategy: one made for this alone: it configures a round.
        arrays: the parameters of round 0.
        nodes: sites of a round.
        seed: of the run.

    Raises:
        ConfigError: names the key and the package of the strategy.
    """
    foreign = [type(layer) for layer in unwrap(strategy) if not is_ours(type(layer))]
    if not foreign:
        return
    if not has_identity():
        become_server()
    try:
        with seeded_globals(seed, "sent"):
            given = to_record(arrays), ConfigRecord(), _Nodes(nodes)
            messages = list(strategy.configure_train(1, *given))
        sent = {key for message in messages for key in config_in(message.content)}
    except Exception:  # the run says what is wrong, with its round
        return
    refuse_unknown_keys(sent, f"strategy {foreign[0].__name__}", foreign[0].__module__)


def build_clock(
    cfg: Config, sites: Sequence[str], seed: int, settings: TrainingSettings, timeout: float | None
) -> Clock:
    """Make the clock of a run; null is that of this machine.

    Args:
        cfg: a composed config.
        sites: all sites.
        seed: of the run.
        settings: local training, which says how many steps a site makes.
        timeout: seconds for which a site is waited for, or None.

    Raises:
        ConfigError: it cannot be made, or is no clock.
    """
    node = select(cfg, "clock")
    clock = Clock() if node is None else cast(Clock, make(node, "clock"))

    def steps(examples: int) -> int:
        return settings.local_epochs * len(batch_sizes(examples, settings.batch_size))

    clock.prepare(sites, seed, steps, timeout)
    return clock


def build_server(cfg: Config) -> Server:
    """Make what triggers commits; null is synchronous rounds.

    Raises:
        ConfigError: it cannot be made, or is no server.
    """
    node = select(cfg, "server")
    return Synchronous() if node is None else cast(Server, make(node, "server"))
