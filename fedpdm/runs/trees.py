"""What of a config has no meaning for trees, refused before a run starts."""

from __future__ import annotations

from fedpdm.config.values import Config, block, plain, select
from fedpdm.errors import ConfigError
from fedpdm.tasks import Task
from fedpdm.training.boosting import loss_of

TREES = "gbdt"
SERVER = "fedpdm.server.boosting.Boosting"
STRATEGY = "flwr.serverapp.strategy.FedAvg"
BATCHED = "fedpdm.engines.stacked.grid.BatchedGrid"


def check_trees(cfg: Config, task: Task) -> None:
    """Refuse options that need weights where the model is trees, and the server of trees elsewhere.

    Args:
        cfg: a composed config.
        task: the run's.

    Raises:
        ConfigError: names the option and the way out.
    """
    boosting = select(cfg, "server._target_") == SERVER
    if (cfg.model.model_type == TREES) != boosting:
        raise ConfigError(
            "model=gbdt and server=boosting belong together: choose model=gbdt and leave server "
            "out, or another model with server=synchronous"
        )
    if not boosting:
        return
    for key, usual, way_out in (
        ("strategy._target_", STRATEGY, "leave strategy=fedavg"),
        ("travels", "all", "leave travels=all"),
        ("transforms", {}, "leave it out"),
        ("client_mods", [], "leave it out"),
        ("attack._target_", None, "leave it out"),
        ("objective._target_", None, "leave it out"),
        ("personal._target_", None, "leave it out"),
        ("init.run", None, "leave it out"),
        ("init.pretrain", None, "leave it out"),
        ("training.amp", False, "leave it false"),
        ("faults.nan", None, "whole numbers are never NaN, so use faults.poison"),
    ):
        found = plain(select(cfg, key))
        if (found or None) != (usual or None):
            option = key.removesuffix("._target_")
            raise ConfigError(
                f"model=gbdt grows trees from sums and sends no weights that {option} could work "
                f"on: {way_out}"
            )
    if any(value is not None for value in block(cfg, "training.augment").values()):
        raise ConfigError("model=gbdt has no training.augment: trees see windows as they are")
    loss_of(task)  # says if there is none
    if select(cfg, "engine._target_") == BATCHED or select(cfg, "engine.stacked"):
        raise ConfigError(
            "engine=batched and engine.stacked=true stack networks, and model=gbdt is trees: use "
            "engine=serial or engine=ray"
        )
    most = int(cfg.model.config.rounds)
    if int(cfg.rounds) > most:
        raise ConfigError(
            f"model=gbdt has room for the trees of {most} rounds, and rounds={cfg.rounds}: a run "
            "of trees cannot be made longer; start a new one"
        )
