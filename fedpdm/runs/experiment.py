"""From a composed config to the objects of a run, which do not read the config."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import Strategy

from fedpdm.baselines.inputs import BaselineSchedule, RocketSettings
from fedpdm.baselines.registry import able, wanted
from fedpdm.client.attacks.base import Attack
from fedpdm.client.faults import Fault, parse_faults
from fedpdm.config.imports import import_all, names_of
from fedpdm.config.kinds import check_arguments
from fedpdm.config.parts import MODELS
from fedpdm.config.schema import check_keys
from fedpdm.config.values import Config, block, make, plain, positive, select, share, whole
from fedpdm.data.leakage import checks as guards
from fedpdm.data.partition import PartitionedSource, RepartitionedSource
from fedpdm.data.quality.sites import notes
from fedpdm.data.sources.base import Source, expand_replicas
from fedpdm.engines.auto import check_can_train, check_engine
from fedpdm.errors import ConfigError, DataError, ModelError
from fedpdm.evaluation.locales import DEFAULT, checked
from fedpdm.evaluation.protocol import EvaluationProtocol
from fedpdm.federation import Federation
from fedpdm.models import ModelWrapper
from fedpdm.models.policy import ParameterPolicy, Parts
from fedpdm.privacy.base import Protection
from fedpdm.runs.attacked import build_attack
from fedpdm.runs.contribution import build_valuation, check_contribution
from fedpdm.runs.initial import Start, read_start
from fedpdm.runs.local_training import (
    build_device,
    build_objective,
    build_policy,
    build_settings,
    frozen_schedule,
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
    baseline_sites: int
    baseline_processes: int
    pooled_schedule: BaselineSchedule
    alone_schedule: BaselineSchedule
    baselines: tuple[str, ...]
    rocket: RocketSettings
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
    locale: str = DEFAULT

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
        return self._draw(sites, min(1.0, max(self.baseline_sites, 1) / len(sites)), "pooled")

    @property
    def compared(self) -> list[str]:
        """Sites that get baselines: at most ``baselines.max_plants`` of the evaluated."""
        names = self.evaluated
        if self.baseline_sites == 0:
            return []
        return self._draw(names, min(1.0, self.baseline_sites / len(names)), "baselines")

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
    check_keys(cfg)
    if preferring := [name for name, site in block(cfg, "sites").items() if MODELS in (site or {})]:
        raise ConfigError(
            f"sites.{preferring[0]}.models makes several federations, which only "
            "python -m fedpdm.simulate runs, without -m"
        )
    import_all(names_of(select(cfg, "imports")))
    task = cast(Task, make(cfg.task, "task"))
    check_trees(cfg, task)
    seed = whole(cfg, "seed", 0)
    federation = build_federation(cfg, task, source or build_source(cfg, task, seed), seed)
    newcomers, newcomer_epochs = named_newcomers(cfg, federation.source.sites)
    check_data(federation.source, federation.sites[:LOOK_AT])
    device = build_device(str(cfg.device))
    rounds = whole(cfg, "rounds", 1)
    settings = build_settings(cfg, rounds)
    strategy = cast(Strategy, make(cfg.strategy, "strategy"))
    check_flower(type(strategy), plain(cfg.strategy))
    check_training(strategy, settings)
    # Asked of a copy: it changes the strategy, and here it only has to say whether it can work.
    copy = cast(Strategy, make(cfg.strategy, "strategy"))
    sampled = sample_size(take_over_sampling(copy, len(federation.sites)), len(federation.sites))
    if cfg.scaling not in ("federated", "plant"):
        raise ConfigError(f"scaling={cfg.scaling} is unknown; choose federated or site")
    model = model_entries(cfg, federation)
    fresh = partial(started_model, model, seed)
    check_engine(plain(cfg.engine), device)
    check_duration(federation.source, sampled, rounds, settings.local_epochs)
    check_model(fresh)
    try_to_build(fresh, federation)
    task.check_model(fresh().module)
    objective = build_objective(cfg, task, federation, settings)
    objective.check_model(fresh().module)
    check_can_train(plain(cfg.engine), fresh().module, objective, settings)
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
        evaluate_fraction=share(cfg, "evaluate.fraction"),
        baseline_sites=whole(cfg, "baselines.max_plants", 0),
        baseline_processes=whole(cfg, "baselines.processes", 0),
        pooled_schedule=frozen_schedule(cfg, fresh(), "baselines"),
        alone_schedule=frozen_schedule(cfg, fresh(), "baselines", "baselines.alone"),
        baselines=build_baselines(cfg, task),
        rocket=build_rocket(cfg),
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
        locale=checked(select(cfg, "report.locale"), "report.locale"),
    )
    if sampled < (least := server.least_sites):
        raise ConfigError(
            f"{type(server).__name__} needs at least {least} sites in a round, and this run has "
            f"{sampled}; name more sites, or raise strategy.fraction_train"
        )
    experiment.server.check(
        experiment.strategy, experiment.transforms, experiment.clock, experiment.keep
    )
    check_contribution(experiment)
    shared = {name: experiment.initial[name] for name in experiment.parts.shared}
    check_sent(copy, shared, sampled, seed)
    return experiment


def look_at_data(
    experiment: Experiment, say: Callable[[str], None] = lambda text: None
) -> list[str]:
    """Read the first sites and refuse what cannot train or be tested; return warnings.

    Held-out machines do not matter here: a run draws its conclusions from the test windows of
    machines that were trained on.

    Args:
        experiment: what is to be run.
        say: told what is done now.

    Raises:
        DataError: a site cannot train, or no site has a test window.
    """
    federation = experiment.federation
    names = experiment.looked_at
    for number, name in enumerate(names):
        rows = federation.source.expected_rows(name)
        of = f", {rows:,} rows" if rows else ""
        say(f"reading site {name} ({number + 1} of {len(names)}{of})")
        federation.rows(name)
    say("checking the data")
    found = guards.check(federation.source, names, federation.rows, federation.task.reach)
    for name in names:
        sums, codes = federation.moments(name), federation.source.levels
        guards.require_training_sums(name, federation.rows(name), sums, codes)
    sites = [federation.site(name, federation.moments(name).scaler()) for name in names]
    for site in sites:
        guards.require_real(site.name, site.windows)
    warnings = found + federation.check(sites)
    if all(len(site.test) == 0 for site in sites):
        raise DataError(no_test_window(experiment))
    odd = notes(federation.source, names, federation.rows, nearest(experiment.task))
    return [*warnings, *federation.source.warnings, *odd]


def nearest(task: Task) -> float:
    """Return how long before a failure a row counts as positive, of several horizons the least."""
    return (task.risks[0].horizon if task.risks else None) or task.reach


def no_test_window(experiment: Experiment) -> str:
    """Say that nothing can be tested, and what would help."""
    source = experiment.federation.source
    task = experiment.task
    key = "cap" if task.lives else "horizons" if len(task.risks) > 1 else "horizon"
    ways = [f"task.{key} (now {task.reach:g})"] if task.reach > 0 else []
    if source.window is not None:
        ways.insert(0, f"data.window (now {source.window})")
    if isinstance(source, PartitionedSource):
        ways.insert(0, f"partition.sites (now {len(source.sites)} sites)")
    made = source.generated or isinstance(source, RepartitionedSource)
    longer = "raise data.days" if made else "bring a longer record"
    longer = "bring more machines" if task.by_machine else longer
    lower = f"lower {' or '.join(ways)}, or " if ways else ""
    return f"no site has a test window: {lower}{longer}"


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


def build_protocol(cfg: Config) -> EvaluationProtocol:
    """Make what a test is asked to say."""
    named = expand_replicas(block(cfg, "sites"), whole(cfg, "replicas", 1))
    return EvaluationProtocol.of(block(cfg, "evaluate"), named)


def build_baselines(cfg: Config, task: Task) -> tuple[str, ...]:
    """Return the names of the baselines that are wanted; null: all there are for the task."""
    names = plain(select(cfg, "baselines.controls"))
    if names is None:
        return able(task.name)
    if not isinstance(names, list):
        raise ConfigError(
            f"baselines.controls={names} must be a list, for example [alone,hgb], or [] for none"
        )
    return wanted([str(name) for name in names], task.name)


def build_rocket(cfg: Config) -> RocketSettings:
    """Make the settings of the MiniRocket baseline."""
    if select(cfg, "baselines.minirocket") is None:
        return RocketSettings()
    return RocketSettings(
        features=whole(cfg, "baselines.minirocket.features", 84, 1_000_000),
        windows=None
        if select(cfg, "baselines.minirocket.windows") is None
        else whole(cfg, "baselines.minirocket.windows", 2, 10_000_000),
    )


def build_monitor(cfg: Config) -> MonitorSettings:
    """Make the monitor's settings."""
    monitor = block(cfg, "monitor")
    for name in ("loss_factor", "norm_factor"):
        positive(cfg, f"monitor.{name}")
    whole(cfg, "monitor.max_rollbacks", 0)
    check_arguments(MonitorSettings, monitor, "monitor")
    return MonitorSettings(**monitor)
