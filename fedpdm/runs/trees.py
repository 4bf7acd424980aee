"""What of a config has no meaning for trees, refused before a run starts."""

from __future__ import annotations

from fedpdm.config.values import Config, plain, select
from fedpdm.errors import ConfigError

TREES = "gbdt"
SERVER = "fedpdm.server.boosting.Boosting"
STRATEGY = "flwr.serverapp.strategy.FedAvg"
BATCHED = "fedpdm.engines.stacked.grid.BatchedGrid"


def check_trees(cfg: Config) -> None:
    """Refuse options that need weights where the model is trees, and the server of trees elsewhere.

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
    for key, usual, why in (
        ("strategy._target_", STRATEGY, "strategies combine weights: leave strategy=fedavg"),
        ("travels", "all", "all of its tensors travel: leave travels=all"),
        ("transforms", {}, "transforms change updates of weights: leave them out"),
        ("client_mods", [], "client mods work around local training: leave them out"),
        ("objective", None, "its loss is the task's: leave objective out"),
        ("faults.nan", None, "its sums are whole numbers, which cannot be NaN: use faults.poison"),
    ):
        found = plain(select(cfg, key))
        if found != usual and not (not found and not usual):
            raise ConfigError(f"model=gbdt grows trees from sums, and {why}")
    if select(cfg, "engine._target_") == BATCHED:
        raise ConfigError(
            "engine=batched stacks networks, and model=gbdt is trees: use engine=serial or "
            "engine=ray"
        )
    most = int(cfg.model.config.rounds)
    if int(cfg.rounds) > most:
        raise ConfigError(
            f"model=gbdt has room for the trees of {most} rounds, and rounds={cfg.rounds}: a run "
            "of trees cannot be made longer; start a new one"
        )
