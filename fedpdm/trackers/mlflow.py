"""``tracker=mlflow``: one MLflow run per run, on a server or in the run folder."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fedpdm.errors import ConfigError
from fedpdm.storage import flatten
from fedpdm.trackers import Record

BATCH = 90
"""Parameters sent at once; MLflow takes at most 100."""
LONGEST = 500
"""Characters of a parameter's value."""


class MLflow:
    """Logs to MLflow's tracking store.

    Args:
        uri: a tracking server or data base, ``http://host:5000`` or ``sqlite:///runs/mlflow.db``;
            null: ``mlflow.db`` in the run folder (MLflow has given up plain files).
        experiment: its name there.
        artifacts: whether report and results are uploaded at the end.

    Raises:
        ConfigError: the package is not installed.
    """

    def __init__(
        self, uri: str | None = None, experiment: str = "fedpdm", artifacts: bool = True
    ) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # A server that does not answer must not hold up rounds: MLflow would try for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        try:
            from mlflow import entities, tracking
        except ImportError as error:
            raise ConfigError(
                f"tracker=mlflow needs a package that is not installed ({error.name}): "
                "pip install 'fedpdm[mlflow]'"
            ) from error
        self._entities, self._client_of = entities, tracking.MlflowClient
        self._uri, self._experiment, self._artifacts = uri, experiment, artifacts
        self._folder = Path()
        self._client: Any = None
        self._run = ""

    def begin(self, folder: Path, config: Record, state: dict[str, Any]) -> None:
        self._folder = folder.resolve()
        uri = self._uri or f"sqlite:///{self._folder / 'mlflow.db'}"
        self._client = self._client_of(tracking_uri=uri)
        if known := state.get("run"):
            self._run = str(known)
            self._client.update_run(self._run, status="RUNNING")
            return
        made = self._client.create_run(
            self._experiment_id(), run_name=self._folder.name, tags={"fedpdm": "run"}
        )
        self._run = state["run"] = made.info.run_id
        params = [
            self._entities.Param(_name(key), str(value)[:LONGEST])
            for key, value in flatten(config).items()
        ]
        for start in range(0, len(params), BATCH):
            self._client.log_batch(self._run, params=params[start : start + BATCH])

    def round(self, number: int, scalars: Mapping[str, float], seconds_since_1970: float) -> None:
        milliseconds = int(1000 * seconds_since_1970)
        metrics = [
            self._entities.Metric(_name(key), value, milliseconds, number)
            for key, value in scalars.items()
        ]
        for start in range(0, len(metrics), 10 * BATCH):
            self._client.log_batch(self._run, metrics=metrics[start : start + 10 * BATCH])

    def end(self, scalars: Mapping[str, float], summary: Record) -> None:
        self.round(int(summary["best_round"]), scalars, time.time())
        if self._artifacts:
            self._refuse_elsewhere()
            for name in ("summary.json", "metrics.csv", "report.html"):
                if (self._folder / name).exists():
                    self._client.log_artifact(self._run, str(self._folder / name))
        self._client.set_terminated(self._run)

    def _refuse_elsewhere(self) -> None:
        """Refuse to upload to where the run folder's own data base says, if that is elsewhere.

        Raises:
            ConfigError: names the place.
        """
        place = str(self._client.get_run(self._run).info.artifact_uri)
        scheme, host, path, *rest = urlsplit(place)
        inside = Path(unquote(path)).resolve().is_relative_to(self._folder)
        if not self._uri and not (inside and scheme == "file" and not any([host, *rest])):
            raise ConfigError(
                f"{self._folder / 'mlflow.db'} would have the report copied to {place}, outside "
                "the run folder; remove mlflow.db and tracker.json to begin it again"
            )

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        local = None if self._uri else (self._folder / "mlflow").as_uri()
        return str(self._client.create_experiment(self._experiment, artifact_location=local))


def _name(key: str) -> str:
    """Return a name that MLflow takes; a site may be called anything."""
    return re.sub(r"[^\w\-. /]", "_", key)
