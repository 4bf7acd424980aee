"""fedpdm's engines, through its real round loop with a history in a temporary folder."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context, RecordDict
from flwr.serverapp.strategy import FedAvg

from benchmarks.speed.contenders import engine_of
from benchmarks.speed.work import (
    BATCH,
    EPOCHS,
    LEARNING_RATE,
    SAMPLES,
    SEED,
    Work,
    build_model,
    cached_site_data,
    read_work,
    write_result,
)
from fedpdm.client.app import make_client_app
from fedpdm.data.normalise import Moments, Scaler
from fedpdm.data.rows import Rows, Split
from fedpdm.data.sources.base import Source
from fedpdm.data.windows import Windows
from fedpdm.federation import Federation, Site
from fedpdm.tasks import Failure
from fedpdm.training.loop import TrainingSettings

SETTINGS = TrainingSettings(
    local_epochs=EPOCHS, batch_size=BATCH, learning_rate=LEARNING_RATE, optimizer="adam"
)


class BenchSource(Source):
    """Names and shapes of the benchmark's sites. There are no rows: windows are drawn."""

    name = "bench"
    time_unit = "hours"
    stride = 1
    generated = True

    def __init__(self, model: str, names: int) -> None:
        work = Work("", model, names, 0)
        self.model, self.window = model, work.window
        self.features = tuple(f"f{n}" for n in range(work.features))
        self._sites = tuple(f"plant-{n:05d}" for n in range(names))

    @property
    def sites(self) -> tuple[str, ...]:
        return self._sites

    def rows(self, site: str) -> Rows:
        raise NotImplementedError("the benchmark's sites have windows and no rows")


class BenchFederation(Federation):
    """Sites whose windows are made when first asked for, once per process, and kept."""

    def __init__(self, model: str, names: int) -> None:
        super().__init__(BenchSource(model, names), Failure(horizon=1.0))
        self._model = model
        self._made: dict[str, Site] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process without windows; it draws those of its own sites."""
        return type(self), (self._model, len(self.sites))

    def site(self, name: str, scaler: Scaler) -> Site:
        """Return a site's windows. They are drawn scaled, so the scaler has nothing to do."""
        if name not in self._made:
            self._made[name] = self._draw(name)
        return self._made[name]

    def moments(self, name: str) -> Moments:
        shape = (1, len(self.source.features))
        return Moments(np.ones(shape), np.zeros(shape), np.ones(shape), np.ones(shape))

    def _draw(self, name: str) -> Site:
        x, y = cached_site_data(self._model, int(name.removeprefix("plant-")))
        parts = {}
        for split in (Split.TRAIN, Split.VALIDATION, Split.TEST, Split.HELDOUT):
            keep = slice(None) if split == Split.TRAIN else slice(0)
            count = len(y[keep])
            parts[split] = Windows(
                x=x[keep], y=y[keep], truth=y[keep].astype(np.float64),
                machine=np.full(count, name), time=np.zeros(count),
                padded=np.zeros(count, dtype=bool), last=np.zeros(count, dtype=bool),
            )  # fmt: skip
        return Site(name, parts)


class Stopwatch:
    """The loop's display: it is told of every round once that round is committed."""

    def __init__(self) -> None:
        self.stamps: list[float] = []
        self.problems: list[str] = []

    def round(
        self, round_num: int, loss: float | None, metric: float | None, events: Iterable[Any]
    ) -> None:
        self.stamps.append(time.perf_counter())
        self.problems += [e["message"] for e in events if e["kind"] in ("site-failed", "refused")]


def run(work: Work, path: Path) -> None:
    """Run the rounds and write what they took."""
    from hydra.utils import instantiate

    from fedpdm.engines.auto import Workload, read, settle_engine
    from fedpdm.engines.hardware import cores
    from fedpdm.history import History
    from fedpdm.server.loop import RoundLoop
    from fedpdm.server.monitor import MonitorSettings
    from fedpdm.wire.flower import quiet

    quiet()
    device = torch.device(work.device)
    federation = BenchFederation(work.model, work.sites)
    build = functools.partial(build_model, work.model)
    client = make_client_app(federation, build, SETTINGS, seed=SEED, device=device)
    watch, model = Stopwatch(), build()
    asked = read(engine_of(work.contender))
    if work.contender in ("ray", "batched2"):
        asked["workers"] = work.workers
    steps = EPOCHS * -(-SAMPLES // BATCH)
    load = Workload(work.sites, work.rounds, steps, model.module, device, cores())
    engine = settle_engine(asked, load)
    with tempfile.TemporaryDirectory() as folder:
        grid = instantiate(engine["settings"], client_app=client, sites=federation.sites)
        try:
            with History.create(Path(folder)) as history:
                loop = RoundLoop(
                    strategy=FedAvg(fraction_train=1.0, fraction_evaluate=0.0),
                    history=history,
                    initial={n: t.cpu().numpy() for n, t in model.get_parameters().items()},
                    trainable=tuple(model.parameter_names),
                    task=federation.task,
                    rounds=work.rounds,
                    seed=SEED,
                    monitor=MonitorSettings(),
                    display=watch,
                    evaluate_fraction=0.0,
                )
                watch.stamps.append(time.perf_counter())
                loop.run(grid, Context(1, 1, {}, RecordDict(), {}))
                records = [r for r in history.rounds() if r.round > 0]
        finally:
            getattr(grid, "close", lambda: None)()
    if watch.problems:
        raise SystemExit(f"sites failed, so nothing was measured: {watch.problems[0]}")
    write_result(
        path,
        watch.stamps,
        [float(np.mean([s["train_loss"] for s in r.sites.values()])) for r in records],
        bytes_up=records[-1].bytes_up,
        bytes_down=records[-1].bytes_down,
        engine=engine["name"],
        stages=loop.stages.seconds,
    )


if __name__ == "__main__":
    run(*read_work())
