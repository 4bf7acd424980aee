"""A site under ``flower-supernode``: its own file, from its own folder.

Which site it is and where its data lies it reads from the supernode's ``--node-config``:

    site="gdansk"                 its name in the run; the simulation runtime numbers sites instead
    data="/srv/plant"             its folder: data.path of the config, on this machine
    config="/srv/plant/me.yaml"   what its columns mean; data/site/SITE.yaml if not given
    device="cuda"                 where it trains, if not as the server says
    imports="mylab"               modules of its own; a message never imports anything
"""

from __future__ import annotations

import secrets
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from fedpdm import __version__
from fedpdm.client.state import PersonalModels, end_round, passing
from fedpdm.config.imports import import_all, names_of, refuse_foreign
from fedpdm.config.values import Config, plain, read_config, select, stored_config
from fedpdm.data.leakage import checks as guards
from fedpdm.data.quality.sites import notes
from fedpdm.data.sources.base import expand_replicas
from fedpdm.deployment.envelope import (
    ANOTHER_SITE,
    DESCRIBE_QUERY,
    TEST_QUERY,
    Description,
    Envelope,
    result_content,
)
from fedpdm.deployment.site_memory import SiteMemory, remembers
from fedpdm.deployment.site_results import of_site
from fedpdm.engines.local_grid import CLIENT_APP_RAISED, REFUSED, refusal
from fedpdm.errors import ConfigError, DataError, FedPdmError, printable
from fedpdm.evaluation.final_test import run_final_test
from fedpdm.runs.assembly import client_app, one_thread
from fedpdm.runs.attacked import SIMULATED, is_attacked
from fedpdm.runs.experiment import Experiment, build
from fedpdm.runs.look import nearest
from fedpdm.wire.records import ARRAYS, BUFFERS, arrays_in, scaler_in


@dataclass(frozen=True)
class Whereabouts:
    """What a site knows of itself: the supernode's ``--node-config``."""

    site: str | None
    data: str | None
    config: str | None
    device: str | None
    partition: int | None
    imports: tuple[str, ...] = ()

    @classmethod
    def of(cls, node_config: Mapping[str, Any]) -> Whereabouts:
        """Read it.

        Raises:
            ConfigError: neither a name nor a number, or a key that means nothing here.
        """
        known = {"site", "data", "config", "device", "imports", "partition-id", "num-partitions"}
        if unknown := sorted(set(node_config) - known):
            raise Refused(
                f"--node-config {unknown[0]}=… means nothing; there are site, data, config, "
                "device, imports"
            )
        text = {k: str(node_config[k]) for k in ("site", "data", "config", "device")
                if node_config.get(k) not in (None, "")}  # fmt: skip
        partition = node_config.get("partition-id")
        if "site" not in text and partition is None:
            raise Refused(
                "this supernode does not say which site it is: start it with "
                '--node-config \'site="NAME" data="/its/folder"\''
            )
        return cls(text.get("site"), text.get("data"), text.get("config"), text.get("device"),
                   None if partition is None else int(partition),
                   tuple(names_of(node_config.get("imports") or None)))  # fmt: skip

    def own_yaml(self) -> Path | None:
        """Return the site's own yaml, if it has one.

        Raises:
            ConfigError: ``config=`` names a file that is not there.
        """
        if self.config is not None:
            path = Path(self.config).expanduser()
            if not path.is_file():
                raise ConfigError(f"{self.site}: --node-config config={path} is not a file")
            return path
        if self.data is None or self.site is None:
            return None
        path = Path(self.data).expanduser() / "site" / f"{self.site}.yaml"
        return path if path.is_file() else None


@lru_cache(maxsize=2)
def site_experiment(text: str, where: Whereabouts) -> tuple[Experiment, ClientApp]:
    """Return a run as this site sees it. Kept, because simulated sites share a process."""
    one_thread()
    experiment = build(site_config(text, where))
    return experiment, client_app(experiment)


def site_config(text: str, where: Whereabouts) -> Config:
    """Return the run's config with what is this site's own: folder, columns, device.

    Raises:
        ConfigError: the site's own yaml cannot be read.
    """
    cfg: Config = stored_config(text, "the run's config")
    allow(cfg, where)
    if where.device is not None:
        cfg.device = where.device
    if where.data is not None and "path" in cfg.data:
        cfg.data.path = where.data
    names = list(expand_replicas(dict(cfg.sites or {}), int(cfg.replicas)))
    path = where.own_yaml()
    if path is not None and where.site is not None:
        # Rows of other sites are never read here, so their columns need not be known: they
        # stand in the list with this site's, so that all sites count the same federation.
        own = own_settings(path, where.site)
        cfg.sites = {name: {**(cfg.sites.get(name) or {}), **own} for name in names}
    return cfg


def allow(cfg: Config, where: Whereabouts) -> None:
    """Import what this supernode names, and refuse a config that needs other code.

    Raises:
        ConfigError: the run has ``imports=`` or a ``_target_`` that this supernode lacks.
    """
    if is_attacked(cfg):
        raise Refused(f"{where.site or 'a supernode'} refuses attack=…: {SIMULATED}")
    asked = names_of(select(cfg, "imports"))
    own = asked if simulated() else list(where.imports)
    start = "start this supernode with --node-config 'imports=\"{}\"'"
    if missing := [name for name in asked if name not in own]:
        raise Refused(
            f"{where.site or 'a supernode'} does not import {missing[0]}, which this run needs; if "
            f"you know and trust it, {start.format(','.join(asked))}"
        )
    import_all(own)
    try:
        refuse_foreign(plain(cfg), own, start)
    except ConfigError as error:  # it names what the server sent
        raise Refused(str(error)) from None
    cfg.imports = own
    if select(cfg, "init.run") is not None:  # a folder of the server; weights come in messages
        cfg.init.run = None


def simulated() -> bool:
    """Return whether this is Flower's simulation runtime: all sites are one person's, in one box.

    Only there is the client app called in an actor of Ray's.
    """
    ray = sys.modules.get("ray")
    return (
        ray is not None and ray.is_initialized() and bool(ray.get_runtime_context().get_actor_id())
    )


def own_settings(path: Path, site: str) -> Config:
    """Return what a site's own yaml says.

    Raises:
        ConfigError: it is no yaml, or has no block of the site's name.
    """
    import yaml

    try:
        content = read_config(path)
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{site}: {path} cannot be read: {' '.join(str(error).split())}"
        ) from None
    block = content.get(site) if isinstance(content, Mapping) else None
    if not isinstance(block, Config):
        raise ConfigError(f"{site}: {path} needs a block '{site}:' with what the columns mean")
    return block


class Refused(ConfigError):
    """The run is not for this supernode. The text names settings only, so the server may see it."""


class DeployedSiteApp(ClientApp):
    """The Flower app of a site that learns from each message what run it is in."""

    def __call__(self, message: Message, context: Context) -> Message:
        try:
            return self._answer(message, context)
        except Refused as error:
            return refusal(error, message)
        except Exception as error:
            if simulated() and isinstance(error, FedPdmError):
                return refusal(error, message)
            return kept_here(error, message)

    def _answer(self, message: Message, context: Context) -> Message:
        where = Whereabouts.of(context.node_config)
        envelope = Envelope.of(message.content)
        if where.own_yaml() is None:  # then nothing depends on the name, and sites can share
            key = replace(where, site=None, config=None, partition=None)
        else:
            key = where
        experiment, app = site_experiment(envelope.config, key)
        site = self._name(where, experiment)
        if envelope.site and envelope.site != site:
            reason = f"this supernode is {site}, not {envelope.site}"
            return Message(Error(ANOTHER_SITE, reason), reply_to=message)
        kind = message.metadata.message_type
        if kind == DESCRIBE_QUERY:
            return Message(describe(experiment, site).content(), reply_to=message)
        working = kind in (MessageType.TRAIN, MessageType.EVALUATE, TEST_QUERY)
        memory = SiteMemory(site, envelope) if working and remembers(experiment) else None
        state = context.state
        if memory is not None:
            state = remembered(memory, envelope.best if kind == TEST_QUERY else envelope.base)
            for name, record in passing(context.state).items():  # of an earlier stage
                state[name] = record
        if kind == TEST_QUERY:
            found = try_out(experiment, site, message, state)
            return Message(result_content(found), reply_to=message)
        inner = Context(context.run_id, context.node_id, {**context.node_config, "site": site},
                        state, context.run_config)  # fmt: skip
        reply = app(message, inner)
        if memory is None:
            context.state = inner.state
            return reply
        context.state = RecordDict(passing(inner.state))
        end_round({site: inner.state})
        if not reply.has_error() and (
            kind == MessageType.TRAIN
            # It was sent what its model came to after a round that it had a part in.
            or (experiment.transforms.down is not None and envelope.base == envelope.version)
        ):
            memory.write(envelope, inner.state)
        return reply

    def _name(self, where: Whereabouts, experiment: Experiment) -> str:
        sites = experiment.federation.sites
        if where.site is not None:
            if where.site not in sites:
                raise Refused(
                    f"site={where.site!r} is none of this run's sites: it has "
                    f"{', '.join(sites[:20])}"
                )
            return where.site
        assert where.partition is not None
        if where.partition >= len(sites):
            raise Refused(
                f"the simulation has a supernode number {where.partition}, the run only "
                f"{len(sites)} sites ({', '.join(sites[:20])}); set num-supernodes to {len(sites)}"
            )
        return sites[where.partition]


def remembered(memory: SiteMemory, version: str) -> RecordDict:
    """Return what a site kept after a version.

    Raises:
        Refused: it is not here; to begin again with nothing would give other weights.
    """
    state = memory.read(version)
    if state is None:
        raise Refused(
            f"{memory.site} has not got what it kept after round {int(version.split('-')[0])} of "
            "this run; its operator can bring back the folder fedpdm in the FLWR_HOME of its "
            "supernode, or a new run can be started"
        )
    return state


def kept_here(error: Exception, message: Message) -> Message:
    """Return the reply of a site that cannot do what a message asks for.

    The text may name what is in the site's files, so it goes into the site's own log. The server
    gets the kind of error, and a number by which people can talk about it.
    """
    number = secrets.token_hex(3)
    if isinstance(error, FedPdmError):
        text = str(error)
    else:
        text = "".join(traceback.format_exception(error))
    print(f"error {number}: {type(error).__name__}: {text}", file=sys.stderr, flush=True)
    kind = type(error).__name__ if isinstance(error, FedPdmError) else "Exception"
    reason = f"{kind} {number}, see the log of this site's supernode"
    code = REFUSED if isinstance(error, ConfigError) else CLIENT_APP_RAISED
    return Message(Error(code, reason), reply_to=message)


def describe(experiment: Experiment, name: str) -> Description:
    """Read a site's data and say what it is like: names and counts, never rows.

    Raises:
        DataError: it cannot be used; the sentence names the file.
    """
    federation = experiment.federation
    source = federation.source
    suspicions = guards.check(source, [name], federation.rows, federation.task.reach)
    said = [*suspicions, *source.warnings]
    site = federation.site(name, federation.moments(name).scaler())
    if len(site.train) < 2:
        federation.check([site])  # says why
        raise DataError(f"{name}: too few training windows")
    said += notes(source, [name], federation.rows, nearest(experiment.task))
    for note in said:
        print(printable(note), file=sys.stderr, flush=True)  # in the site's own log
    return Description(
        site=name,
        data=source.name,
        features=tuple(source.features),
        window=source.window,
        conditions=source.conditions,
        time_unit=source.time_unit,
        version=__version__,
        shape=federation.shape(site),
        notes=len(said),
        units=dict(source.units),
        levels=dict(source.levels),
    )


def try_out(
    experiment: Experiment, name: str, message: Message, state: RecordDict
) -> dict[str, Any]:
    """Return the metrics of the received weights on the site's own windows.

    The alarm threshold is the site's own, chosen on its validation windows.
    """
    federation, content = experiment.federation, message.content
    if experiment.objective.personalises == "evaluate":  # with the model that is tested
        client, key = client_app(experiment).client, ("test", name)
        client.personalise("evaluate", client.site(message, name), message, state, key)
    models = PersonalModels(
        experiment.build_model(),
        {**arrays_in(content, ARRAYS), **arrays_in(content, BUFFERS)},
        experiment.parts.local,
        {name: state},
        experiment.objective,
        experiment.device,
    )
    scaler = scaler_in(content) or federation.moments(name).scaler()
    sites = [federation.site(name, scaler)]
    tried = run_final_test(models, sites, federation, experiment.device, experiment.protocol)
    result: dict[str, Any] = {"threshold": tried.threshold}
    for split in ("validation", "test", "heldout"):
        part = tried.parts[split]
        result[split] = None if part is None else part["per_site"][name]
    return result | {"details": of_site(tried, name)}
