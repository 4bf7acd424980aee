"""Flower's Simulation Runtime: fedpdm's own ClientApp, Flower's FedAvg, two Ray actors.

``run_simulation`` is used because it starts faster than ``flwr run``, which starts a
SuperLink first. Data and model stay in each actor between messages, which is the best
that a user of Flower can do.
"""

from __future__ import annotations

import functools
import logging
import os
import time
import warnings
from typing import Any, cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from benchmarks.speed.engines import SETTINGS, BenchFederation
from benchmarks.speed.work import SEED, Work, build_model, read_work, write_result
from fedpdm.client import app
from fedpdm.client.site_client import SiteClient
from fedpdm.wire.records import ARRAYS, BUFFERS


@functools.cache
def resident(model: str, sites: int) -> SiteClient:
    """Return the site code of this actor, made when its first message comes."""
    torch.set_num_threads(1)
    federation = BenchFederation(model, sites)
    return SiteClient(federation, functools.partial(build_model, model), SETTINGS, SEED)


def train(work: Work, message: Message, context: Context) -> Message:
    """Let fedpdm's site train. Flower's FedAvg knows one record: buffers travel in it too."""
    site = resident(work.model, work.sites)
    names = set(site.model.buffer_names)
    arrays = cast(ArrayRecord, message.content[ARRAYS])
    kinds = {n: t.dtype for n, t in site.model.state_dict().items()}
    content = RecordDict(dict(message.content.items()))
    content[ARRAYS] = ArrayRecord({n: a for n, a in arrays.items() if n not in names})
    if names:
        # A mean of whole numbers is none, and the model wants one (num_batches_tracked).
        content[BUFFERS] = ArrayRecord(
            {
                n: Array(a.numpy().astype(str(kinds[n]).removeprefix("torch.")))
                for n, a in arrays.items()
                if n in names
            }
        )
    message.content = content
    reply = app.train(site, message, context)
    weights: dict[str, Array] = {}
    for key in (ARRAYS, BUFFERS):
        if key in reply.content:
            record = cast(ArrayRecord, reply.content[key])
            weights |= {n: Array(a.numpy()) for n, a in record.items()}
    reply.content = RecordDict(
        {ARRAYS: ArrayRecord(weights), "metrics": next(iter(reply.content.metric_records.values()))}
    )
    return reply


class TimedFedAvg(FedAvg):
    """Flower's FedAvg that notes the clock at the end of every round."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.stamps: list[float] = []
        self.losses: list[float] = []

    def aggregate_train(
        self, server_round: int, replies: Any
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = list(replies)
        for reply in replies:
            if reply.has_error():
                raise RuntimeError(f"a site failed: {reply.error.reason}")
        arrays, metrics = super().aggregate_train(server_round, replies)
        self.stamps.append(time.perf_counter())
        if metrics is not None:
            self.losses.append(float(cast(float, metrics["train_loss"])))
        return arrays, metrics


def main() -> None:
    from flwr.simulation import run_simulation

    warnings.filterwarnings("ignore")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    work, path = read_work()
    strategy = TimedFedAvg(
        fraction_train=1.0, fraction_evaluate=0.0,
        min_train_nodes=work.sites, min_available_nodes=work.sites,
    )  # fmt: skip
    server, client = ServerApp(), ClientApp()

    @server.main()
    def rounds(grid: Grid, context: Context) -> None:
        initial = build_model(work.model).get_parameters()
        strategy.stamps.append(time.perf_counter())
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord({n: Array(t.numpy()) for n, t in initial.items()}),
            num_rounds=work.rounds,
            train_config=ConfigRecord({"attempt": 0}),
        )

    client.train()(functools.partial(train, work))
    os.environ["OMP_NUM_THREADS"] = "1"  # for the actors
    run_simulation(
        server, client, work.sites,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": work.workers, "log_to_driver": False},
        },
    )  # fmt: skip
    if len(strategy.losses) != work.rounds or not np.isfinite(strategy.losses).all():
        raise SystemExit("Flower's simulation did not finish its rounds")
    write_result(path, strategy.stamps, strategy.losses)


if __name__ == "__main__":
    # Ray's actors must find these functions by name, not as parts of a __main__.
    from benchmarks.speed import flower

    flower.main()
