"""Personal methods in a federation: limits, resume, refusals, engines, evaluation, predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict

from fedpdm.client.state import LOCAL, OBJECTIVE, PersonalModels
from fedpdm.config.compose import compose
from fedpdm.config.values import make
from fedpdm.data.rows import Split
from fedpdm.deployment.client import try_out
from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.ray.grid import RayGrid
from fedpdm.engines.serial import SerialGrid
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.errors import ConfigError
from fedpdm.models.policy import POLICIES
from fedpdm.predict import load_predictor
from fedpdm.runs.experiment import build
from fedpdm.runs.reopened import reopen
from fedpdm.server.monitor import MonitorSettings
from fedpdm.simulate import simulate
from fedpdm.tasks import Failure
from fedpdm.testing.federated import (
    Federated,
    check_resume,
    composed,
    distance,
    federate,
    same,
    states,
)
from fedpdm.training.loop import TrainingSettings, fit
from fedpdm.training.objective import Objective, Supervised
from fedpdm.training.objectives.moon import Moon
from fedpdm.training.personal import APFL, METHODS, FineTune, KNNPer
from fedpdm.training.personal.mapper import Mean
from fedpdm.wire.flower import become_server
from fedpdm.wire.records import ARRAYS, arrays_in, to_record
from tests.toys.half_codec import HalfCodec

BESIDE = ("ditto", "finetune", "apfl", "knnper", "mapper")
"""The shared model of these is FedAvg's, whatever stays at the sites."""
TOGETHER = ("ditto", "finetune", "knnper", "mapper")
RAGGED = {f"p{n}": {"machines": 1 + n % 3, "rows": 60 + 7 * n} for n in range(4)}


def method(strategy: str, *overrides: str) -> Objective:
    """Return what a command line would put around the loss of the tests' task."""
    cfg = composed((f"strategy={strategy}", *overrides))
    return make(cfg.personal, "personal").around(Supervised.of(Failure(4.0)))  # type: ignore[no-any-return]


def run(folder: Path, strategy: str, *overrides: str, **options: Any) -> Federated:
    """Run a federation with a strategy of the catalogue, and its part of what stays."""
    cfg = composed((f"strategy={strategy}", *overrides))
    around = None if cfg.personal is None else method(strategy, *overrides)
    settings = TrainingSettings(
        2, 16, 0.02 if cfg.training.optimizer == "sgd" else 5e-3, clip_norm=1.0,
        optimizer=cfg.training.optimizer,
    )  # fmt: skip
    chosen = {
        "sites": RAGGED, "rounds": 2, "settings": settings, "objective": around,
        "policy": POLICIES[cfg.travels](), "overrides": overrides,
    }  # fmt: skip
    return federate(folder, strategy, **chosen | options)


def losses(found: Federated, number: int = -1) -> dict[str, float]:
    """Return the validation loss of each site that has such windows."""
    sites = found.history.rounds()[number].sites.items()
    known = {name: said["validation"]["loss"] for name, said in sites}
    return {name: loss for name, loss in known.items() if loss is not None}


def test_every_method_is_a_strategy_of_its_name() -> None:
    for name in METHODS:
        assert composed((f"strategy={name}",)).personal is not None
    assert set(METHODS) == {
        "ditto", "finetune", "apfl", "knnper", "mapper", "pfedme", "fedrep", "fedala",
    }  # fmt: skip


@pytest.mark.parametrize("strategy", BESIDE)
def test_the_shared_model_is_that_of_fedavg_to_the_bit(tmp_path: Path, strategy: str) -> None:
    options: dict[str, Any] = {"model": "cnn", "model_config": {"dropout_rate": 0.3}}
    own = run(tmp_path / "own", strategy, **options)
    plain = run(tmp_path / "plain", "fedavg", **options)
    assert same(own.weights(), plain.weights()), "dropout and statistics of its own included"
    assert losses(own) != losses(plain), "what is evaluated is the personal model"


def test_fedala_begins_as_fedavg_to_the_bit(tmp_path: Path) -> None:
    own, plain = (run(tmp_path / s, s, model="cnn") for s in ("fedala", "fedavg"))
    assert same(own.weights(1), plain.weights(1))
    assert distance(own.weights(2), plain.weights(2)) > 1e-6


@pytest.mark.parametrize("strategy", sorted(METHODS))
def test_what_is_kept_is_resumed_and_taken_back(tmp_path: Path, strategy: str) -> None:
    few = {name: RAGGED[name] for name in ("p1", "p2")}
    check_resume(lambda label, rounds: run(tmp_path / label, strategy, rounds=rounds, sites=few))
    refused = run(tmp_path / "nan", strategy, rounds=1, sites=few)
    before = states(refused)
    refused.history.close()
    refused = run(tmp_path / "nan", strategy, rounds=2, sites=few, faults={"nan": "p1@2"})
    now = states(refused)
    unchanged = {site for site in now if now[site] == before[site]}
    # Fitted to the model of the round, which has none of the refused update in it.
    assert unchanged == (set() if method(strategy).personalises == "evaluate" else {"p1"})


@pytest.mark.parametrize("strategy", ["ditto", "finetune"])
def test_a_round_that_is_rolled_back_leaves_no_trace(tmp_path: Path, strategy: str) -> None:
    options: dict[str, Any] = {
        "rounds": 2, "monitor": MonitorSettings(rollback=True), "faults": {"poison": "p1@2"},
    }  # fmt: skip
    found = run(tmp_path, strategy, **options)
    assert any(event["kind"] == "rollback" for event in found.history.events())
    assert len(found.history.rounds(undone=True)) > len(found.history.rounds())
    stored = found.history.client_states(1)
    again = run(tmp_path / "one", strategy, rounds=1)
    assert stored == again.history.client_states(1)


@pytest.mark.parametrize("strategy", TOGETHER)
def test_a_stack_of_sites_keeps_the_same(tmp_path: Path, strategy: str) -> None:
    serial, batched = (
        run(tmp_path / engine.__name__, strategy, engine=engine, double=True)
        for engine in (SerialGrid, BatchedGrid)
    )
    for site, state in serial.grid.states.items():
        other = arrays_in(batched.grid.states[site], OBJECTIVE)
        for name, array in arrays_in(state, OBJECTIVE).items():
            np.testing.assert_allclose(other[name], array, rtol=0, atol=1e-8)


@pytest.mark.parametrize("strategy", sorted({*METHODS} - {*TOGETHER}))
def test_a_method_that_cannot_be_stacked_says_so(tmp_path: Path, strategy: str) -> None:
    with pytest.raises(ConfigError, match=r"as a stack.*use engine=serial"):
        run(tmp_path, strategy, engine=BatchedGrid)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("strategy", sorted(METHODS))
def test_ray_keeps_the_same_to_the_bit(tmp_path: Path, strategy: str) -> None:
    def ray(app: Any, sites: Any) -> LocalGrid:
        return RayGrid(app, sites, workers=1)

    serial = run(tmp_path / "serial", strategy, rounds=1)
    other = run(tmp_path / "ray", strategy, rounds=1, engine=ray)
    assert states(serial) == states(other)
    assert same(serial.weights(), other.weights())
    other.grid.close()


# Local training, where theory says so -------------------------------------------------------

WHOLE = TrainingSettings(1, 10_000, 0.05, optimizer="sgd")
"""One plain step on all rows of a site in a round: then no shuffle matters."""


def site_of(found: Federated, name: str) -> Any:
    client = found.grid.client_app.client  # type: ignore[attr-defined]
    return client, client.federation.site(name, client.federation.moments(name).scaler())


def trained_alone(found: Federated, name: str, start: Any, epochs: int) -> dict[str, Any]:
    """Return what a site comes to by itself from the weights ``start``."""
    client, site = site_of(found, name)
    model = client.build_model()
    model.set_parameters({n: torch.from_numpy(np.array(t)) for n, t in start.items()})
    fit(
        model.module, *client.tensors(site, Split.TRAIN), client.minimised.without_federation(),
        WHOLE, seed=0, key=("alone",), epochs=epochs,
    )  # fmt: skip
    return model.snapshot()  # type: ignore[no-any-return]


def own_model(found: Federated, name: str) -> dict[str, Any]:
    kept = arrays_in(found.grid.states[name], OBJECTIVE)
    start = "personal.model."
    return {n.removeprefix(start): t for n, t in kept.items() if n.startswith(start)}


def test_ditto_without_a_pull_is_each_site_by_itself(tmp_path: Path) -> None:
    found = run(
        tmp_path, "ditto", "personal.weight=0", rounds=3, settings=WHOLE, federated_scaling=False
    )
    alone = trained_alone(found, "p1", found.weights(0), 3)
    assert distance(alone, own_model(found, "p1")) < 1e-6
    assert distance(found.weights(), own_model(found, "p1")) > 1e-4


def test_mapper_answers_with_the_mean_of_both_models(tmp_path: Path) -> None:
    options: dict[str, Any] = {"rounds": 3, "settings": WHOLE, "federated_scaling": False}
    half = run(tmp_path / "half", "mapper", **options)
    own, shared = own_model(half, "p1"), half.weights()
    assert distance(trained_alone(half, "p1", half.weights(0), 3), own) < 1e-6
    client, site = site_of(half, "p1")
    x, _ = client.tensors(site, Split.TRAIN)
    models = []
    for weights in (shared, own):
        model = client.build_model()
        model.set_parameters({n: torch.from_numpy(np.array(t)) for n, t in weights.items()})
        models.append(model.module.eval())
    mixed = Mean(*models, share=0.25)(x)
    assert torch.allclose(mixed, 0.75 * models[0](x) + 0.25 * models[1](x), atol=1e-6)
    plain = run(tmp_path / "p", "fedavg", **options)
    ditto = run(tmp_path / "d", "ditto", "personal.weight=0", **options)
    none = run(tmp_path / "0", "mapper", "personal.share=0", **options)
    whole = run(tmp_path / "1", "mapper", "personal.share=1", **options)
    assert losses(none) == pytest.approx(losses(plain), rel=1e-6)
    assert losses(whole) == pytest.approx(losses(ditto), rel=1e-6)


def test_fine_tuning_is_local_training_of_the_shared_model(tmp_path: Path) -> None:
    found = run(
        tmp_path, "finetune", "personal.stop=last", "personal.epochs=4", settings=WHOLE,
        federated_scaling=False,
    )  # fmt: skip
    alone = trained_alone(found, "p2", found.weights(), 4)
    assert distance(alone, own_model(found, "p2")) < 1e-6


def test_apfl_with_a_share_of_one_is_a_site_by_itself_and_of_zero_fedavg(tmp_path: Path) -> None:
    options: dict[str, Any] = {"settings": WHOLE, "federated_scaling": False, "rounds": 3}
    fixed = "personal.adaptive=false"
    found = run(tmp_path / "1", "apfl", "personal.alpha=1", fixed, **options)
    assert distance(trained_alone(found, "p1", found.weights(0), 3), own_model(found, "p1")) < 1e-6
    none = run(tmp_path / "0", "apfl", "personal.alpha=0", fixed, **options)
    plain = run(tmp_path / "plain", "fedavg", **options)
    mine, theirs = losses(none), losses(plain)
    assert mine == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("strategy", ["finetune", "knnper"])
def test_no_site_is_worse_on_validation_than_with_the_shared_model(
    tmp_path: Path, strategy: str
) -> None:
    own, plain = (run(tmp_path / s, s, rounds=3) for s in (strategy, "fedavg"))
    better = []
    for number in (1, 2, 3):
        mine, theirs = (losses(r, number) for r in (own, plain))
        assert all(mine[site] <= theirs[site] + 1e-6 for site in theirs)
        better += [site for site in theirs if mine[site] < theirs[site] - 1e-6]
    assert better


# Which tensors travel ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "own"),
    [("fedbn", ("bn1", "bn2", "bn3")), ("fedper", ("output",)), ("fedrep", ("output",))],
)
def test_what_stays_at_a_site_is_not_in_a_message(
    tmp_path: Path, strategy: str, own: tuple[str, ...]
) -> None:
    found = run(tmp_path, strategy, model="cnn")
    kept = [arrays_in(state, LOCAL) for state in found.grid.states.values()]
    assert {name.partition(".")[0] for name in kept[0]} == set(own)
    assert not set(kept[0]) & set(found.weights())
    assert not same(kept[0], kept[1])


@pytest.mark.parametrize("strategy", ["fedbn", "fedper", "lgfedavg"])
def test_what_travels_is_averaged_and_the_rest_is_what_each_site_came_to(
    tmp_path: Path, strategy: str
) -> None:
    found = run(
        tmp_path, strategy, rounds=1, settings=WHOLE, model="cnn", federated_scaling=False,
        model_config={"dropout_rate": 0.0}, sites={"p0": {"machines": 1}, "p1": {"machines": 3}},
    )  # fmt: skip
    client, _ = site_of(found, "p0")
    start = {n: t.numpy() for n, t in client.build_model().get_parameters().items()}
    alone = {name: trained_alone(found, name, start, 1) for name in ("p0", "p1")}
    rows = {name: len(site_of(found, name)[1].train) for name in alone}
    shared = {
        name: sum(rows[s] * alone[s][name].astype(float) for s in alone) / sum(rows.values())
        for name in client.parts.shared
    }
    assert distance(shared, {name: found.weights()[name] for name in shared}) < 1e-6
    for name, own in alone.items():
        kept = arrays_in(found.grid.states[name], LOCAL)
        assert set(kept) == set(client.parts.local)
        assert all(np.allclose(kept[n], own[n], atol=1e-6) for n in kept)


def test_lgfedavg_sends_the_last_layer_only(tmp_path: Path) -> None:
    found = run(tmp_path, "lgfedavg")
    assert set(found.weights()) == {"output.weight", "output.bias"}


def test_fedbn_says_that_a_model_has_no_normalisation(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"travels=no_norm leaves no tensor of model=lstm"):
        build(compose(["strategy=fedbn"]))
    assert build(compose(["strategy=fedbn", "model=cnn"])).parts.local


# Values and combinations -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["strategy=ditto", "personal.weight=-1"], r"personal\.weight=-1"),
        (["strategy=apfl", "personal.alpha=1.5"], r"personal\.alpha=1\.5"),
        (["strategy=finetune", "personal.stop=first"], r"personal\.stop=first"),
        (["strategy=pfedme", "personal.weight=0"], r"personal\.weight=0"),
        (["strategy=pfedme", "training.optimizer=adam"], r"training\.optimizer=sgd, not adam"),
        (["strategy=pfedme", "training.learning_rate=0.2"], "must be below 2"),
        (["strategy=fedala", "personal.share=0"], r"personal\.share=0"),
        (["strategy=fedrep", "training.local_epochs=1"], "leaves no epoch for the body"),
        (["strategy=knnper", "personal.neighbours=0"], r"personal\.neighbours=0"),
        (["strategy=knnper", "task=rul", "data=cmapss"], "mixes probabilities of classes"),
        (["strategy=ditto", "model=gbdt", "server=boosting"], "grows trees"),
        (["strategy=ditto", "personal.wait=1"], r"no option .personal\.wait"),
    ],
)
def test_what_cannot_work_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(compose(overrides))


@pytest.mark.parametrize("strategy", sorted(METHODS))
def test_it_goes_with_an_objective_that_remembers(tmp_path: Path, strategy: str) -> None:
    personal = make(composed((f"strategy={strategy}",)).personal, "personal")
    around = personal.around(Moon().for_task(Failure(4.0)))
    found = run(tmp_path, strategy, rounds=2, objective=around)
    assert {"error", "warning"}.isdisjoint(event["kind"] for event in found.screen.events)
    assert all("examples" in site for site in found.history.rounds()[-1].sites.values())
    kept = arrays_in(found.grid.states["p0"], OBJECTIVE)
    assert any(name.startswith("moon.") for name in kept)
    assert any(name.startswith("personal.") for name in kept) or strategy == "fedrep"


def test_the_loss_inside_is_the_runs_own() -> None:
    experiment = build(compose(["strategy=ditto", "objective=focal", "objective.gamma=3"]))
    assert experiment.objective.without_federation() is experiment.objective.base  # type: ignore[attr-defined]
    output, target = torch.tensor([[0.0, 0.0]]), torch.tensor([1])
    found = experiment.objective.row_losses(output, target)  # type: ignore[misc]
    assert float(found) == pytest.approx(0.125 * np.log(2), rel=1e-5)


@pytest.mark.parametrize("kind", [APFL, FineTune, KNNPer])
def test_a_site_that_never_trained_has_the_shared_model(tmp_path: Path, kind: Any) -> None:
    found = run(tmp_path, "fedavg", rounds=1)
    client = found.grid.client_app.client  # type: ignore[attr-defined]
    around = kind().around(client.minimised)
    models = PersonalModels(client.build_model(), found.weights(), (), {}, around, client.device)
    state = {n: t.numpy() for n, t in models("p0").state_dict().items()}
    assert same(state, found.weights())


# From the command to a prediction --------------------------------------------------------------

TINY = [
    "site=[detroit,houston]", "sites.detroit.machines=4", "sites.houston.machines=4",
    "rounds=2", "training.local_epochs=1", "model=mlp", "baselines.max_plants=0",
    "evaluate.bootstrap=0", "data.days=160", "engine=serial",
]  # fmt: skip


@pytest.mark.parametrize(
    "strategy", [["ditto", "objective=focal"], ["finetune"], ["knnper"], ["apfl"]]
)
def test_predict_uses_the_sites_own_model(tmp_path: Path, strategy: list[str]) -> None:
    simulate(compose([f"strategy={strategy[0]}", *strategy[1:], *TINY]), tmp_path / "run")
    again = reopen(tmp_path / "run")
    with pytest.raises(ConfigError, match="--site"):
        load_predictor(tmp_path / "run")
    scores = []
    for site in again.sites:
        predictor = load_predictor(tmp_path / "run", site=site.name)
        x = torch.from_numpy(site.test.x[:50])
        with torch.no_grad():
            mine = predictor.model.module.eval()(x)
            tested = again.models(site.name).eval()(x)
            scores.append(predictor.model.module(torch.from_numpy(again.sites[0].test.x[:50])))
        assert torch.equal(mine, tested)
    assert not torch.equal(*scores), "of another site"
    shared = again.summary["personal"]["shared"]["per_site"]
    assert again.summary["personal"]["method"] == strategy[0]
    assert shared != again.summary["test"]["per_site"]


def test_it_goes_with_transforms_sampling_and_a_resume(tmp_path: Path) -> None:
    def combined(label: str, rounds: int) -> Federated:
        return run(
            tmp_path / label, "ditto", "strategy.fraction_train=0.5", rounds=rounds,
            transforms={"codec": HalfCodec()},
        )  # fmt: skip

    check_resume(combined)
    found = combined("whole", 3)
    kinds = {name.partition(".")[0] for state in found.grid.states.values() for name in state}
    assert kinds == {"strategy", "objective"}, "the codec's rest and the personal model"


def test_a_deployed_site_adapts_the_model_that_it_tests(tmp_path: Path) -> None:
    found = {}
    for strategy in ("fedavg", "finetune"):
        experiment = build(compose([f"strategy={strategy}", *TINY]))
        parts, initial = experiment.parts, experiment.initial
        content = RecordDict({ARRAYS: to_record({n: initial[n] for n in parts.shared})})
        become_server()
        found[strategy] = try_out(
            experiment, "houston", Message(content, 1, "query.test"), RecordDict()
        )
    shared, tuned = (each["validation"]["average_precision"] for each in found.values())
    assert shared != tuned
