"""The ray engine: the same bits as serial, whatever happens to its processes."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAdam
from ray import cloudpickle

from fedpdm.client.app import SiteApp
from fedpdm.client.mods import AdaptedMod
from fedpdm.config import imports
from fedpdm.config.compose import compose
from fedpdm.engines.local_grid import LocalGrid
from fedpdm.engines.ray import workers as ray_crew
from fedpdm.engines.ray.grid import RayGrid
from fedpdm.engines.serial import SerialGrid
from fedpdm.engines.stacked.grid import BatchedGrid
from fedpdm.errors import ConfigError
from fedpdm.models.policy import NoNorm
from fedpdm.server.boosting import Boosting
from fedpdm.server.secagg import SecAgg
from fedpdm.testing import check_engine
from fedpdm.testing.federated import Federated, federate
from fedpdm.wire.flower import pack_state
from fedpdm.wire.records import to_record
from tests.deployment.processes import until
from tests.strategies.both import SGD

# Ray drops the handles of its processes without waiting for them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROOT = Path(__file__).parents[3]
MODELS = ["cnn", "lstm", "hybrid"]
RAGGED = {f"p{n}": {"machines": 2 + n % 4, "rows": 60 + 10 * n} for n in range(8)}


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[Any]:
    """One Ray for all tests here; grids join it. Those of its own kind run as programs below."""
    os.environ.update(ray_crew.QUIET)
    import ray

    path = ray.job_config.JobConfig(_py_driver_sys_path=[str(ROOT)])
    ray.init(
        "local", num_cpus=16, include_dashboard=False, log_to_driver=False,
        configure_logging=False, job_config=path, object_store_memory=200_000_000,
    )  # fmt: skip
    yield ray
    ray.shutdown()


def errand_app() -> ClientApp:
    """Sites do what the config of a message says; ``log`` is a file they write their name to."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        site, config = str(context.node_config["site"]), message.content.config_records["config"]
        with open(str(config["log"]), "a") as log:
            log.write(site + "\n")
        if site == config.get("sleeps"):
            time.sleep(600)
        if site == config.get("dies"):
            os.kill(os.getpid(), signal.SIGKILL)
        if site == config.get("fails"):
            raise ValueError("no data")
        seen = context.state.metric_records.get("memory", MetricRecord({"calls": 0}))
        calls = int(seen["calls"]) + 1  # type: ignore[arg-type]
        context.state["memory"] = MetricRecord({"calls": calls})
        numbers = message.content.array_records["arrays"]["w"].numpy()
        content = RecordDict({
            "metrics": MetricRecord({"node": context.node_id, "process": os.getpid()}),
            "arrays": to_record({"w": numbers * context.node_id}),
        })  # fmt: skip
        return Message(content, reply_to=message)

    return app


def latest_app(folder: Path) -> Callable[[Message, Context], Message]:
    """Return an app that answers as the one does that was last put into the folder."""
    loaded: dict[int, Any] = {}

    def app(message: Message, context: Context) -> Message:
        number = max(int(file.stem) for file in folder.glob("*.pkl"))
        if number not in loaded:
            loaded.clear()
            loaded[number] = cloudpickle.loads((folder / f"{number}.pkl").read_bytes())
        return loaded[number](message, context)  # type: ignore[no-any-return]

    return app


class Crew:
    """A grid for many tests: its workers take longer to start than any test to run."""

    def __init__(self, folder: Path, workers: int) -> None:
        folder.mkdir()
        self.folder, self.apps = folder, 0
        self.grid = RayGrid(latest_app(folder), ["p0"], workers=workers)  # type: ignore[arg-type]

    def __call__(self, app: ClientApp, sites: Sequence[str]) -> RayGrid:
        """Return the grid with this app and these sites, without memory of earlier tests."""
        self.apps += 1
        (self.folder / "next").write_bytes(cloudpickle.dumps(app))
        (self.folder / "next").rename(self.folder / f"{self.apps}.pkl")
        self.grid.sites = dict(enumerate(sites, start=1))
        self.grid._known.clear()
        self.grid.load_states({})
        for seat in self.grid.processes.seats:
            if seat.lost:
                seat.lost = False
                self.grid.processes.refill(seat)
        return self.grid

    @property
    def generations(self) -> int:
        """How many workers there have been, with those that took a dead one's place."""
        return sum(seat.generation for seat in self.grid.processes.seats)


@pytest.fixture(scope="module")
def crews(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Crew]]:
    """One worker, and three."""
    folder = tmp_path_factory.mktemp("crews")
    crews = {n: Crew(folder / str(n), n) for n in (1, 3)}
    yield crews
    for crew in crews.values():
        crew.grid.close()


@pytest.fixture
def crew(crews: dict[int, Crew], monkeypatch: pytest.MonkeyPatch) -> Crew:
    """Three workers, which outlive the test."""
    monkeypatch.setattr(crews[3].grid, "close", lambda: None)
    return crews[3]


@pytest.fixture
def grid(crew: Crew) -> RayGrid:
    """Twelve sites on three workers."""
    return crew(errand_app(), [f"p{n}" for n in range(12)])


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Iterator[Message]]:
    import numpy as np

    def messages(
        grid: LocalGrid, nodes: list[int], timeout: float | None = None, **what: str
    ) -> Any:
        config = ConfigRecord({"log": str(tmp_path / "log"), **what})
        content = RecordDict({"config": config, "arrays": to_record({"w": np.arange(3.0)})})
        sent = [Message(content, node, "train", group_id="7") for node in nodes]
        return grid.stream(sent, timeout)

    return messages


def nodes(replies: list[Message]) -> list[int]:
    return [reply.metadata.src_node_id for reply in replies]


# The same result as serial ------------------------------------------------------------------


def outcome(run: Federated) -> list[Any]:
    """Return everything a run has learned and remembers, but for times."""
    rounds = []
    for record in run.history.rounds():
        facts = {k: v for k, v in record.to_dict().items() if k not in ("seconds", "started")}
        weights = {n: (a.dtype, a.tobytes()) for n, a in run.weights(record.round).items()}
        rounds.append((repr(facts), weights))
    return rounds


@pytest.mark.parametrize(
    ("strategy", "model"), [("fedprox", "cnn"), ("fedadam", "lstm"), ("fedavg", "hybrid")]
)
def test_any_number_of_workers_gives_the_bits_of_serial(
    tmp_path: Path, strategy: str, model: str, crews: dict[int, Crew]
) -> None:
    def run(folder: str, **engine: Any) -> list[Any]:
        options = {"sites": RAGGED, "rounds": 3, "model": model, **engine}
        options["overrides"] = ["strategy.fraction_train=0.75"] if strategy == "fedprox" else []
        return outcome(federate(tmp_path / folder, strategy, **options))

    expected = run("serial")
    assert len(expected) == 4
    for workers, crew in crews.items():
        assert run(f"ray{workers}", engine=crew) == expected
        assert len({seat.pid for seat in crew.grid.processes.seats}) == workers


def test_noise_of_mods_and_wrappers_has_the_bits_of_serial(tmp_path: Path, crew: Crew) -> None:
    noise = LocalDpMod(clipping_norm=0.5, sensitivity=0.01, epsilon=1.0, delta=0.1)

    def run(folder: str, **engine: Any) -> list[Any]:
        strategy = DifferentialPrivacyServerSideFixedClipping(FedAdam(), 0.1, 0.5, 3)
        found = federate(
            tmp_path / folder, strategy, rounds=2, mods=[AdaptedMod(noise, 0)], **engine
        )
        assert not found.screen.events
        return outcome(found)

    assert run("ray", engine=crew) == run("serial")


@pytest.mark.parametrize("strategy", ["scaffold", "feddyn"])
def test_what_sites_remember_has_the_bits_of_serial(
    tmp_path: Path, strategy: str, crews: dict[int, Crew]
) -> None:
    def run(folder: str, **engine: Any) -> list[Any]:
        found = federate(
            tmp_path / folder, strategy, sites=RAGGED, rounds=3, model="mlp", settings=SGD,
            overrides=["strategy.fraction_train=0.75"], **engine,
        )  # fmt: skip
        states = {site: pack_state(state) for site, state in found.grid.states.items()}
        assert len(states) > 5
        return [outcome(found), states, repr(found.history.strategy_state())]

    expected = run("serial")
    for workers, crew in crews.items():
        assert run(f"ray{workers}", engine=crew) == expected


def test_it_keeps_the_contract_of_engines(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    # The workers here stay for the next test; the programs below look at what ``close`` leaves.
    monkeypatch.setattr("fedpdm.testing.engine.still_there", lambda before: set())
    check_engine(crew)


def test_tensors_that_stay_at_a_site_have_the_bits_of_serial(tmp_path: Path, crew: Crew) -> None:
    def run(name: str, engine: Callable[[SiteApp, Any], LocalGrid]) -> Federated:
        return federate(
            tmp_path / name, sites=RAGGED, rounds=3, model="cnn", policy=NoNorm(), engine=engine,
            overrides=["strategy.fraction_train=0.5"],
        )  # fmt: skip

    serial = run("serial", SerialGrid)
    found = run("ray", crew)
    assert outcome(found) == outcome(serial)
    states = [{s: pack_state(state) for s, state in r.grid.states.items()} for r in (found, serial)]
    assert states[0] == states[1] and len(states[0]) > 3


def test_stacks_of_several_workers_have_the_bits_of_one_process(tmp_path: Path) -> None:
    """Also with a worker that dies, so that its sites come together in other stacks."""
    flag = tmp_path / "kill"

    def run(name: str, engine: Callable[[SiteApp, Any], LocalGrid]) -> Federated:
        return federate(
            tmp_path / name, "fedprox", sites=RAGGED, rounds=3, model="cnn", engine=engine,
            mods=[killer_of(flag)],
        )  # fmt: skip

    expected = outcome(run("batched", BatchedGrid))
    flag.touch()
    found = run("ray", lambda app, sites: RayGrid(app, sites, workers=2, stacked=True, chunk=3))
    found.grid.close()
    assert not flag.exists()
    assert outcome(found) == expected
    assert outcome(run("serial", SerialGrid)) != expected


def test_trees_have_the_bits_of_serial(tmp_path: Path, crew: Crew) -> None:
    settings = {"trees_per_round": 1, "leaves": 4, "bins": 8, "least_rows": 3}
    config = {"depth": 3, "learning_rate": 0.2, "l2": 0.0, **settings}

    def run(name: str, engine: Callable[[SiteApp, Any], LocalGrid]) -> Federated:
        return federate(
            tmp_path / name, sites=RAGGED, rounds=2, model="gbdt", model_config=config,
            server=lambda: Boosting(config), engine=engine,
        )  # fmt: skip

    serial = run("serial", SerialGrid)
    found = run("ray", crew)
    assert outcome(found) == outcome(serial)


def test_secure_aggregation_has_the_bits_of_serial(tmp_path: Path, crew: Crew) -> None:
    def run(name: str, engine: Callable[[SiteApp, Any], LocalGrid]) -> Federated:
        return federate(
            tmp_path / name, "scaffold", sites=RAGGED, rounds=2, server=SecAgg, engine=engine
        )

    serial = run("serial", SerialGrid)
    found = run("ray", crew)
    assert outcome(found) == outcome(serial) and not serial.screen.events


def test_replies_are_those_of_serial_in_site_order(grid: RayGrid, ask: Any) -> None:
    order = [3, 1, 12, 2, 7]
    mine, theirs = (
        list(ask(grid, order)),
        list(ask(SerialGrid(errand_app(), list(grid.sites.values())), order)),
    )
    assert nodes(mine) == [1, 2, 3, 7, 12]
    for reply, other in zip(mine, theirs, strict=True):
        assert reply.content["arrays"] == other.content["arrays"]
        for field in ("src_node_id", "dst_node_id", "group_id", "message_type", "run_id"):
            assert getattr(reply.metadata, field) == getattr(other.metadata, field)
        assert reply.metadata.message_id == f"reply-to-{reply.metadata.reply_to_message_id}"
    assert len({reply.metadata.reply_to_message_id for reply in mine}) == 5


def test_a_site_stays_with_its_worker(grid: RayGrid, ask: Any) -> None:
    def processes(replies: Any) -> dict[int, Any]:
        return {r.metadata.src_node_id: r.content["metrics"]["process"] for r in replies}

    first = processes(ask(grid, list(range(1, 13))))
    assert len(set(first.values())) == 3
    assert processes(ask(grid, list(range(1, 13)))) == first
    some = processes(ask(grid, [1, 4, 7, 10]))  # all of one worker: the others must help
    assert sorted(list(some.values()).count(p) for p in set(some.values())) == [1, 1, 2]


def test_a_crash_is_the_same_error_reply_as_in_serial(grid: RayGrid, ask: Any) -> None:
    mine = list(ask(grid, [1, 2, 3], fails="p1"))
    theirs = list(ask(SerialGrid(errand_app(), ["p0", "p1", "p2"]), [1, 2, 3], fails="p1"))
    assert [reply.has_error() for reply in mine] == [False, True, False]
    assert mine[1].error == theirs[1].error
    assert mine[1].metadata.reply_to_message_id


def test_states_stay_with_their_sites_and_can_be_put_back(grid: RayGrid, ask: Any) -> None:
    list(ask(grid, [1, 2]))
    list(ask(grid, [1]))
    kept = {site: pack_state(state) for site, state in grid.states.items()}
    list(ask(grid, [1, 2]))
    serial = SerialGrid(errand_app(), list(grid.sites.values()))
    list(ask(serial, [1, 2]))
    list(ask(serial, [1]))
    assert kept == {site: pack_state(state) for site, state in serial.states.items()}
    list(ask(grid, [1], fails="p0"))  # a failure changes no state
    assert {s: int(r.metric_records["memory"]["calls"]) for s, r in grid.states.items()} == {  # type: ignore[arg-type]
        "p0": 3, "p1": 2,
    }  # fmt: skip


# Costs ---------------------------------------------------------------------------------------


def test_a_round_is_put_into_the_store_once(
    grid: RayGrid, ask: Any, ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid.processes.ready()
    put, calls = ray.put, []
    monkeypatch.setattr(ray, "put", lambda value: calls.append(value) or put(value))
    assert len(list(ask(grid, list(range(1, 13))))) == 12
    assert len(calls) == 1


def test_workers_are_only_so_far_ahead_of_the_reader(
    ask: Any, tmp_path: Path, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worked() -> int:
        return len((tmp_path / "log").read_text().splitlines())

    grid = crew(errand_app(), [f"p{n}" for n in range(60)])
    monkeypatch.setattr(grid, "_ahead", 6)
    replies = ask(grid, list(range(1, 61)))
    for read in (1, 2, 3):
        next(replies)
        until("workers are ahead", lambda: worked() > read, 60)  # noqa: B023
        time.sleep(0.3)  # for who would go too far
        assert worked() <= read + 6
    assert len(list(replies)) == 57


# Accidents -----------------------------------------------------------------------------------


def killer_of(flag: Path) -> Callable[[Message, Context, Any], Message]:
    """Return a mod that kills the worker of p3 in round 2, once: while ``flag`` exists."""

    def killer(message: Message, context: Context, call: Any) -> Message:
        config = message.content.config_records["config"]
        if (context.node_config["site"], config["server-round"]) == ("p3", 2) and flag.exists():
            flag.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return call(message, context)  # type: ignore[no-any-return]

    return killer


def test_a_killed_worker_changes_no_bit(tmp_path: Path, crew: Crew) -> None:
    flag, before = tmp_path / "kill", crew.generations

    run = functools.partial(federate, sites=RAGGED, model="mlp", mods=[killer_of(flag)])
    expected = run(tmp_path / "serial")
    flag.touch()
    crashed = run(tmp_path / "ray", engine=crew)
    assert not flag.exists() and crew.generations == before + 1
    assert outcome(crashed) == outcome(expected)


def test_workers_without_room_for_another_take_over_its_sites(
    tmp_path: Path, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a machine has left the cluster."""
    flag, workers = tmp_path / "kill", crew.grid.processes

    run = functools.partial(federate, sites=RAGGED, model="mlp", mods=[killer_of(flag)], rounds=3)
    expected = run(tmp_path / "serial")
    flag.touch()
    workers.ready()
    monkeypatch.setattr(workers, "ray", SmallRay(workers.ray))
    shrunk = run(tmp_path / "ray", engine=crew)
    assert not flag.exists()
    assert sorted(seat.lost for seat in workers.seats) == [False, False, True]
    assert outcome(shrunk) == outcome(expected)
    assert not shrunk.screen.events


class SmallRay:
    """Ray on a cluster with two processors left."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ray, name)

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}


@pytest.mark.long
def test_a_machine_that_leaves_the_cluster_changes_no_bit(tmp_path: Path) -> None:
    """Two nodes on this machine, in a program of their own; one is killed in round 2."""
    program = Path(__file__).with_name("two_nodes.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
        timeout=400, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "same bits, 1 of 2 workers left" in done.stdout


def test_a_worker_that_dies_between_rounds_is_replaced(grid: RayGrid, ask: Any) -> None:
    list(ask(grid, [1, 2]))
    victim = grid.processes.seats[0].pid
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(victim)] if psutil.pid_exists(victim) else [], timeout=60)
    assert not any(reply.has_error() for reply in ask(grid, list(range(1, 13))))
    assert victim not in [seat.pid for seat in grid.processes.seats]


def test_a_site_that_kills_its_worker_is_given_up_and_named(
    grid: RayGrid, ask: Any, tmp_path: Path
) -> None:
    replies = list(ask(grid, list(range(1, 13)), dies="p4"))
    assert nodes(replies) == list(range(1, 13))
    failed = [reply for reply in replies if reply.has_error()]
    assert nodes(failed) == [5]
    assert "the worker of p4 died 3 times" in failed[0].error.reason
    # The first death may be put down to the sites before it, whose replies died on their way.
    assert (tmp_path / "log").read_text().splitlines().count("p4") in (3, 4)


def test_who_is_not_done_in_time_is_left_out_and_the_next_round_works(
    grid: RayGrid, ask: Any
) -> None:
    everybody = list(range(1, 13))
    grid.processes.ready()
    replies = list(ask(grid, everybody, timeout=4.0, sleeps="p0"))
    # p0's worker had nobody else's time; the other two had time for all of their sites.
    assert nodes(replies) == [node for node in everybody if node % 3 != 1]
    assert nodes(list(ask(grid, everybody))) == everybody


def test_a_reader_who_goes_away_disturbs_nobody(grid: RayGrid, ask: Any) -> None:
    replies = ask(grid, list(range(1, 13)))
    next(replies)
    replies.close()
    assert nodes(list(ask(grid, [2, 1]))) == [1, 2]


# The end -------------------------------------------------------------------------------------

PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from tests.engines.ray.test_ray_grid import errand_app, RayGrid
from flwr.app import ConfigRecord, Message, RecordDict
from fedpdm.wire.records import to_record
import numpy, psutil

grid = RayGrid(errand_app(), ["a", "b"], workers=2)
config = ConfigRecord({"log": sys.argv[2], "sleeps": "b"})
content = RecordDict({"config": config, "arrays": to_record({"w": numpy.ones(3)})})
replies = grid.stream([Message(content, node, "train") for node in (1, 2)])
next(replies)
children = psutil.Process().children(recursive=True)
print(grid.processes._folder, *[p.pid for p in children], flush=True)
if sys.argv[1] == "close":
    grid.close()
    grid.close()
    sys.exit(5)
next(replies)
"""


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("end", [
    pytest.param("close", marks=pytest.mark.long), pytest.param("SIGTERM", marks=pytest.mark.long),
    "SIGINT", "SIGKILL",
])  # fmt: skip
def test_nothing_is_left_running(end: str, tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, end, str(tmp_path / "log")],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout is not None and program.stderr is not None
    folder, *pids = program.stdout.readline().split()
    assert len(pids) >= 4  # Ray's own processes and the workers
    started = [psutil.Process(int(p)) for p in pids if psutil.pid_exists(int(p))]
    if end != "close":
        program.send_signal(getattr(signal, end))
    try:
        said = program.communicate(timeout=180)
    finally:
        program.kill()
    assert program.returncode == {"close": 5, "SIGKILL": -9}.get(end, program.returncode) != 0
    deadline = time.monotonic() + 120
    while (alive := [p for p in started if lives(p)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive == []
    if end != "SIGKILL":
        assert not Path(folder).exists()
    assert said[0] == ""
    assert said[1] == "" or (end == "SIGINT" and said[1].rstrip().endswith("KeyboardInterrupt"))


# Mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"workers": 0}, "engine.workers=0 must be a whole number"),
        ({"workers": 1.5}, "engine.workers=1.5 must be a whole number"),
        ({"ahead": 0}, "engine.ahead=0 must be a whole number"),
        ({"num_gpus_per_worker": -1}, "engine.num_gpus_per_worker=-1 must be a number from 0 to 1"),
        ({"num_gpus_per_worker": 0.5}, "has no use with device=cpu"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        RayGrid(errand_app(), ["a"], **settings)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere", "ray://127.0.0.1:10001"])
def test_an_address_where_no_cluster_is_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=f"engine.address={address}"):
        ray_crew.reachable(address)


def test_ray_that_is_not_installed_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_crew.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs Ray, which is not installed"):
        RayGrid(errand_app(), ["a"])


def test_workers_that_cannot_import_the_app_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Any
) -> None:
    monkeypatch.setattr(imports, "_imported", {})
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "only_here.py").write_text("")
    imports.import_all(["only_here"])
    (tmp_path / "only_here.py").unlink()
    grid = RayGrid(errand_app(), ["a"], workers=1)
    with pytest.raises(ConfigError, match="a worker could not start: .*no module 'only_here'"):
        next(ask(grid, [1]))
    grid.close()
    grid.close()
    with pytest.raises(ConfigError, match="closed"):
        next(ask(grid, [1]))


def test_the_yaml_names_every_setting() -> None:
    import inspect

    settings = dict(compose(["engine=ray"]).engine)
    assert settings.pop("_target_") == "fedpdm.engines.ray.grid.RayGrid"
    parameters = inspect.signature(RayGrid).parameters
    assert {n: parameters[n].default for n in settings} == settings
    assert set(parameters) - set(settings) == {"client_app", "sites"}


def test_cores_are_those_this_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert ray_crew.cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
