"""One experiment in one folder: train, compare, test once, write what people read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context, RecordDict
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from fedpdm.client import PlantApp, make_client_app
from fedpdm.data.normalise import Scaler
from fedpdm.data.rows import Split
from fedpdm.engines.auto import Workload
from fedpdm.engines.choice import Engine, engine_of, settle_engine
from fedpdm.engines.flower import RUN_ID, SERVER_NODE_ID
from fedpdm.engines.machine import cores
from fedpdm.errors import HistoryError
from fedpdm.evaluation.baselines import Bench, gather
from fedpdm.evaluation.beside import BesideTheRun
from fedpdm.evaluation.outcome import (
    add_threshold_metrics,
    gains,
    predict,
    score,
    thresholds,
    without_padding,
)
from fedpdm.experiment import Experiment, look_at_data, make, plain
from fedpdm.faults import fault_mod
from fedpdm.federation import Site
from fedpdm.history import History
from fedpdm.manifest import SCHEMA, data_hashes, git_commit, read_json, versions, write_json
from fedpdm.messages import Arrays, to_tensors
from fedpdm.outcomes import best_round
from fedpdm.progress import Progress
from fedpdm.runlock import RunLock
from fedpdm.sampling import sample_size, scaler_plants
from fedpdm.server import RoundLoop, make_server_app
from fedpdm.tensors import write_bytes, write_tensors
from fedpdm.training import tensors


class Run:
    """A run folder and the experiment in it.

    Args:
        experiment: what to run.
        cfg: the resolved config, stored with the run.
        folder: the run folder; made if missing.
        console: where a person reads, or None for standard output.
    """

    def __init__(
        self, experiment: Experiment, cfg: DictConfig, folder: Path, console: Console | None = None
    ) -> None:
        self.experiment = experiment
        self.cfg = cfg
        self.folder = folder
        self.console = console
        self.engine: Engine
        self.seconds: dict[str, float] = {}

    def execute(self, resume: bool = False) -> dict[str, Any]:
        """Run to the end and return the summary.

        Raises:
            UserError: the data, the folder or the options cannot work.
            SiteError: plants failed, or the run gave up.
        """
        begun = time.perf_counter()
        experiment = self.experiment
        with self._timed("setup"):
            warnings, shapes = self._look()
        self.folder.mkdir(parents=True, exist_ok=True)
        with RunLock(self.folder) as lock, ExitStack() as stack:
            manifest = self._open_folder(resume, shapes)
            self.engine = manifest.get("engine") or engine_of(experiment.engine)  # an old one
            history = stack.enter_context(self._history())
            for event in history.recover():
                warnings.append(event["message"])
            self._settle_rounds(history, manifest)
            beside = self._start_baselines(lock.close_in_child)
            if beside is not None:
                stack.callback(beside.stop)
            display = Progress(
                experiment.rounds, experiment.task.primary, self.console,
                done=head.round if (head := history.head()) else 0,
            )  # fmt: skip
            with display:
                if head is not None:
                    display.say(f"continuing after round {head.round}")
                if self.engine["reason"]:
                    display.say(f"engine={self.engine['name']}: {self.engine['reason']}")
                for warning in warnings:
                    display.say(f"note: {warning}")
                with self._timed("training"):
                    scaler = self._train(history, display)
                with self._timed("evaluation"):
                    summary = self._summary(history, scaler)
                if beside is not None:
                    with self._timed("baselines"):
                        self._compare(summary, beside, scaler)
            self._conclude(summary, history, manifest, shapes, begun)
        return summary

    # Before -----------------------------------------------------------------------------

    def _look(self) -> tuple[list[str], list[dict[str, Any]]]:
        """Look at the plants' data: what a person should know of it, and its shapes."""
        experiment, federation = self.experiment, self.experiment.federation
        warnings = look_at_data(experiment)
        return warnings, [
            federation.shape(federation.site(name, federation.moments(name).scaler()))
            for name in experiment.looked_at
        ]

    def _open_folder(self, resume: bool, shapes: list[dict[str, Any]]) -> dict[str, Any]:
        """Write config and manifest, or check that the stored ones fit."""
        stored = self.folder / "manifest.json"
        hashes = data_hashes(shapes)
        if resume:
            manifest: dict[str, Any] = read_json(stored)
            self._check_stored_config(manifest)
            if self._data_changed(manifest["data"], hashes):
                raise HistoryError(
                    f"the data behind {self.folder} has changed since the run began (other rows or "
                    "splits); put the old data back, or start a new run"
                )
            return manifest
        if stored.exists() or (self.folder / "history.sqlite").exists():
            raise HistoryError(
                f"{self.folder} already holds a run; continue it with resume={self.folder}, or "
                "choose another folder with hydra.run.dir=…"
            )
        experiment = self.experiment
        manifest = {
            "schema": SCHEMA,
            "seed": experiment.seed,
            "versions": versions(),
            "git_commit": git_commit(),
            "data": {"name": experiment.federation.source.name, **hashes},
            "engine": self._settle_engine(shapes),
            "config": plain(self.cfg),
        }
        write_bytes(self.folder / "config.yaml", OmegaConf.to_yaml(self.cfg).encode())
        write_json(self.folder / "model.json", self._model_card())
        write_json(stored, manifest)  # last: a folder with a manifest can be resumed
        return manifest

    def _data_changed(self, before: dict[str, Any], now: dict[str, Any]) -> bool:
        return bool(before["sha256"] != now["sha256"])

    def _settle_engine(self, shapes: list[dict[str, Any]]) -> Engine:
        """Return the engine of this run; who resumes it gets the same."""
        experiment = self.experiment
        sites, settings = experiment.federation.sites, experiment.settings
        share = float(getattr(experiment.strategy, "fraction_train", 1.0))
        windows = [shape["windows"]["train"] for shape in shapes]
        epoch = -(-int(np.mean(windows)) // settings.batch_size) if windows else 1
        work = Workload(
            sampled=sample_size(share, len(sites)),
            rounds=experiment.rounds,
            steps=settings.local_epochs * max(1, epoch),
            module=experiment.build_model().module,
            device=experiment.device,
            cores=cores(),
            obstacle=self._obstacle,
        )
        return settle_engine(experiment.engine, work)

    def _obstacle(self) -> str | None:
        """Try whether the model can be trained as a stack; return why not."""
        from fedpdm.engines.batched import obstacle

        federation = self.experiment.federation
        name = self.experiment.looked_at[0]
        part = federation.site(name, federation.moments(name).scaler()).train
        x, y = tensors(part.x[:5], part.y[:5], torch.device("cpu"))
        return obstacle(client_app(self.experiment).plant, x, y)

    def _check_stored_config(self, manifest: dict[str, Any]) -> None:
        """Refuse a config that was edited since the run began."""
        config, before = plain(self.cfg), manifest["config"]
        different = [
            key for key in sorted({*config, *before}) if config.get(key) != before.get(key)
        ]
        if changed := [key for key in different if key != "rounds"]:
            raise HistoryError(
                f"{self.folder / 'config.yaml'} was changed since the run began: {changed[0]} is "
                "not what manifest.json says; put it back, or start a new run for other settings"
            )

    @contextmanager
    def _history(self) -> Iterator[History]:
        exists = (self.folder / "history.sqlite").exists()
        keep = self.experiment.keep
        history = History.open(self.folder) if exists else History.create(self.folder, keep)
        with history:
            yield history

    def _settle_rounds(self, history: History, manifest: dict[str, Any]) -> None:
        """Refuse fewer rounds than are done, and remember that a run was made longer."""
        head, rounds = history.head(), self.experiment.rounds
        if head is not None and head.round > rounds:
            raise HistoryError(
                f"{self.folder} has {head.round} finished rounds, rounds={rounds} is less; go back "
                f"with python -m fedpdm.history rollback {self.folder} {rounds}, or ask for more"
            )
        if manifest["config"]["rounds"] != rounds:
            manifest["config"]["rounds"] = rounds
            write_json(self.folder / "manifest.json", manifest)
            write_bytes(self.folder / "config.yaml", OmegaConf.to_yaml(self.cfg).encode())

    def _start_baselines(self, in_child: Any) -> BesideTheRun | None:
        experiment = self.experiment
        if not experiment.compared:
            return None
        bench = Bench(
            federation=experiment.federation,
            names=tuple(experiment.compared),
            build_model=experiment.build_model,
            settings=experiment.settings,
            rounds=experiment.rounds,
            seed=experiment.seed,
            scaler=self._shared_scaler(),
            pool=tuple(experiment.pooled),
            device=experiment.device,
        )
        return BesideTheRun(bench, self.folder, experiment.baseline_processes, in_child)

    def _shared_scaler(self) -> Scaler | None:
        """Return the scaler that the server will make of the same plants' sums."""
        experiment, federation = self.experiment, self.experiment.federation
        if not experiment.federated_scaling:
            return None
        names = [federation.sites[i] for i in scaler_plants(len(federation.sites), experiment.seed)]
        total = federation.moments(names[0])
        for name in names[1:]:
            total = total + federation.moments(name)
        return total.scaler()

    # The federation ---------------------------------------------------------------------

    def _train(self, history: History, display: Progress) -> Scaler | None:
        experiment = self.experiment
        found: list[Scaler] = []
        model = experiment.build_model()
        loop = RoundLoop(
            strategy=experiment.strategy,
            history=history,
            initial=experiment.initial,
            trainable=tuple(model.parameter_names),
            task=experiment.task,
            rounds=experiment.rounds,
            seed=experiment.seed,
            monitor=experiment.monitor,
            display=display,
            evaluate_fraction=experiment.evaluate_fraction,
            federated_scaling=experiment.federated_scaling,
            round_timeout=experiment.round_timeout,
            on_scaler=found.append,
        )
        self._rounds(loop)
        scaler = found[0] if found else None
        self._write_scalers(scaler)
        return scaler

    def _rounds(self, loop: RoundLoop) -> None:
        """Let the plants train."""
        experiment = self.experiment
        if not self.engine["settings"]:
            raise HistoryError(
                f"{self.folder} is a deployed run; its plants are elsewhere. Continue it with "
                "flwr run . --run-config 'resume=\"…\"' (server/README.md)"
            )
        client, sites = client_app(experiment), experiment.federation.sites
        context = Context(RUN_ID, SERVER_NODE_ID, {}, RecordDict(), {})
        with closing(
            make(self.engine["settings"], "engine", client_app=client, sites=sites)
        ) as grid:
            make_server_app(loop)(grid, context)

    def _write_scalers(self, scaler: Scaler | None) -> None:
        """Keep what new data must be scaled with."""
        federation = self.experiment.federation
        scalers = (
            {"federated": scaler}
            if scaler is not None
            else {name: federation.moments(name).scaler() for name in self.experiment.evaluated}
        )
        arrays: dict[str, Any] = {}
        for scope, each in scalers.items():
            arrays |= {f"{scope}/mean": each.mean, f"{scope}/scale": each.scale}
        write_tensors(self.folder / "scaler.safetensors", arrays)

    def _sites(self, names: list[str], scaler: Scaler | None) -> list[Site]:
        federation = self.experiment.federation
        return [
            federation.site(name, scaler or federation.moments(name).scaler()) for name in names
        ]

    # After ------------------------------------------------------------------------------

    def _summary(self, history: History, scaler: Scaler | None) -> dict[str, Any]:
        """Test the round chosen on validation data, once."""
        experiment, task = self.experiment, self.experiment.task
        records = history.rounds()
        chosen = best_round(records, task) or records[-1].round
        tested = self._test(history.weights(chosen), scaler)
        best = next((r for r in records if r.round == chosen), records[-1])
        source, cfg = experiment.federation.source, self.cfg
        sent = history.rounds(undone=True)  # what was rolled back was sent all the same
        return {
            "schema": SCHEMA,
            "sites": list(experiment.federation.sites),
            "task": task.name,
            "model": experiment.model["model_type"],
            "strategy": type(experiment.strategy).__name__,
            "engine": self.engine["name"],
            "rounds": experiment.rounds,
            "best_round": chosen,
            "validation": {"metric": task.primary, "best": best.metrics.get(task.primary)},
            "threshold": tested["threshold"],
            "test": {**tested["test"], "baselines": {}},
            "heldout": tested["heldout"],
            "gain": {},
            "bytes": {
                "up": sum(r.bytes_up for r in sent),
                "down": sum(r.bytes_down for r in sent),
            },
            "seconds": {},
            "seed": experiment.seed,
            "versions": versions(),
            "data": {
                "name": source.name,
                "sha256": None,
                "time_unit": source.time_unit,
                "window": source.window,
            },
            "options": {
                "task": plain(cfg.task), "strategy": plain(cfg.strategy),
                "scaling": str(cfg.scaling),
            },
            "events": history.events(),
        }  # fmt: skip

    def _test(self, weights: Arrays, scaler: Scaler | None) -> dict[str, Any]:
        """Return ``threshold``, ``test`` and ``heldout`` of a round's weights."""
        experiment, task = self.experiment, self.experiment.task
        model = experiment.build_model()
        model.set_parameters(to_tensors(weights))
        model.module.to(experiment.device)
        sites = self._sites(experiment.evaluated, scaler)
        splits = (Split.VALIDATION, Split.TEST, Split.HELDOUT)
        predictions = predict(model.module, sites, task, experiment.device, splits)
        threshold = thresholds(predictions, sites)
        results = {split: score(predictions, sites, task, split) for split in splits[1:]}
        for split, result in results.items():
            add_threshold_metrics(result, predictions, sites, split, threshold)
        test = results[Split.TEST]
        if (full := without_padding(predictions, sites, task)) is not None:
            test["full_windows"] = full
        heldout = results[Split.HELDOUT] if any(len(site.heldout) for site in sites) else None
        return {"threshold": threshold, "test": test, "heldout": heldout}

    def _compare(
        self, summary: dict[str, Any], beside: BesideTheRun, scaler: Scaler | None
    ) -> None:
        """Put the baselines beside the federation, on the same test windows."""
        experiment, task = self.experiment, self.experiment.task
        sites = self._sites(experiment.compared, scaler)
        baselines = summary["test"]["baselines"]
        heldout = {}
        for name, predictions in gather(beside.scores()).items():
            result = score(predictions, sites, task, Split.TEST)
            baselines[name] = {key: result[key] for key in ("global", "mean_site", "per_site")}
            if summary["heldout"] is not None:
                heldout[name] = score(predictions, sites, task, Split.HELDOUT)
        if summary["heldout"] is not None:
            summary["heldout"]["baselines"] = heldout
        summary["gain"] = gains(
            summary["test"]["per_site"], baselines.get("alone", {}).get("per_site", {}), task
        )

    def _conclude(
        self,
        summary: dict[str, Any],
        history: History,
        manifest: dict[str, Any],
        shapes: list[dict[str, Any]],
        begun: float,
    ) -> None:
        """Write the files that people and programs read."""
        from fedpdm.evaluation.report import write_report

        summary["data"]["sha256"] = manifest["data"]["sha256"]
        summary["seconds"] = {**self.seconds, "total": time.perf_counter() - begun}
        card = self._model_card()
        card |= {"best_round": summary["best_round"], "threshold": summary["threshold"]}
        write_json(self.folder / "model.json", card)
        records = history.rounds(undone=True)
        self._write_metrics(history)
        write_json(self.folder / "summary.json", summary)
        write_report(self.folder, summary, [r.to_dict() for r in records], manifest, shapes)

    def _write_metrics(self, history: History) -> None:
        """Write ``metrics.csv``: one line per round and plant, and one per round for all."""
        import pandas as pd

        lines: list[dict[str, Any]] = []
        for record in history.rounds():
            if record.round == 0:
                continue
            shared = {"round": record.round, "attempt": record.attempt}
            lines.append({**shared, "site": "", **record.metrics, "bytes_up": record.bytes_up,
                          "bytes_down": record.bytes_down})  # fmt: skip
            for site, values in record.sites.items():
                line = {**shared, "site": site}
                line |= {k: v for k, v in values.items() if k != "validation"}
                for name, value in values.get("validation", {}).items():
                    line["validation_loss" if name == "loss" else name] = value
                lines.append(line)
        text = pd.DataFrame(lines).to_csv(index=False)
        write_bytes(self.folder / "metrics.csv", text.encode())

    def _model_card(self) -> dict[str, Any]:
        """Return what ``predict`` needs to know to score new data."""
        experiment, source = self.experiment, self.experiment.federation.source
        return {
            "schema": SCHEMA,
            **experiment.model,
            "features": list(source.features),
            "window": source.window,
            "conditions": source.conditions,
            "task": plain(self.cfg.task) | {"name": experiment.task.name},
            "data": {"name": source.name, "time_unit": source.time_unit},
            "scaling": str(self.cfg.scaling),
            "best_round": None,
            "threshold": None,
            "sites": plain(self.cfg.sites) or {},
        }

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begun


def client_app(experiment: Experiment) -> PlantApp:
    """Return the Flower app of an experiment's plants, with the faults put in on purpose."""
    faults = experiment.faults
    return make_client_app(
        experiment.federation,
        experiment.build_model,
        experiment.settings,
        seed=experiment.seed,
        device=experiment.device,
        train_mods=[fault_mod(faults, experiment.seed)] if faults else [],
    )


def one_thread() -> None:
    """Use one torch thread: at these sizes two are slower, and children share the cores."""
    torch.set_num_threads(1)
    np.seterr(all="ignore")
