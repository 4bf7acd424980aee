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
from fedpdm.config.values import Config, resolved
from fedpdm.errors import ConfigError, DataError, FedPdmError
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

RECORD = "promotion"
"""Folder of the record in a run's own folder."""


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
    about = _about(asked, evidence)
    name, refused = about["name"], any(gate.refuses for gate in gates)
    about["version"] = None if refused else next_version(asked.store, name)
    said = decision.record(evidence, exported, gates, about)
    files = _record_files(said)
    if refused:
        folder = asked.store / name / REFUSED / about["run"]
        write_folder(folder, files)
        print_decision(said, folder)
        return 1
    files |= package.contents(evidence.predictor, exported, about)
    manifest = _manifest(files, about, said)
    folder = asked.store / name / str(about["version"])
    write_folder(folder, files | {"manifest.json": manifest})
    if registry is not None:
        registry.add(folder, said, hashlib.sha256(manifest).hexdigest())
    print_decision(said, folder)
    return 0


def decide(run: Path, cfg: Config) -> None:
    """Ask the gates of a run that has just ended, and keep their answers in its folder.

    Nothing is promoted. A refusal is a result, and so is a model that cannot be exported: the
    gates that need its file are skipped, and say why.

    Args:
        run: its folder; the record goes to ``promotion`` in it.
        cfg: its config.

    Raises:
        UserError: the run cannot be tested again here.
    """
    evidence = collect(run, cfg=resolved(cfg))
    exported, why = None, None
    try:
        exported = _export(evidence)
    except FedPdmError as error:
        why = str(error)
    gates = ask_all(Candidate(evidence, exported, {}, load_thresholds(), why), {})
    about = _about(Request(run), evidence)
    said = decision.record(evidence, exported, gates, about)
    files = _record_files(said)
    write_folder(run / RECORD, files | {"manifest.json": _manifest(files, about, said)})
    print_decision(said, run / RECORD, short=True)


def _about(asked: Request, evidence: Evidence) -> dict[str, Any]:
    """Return what a record and a manifest say of the model, still without a version."""
    return {
        "name": asked.name or f"{evidence.task.name}-{evidence.summary['model']}",
        "version": None,
        "run": asked.run.resolve().name,
        "model": evidence.summary["model"],
        "site": asked.site,
        "round": evidence.predictor.round,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "signed_by": asked.signed_by,
    }


def _record_files(said: Mapping[str, Any]) -> dict[str, bytes]:
    return {
        "decision.json": package.as_json(said),
        "decision.md": decision.markdown(said).encode(),
    }


def _manifest(
    files: Mapping[str, bytes], about: Mapping[str, Any], said: Mapping[str, Any]
) -> bytes:
    data = {"run": about["run"], "data": said["data"], "decision": said["decision"]}
    return package.as_json(package.manifest(files, {**about, **data}))


def _export(evidence: Evidence) -> Exported:
    """Return the model's file, traced with one of the run's validation windows."""
    windows = evidence.windows(1)
    if not len(windows):
        raise DataError(f"{evidence.run}: there is no validation window to export the model with")
    return export_model(evidence.predictor.model.module, evidence.task, windows[0])


def _seedless(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without its seed, and without that of its first stage."""
    first = config.get("pretraining")
    if isinstance(first, Mapping):
        config = {**config, "pretraining": _seedless(first)}
    return {key: value for key, value in config.items() if key != "seed"}


def seed_scores(evidence: Evidence, runs: Sequence[Path]) -> dict[str, float]:
    """Return the test score of this run and of others of the same settings, by folder.

    Raises:
        ConfigError: a run differs in more than its seed, or has the same one.
        HistoryError: a folder holds no finished run.
    """
    metric = evidence.task.primary
    own = _seedless(evidence.manifest["config"])
    scores: dict[str, float] = {}
    seeds = {evidence.manifest["config"]["seed"]}
    if runs and (value := evidence.value()) is not None:
        scores[str(evidence.run)] = value
    for run in runs:
        config = Manifest.read(read_sealed(run, "manifest.json"), run / "manifest.json")["config"]
        summary = Summary.read(read_sealed(run, "summary.json"), run / "summary.json")
        others = changed_settings(own, _seedless(config))
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
