"""A finished run's rounds, trained again: the same seed gives the same rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict

from fedpdm.config.values import make
from fedpdm.history import RoundRecord
from fedpdm.history.lock import RunLock
from fedpdm.runs.assembly import client_app, round_loop
from fedpdm.runs.experiment import Experiment, build_stored
from fedpdm.runs.folder import opened_history, stored_run
from fedpdm.runs.progress import Progress
from fedpdm.server.loop import make_server_app
from fedpdm.wire.flower import RUN_ID, SERVER_NODE_ID


def fresh(run: Path, imports: Sequence[str] = ()) -> Experiment:
    """Return a run's experiment, made from its config again: a strategy remembers what it has done.

    Args:
        run: its folder.
        imports: the modules that the run's own code comes from.
    """
    words = [f"resume={run}", *([f"imports={','.join(imports)}"] if imports else [])]
    return build_stored(stored_run(words)[0], run)


def train_again(
    experiment: Experiment, engine: Mapping[str, Any], folder: Path
) -> list[RoundRecord]:
    """Train an experiment's rounds in a folder, or go on with those that are there.

    Args:
        experiment: made from the run's config again.
        engine: ``settings`` of the manifest's engine.
        folder: of the rounds; weights of the last and the best are kept.

    Raises:
        UserError: the folder is damaged.
        SiteError: sites failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with RunLock(folder), opened_history(folder, 1) as history:
        history.recover()
        head = history.head()
        display = Progress(
            experiment.rounds, experiment.task.primary, done=head.round if head else 0
        )
        client, sites = client_app(experiment), experiment.federation.sites
        with display:
            loop = round_loop(experiment, history, display, lambda scaler: None)
            grid = make(dict(engine), "engine", client_app=client, sites=sites)
            with closing(grid):
                make_server_app(loop)(grid, Context(RUN_ID, SERVER_NODE_ID, {}, RecordDict(), {}))
        return history.rounds()
