"""The round loop: averages, samples, buffers, refusals, rollbacks, resume."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import FedAvg
from hypothesis import given
from hypothesis import strategies as st

from fedpdm.config.compose import compose
from fedpdm.config.values import make
from fedpdm.engines import serial
from fedpdm.errors import ConfigError, SiteError, TrainingStopped
from fedpdm.history import History
from fedpdm.server.monitor import MonitorSettings
from fedpdm.server.round_metrics import over_sites, weighted
from fedpdm.server.selection import seeded_sample
from fedpdm.strategies.checkpoint import capture
from fedpdm.testing.federated import federate, same
from fedpdm.wire.records import ARRAYS, BUFFERS, EXAMPLES, METRICS, arrays_in, metrics_in, to_record


class Spy:
    """A client mod that keeps what every site sent."""

    def __init__(self) -> None:
        self.replies: list[tuple[str, int, dict, dict, dict]] = []
        self.calls: list[str] = []

    def __call__(self, message: Message, context: Context, call: ClientAppCallable) -> Message:
        reply = call(message, context)
        site = str(context.node_config["site"])
        server_round = int(message.content["config"]["server-round"])  # type: ignore[index]
        self.calls.append(site)
        content = reply.content
        self.replies.append(
            (site, server_round, arrays_in(content, ARRAYS), arrays_in(content, BUFFERS),
             metrics_in(content))
        )  # fmt: skip
        return reply


def test_fedavg_weights_by_examples_and_not_by_batches(tmp_path: Path) -> None:
    spy = Spy()
    sites = {"small": {"machines": 3}, "large": {"machines": 9}}
    run = federate(tmp_path, sites=sites, rounds=1, mods=[spy])
    examples = {site: metrics[EXAMPLES] for site, _, _, _, metrics in spy.replies}
    assert examples["large"] > 2 * examples["small"]
    assert {s: v["examples"] for s, v in run.history.rounds()[1].sites.items()} == examples
    total = sum(examples.values())
    for name, value in run.weights(1).items():
        mean = sum(
            arrays[name].astype(float) * examples[s] / total for s, _, arrays, _, _ in spy.replies
        )
        np.testing.assert_allclose(value, mean, atol=1e-6)


def test_buffers_are_averaged_by_examples_and_counters_take_the_maximum(tmp_path: Path) -> None:
    spy = Spy()
    sites = {"small": {"machines": 3}, "large": {"machines": 9}}
    run = federate(tmp_path, sites=sites, rounds=1, model="cnn", mods=[spy])
    buffers = {site: (b, m[EXAMPLES]) for site, _, _, b, m in spy.replies}
    total = sum(n for _, n in buffers.values())
    assert buffers["small"][0]
    for name in buffers["small"][0]:
        values = [b[name] for b, _ in buffers.values()]
        if name.endswith("num_batches_tracked"):
            assert run.weights(1)[name] == max(int(v) for v in values)
        else:
            mean = sum(b[name].astype(float) * n / total for b, n in buffers.values())
            np.testing.assert_allclose(run.weights(1)[name], mean, rtol=1e-5)


def test_the_evaluated_model_has_the_federated_running_statistics(tmp_path: Path) -> None:
    # The reference system evaluated with mean 0 and variance 1, and fell to chance.
    run = federate(tmp_path, rounds=3, model="cnn", epochs=3)
    variance = [v for n, v in run.weights().items() if n.endswith("running_var")]
    assert all(not np.allclose(v, 1.0, atol=1e-3) for v in variance)
    assert run.history.rounds()[-1].metrics["roc_auc"] > 0.8


def test_the_strategy_never_sees_buffers(tmp_path: Path) -> None:
    seen: set[str] = set()

    class Watching(FedAvg):
        def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
            replies = list(replies)
            for reply in replies:
                assert set(reply.content.array_records) == {ARRAYS}
                assert set(reply.content.metric_records) == {METRICS}
                seen.update(reply.content.array_records[ARRAYS])
            return super().aggregate_train(server_round, replies)

    run = federate(tmp_path, Watching(), rounds=1, model="cnn")
    assert seen == set(run.loop.trainable)
    assert not any("running" in name or "tracked" in name for name in seen)


def test_each_round_trains_its_seeded_sample_in_site_order(tmp_path: Path) -> None:
    spy = Spy()
    run = federate(tmp_path / "a", sites=6, rounds=4, mods=[spy],
                   overrides=["strategy.fraction_train=0.5"])  # fmt: skip
    samples = [r.sampled for r in run.history.rounds()[1:]]
    assert all(len(sample) == 3 and list(sample) == sorted(sample) for sample in samples)
    assert len(set(samples)) > 1
    assert spy.calls == [site for sample in samples for site in sample]
    again = federate(tmp_path / "b", sites=6, rounds=4, overrides=["strategy.fraction_train=0.5"])
    assert [r.sampled for r in again.history.rounds()[1:]] == samples
    assert same(run.weights(), again.weights())


@given(n=st.integers(1, 50), share=st.floats(0.01, 1.0), seed=st.integers(0, 99))
def test_a_sample_is_ordered_unique_and_of_the_right_size(n: int, share: float, seed: int) -> None:
    nodes = list(range(100, 100 + n))
    sample = seeded_sample(nodes, share, seed, "x")
    assert sample == sorted(set(sample))
    assert len(sample) == max(1, int(share * n + 1e-9))
    assert seeded_sample(nodes, share, seed, "x") == sample


def test_same_seed_same_bits_and_another_seed_differs(tmp_path: Path) -> None:
    runs = [federate(tmp_path / str(i), model="cnn", seed=s) for i, s in enumerate((1, 1, 2))]
    assert same(runs[0].weights(), runs[1].weights())
    assert not same(runs[0].weights(), runs[2].weights())
    assert runs[0].history.rounds()[-1].metrics == runs[1].history.rounds()[-1].metrics


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedavgm", "fedyogi", "fedadagrad"])
def test_resumed_equals_uninterrupted_to_the_bit(strategy: str, tmp_path: Path) -> None:
    options = {"overrides": ["strategy.fraction_train=0.67"], "model": "cnn"}
    whole = federate(tmp_path / "whole", strategy, rounds=5, **options)  # type: ignore[arg-type]
    part = federate(tmp_path / "part", strategy, rounds=2, **options)  # type: ignore[arg-type]
    part.history.close()
    resumed = federate(tmp_path / "part", strategy, rounds=5, **options)  # type: ignore[arg-type]
    for number in range(6):
        assert same(whole.weights(number), resumed.weights(number))
    np.testing.assert_equal(capture(resumed.loop.strategy), capture(whole.loop.strategy))
    assert [r.metrics for r in whole.history.rounds()] == [
        r.metrics for r in resumed.history.rounds()
    ]


def test_an_update_with_nan_is_refused_by_name_and_the_round_completes(tmp_path: Path) -> None:
    run = federate(tmp_path, rounds=3, faults={"nan": "p1@2"})
    (event,) = run.screen.events
    assert event["kind"] == "refused" and event["site"] == "p1" and event["round"] == 2
    assert "p1" in event["message"] and "NaN" in event["message"]
    assert [r.round for r in run.history.rounds()] == [0, 1, 2, 3]
    assert run.history.events()[0]["kind"] == "refused"
    trained = [s for s, v in run.history.rounds()[2].sites.items() if v.get("examples")]
    assert trained == ["p0", "p2"]
    assert all(np.isfinite(a).all() for a in run.weights().values())


def test_all_updates_refused_keeps_the_model(tmp_path: Path) -> None:
    run = federate(tmp_path, sites=1, rounds=2, faults={"nan": "p0@2"})
    assert same(run.weights(1), run.weights(2))
    assert {e["kind"] for e in run.screen.events} == {"refused", "warning"}


def test_poison_is_noticed_without_rollback(tmp_path: Path) -> None:
    run = federate(tmp_path, rounds=3, faults={"poison": "p1@2"})
    assert any(e["kind"] == "warning" and "looks bad" in e["message"] for e in run.screen.events)
    assert run.history.attempt == 0


@pytest.mark.parametrize("sites", [2, 4])
def test_poison_is_rolled_back_and_the_run_goes_on(sites: int, tmp_path: Path) -> None:
    run = federate(
        tmp_path, sites=sites, rounds=5, faults={"poison": "p1@3"},
        monitor=MonitorSettings(rollback=True),
    )  # fmt: skip
    rollback = [e for e in run.history.events() if e["kind"] == "rollback"]
    assert len(rollback) == 1 and rollback[0]["by"] == "monitor"
    assert [r.round for r in run.history.rounds()] == [0, 1, 2, 3, 4, 5]
    assert "p1" not in run.history.rounds()[3].sampled, "the poisoned site is left out"
    assert "p1" in run.history.rounds()[4].sampled, "and is back afterwards"
    assert [r.attempt for r in run.history.rounds()] == [0, 0, 0, 1, 1, 1]
    undone = [r for r in run.history.rounds(undone=True) if r not in run.history.rounds()]
    assert [r.round for r in undone] == [3]
    assert run.history.rounds()[-1].metrics["parameter_norm"] < 30


def test_after_three_rollbacks_in_a_row_it_stops(tmp_path: Path) -> None:
    def always_poison(message: Message, context: Context, call: ClientAppCallable) -> Message:
        reply = call(message, context)
        if message.content["config"]["server-round"] == 2:  # type: ignore[index]
            arrays = arrays_in(reply.content, ARRAYS)
            reply.content[ARRAYS] = to_record({n: a + 50.0 for n, a in arrays.items()})
        return reply

    with pytest.raises(TrainingStopped, match="3 rollbacks in a row at round 2"):
        federate(tmp_path, rounds=4, mods=[always_poison], monitor=MonitorSettings(rollback=True))
    assert TrainingStopped.exit_code == 1


def test_a_failing_site_is_named_and_the_round_goes_on(tmp_path: Path) -> None:
    def crash(message: Message, context: Context, call: ClientAppCallable) -> Message:
        if context.node_config["site"] == "p2" and message.content["config"]["server-round"] == 2:  # type: ignore[index]
            raise RuntimeError("the sensor gateway is down")
        return call(message, context)

    run = federate(tmp_path, rounds=3, mods=[crash])
    (event,) = run.screen.events
    assert event["kind"] == "site-failed" and event["site"] == "p2" and event["round"] == 2
    assert "gateway" in event["message"]
    assert run.history.head().round == 3  # type: ignore[union-attr]


def test_all_sites_failing_ends_the_run_with_their_reasons(tmp_path: Path) -> None:
    def crash(message: Message, context: Context, call: ClientAppCallable) -> Message:
        raise RuntimeError("no power")

    with pytest.raises(SiteError, match="round 1: every site failed.*p0.*no power"):
        federate(tmp_path, mods=[crash])


def test_a_site_that_cannot_answer_the_query_is_named(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="p1 could not sum up.*its file is gone"):
        federate(tmp_path, broken=["p1"])


def test_site_scaling_asks_no_site_for_sums(tmp_path: Path) -> None:
    run = federate(tmp_path, federated_scaling=False)
    initial = run.history.rounds()[0]
    assert (initial.bytes_down, initial.bytes_up) == (0, 0)
    assert run.history.head().round == 3  # type: ignore[union-attr]


def test_evaluation_asks_the_same_share_of_sites_every_round(tmp_path: Path) -> None:
    run = federate(tmp_path, sites=6, rounds=3, evaluate_fraction=0.34)
    panels = [
        {s for s, v in r.sites.items() if "validation" in v} for r in run.history.rounds()[1:]
    ]
    assert all(len(panel) == 2 and panel == panels[0] for panel in panels)


def test_bytes_are_those_of_the_serialised_messages(tmp_path: Path) -> None:
    run = federate(tmp_path, sites=2, rounds=1)
    record = run.history.rounds()[1]
    model = sum(a.nbytes for a in run.weights().values())
    # Down: the model to train and to evaluate, two sites each; up: two updates and metrics.
    assert 4 * model < record.bytes_down < 4 * (model + 2_000)
    assert 2 * model < record.bytes_up < 2 * (model + 2_000)


def test_weighted_mean_skips_the_unknown() -> None:
    assert weighted([(1.0, 1), (4.0, 2), (None, 5), (float("nan"), 5)]) == pytest.approx(3.0)
    assert weighted([(None, 1)]) is None
    assert weighted([]) is None


@pytest.mark.parametrize("strategy", ["fedavg", "fedmedian", "fedtrimmedavg", "qfedavg", "krum"])
def test_bytes_up_do_not_depend_on_what_the_strategy_does_to_messages(
    strategy: str, tmp_path: Path
) -> None:
    run = federate(tmp_path, strategy, rounds=1, model="cnn")
    model = sum(array.nbytes for array in run.weights().values())
    assert run.history.rounds()[1].bytes_up > 3 * model


def test_poison_in_the_first_round_is_noticed(tmp_path: Path) -> None:
    run = federate(
        tmp_path, rounds=2, faults={"poison": "p1@1"}, monitor=MonitorSettings(rollback=True)
    )
    assert [e["kind"] for e in run.history.events()].count("rollback") == 1
    assert run.history.rounds()[-1].metrics["parameter_norm"] < 30


def test_a_run_without_any_usable_update_stops(tmp_path: Path) -> None:
    def broken(message: Message, context: Context, call: ClientAppCallable) -> Message:
        reply = call(message, context)
        arrays = arrays_in(reply.content, ARRAYS)
        reply.content[ARRAYS] = to_record({n: a * np.nan for n, a in arrays.items()})
        return reply

    with pytest.raises(TrainingStopped, match="no usable update in 3 rounds in a row"):
        federate(tmp_path, rounds=9, mods=[broken])


@pytest.mark.parametrize(
    ("strategy", "option"),
    [
        ("fedadam", "beta_1=1.0"),  # it divides by 1 - beta_1 in the first round
        ("fedadam", "eta=.nan"),
        ("fedadam", "tau=.nan"),
        ("fedyogi", "beta_2=.nan"),
        ("fedavgm", "server_learning_rate=.nan"),
        ("qfedavg", "q=.nan"),
        ("fedavgm", "server_learning_rate=1.0e+300"),  # finite, but not in the model's own type
    ],
)
def test_no_option_of_a_strategy_makes_a_round_that_is_not_finite(
    strategy: str, option: str, tmp_path: Path
) -> None:
    name, _, value = option.partition("=")
    made = make(compose([f"strategy={strategy}"]).strategy, "strategy")
    setattr(made, name, float(value.replace(".nan", "nan")))
    with pytest.raises(ConfigError, match=f"{name}=") as error:
        federate(tmp_path, made, rounds=2)
    assert type(made).__name__ in str(error.value)
    with History.open(tmp_path) as history:
        assert [record.round for record in history.rounds()] == [0]
        assert all(np.isfinite(array).all() for array in history.weights().values())


def test_a_site_that_is_too_slow_is_left_out_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]  # a clock of our own: a busy machine must not decide
    monkeypatch.setattr(serial, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def slow(message: Message, context: Context, call: ClientAppCallable) -> Message:
        if context.node_config["site"] == "p2" and message.content["config"]["server-round"] == 2:  # type: ignore[index]
            clock[0] += 61.0
        return call(message, context)

    run = federate(tmp_path, rounds=3, mods=[slow], round_timeout=60.0)
    (event,) = run.screen.events
    assert event["kind"] == "timeout" and event["site"] == "p2" and event["round"] == 2
    assert run.history.head().round == 3  # type: ignore[union-attr]


def test_sites_without_validation_windows_are_no_crash(tmp_path: Path) -> None:
    from dataclasses import replace

    from fedpdm.data.rows import Rows, Split
    from fedpdm.testing.tiny import TinySource

    class Unvalidated(TinySource):
        def rows(self, site: str) -> Rows:
            rows = super().rows(site)
            split = rows.split.copy()
            split[split == Split.VALIDATION] = Split.UNUSED
            return replace(rows, split=split)

    run = federate(tmp_path, rounds=2, source=Unvalidated)
    assert run.history.rounds()[-1].metrics["average_precision"] is None


def test_counts_add_up_and_rmse_averages_as_squares() -> None:
    assert over_sites("positives", [(3, 10), (4, 30)]) == 7
    assert over_sites("rmse", [(3.0, 1), (4.0, 1)]) == pytest.approx(12.5**0.5)
    assert over_sites("brier", [(0.2, 1), (0.4, 3)]) == pytest.approx(0.35)
