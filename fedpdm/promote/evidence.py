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

from fedpdm.config.imports import names_of
from fedpdm.config.values import Config, select
from fedpdm.data.leakage.checks import require_training_scaler
from fedpdm.data.rows import Floats32, Split
from fedpdm.errors import ConfigError, LeakError
from fedpdm.evaluation.final_test import FinalTest
from fedpdm.evaluation.scoring import score
from fedpdm.federation import Site
from fedpdm.predict import load_predictor
from fedpdm.runs.assembly import shared_scaler
from fedpdm.runs.experiment import Experiment
from fedpdm.runs.folder import versions
from fedpdm.runs.look import look_at_data
from fedpdm.runs.predictor import Predictor
from fedpdm.runs.reopened import reopen
from fedpdm.tasks import Task


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


def collect(
    run: Path, *, site: str | None = None, imports: Sequence[str] = (), cfg: Config | None = None
) -> Evidence:
    """Test a finished run again.

    Args:
        run: its folder.
        site: whose model, columns and scaling are to be promoted, where sites differ in them.
        imports: the modules that the run's own code comes from.
        cfg: its config, where this process has just run it; None: the one in its folder.

    Raises:
        HistoryError: the run is not finished, was edited, or its sites are elsewhere.
        UserError: its model or its data cannot be read.
    """
    if cfg is not None:
        imports = names_of(select(cfg, "imports"))
    run_again = reopen(run, imports=imports, cfg=cfg)
    predictor = load_predictor(run, site=site, imports=imports)
    if predictor.task.prepares:
        raise ConfigError(
            f"{run} has task={predictor.task.name}, which {predictor.task.predicts} and gives no "
            f"risk to promote: start a run with init={run}, and promote that"
        )
    experiment = run_again.experiment
    if experiment.attack is not None and experiment.attack.malicious:
        raise ConfigError(
            f"{run} was attacked on purpose (attack={experiment.attack.name}), so its model is not "
            "to be used: promote a run without an attack"
        )
    now, then = versions(), run_again.summary.get("versions", {})
    return Evidence(
        run=run,
        card=run_again.card,
        summary=run_again.summary,
        manifest=run_again.manifest,
        experiment=experiment,
        predictor=predictor,
        sites=run_again.sites,
        test=run_again.test(),
        chosen=run_again.chosen,
        data_sha256=run_again.data_sha256(),
        leak=_leak(experiment, predictor, run_again.card),
        versions={k: f"{then.get(k)} → {v}" for k, v in now.items() if then.get(k) != v},
        files=run_again.files,
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
