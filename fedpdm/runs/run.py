"""One experiment in one folder: train, compare, test once, write the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict
from rich.console import Console

from fedpdm.baselines.best_alone import NAME as BEST_ALONE
from fedpdm.baselines.best_alone import kinds_alone
from fedpdm.baselines.registry import diverged, gather
from fedpdm.baselines.workers import BaselineWorkers
from fedpdm.client.state import PersonalModels
from fedpdm.config.values import Config, class_of, make, plain, select
from fedpdm.data.leakage.checks import checked_scaler
from fedpdm.data.normalise import Scaler
from fedpdm.data.splits.saved_split import SplitFile, split_file
from fedpdm.engines.auto import Engine, engine_of
from fedpdm.engines.hardware import cores
from fedpdm.errors import HistoryError
from fedpdm.evaluation.final_test import FinalTest, alarm_costs, run_final_test
from fedpdm.evaluation.scoring import Predictions
from fedpdm.federation import Site
from fedpdm.history import History
from fedpdm.history.lock import RunLock
from fedpdm.history.sealed import SealedFiles
from fedpdm.privacy.base import sentence, uncovered
from fedpdm.report.page import import_libraries
from fedpdm.runs.assembly import (
    baseline_inputs,
    client_app,
    round_loop,
    settled_engine,
    shared_scaler,
)
from fedpdm.runs.attacked import came_to
from fedpdm.runs.contribution import contributions
from fedpdm.runs.drift import NAME as REFERENCE
from fedpdm.runs.drift import drift_since, reference
from fedpdm.runs.experiment import Experiment
from fedpdm.runs.folder import (
    SCHEMA,
    data_hashes,
    described,
    git_commit,
    model_card,
    opened_history,
    refuse_used,
    settle_rounds,
    stored_manifest,
    versions,
    write_manifest,
    write_scalers,
)
from fedpdm.runs.idle import idle_options
from fedpdm.runs.inspected import machines_to_inspect
from fedpdm.runs.local_training import idle_warning, rate_warning
from fedpdm.runs.log import log_of
from fedpdm.runs.look import look_at_data
from fedpdm.runs.newcomers import test_newcomers
from fedpdm.runs.privacy import refuse_other_noise
from fedpdm.runs.progress import Progress, Working
from fedpdm.runs.results import (
    RESULTS,
    add_baselines,
    add_confidence,
    summarise,
    write_results,
)
from fedpdm.runs.shared_model import shared_scores
from fedpdm.server.base import models_of
from fedpdm.server.loop import RoundLoop, make_server_app
from fedpdm.server.round_metrics import best_round
from fedpdm.storage import write_json, write_tensors
from fedpdm.trackers.guard import Guard, build_tracker
from fedpdm.wire.flower import RUN_ID, SERVER_NODE_ID, unpack_state
from fedpdm.wire.records import Arrays

STARTED = ("run", "round", "model", "scope", "cost")
"""What ``summary.json`` says of the run that another started from."""


class Run:
    """A run folder and the experiment in it.

    Args:
        experiment: what to run.
        cfg: the resolved config, stored with the run.
        folder: the run folder; made if missing.
        console: where a person reads, or None for standard output.
    """

    def __init__(
        self, experiment: Experiment, cfg: Config, folder: Path, console: Console | None = None
    ) -> None:
        self.experiment = experiment
        self.cfg = cfg
        self.folder = folder
        self.console = console
        self.log = log_of(cfg, folder)
        self.engine: Engine
        self.sealed: SealedFiles
        self.split: SplitFile | None = None  # of sites in this box
        # Generated sites are not made a second time for a check that they cannot fail.
        generated = experiment.federation.source.generated
        self._own_scaler = lambda: None if generated else shared_scaler(experiment)
        self.seconds: dict[str, float] = {}
        self._processor: dict[str, float] = {}
        self._stages: dict[str, float] = {}
        self._in_process = False
        self._trial: FinalTest | None = None
        self._models: dict[str, Arrays] = {}  # of clusters, as of the chosen round
        self._members: dict[str, str] = {}
        self._card: dict[str, Any] = {}

    def execute(self, resume: bool = False) -> dict[str, Any]:
        """Run to the end and return the summary.

        Raises:
            UserError: the data, the folder or the options cannot work.
            SiteError: sites failed, or the run gave up.
        """
        begun = time.perf_counter()
        experiment = self.experiment
        tracker = build_tracker(self.cfg)
        with self._timed("setup"), self._working("reading the data") as working:
            warnings, shapes = self._look(working.says)
        warnings += [*idle_warning(self.cfg), *idle_options(self.cfg, experiment)]
        if (privacy := experiment.privacy) is not None:
            warnings += [sentence(privacy.plan()), *privacy.notes, uncovered(privacy)]
        warnings += rate_warning(experiment.settings, experiment.rounds)
        self.folder.mkdir(parents=True, exist_ok=True)
        with RunLock(self.folder) as lock, ExitStack() as stack:
            with self._working("preparing the run"):
                manifest = self._open_folder(resume, shapes)
            self.engine = manifest.get("engine") or engine_of(experiment.engine)  # an old one
            history = stack.enter_context(opened_history(self.folder, experiment.keep))
            self.sealed = history.sealed
            self.sealed.seal_first()
            for event in history.recover():
                warnings.append(event["message"])
            settle_rounds(self.folder, self.cfg, history, manifest, experiment.rounds)
            beside = self._start_baselines(lock.close_in_child)
            if beside is not None:
                stack.callback(beside.stop)
            display = Progress(
                experiment.rounds, experiment.task.primary, self.console,
                done=head.round if (head := history.head()) else 0, log=self.log,
            )  # fmt: skip
            if beside is not None:
                display.on_round.append(beside.release)
            guard = None
            if tracker is not None:
                guard = Guard(tracker, self.folder, plain(self.cfg), display.say, history)
                display.on_round.append(guard.round)
            with display:
                if head is not None:
                    display.say(f"continuing after round {head.round}")
                elif experiment.start is not None:
                    display.say(f"init: {experiment.start}")
                if len(experiment.evaluated) < len(experiment.federation.sites):
                    display.say(experiment.who_evaluates)
                if self.engine["reason"]:
                    display.say(f"engine={self.engine['name']}: {self.engine['reason']}")
                for warning in warnings:
                    display.say(f"note: {warning}")
                with self._timed("training"):
                    scaler = self._train(history, display)
            with self._timed("evaluation"), self._working("testing the chosen round"):
                summary = self._summary(history, scaler)
            baselines: dict[str, Predictions] = {}
            if beside is not None:
                with self._timed("baselines"), self._working("waiting for the baselines"):
                    import_libraries()
                    baselines = gather(beside.scores())
                    lost = diverged(baselines)
                    baselines = {k: v for k, v in baselines.items() if k not in lost}
                    summary["baselines_left_out"] = beside.left_out | lost
                    sites = self._sites(experiment.compared, scaler)
                    add_baselines(summary, baselines, sites, experiment.task)
            if self._trial is not None:  # nobody may pool the windows of sites elsewhere
                with self._timed("evaluation"), self._working("computing intervals and costs"):
                    add_confidence(summary, self._trial, baselines, experiment)
                    own = (*kinds_alone(baselines), BEST_ALONE)
                    summary["test"]["costs"] = alarm_costs(self._trial, baselines, own)
            with self._working("writing the report"):
                self._conclude(summary, history, manifest, shapes, begun)
            if self.log is not None:
                self.log(f"finished after {experiment.rounds} rounds: report.html, summary.json")
            if guard is not None:
                guard.end(summary)
        return summary

    # Before -----------------------------------------------------------------------------

    def _working(self, doing: str) -> Working:
        return Working(doing, self.console)

    def _look(self, say: Callable[[str], None]) -> tuple[list[str], list[dict[str, Any]]]:
        """Look at the sites' data: what a person should know of it, and its shapes."""
        experiment, federation = self.experiment, self.experiment.federation
        warnings = look_at_data(experiment, say)
        self.split = split_file(federation.source, experiment.looked_at, federation.rows)
        return warnings, [
            federation.shape(federation.site(name, federation.moments(name).scaler()))
            for name in experiment.looked_at
        ]

    def _open_folder(self, resume: bool, shapes: list[dict[str, Any]]) -> dict[str, Any]:
        """Write config and manifest, or check that the stored ones fit."""
        hashes = data_hashes(shapes)
        if resume:
            manifest = stored_manifest(self.folder, self.cfg)
            if self._data_changed(manifest["data"], hashes):
                raise HistoryError(
                    f"the data behind {self.folder} has changed since the run began (other rows "
                    "or splits), or an older version of fedpdm dealt it otherwise; put the old "
                    "data back, continue with the version in manifest.json, or start a new run"
                )
            refuse_other_noise(manifest.get("privacy"), self.experiment.privacy, self.folder)
            return manifest
        refuse_used(self.folder, second=select(self.cfg, "pretraining") is not None)
        experiment = self.experiment
        manifest = {
            "schema": SCHEMA,
            "seed": experiment.seed,
            "versions": versions(),
            "git_commit": git_commit(),
            "data": {"name": experiment.federation.source.name, **hashes},
            "engine": self._settle_engine(shapes),
            "evaluate": {"fraction": experiment.evaluate_fraction},
            "config": plain(self.cfg),
        }
        if experiment.privacy is not None:
            manifest["privacy"] = experiment.privacy.plan()
        if self.split is not None:
            manifest["data"]["split"] = self.split.write(self.folder)
        if experiment.start is not None:
            experiment.start.write(self.folder)
            manifest["init"] = {**experiment.start.record, "said": str(experiment.start)}
        write_json(self.folder / "model.json", model_card(experiment, self.cfg))
        write_manifest(self.folder, self.cfg, manifest)
        return manifest

    def _data_changed(self, before: dict[str, Any], now: dict[str, Any]) -> bool:
        return bool(before["sha256"] != now["sha256"])

    def _settle_engine(self, shapes: list[dict[str, Any]]) -> Engine:
        return settled_engine(self.experiment, shapes)

    def _start_baselines(self, in_child: Any) -> BaselineWorkers | None:
        experiment = self.experiment
        if not experiment.compared:
            return None
        inputs = baseline_inputs(experiment)
        self._own_scaler = lambda: inputs.scaler
        settings = self.engine["settings"]
        one = settings and getattr(class_of(settings, "engine"), "in_process", False)
        free = cores() - 1 if one else 0
        processes = experiment.baselines.processes
        return BaselineWorkers(inputs, self.folder, processes, in_child, free)

    # The federation ---------------------------------------------------------------------

    def _train(self, history: History, display: Progress) -> Scaler | None:
        found: list[Scaler] = []
        loop = round_loop(self.experiment, history, display, found.append)
        self._stages = loop.stages.seconds
        self._rounds(loop)
        scaler = found[0] if found else None
        self._write_scalers(scaler)
        return scaler

    def _rounds(self, loop: RoundLoop) -> None:
        """Let the sites train."""
        experiment = self.experiment
        if not self.engine["settings"]:
            raise HistoryError(
                f"{self.folder} is a deployed run; its sites are elsewhere. Continue it with "
                "flwr run . --run-config 'resume=\"…\"' (server/README.md)"
            )
        if loop.on_scaler is not None:  # before anything is trained with it
            loop.on_scaler = checked_scaler(self._own_scaler, loop.on_scaler)
        settings = dict(self.engine["settings"])
        if "workers" in settings and experiment.engine.get("workers") is not None:
            settings["workers"] = experiment.engine["workers"]  # as resumed
        client, sites = client_app(experiment), experiment.federation.sites
        context = Context(RUN_ID, SERVER_NODE_ID, {}, RecordDict(), {})
        with closing(make(settings, "engine", client_app=client, sites=sites)) as grid:
            self._in_process = getattr(grid, "in_process", False)
            make_server_app(loop)(grid, context)

    def _write_scalers(self, scaler: Scaler | None) -> None:
        """Keep what new data must be scaled with."""
        federation = self.experiment.federation
        scalers = (
            {"federated": scaler}
            if scaler is not None
            else {name: federation.moments(name).scaler() for name in self.experiment.evaluated}
        )
        with self.sealed.writing("scaler.safetensors"):
            write_scalers(self.folder, scalers)

    def _sites(self, names: list[str], scaler: Scaler | None) -> list[Site]:
        federation = self.experiment.federation
        return [
            federation.site(name, scaler or federation.moments(name).scaler()) for name in names
        ]

    # After ------------------------------------------------------------------------------

    def _summary(self, history: History, scaler: Scaler | None) -> dict[str, Any]:
        """Test the round chosen on validation data, once."""
        records = history.rounds()
        chosen = best_round(records, self.experiment.task) or records[-1].round
        states = history.client_states(chosen) if self.experiment.personal else {}
        own = {site: unpack_state(data) for site, data in states.items()}
        self._models, self._members = models_of(history, chosen)
        tested = self._test(history.weights(chosen), own, scaler)
        self._card = tested.get("card", {})
        summary = summarise(
            self.experiment, self.cfg, history, engine=self.engine["name"], best_round=chosen,
            tested=tested, members=self._members,
        )  # fmt: skip
        if (said := described(self.experiment, self.cfg)) and (said["tensors"] or said["method"]):
            summary["personal"] = {key: said[key] for key in ("method", "tensors")}
            if self._trial is not None and not said["tensors"]:
                shared = shared_scores(self.experiment, self._trial, history.weights(chosen))
                summary["personal"]["shared"] = shared
        if self.experiment.valuation is not None:
            summary["contribution"] = contributions(self.experiment, records, chosen)
        if self.experiment.newcomers:
            weights = history.weights(chosen)
            summary["newcomers"] = test_newcomers(self.experiment, weights, scaler)
        return summary

    def _test(
        self, weights: Arrays, states: Mapping[str, RecordDict], scaler: Scaler | None
    ) -> dict[str, Any]:
        """Return ``threshold``, ``test``, ``heldout`` and ``card`` of a round's shared weights."""
        experiment = self.experiment
        models = PersonalModels(
            experiment.build_model(), weights, experiment.parts.local, states,
            experiment.objective, experiment.device, self._models, self._members,
        )  # fmt: skip
        sites = self._sites(experiment.evaluated, scaler)
        self._trial = run_final_test(
            models, sites, experiment.federation, experiment.device, experiment.protocol
        )
        found = {
            **self._trial.parts, "threshold": self._trial.threshold, "card": self._trial.card,
            "inspect": machines_to_inspect(experiment, models, self._trial),
        }  # fmt: skip
        if experiment.attack is not None:
            found["attack"] = came_to(
                experiment.attack, models, self._trial, experiment.federation, experiment.device,
                experiment.protocol,
            )  # fmt: skip
        return found

    def _conclude(
        self,
        summary: dict[str, Any],
        history: History,
        manifest: dict[str, Any],
        shapes: list[dict[str, Any]],
        begun: float,
    ) -> None:
        """Write the files that people and programs read."""
        summary["data"]["sha256"] = manifest["data"]["sha256"]
        summary["data"]["split_sha256"] = manifest["data"].get("split", {}).get("sha256")
        total, build = time.perf_counter() - begun, self.seconds["setup"]
        stages = {"build": build, **self._stages}
        summary["seconds"] = {**self.seconds, "total": total, "stages": stages}
        if (privacy := self.experiment.privacy) is not None:
            summary["privacy"] = privacy.spent(history.rounds(undone=True))
        began = manifest.get("init")
        summary["init"] = began and {key: began.get(key) for key in STARTED}
        summary["processor_seconds"] = self._processor if self._in_process else None
        card = model_card(self.experiment, self.cfg) | self._card
        if self._trial is not None:
            sites = self._trial.sites
            summary["drift"] = drift_since(self.experiment, sites)
            kept = reference(self.experiment.federation, sites, self._trial.predictions)
            with self.sealed.writing(REFERENCE):
                write_tensors(self.folder / REFERENCE, kept)
        with self.sealed.writing(*RESULTS):
            write_results(self.folder, summary, card, history, manifest, shapes)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        begun, worked = time.perf_counter(), time.process_time()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begun
        self._processor[part] = self._processor.get(part, 0.0) + time.process_time() - worked
