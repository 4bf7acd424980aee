"""The server under ``flower-superlink``: a run without any site data.

Run config (``flwr run . --run-config '…'``):

    overrides="data=files site=[gdansk,lyon] rounds=20"    as after python -m fedpdm.simulate
    run-folder="/srv/fedpdm/runs/autumn"                   default: runs/<time>-<random>
    resume="/srv/fedpdm/runs/autumn"                       continue this run; nothing else is needed
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid

from fedpdm import __version__
from fedpdm.baselines.registry import BASELINES
from fedpdm.config.command_line import chosen_sites, options, rewrite
from fedpdm.config.compose import compose, run_name
from fedpdm.config.imports import import_all, names_of
from fedpdm.config.values import Config, make, positive, resolved, select, whole, yaml_of
from fedpdm.data.normalise import Scaler
from fedpdm.data.rows import Rows
from fedpdm.data.sources.base import Source, expand_replicas
from fedpdm.deployment.envelope import TEST_QUERY, Description, result_in, why
from fedpdm.deployment.grid import DeployedGrid
from fedpdm.deployment.node_registry import NodeRegistry
from fedpdm.deployment.site_results import cards, gathered
from fedpdm.engines.auto import Engine
from fedpdm.errors import ConfigError, DataError
from fedpdm.evaluation.scoring import mean_metrics
from fedpdm.history import History
from fedpdm.report.table import print_summary
from fedpdm.runs.assembly import one_thread
from fedpdm.runs.attacked import SIMULATED, is_attacked
from fedpdm.runs.contribution import SHOWS_SITES, asks
from fedpdm.runs.experiment import Experiment, build, build_stored
from fedpdm.runs.folder import stored_run
from fedpdm.runs.progress import Progress
from fedpdm.runs.run import Run
from fedpdm.runs.sources import build_source
from fedpdm.server.base import MAIN
from fedpdm.server.loop import RoundLoop, make_server_app
from fedpdm.storage import parse_tensors
from fedpdm.tasks import Task
from fedpdm.wire.records import ARRAYS, BUFFERS, SCALER, Arrays, scaler_record, to_record

FILES = "fedpdm.data.sources.files.FilesSource"


@dataclass(frozen=True)
class Order:
    """What ``flwr run`` asked for: the composed config, and where the run goes."""

    cfg: Config
    folder: Path
    resumed: bool

    @classmethod
    def of(cls, run_config: Mapping[str, Any]) -> Order:
        """Read the run config.

        Raises:
            ConfigError: an option is unknown, or two exclude each other.
            HistoryError: there is no run to resume.
        """
        overrides = shlex.split(str(run_config.get("overrides", "")))
        folder, resume = (str(run_config.get(key, "")) for key in ("run-folder", "resume"))
        if not resume:
            return cls(composed(overrides), Path(folder or f"runs/{run_name()}"), False)
        if folder and Path(folder) != Path(resume):
            raise ConfigError(
                f"resume={resume} continues in its own folder; leave run-folder={folder} out"
            )
        cfg, place = stored_run([f"resume={resume}", *overrides])
        return cls(cfg, place, True)


def composed(overrides: Sequence[str]) -> Config:
    """Return the config for overrides; sites with files may have their yaml at home.

    Raises:
        ConfigError: an override is unknown or cannot be read.
    """
    rewritten = rewrite(overrides)
    names, known = chosen_sites(rewritten), options("site", overrides)
    absent = [name for name in names if name not in known]
    if absent:
        here = ",".join(name for name in names if name in known)
        others = [o for o in rewritten if not o.startswith("site=")]
        cfg = compose([*others, f"site=[{here}]"])
        if cfg.data._target_ != FILES:
            cfg = compose(overrides)  # says which site does not exist
        cfg = resolved(cfg)
        cfg.sites = {name: cfg.sites.get(name) or {} for name in names}
        return cfg
    return resolved(compose(overrides))


def sites_of(cfg: Config) -> tuple[str, ...]:
    """Return the names of a run's sites, in the order of the config."""
    named = expand_replicas(dict(cfg.sites or {}), whole(cfg, "replicas", 1))
    if named:
        return tuple(named)
    task: Task = make(cfg.task, "task")
    return build_source(cfg, task, whole(cfg, "seed", 0)).sites


class RemoteSource(Source):
    """A data set that lies at the sites: what they said of it, and no rows."""

    def __init__(self, sites: tuple[str, ...], said: Description, stride: int = 1) -> None:
        self._sites = sites
        self.name, self.time_unit = said.data, said.time_unit
        self.features, self.window = said.features, said.window
        self.conditions, self.stride = said.conditions, stride
        self.levels = said.levels

    @property
    def sites(self) -> tuple[str, ...]:
        return self._sites

    def rows(self, site: str) -> Rows:
        raise DataError(f"the rows of {site} stay at the site; the server has none")


def serve(grid: Grid, context: Context) -> dict[str, Any]:
    """Run what ``context.run_config`` asks for, with the sites behind ``grid``.

    Raises:
        UserError: an option, the folder or the sites' data cannot work.
        SiteError: sites are missing or failed, or the run gave up.
    """
    one_thread()
    order = Order.of(context.run_config)
    cfg = order.cfg
    if select(cfg, "init.pretrain") is not None:
        raise ConfigError(
            "init.pretrain makes two runs, and under a SuperLink each is a run of its own: start "
            "the pretraining, then this one with init=RUN_FOLDER"
        )
    if select(cfg, "federations"):
        raise ConfigError(
            "sites.NAME.models makes a federation for each model, and under a SuperLink each is a "
            "run of its own: start one for each model, at the sites that prefer it"
        )
    if is_attacked(cfg):
        raise ConfigError(f"attack=…: {SIMULATED}")
    if asks(cfg):
        raise ConfigError(SHOWS_SITES)
    if select(cfg, "newcomers.sites"):
        raise ConfigError(
            "newcomers.sites: a deployed run asks the sites that take part only; start no "
            "supernode for the others, and leave newcomers.sites=[]"
        )
    if select(cfg, "privacy._target_") is not None:
        raise ConfigError(
            "privacy draws its noise from the run's seed, which every supernode gets with the "
            "config, so it would hide nothing under a SuperLink; simulate it (docs/privacy.md)"
        )
    import_all(names_of(select(cfg, "imports")))
    carrier = DeployedGrid(grid, yaml_of(cfg))
    start_timeout = positive(cfg, "deployment.start_timeout")
    sites = sites_of(cfg)
    least = len(sites)
    if select(cfg, "deployment.min_plants") is not None:
        least = whole(cfg, "deployment.min_plants", 1)
    registry = NodeRegistry(carrier, sites, empty_patience=start_timeout)
    print(f"waiting for {', '.join(sites)} (at most {start_timeout:g} s)", flush=True)
    registry.wait(min(int(least), len(sites)), start_timeout)
    agreed = registry.agreed()
    if agreed.version != __version__:
        raise ConfigError(
            f"the sites have fedpdm {agreed.version}, the server has {__version__}; install "
            "the same version everywhere"
        )
    source = RemoteSource(sites, agreed)
    experiment = (
        build_stored(cfg, order.folder, source) if order.resumed else build(cfg, source)
    ).without_baselines()
    if experiment.clock.carrier() is not None:
        raise ConfigError("clock=virtual simulates sites; these are real ones: use clock=wall")
    if experiment.start is not None and experiment.parts.local:
        raise ConfigError(
            f"init={cfg.init.run} with travels={cfg.travels}: what stays at a site would start "
            "fresh there, because the weights of that run are at the server; use travels=all"
        )
    run = DeployedRun(experiment, cfg, order.folder, carrier, registry)
    summary = run.execute(resume=order.resumed)
    print_summary(summary, order.folder)
    if select(cfg, "promote"):
        print("no decision record: the gates test windows, and those are at the sites")
    return summary


class DeployedRun(Run):
    """A run whose sites are elsewhere: they describe, train, evaluate and test themselves."""

    def __init__(
        self,
        experiment: Experiment,
        cfg: Config,
        folder: Path,
        grid: DeployedGrid,
        registry: NodeRegistry,
    ) -> None:
        super().__init__(experiment, cfg, folder)
        self.grid = grid
        self.registry = registry

    def _look(self, say: Callable[[str], None]) -> tuple[list[str], list[dict[str, Any]]]:
        described = self.registry.described
        shapes = [described[site].shape for site in self.registry.sites if site in described]
        positives = [(shape.get("prevalence") or {}).get("train") for shape in shapes]
        learns = self.experiment.task.learns_labels
        if learns and positives and all(share == 0 for share in positives):
            raise DataError(
                f"no failure in the training data of any site ({', '.join(described)}): nothing "
                "can be learned; bring a longer record, raise task.horizon, or check the logs"
            )
        notes = [
            f"{site}: {said.notes} notes on its data, which stand in its own log"
            for site, said in described.items()
            if said.notes
        ]
        return notes, shapes

    def _data_changed(self, before: dict[str, Any], now: dict[str, Any]) -> bool:
        """Compare the sites that are here; who is not may come later."""
        stored: dict[str, str] = before["sites"]
        return any(stored.get(site, sha256) != sha256 for site, sha256 in now["sites"].items())

    def _train(self, history: History, display: Progress) -> Scaler | None:
        def tell(event: dict[str, Any]) -> None:
            head = history.head()
            number = 0 if head is None else head.round + 1
            history.note({"round": number, "attempt": history.attempt, **event})
            display.say(f"note: {event['message']}")

        self.registry.listen(tell)
        return super()._train(history, display)

    def _rounds(self, loop: RoundLoop) -> None:
        self.grid.where = partial(self._where, loop)
        loop.scaler = self._stored_scaler() or loop.scaler
        loop.make_roster = lambda grid: self.registry
        if loop.federated_scaling:
            loop.on_scaler = self._keep_first(loop.on_scaler)
        # ServerApps take any Context; this one's state is not kept by Flower.
        make_server_app(loop)(self.grid, Context(0, 0, {}, RecordDict(), {}))

    def _where(self, loop: RoundLoop) -> dict[str, dict[str, str]]:
        """Return where the run stands for each site, as an ``Envelope`` says it."""
        if loop.history.head() is None:
            return {}
        begun = loop.history.row(0)
        first = f"{loop.history.record(begun).started} {begun.weights_sha256}"
        run, best = hashlib.sha256(first.encode()).hexdigest()[:32], loop.counted_by_best()
        kept = {site: loop.kept_by(site) for site in self.registry.sites}
        return {
            site: {"run": run, "base": base, "version": version, "best": best.get(site, "")}
            for site, (base, version) in kept.items()
        }

    def _stored_scaler(self) -> Scaler | None:
        """Return the scaler of a run that is continued: a site may be missing today."""
        path = self.folder / "scaler.safetensors"
        if not self.experiment.federated_scaling or not path.exists():
            return None
        arrays = parse_tensors(self.sealed.read(path.name), path)
        return Scaler(arrays["federated/mean"], arrays["federated/scale"])

    def _keep_first(self, then: Any) -> Any:
        def keep(scaler: Scaler) -> None:
            self._write_scalers(scaler)  # now, so that a resumed run scales alike
            then(scaler)

        return keep

    def _write_scalers(self, scaler: Scaler | None) -> None:
        if scaler is not None:  # with scaling=plant each site keeps its own
            super()._write_scalers(scaler)

    def _settle_engine(self, shapes: list[dict[str, Any]]) -> Engine:
        return {"name": "flower", "settings": {}, "reason": None}

    def _test(
        self, weights: Arrays, states: Mapping[str, RecordDict], scaler: Scaler | None
    ) -> dict[str, Any]:
        """Let the sites test a round's weights on their own windows; metrics come back.

        ``global``, over pooled windows, is null: nobody may pool. The threshold is each
        site's own.
        """
        contents = {
            name: self._content(arrays, scaler)
            for name, arrays in {MAIN: weights, **self._models}.items()
        }
        connected = self.registry.connected()
        asked = {connected[site]: site for site in self.experiment.evaluated if site in connected}
        replies = self.grid.send_and_receive(
            [
                Message(contents[self._members.get(site, MAIN)], node, TEST_QUERY)
                for node, site in asked.items()
            ],
            timeout=self.experiment.round_timeout,
        )
        answers: dict[str, dict[str, Any]] = {}
        details: dict[str, dict[str, Any]] = {}
        assert self.registry.tell is not None
        for reply in replies:
            site = asked[reply.metadata.src_node_id]
            if reply.has_error():
                message = f"{site} could not test: {reply.error.reason}"
                self.registry.tell({"kind": "site-failed", "site": site, "message": message})
            else:
                try:
                    found = result_in(reply.content)
                    answers[site] = {split: found[split] for split in ("test", "heldout")}
                    details[site] = dict(found.get("details") or {})
                except Exception as error:  # one site's odd answer must not lose the run
                    message = f"{site}: its test results are refused ({why(error)})"
                    self.registry.tell({"kind": "refused", "site": site, "message": message})
        for site in self.experiment.evaluated:
            if site not in answers and site not in asked.values():
                message = f"{site} is not connected and was not tested"
                self.registry.tell({"kind": "timeout", "site": site, "message": message})
        ordered = [site for site in self.experiment.evaluated if site in answers]
        result: dict[str, Any] = {"threshold": None, "heldout": None}
        for split in ("test", "heldout"):
            per_site = {s: answers[s][split] for s in ordered if answers[s][split] is not None}
            if split == "test" or per_site:
                mean = mean_metrics(list(per_site.values()))
                result[split] = {"global": None, "mean_site": mean, "per_site": per_site}
        told = {site: details[site] for site in ordered}
        result["test"] |= gathered(told, result["test"]["per_site"], self.experiment.task)
        return result | {"card": cards(told)}

    def _content(self, weights: Arrays, scaler: Scaler | None) -> RecordDict:
        """Return what is sent to test a model."""
        names = set(self.experiment.build_model().parameter_names)
        content = RecordDict({ARRAYS: to_record({n: a for n, a in weights.items() if n in names})})
        if buffers := {n: a for n, a in weights.items() if n not in names}:
            content[BUFFERS] = to_record(buffers)
        if scaler is not None:
            content[SCALER] = scaler_record(scaler)
        return content

    def _summary(self, history: History, scaler: Scaler | None) -> dict[str, Any]:
        summary = super()._summary(history, scaler)
        # The server may pool nothing, so here they are null.
        summary["test"]["baselines"] = dict.fromkeys(BASELINES)
        return summary
