"""``flwr run`` under Flower's own simulation runtime: the same bits as engine=serial.

With a strategy from outside, whose second round depends on what sites remember of the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedpdm.config.compose import compose
from fedpdm.history import History
from fedpdm.simulate import simulate
from fedpdm.storage import read_json
from fedpdm.testing.federated import same
from tests.deployment.processes import ServerProcess
from tests.mylab import write

SITES = "detroit,houston,pune"
TINY = (f"site=[{SITES}] data.days=150 data.step_hours=24 data.window=8 model=mlp rounds=2 "
        "strategy=pulled imports=[mylab.strategies] training.local_epochs=1 "
        "sites.detroit.machines=4 sites.houston.machines=4 sites.pune.machines=4")  # fmt: skip


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    box = ServerProcess(write(tmp_path_factory.mktemp("box")), tls=False)
    box.path.append(box.folder)
    try:
        box.open("--simulation")
        yield box
    finally:
        box.stop()


def test_the_simulation_runtime_gives_the_bits_of_one_process(
    runtime: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(runtime.folder)
    words = f"--config-dir={runtime.folder}/conf {TINY}"
    told = f'overrides="{words}" run-folder="{tmp_path}/run"'
    run = runtime.flwr(
        "run", ".", "here", "--run-config", told, "--federation-config",
        "num-supernodes=3 client-resources-num-cpus=1 init-args-num-cpus=2",
    )["run-id"]  # fmt: skip
    simulate(compose([*words.split(), "engine=serial", "baselines.max_plants=0"]), tmp_path / "one")

    assert runtime.finished(run, 300) == "finished:completed", runtime.shown(run)

    with History.open(tmp_path / "run") as ours, History.open(tmp_path / "one") as theirs:
        for number in range(3):
            assert same(ours.weights(number), theirs.weights(number))
    summary = read_json(tmp_path / "run" / "summary.json")
    assert list(summary["test"]["per_site"]) == SITES.split(",")
