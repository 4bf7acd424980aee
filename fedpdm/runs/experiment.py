"""From a composed config to the objects of a run, which do not read the config."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import Strategy

from fedpdm.client.attacks.base import Attack
from fedpdm.client.faults import Fault, parse_faults
from fedpdm.config.imports import import_all, names_of
from fedpdm.config.parts import MODELS
from fedpdm.config.schema import check_keys
from fedpdm.config.values import Config, block, make, plain, positive, select, whole
from fedpdm.data.sources.base import Source
from fedpdm.engines.auto import check_can_train, check_engine
from fedpdm.errors import ConfigError, ModelError
from fedpdm.evaluation.protocol import EvaluationProtocol
from fedpdm.federation import Federation
from fedpdm.history.schemas import Manifest
from fedpdm.history.sealed import read_sealed
from fedpdm.models import ModelWrapper
from fedpdm.models.policy import ParameterPolicy, Parts
from fedpdm.privacy.base import Protection
from fedpdm.runs.attacked import build_attack
from fedpdm.runs.contribution import build_valuation, check_contribution
from fedpdm.runs.evaluation import (
    BaselinePlan,
    build_baselines,
    build_monitor,
    build_protocol,
    evaluated_share,
)
from fedpdm.runs.initial import Start, read_start, stored_start
from fedpdm.runs.local_training import (
    build_device,
    build_objective,
    build_policy,
    build_settings,
    with_freezing,
)
from fedpdm.runs.model import model_entries, started_model
from fedpdm.runs.privacy import build_privacy
from fedpdm.runs.sizes import check_data, check_duration, check_model
from fedpdm.runs.sources import build_federation, build_source, named_newcomers
from fedpdm.runs.trees import check_trees
from fedpdm.runs.update_pipeline import (
    build_clock,
    build_mods,
    build_server,
    build_transforms,
    check_sent,
)
from fedpdm.server.base import Server
from fedpdm.server.clock import Clock
from fedpdm.server.monitor import MonitorSettings
from fedpdm.server.selection import sample_size, seeded_sample, take_over_sampling
from fedpdm.server.synchronous import Synchronous
from fedpdm.server.valuation import Valuation
from fedpdm.strategies.ranges import check_flower
from fedpdm.strategies.wrappers import check_training
from fedpdm.tasks import Task
from fedpdm.training.loop import TrainingSettings
from fedpdm.training.objective import Objective, Supervised
from fedpdm.transforms.base import Chain
from fedpdm.wire.flower import quiet
from fedpdm.wire.records import Arrays

LOOK_AT = 50
"""At most so many sites are read before the run starts, to find mistakes early."""


@dataclass(frozen=True)
class Experiment:
    """Everything a run is made of. Building it writes nothing."""

    federation: Federation
    task: Task
    build_model: Callable[[], ModelWrapper]
    strategy: Strategy
    settings: TrainingSettings
    monitor: MonitorSettings
    faults: list[Fault]
    client_mods: list[Mod]
    device: torch.device
    rounds: int
    seed: int
    federated_scaling: bool
    evaluate_fraction: float
    baselines: BaselinePlan
    round_timeout: float | None
    keep: int | None
    engine: Mapping[str, Any]
    model: dict[str, Any]
    protocol: EvaluationProtocol
    policy: ParameterPolicy
    objective: Objective
    transforms: Chain = field(default_factory=Chain)
    server: Server = field(default_factory=Synchronous)
    clock: Clock = field(default_factory=Clock)
    start: Start | None = None
    privacy: Protection | None = None
    attack: Attack | None = None
    valuation: Valuation | None = None
    newcomers: tuple[str, ...] = ()
    newcomer_epochs: int = 1

    @property
    def initial(self) -> Arrays:
        """The weights of round 0: the same for the federation and every baseline."""
        return {n: t.cpu().numpy() for n, t in self.build_model().get_parameters().items()}

    @property
    def parts(self) -> Parts:
        """Which tensors of the model travel, and which a site keeps."""
        return self.policy.parts(self.build_model())

    @property
    def personal(self) -> bool:
        """Whether a site's predictions may depend on what it keeps for itself."""
        return bool(self.parts.local) or not isinstance(self.objective, Supervised)

    @property
    def evaluated(self) -> list[str]:
        """Sites that evaluate: a seeded share, the same that the server asks."""
        return self._draw(self.federation.sites, self.evaluate_fraction, "evaluate")

    @property
    def who_evaluates(self) -> str:
        """How many sites evaluate, in words."""
        count, sites = len(self.evaluated), len(self.federation.sites)
        return (
            f"evaluate.fraction={self.evaluate_fraction:g}: {count:,} of {sites:,} sites evaluate"
        )

    @property
    def looked_at(self) -> list[str]:
        """Sites that are read, checked and hashed before the run.

        All that have real data, or that a partition deals.
        """
        if not self.federation.source.generated:
            return [*self.federation.sites, *self.newcomers]
        return [*self.evaluated[:LOOK_AT], *self.newcomers]

    @property
    def pooled(self) -> list[str]:
        """Sites whose rows the pooled baselines train on: all, or a seeded share of many."""
        sites = self.federation.sites
        return self._draw(sites, min(1.0, max(self.baselines.sites, 1) / len(sites)), "pooled")

    @property
    def compared(self) -> list[str]:
        """Sites that get baselines: at most ``baselines.max_plants`` of the evaluated."""
        names = self.evaluated
        if self.baselines.sites == 0:
            return []
        return self._draw(names, min(1.0, self.baselines.sites / len(names)), "baselines")

    def without_baselines(self) -> Experiment:
        """Return it for sites that are elsewhere: nobody may pool their rows."""
        return replace(self, baselines=replace(self.baselines, sites=0))

    def _draw(self, names: Sequence[str], share: float, purpose: str) -> list[str]:
        """Return a seeded share of the sites, in their order."""
        chosen = seeded_sample(list(range(len(names))), share, self.seed, purpose)
        return [names[index] for index in chosen]


def build(cfg: Config, source: Source | None = None, start: Start | None = None) -> Experiment:
    """Make everything a run needs, and look at the sites' data.

    Args:
        cfg: a composed config.
        source: the data, if it is not to be made from the config: the server has none.
        start: what a resumed run took over from another; a new one reads what ``init`` names.

    Raises:
        UserError: some option, file or site cannot work; the message says which.
    """
    quiet()
    check_config(cfg)
    task = cast(Task, make(cfg.task, "task"))
    check_trees(cfg, task)
    seed, rounds = whole(cfg, "seed", 0), whole(cfg, "rounds", 1)
    federation = build_federation(cfg, task, source or build_source(cfg, task, seed), seed)
    newcomers, newcomer_epochs = named_newcomers(cfg, federation.source.sites)
    check_data(federation.source, federation.sites[:LOOK_AT])
    device = build_device(str(cfg.device))
    settings = build_settings(cfg, rounds)
    strategy, copy, sampled = build_strategy(cfg, settings, len(federation.sites))
    model = model_entries(cfg, federation)
    fresh = partial(started_model, model, seed)
    check_engine(plain(cfg.engine), device)
    check_duration(federation.source, sampled, rounds, settings.local_epochs)
    objective = build_learning(cfg, task, federation, settings, fresh)
    start = start or read_start(cfg, model, fresh, federation)
    build_model = partial(started_model, model, seed, start)
    settings = with_freezing(cfg, fresh(), settings)
    check_training(strategy, settings)  # again: the encoder may have a rate of its own
    policy, server = build_policy(cfg, build_model), build_server(cfg)
    timeout = None if cfg.round_timeout is None else positive(cfg, "round_timeout")
    privacy = build_privacy(
        cfg, federation.source, strategy, server, settings, build_model(), policy, rounds
    )
    if privacy is not None:
        trained = privacy.trains(objective)
        check_can_train(plain(cfg.engine), fresh().module, trained, settings)
    experiment = Experiment(
        federation=federation,
        task=task,
        build_model=build_model,
        strategy=strategy,
        settings=settings,
        monitor=build_monitor(cfg),
        client_mods=build_mods(cfg, strategy),
        faults=parse_faults(block(cfg, "faults"), federation.sites, rounds),
        device=device,
        rounds=rounds,
        seed=seed,
        federated_scaling=cfg.scaling == "federated",
        evaluate_fraction=evaluated_share(cfg, len(federation.sites), sampled),
        baselines=build_baselines(cfg, task, fresh()),
        round_timeout=timeout,
        keep=None if select(cfg, "history.keep") == "all" else whole(cfg, "history.keep", 1),
        engine=plain(cfg.engine),
        model=model,
        protocol=build_protocol(cfg),
        policy=policy,
        objective=objective,
        transforms=build_transforms(cfg, seed, strategy, privacy),
        server=server,
        clock=build_clock(cfg, federation.sites, seed, settings, timeout),
        start=start,
        privacy=privacy,
        attack=build_attack(cfg, federation, strategy, rounds, seed),
        valuation=build_valuation(cfg),
        newcomers=newcomers,
        newcomer_epochs=newcomer_epochs,
    )
    check_together(experiment, copy, sampled)
    return experiment


def build_stored(cfg: Config, folder: Path, source: Source | None = None) -> Experiment:
    """Make the experiment of a run that was begun: what it settled then still holds.

    Args:
        cfg: its config.
        folder: its folder.
        source: as for ``build``.

    Raises:
        UserError: as ``build``; or the folder is damaged.
    """
    experiment = build(cfg, source, stored_start(folder))
    stored = read_sealed(folder, "manifest.json", unsealed=True)
    settled = Manifest.read(stored, folder / "manifest.json").get("evaluate")
    return replace(experiment, evaluate_fraction=settled["fraction"]) if settled else experiment


def check_config(cfg: Config) -> None:
    """Refuse what no run can work with, and import the user's own modules.

    Raises:
        ConfigError: names the key.
    """
    check_keys(cfg)
    if preferring := [name for name, site in block(cfg, "sites").items() if MODELS in (site or {})]:
        raise ConfigError(
            f"sites.{preferring[0]}.models makes several federations, which only "
            "python -m fedpdm.simulate runs, without -m"
        )
    if cfg.scaling not in ("federated", "plant"):
        raise ConfigError(f"scaling={cfg.scaling} is unknown; choose federated or site")
    import_all(names_of(select(cfg, "imports")))


def build_strategy(
    cfg: Config, settings: TrainingSettings, sites: int
) -> tuple[Strategy, Strategy, int]:
    """Make the strategy.

    Args:
        cfg: a composed config.
        settings: of local training.
        sites: how many the federation has.

    Returns:
        The strategy; a copy that has taken over the sampling, to ask whether it can work; and how
        many sites train in a round.
    """
    strategy = cast(Strategy, make(cfg.strategy, "strategy"))
    check_flower(type(strategy), plain(cfg.strategy))
    check_training(strategy, settings)
    copy = cast(Strategy, make(cfg.strategy, "strategy"))
    return strategy, copy, sample_size(take_over_sampling(copy, sites), sites)


def build_learning(
    cfg: Config,
    task: Task,
    federation: Federation,
    settings: TrainingSettings,
    fresh: Callable[[], ModelWrapper],
) -> Objective:
    """Make what a site minimises, and check that the model can learn it from this data.

    Args:
        cfg: a composed config.
        task: what is predicted.
        federation: the sites' data.
        settings: of local training.
        fresh: makes the model.
    """
    check_model(fresh)
    try_to_build(fresh, federation)
    task.check_model(fresh().module)
    objective = build_objective(cfg, task, federation, settings)
    objective.check_model(fresh().module)
    check_can_train(plain(cfg.engine), fresh().module, objective, settings)
    return objective


def check_together(experiment: Experiment, copy: Strategy, sampled: int) -> None:
    """Refuse parts that cannot work with each other.

    Args:
        experiment: all of them.
        copy: of the strategy, with sampling taken over.
        sampled: sites that train in a round.

    Raises:
        ConfigError: names them.
    """
    server = experiment.server
    if sampled < (least := server.least_sites):
        raise ConfigError(
            f"{type(server).__name__} needs at least {least} sites in a round, and this run has "
            f"{sampled}; name more sites, or raise strategy.fraction_train"
        )
    server.check(experiment.strategy, experiment.transforms, experiment.clock, experiment.keep)
    check_contribution(experiment)
    shared = {name: experiment.initial[name] for name in experiment.parts.shared}
    check_sent(copy, shared, sampled, experiment.seed)


def try_to_build(build_model: Callable[[], ModelWrapper], federation: Federation) -> None:
    """Build the model once: one that does not take this data says so now."""
    try:
        build_model()
    except ModelError as error:
        if federation.features.mode != "statistics":
            raise
        raise ModelError(
            f"features=statistics makes rows of {len(federation.inputs)} features, without time "
            f"steps: use model=mlp or model=cnn, or features=both for models of sequences ({error})"
        ) from None
