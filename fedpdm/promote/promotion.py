"""From a run to a promoted version, or to the record of why there is none."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import fedpdm.promote.questions  # noqa: F401  (they register themselves)
from fedpdm.errors import ConfigError, DataError
from fedpdm.history.schemas import Manifest, Summary
from fedpdm.history.sealed import read_sealed
from fedpdm.promote import decision, package
from fedpdm.promote.evidence import Evidence, collect
from fedpdm.promote.export import Exported, export_model
from fedpdm.promote.gates import Candidate, ask_all, check_names
from fedpdm.promote.output import print_decision
from fedpdm.promote.registry import (
    REFUSED,
    MLflowRegistry,
    check_name,
    next_version,
    write_folder,
)
from fedpdm.promote.thresholds import load_thresholds
from fedpdm.runs.folder import changed_settings


@dataclass(frozen=True)
class Request:
    """What a person asks for.

    Attributes:
        run: the run folder.
        store: where promoted models are.
        name: of the model; None for ``TASK-MODEL``.
        site: whose model, columns and scaling, where sites differ in them.
        seeds: runs of the same settings with other seeds.
        accepted: reasons by the name of a gate that need not be passed.
        gates: a yaml with thresholds of one's own.
        signed_by: who signs.
        registry: of MLflow; None for folders alone.
        imports: modules that the run's own code comes from.
    """

    run: Path
    store: Path = Path("promoted")
    name: str | None = None
    site: str | None = None
    seeds: Sequence[Path] = ()
    accepted: Mapping[str, str] = field(default_factory=dict)
    gates: Path | None = None
    signed_by: str | None = None
    registry: str | None = None
    imports: Sequence[str] = ()


def promote(asked: Request) -> int:
    """Ask the gates, write the folder or the refusal, print it; return the exit code.

    Raises:
        UserError: an option cannot work, or the run cannot be read.
    """
    torch.set_num_threads(1)
    thresholds = load_thresholds(asked.gates)
    check_names(asked.accepted, thresholds)
    if asked.name is not None:
        check_name(asked.name)
    registry = None if asked.registry is None else MLflowRegistry(asked.registry)
    evidence = collect(asked.run, site=asked.site, imports=asked.imports)
    package.require_readable(evidence.predictor)
    exported = _export(evidence)
    seeds = seed_scores(evidence, asked.seeds)
    gates = ask_all(Candidate(evidence, exported, seeds, thresholds), asked.accepted)
    name = asked.name or f"{evidence.task.name}-{evidence.summary['model']}"
    refused = any(gate.refuses for gate in gates)
    about = {
        "name": name,
        "version": None if refused else next_version(asked.store, name),
        "run": asked.run.resolve().name,
        "model": evidence.summary["model"],
        "site": asked.site,
        "round": evidence.predictor.round,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "signed_by": asked.signed_by,
    }
    said = decision.record(evidence, exported, gates, about)
    files = {
        "decision.json": package.as_json(said),
        "decision.md": decision.markdown(said).encode(),
    }
    if refused:
        folder = asked.store / name / REFUSED / about["run"]
        write_folder(folder, files)
        print_decision(said, folder)
        return 1
    files |= package.contents(evidence.predictor, exported, about)
    data = {"run": about["run"], "data": said["data"], "decision": said["decision"]}
    manifest = package.as_json(package.manifest(files, about | data))
    folder = asked.store / name / str(about["version"])
    write_folder(folder, files | {"manifest.json": manifest})
    if registry is not None:
        registry.add(folder, said, hashlib.sha256(manifest).hexdigest())
    print_decision(said, folder)
    return 0


def _export(evidence: Evidence) -> Exported:
    """Return the model's file, traced with one of the run's validation windows."""
    windows = evidence.windows(1)
    if not len(windows):
        raise DataError(f"{evidence.run}: there is no validation window to export the model with")
    return export_model(evidence.predictor.model.module, evidence.task, windows[0])


def seed_scores(evidence: Evidence, runs: Sequence[Path]) -> dict[str, float]:
    """Return the test score of this run and of others of the same settings, by folder.

    Raises:
        ConfigError: a run differs in more than its seed, or has the same one.
        HistoryError: a folder holds no finished run.
    """
    metric = evidence.task.primary
    own = evidence.manifest["config"]
    scores: dict[str, float] = {}
    seeds = {own["seed"]}
    if runs and (value := evidence.value()) is not None:
        scores[str(evidence.run)] = value
    for run in runs:
        config = Manifest.read(read_sealed(run, "manifest.json"), run / "manifest.json")["config"]
        summary = Summary.read(read_sealed(run, "summary.json"), run / "summary.json")
        others = [key for key in changed_settings(own, config) if key != "seed"]
        if others or config["rounds"] != own["rounds"]:
            raise ConfigError(
                f"--seeds {run}: it differs from {evidence.run} in {(*others, 'rounds')[0]}, not in"
                " the seed alone; name runs of the same settings"
            )
        if config["seed"] in seeds:
            raise ConfigError(f"--seeds {run}: seed {config['seed']} is named twice")
        seeds.add(config["seed"])
        score: Any = summary["test"]["global"].get(metric)
        if score is not None:
            scores[str(run)] = float(score)
    return scores
