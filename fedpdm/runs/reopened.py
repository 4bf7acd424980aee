"""A finished run, opened again: its models of the chosen round, and its sites' windows.

Nothing is taken from the run's own summary: data, splits, scaling and the choice of the round
are made again from its config, its weights and its history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpdm.client.state import PersonalModels
from fedpdm.config.values import Config
from fedpdm.data.features import WindowFeatures
from fedpdm.errors import HistoryError
from fedpdm.evaluation.final_test import FinalTest, run_final_test
from fedpdm.federation import Site
from fedpdm.history import History
from fedpdm.history.schemas import Card, Summary
from fedpdm.runs.experiment import Experiment, build_stored
from fedpdm.runs.folder import data_hashes, stored_manifest, stored_run
from fedpdm.runs.inputs import scaler_of
from fedpdm.server.base import models_of
from fedpdm.server.round_metrics import best_round
from fedpdm.wire.flower import unpack_state


@dataclass(frozen=True)
class Reopened:
    """A finished run whose data is on this machine.

    Attributes:
        folder: its run folder.
        card: its model card.
        summary: its ``summary.json``.
        manifest: its ``manifest.json``.
        experiment: made again from its config.
        models: of the chosen round, by site.
        sites: the evaluated sites, scaled as in the run.
        chosen: the round that validation chooses, found again.
        files: how many files of the run are sealed and sound.
    """

    folder: Path
    card: Mapping[str, Any]
    summary: Mapping[str, Any]
    manifest: Mapping[str, Any]
    experiment: Experiment
    models: PersonalModels
    sites: Sequence[Site]
    chosen: int
    files: int

    def test(self) -> FinalTest:
        """Test the models once more; thresholds and calibration are of validation windows."""
        e = self.experiment
        return run_final_test(self.models, self.sites, e.federation, e.device, e.protocol)

    def data_sha256(self) -> str:
        """Return the hash of the sites' rows and splits as they are now."""
        federation = self.experiment.federation
        seen = [
            federation.shape(federation.site(name, federation.moments(name).scaler()))
            for name in self.experiment.looked_at
        ]
        return str(data_hashes(seen)["sha256"])


def reopen(run: Path, *, imports: Sequence[str] = (), cfg: Config | None = None) -> Reopened:
    """Open a finished run.

    Args:
        run: its folder.
        imports: the modules that the run's own code comes from.
        cfg: its config, where this process has just run it; None: the one in its folder.

    Raises:
        HistoryError: the run is not finished, was edited, or its sites are elsewhere.
        UserError: its model or its data cannot be read.
    """
    if cfg is None:
        words = [f"resume={run}", *([f"imports={','.join(imports)}"] if imports else [])]
        cfg, _ = stored_run(words)
    manifest = stored_manifest(run, cfg)
    if not (manifest.get("engine") or {}).get("settings"):
        raise HistoryError(
            f"{run} is a deployed run: its windows are at the sites, where nobody here can test a "
            "model again; take a simulated run on data that is here"
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
        experiment = build_stored(cfg, run)
        records = history.rounds()
        chosen = best_round(records, experiment.task) or records[-1].round
        states = history.client_states(chosen) if experiment.personal else {}
        of_clusters, members = models_of(history, chosen)
        models = PersonalModels(
            experiment.build_model(), history.weights(chosen), experiment.parts.local,
            {name: unpack_state(data) for name, data in states.items()},
            experiment.objective, experiment.device, of_clusters, members,
        )  # fmt: skip
    federation, shared = experiment.federation, None
    if card["scaling"] == "federated":
        shared, _ = scaler_of(card, run, None, WindowFeatures(**card.get("inputs", {})))
    sites = [
        federation.site(name, shared or federation.moments(name).scaler())
        for name in experiment.evaluated
    ]
    return Reopened(run, card, summary, manifest, experiment, models, sites, chosen, files)
