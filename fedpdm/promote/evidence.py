"""What the gates look at: a finished run, tested once more from its weights and its data.

Nothing here is taken from the run's own summary but the scores of its baselines: data, splits,
scaling, the choice of the round, thresholds and scores are made again and compared with what the
run says. So a threshold that was chosen on test windows shows, whatever the files say of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedpdm.client.state import PersonalModels
from fedpdm.data.leakage.checks import require_training_scaler
from fedpdm.data.rows import Floats32, Split
from fedpdm.errors import ConfigError, HistoryError, LeakError
from fedpdm.evaluation.final_test import FinalTest, run_final_test
from fedpdm.evaluation.scoring import score
from fedpdm.federation import Site
from fedpdm.history import History
from fedpdm.history.schemas import Card, Summary
from fedpdm.predict import load_predictor
from fedpdm.runs.assembly import shared_scaler
from fedpdm.runs.experiment import Experiment, build, look_at_data
from fedpdm.runs.folder import data_hashes, stored_manifest, stored_run, versions
from fedpdm.runs.initial import stored_start
from fedpdm.runs.predictor import Predictor
from fedpdm.server.round_metrics import best_round
from fedpdm.tasks import Task
from fedpdm.wire.flower import unpack_state


@dataclass(frozen=True)
class Evidence:
    """A run, and what was found when it was tested again.

    Attributes:
        run: its folder.
        card: its model card.
        summary: its ``summary.json``.
        manifest: its ``manifest.json``.
        experiment: made again from its config.
        predictor: its model, with all that stands before it.
        sites: the evaluated sites, with their windows.
        test: the final test, done again.
        chosen: the round that validation chooses, found again.
        data_sha256: of the data as it is now.
        leak: what a guard against leaks refuses; None if nothing.
        versions: of packages that are others now, as ``then → now``.
        files: how many files of the run are sealed and sound.
    """

    run: Path
    card: Mapping[str, Any]
    summary: Mapping[str, Any]
    manifest: Mapping[str, Any]
    experiment: Experiment
    predictor: Predictor
    sites: Sequence[Site]
    test: FinalTest
    chosen: int
    data_sha256: str
    leak: str | None
    versions: Mapping[str, str]
    files: int

    @property
    def task(self) -> Task:
        return self.experiment.task

    def value(self, sites: Sequence[str] | None = None) -> float | None:
        """Return the primary metric on test windows, of all sites together or of some."""
        chosen = [s for s in self.sites if sites is None or s.name in sites]
        if not chosen:
            return None
        found = score(self.test.predictions, chosen, self.task, Split.TEST)["global"]
        return None if (value := found[self.task.primary]) is None else float(value)

    def windows(self, most: int = 20_000) -> Floats32:
        """Return (N, T, F) or (N, F) validation windows, thinned out evenly to about ``most``."""
        whole = np.concatenate([site.validation.x for site in self.sites])
        return whole[:: -(-len(whole) // most)] if len(whole) else whole


def collect(run: Path, *, site: str | None = None, imports: Sequence[str] = ()) -> Evidence:
    """Test a finished run again.

    Args:
        run: its folder.
        site: whose model, columns and scaling are to be promoted, where sites differ in them.
        imports: the modules that the run's own code comes from.

    Raises:
        HistoryError: the run is not finished, was edited, or its sites are elsewhere.
        UserError: its model or its data cannot be read.
    """
    words = [f"resume={run}", *([f"imports={','.join(imports)}"] if imports else [])]
    cfg, _ = stored_run(words)
    manifest = stored_manifest(run, cfg)
    if not (manifest.get("engine") or {}).get("settings"):
        raise HistoryError(
            f"{run} is a deployed run: its windows are at the sites, where nobody here can test a "
            "model again; promote a simulated run on data that is here"
        )
    predictor = load_predictor(run, site=site, imports=imports)
    if predictor.task.prepares:
        raise ConfigError(
            f"{run} has task={predictor.task.name}, which {predictor.task.predicts} and gives no "
            f"risk to promote: start a run with init={run}, and promote that"
        )
    with History.open(run) as history:
        if flaws := history.sealed.flaws():
            raise HistoryError(flaws[0])
        if "summary.json" not in history.sealed.names():
            raise HistoryError(
                f"{run} is not finished, or is of a version without checksums; finish it with "
                f"python -m fedpdm.simulate resume={run}, or run it again"
            )
        card = Card.read(history.sealed.read("model.json"), run / "model.json")
        summary = Summary.read(history.sealed.read("summary.json"), run / "summary.json")
        files = len(history.sealed.names())
        cfg.device = "cpu"
        experiment = build(cfg, start=stored_start(run))
        leak = _leak(experiment, predictor, card)
        records = history.rounds()
        chosen = best_round(records, experiment.task) or records[-1].round
        states = history.client_states(chosen) if experiment.personal else {}
        models = PersonalModels(
            experiment.build_model(), history.weights(chosen), experiment.parts.local,
            {name: unpack_state(data) for name, data in states.items()},
            experiment.objective, experiment.device,
        )  # fmt: skip
        sites = _sites(experiment, predictor, card)
        test = run_final_test(
            models, sites, experiment.federation, experiment.device, experiment.protocol
        )
    federation, now = experiment.federation, versions()
    seen = [
        federation.shape(federation.site(name, federation.moments(name).scaler()))
        for name in experiment.looked_at
    ]
    then = summary.get("versions", {})
    return Evidence(
        run=run,
        card=card,
        summary=summary,
        manifest=manifest,
        experiment=experiment,
        predictor=predictor,
        sites=sites,
        test=test,
        chosen=chosen,
        data_sha256=data_hashes(seen)["sha256"],
        leak=leak,
        versions={k: f"{then.get(k)} → {v}" for k, v in now.items() if then.get(k) != v},
        files=files,
    )


def _leak(experiment: Experiment, predictor: Predictor, card: Mapping[str, Any]) -> str | None:
    """Return what the guards against leaks refuse; None if they find nothing."""
    try:
        look_at_data(experiment)
        if card["scaling"] == "federated":
            require_training_scaler(predictor.scaler, shared_scaler(experiment))
    except LeakError as error:
        return str(error)
    return None


def _sites(experiment: Experiment, predictor: Predictor, card: Mapping[str, Any]) -> list[Site]:
    """Return the evaluated sites, scaled as in the run."""
    federation = experiment.federation
    shared = predictor.scaler if card["scaling"] == "federated" else None
    return [
        federation.site(name, shared or federation.moments(name).scaler())
        for name in experiment.evaluated
    ]
