"""A run folder may come from anybody: it is data, or it is refused in one sentence."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sqlite3
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from fedpdm import compare, predict, simulate
from fedpdm.comparison.runs import find_runs
from fedpdm.history import History
from fedpdm.history.__main__ import main as history_command
from fedpdm.history.index import digest
from fedpdm.history.record import Row
from fedpdm.storage import read_tensors, write_tensors

CANARY = "canary"
"""A hostile folder tries to make, or to delete, a file of this name beside the run folder."""
TOUCH = {"_target_": "torch.utils.collect_env.run", "command": f"touch {CANARY}"}
SYSTEM = {"_target_": "os.system", "command": f"touch {CANARY}"}
WALK = {"_target_": "torch.nn.modules.module.torch.utils.collect_env.run", "command": "touch x"}
OURS = {"_target_": "fedpdm.storage.os.mkdir", "path": CANARY}
MLFLOW = {"_target_": "fedpdm.trackers.mlflow.MLflow", "uri": "http://127.0.0.1:9/$(touch x)"}
TENSORBOARD = {"_target_": "fedpdm.trackers.tensorboard.TensorBoard"}
RAY = {"_target_": "fedpdm.engines.ray.grid.RayGrid", "workers": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two sites and two rounds, and rows to score: ``run`` and ``rows.csv``."""
    place = tmp_path_factory.mktemp("stranger")
    words = [
        "site=[detroit,houston]", "sites.detroit.machines=4", "sites.houston.machines=4",
        "data.days=120", "model=mlp", "rounds=2", "strategy=fedadam", "baselines.max_plants=0",
        "evaluate.bootstrap=0", "history.keep=1", f"hydra.run.dir={place / 'run'}",
    ]  # fmt: skip
    assert simulate.main(words) == 0
    card = json.loads((place / "run" / "model.json").read_text())
    generator = np.random.default_rng(3)
    rows = pd.DataFrame({"machine": "a", "time": np.arange(60.0)} | {
        name: generator.normal(50, 10, 60) for name in card["features"]
    })  # fmt: skip
    rows.to_csv(place / "rows.csv", index=False)
    return place


@pytest.fixture
def place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to spoil, in a folder of its own, which is the working folder, too."""
    shutil.copytree(finished, tmp_path / "there", symlinks=True)
    monkeypatch.chdir(tmp_path / "there")
    return tmp_path / "there"


# How folders are spoiled -------------------------------------------------------------------


def in_json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        content = json.loads((run / name).read_text())
        change(content)
        (run / name).write_text(json.dumps(content))
        reseal(run)

    return spoil


def in_config(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change config.yaml and the manifest's copy alike: only the trust boundary is left."""

    def spoil(run: Path) -> None:
        content = yaml.safe_load((run / "config.yaml").read_text())
        change(content)
        (run / "config.yaml").write_text(yaml.safe_dump(content))
        in_json("manifest.json", lambda manifest: change(manifest["config"]))(run)

    return spoil


def as_text(name: str, text: str | bytes) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        (run / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        reseal(run)

    return spoil


def in_history(statement: str, *values: object) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        with sqlite3.connect(run / "history.sqlite") as connection:
            connection.execute(statement, [str(v).format(run=run) for v in values])
        reseal(run)

    return spoil


def scaler(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        arrays = read_tensors(run / "scaler.safetensors")
        change(arrays)
        write_tensors(run / "scaler.safetensors", arrays)
        reseal(run)

    return spoil


def link(name: str, to: str) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        target = run / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        target.symlink_to(to)

    return spoil


def reseal(run: Path) -> None:
    """Make every checksum fit again: whoever makes a folder can do that."""
    with sqlite3.connect(run / "history.sqlite") as connection:
        names = list(Row.__dataclass_fields__)
        for values in connection.execute(f"SELECT {', '.join(names)}, record FROM round"):
            sealed = digest(*values[1:])
            connection.execute("UPDATE round SET digest = ? WHERE id = ?", (sealed, values[0]))
        for (name,) in connection.execute("SELECT name FROM setting WHERE name LIKE 'file:%'"):
            if (path := run / name[5:]).is_file():
                sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                connection.execute("UPDATE setting SET value = ? WHERE name = ?", (sha256, name))
        connection.execute("UPDATE setting SET value = NULL WHERE name = 'seal'")
    connection.close()


def in_records(change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Change what is remembered of each round: its record, or the text that ``change`` returns."""

    def spoil(run: Path) -> None:
        with sqlite3.connect(run / "history.sqlite") as connection:
            for number, text in list(connection.execute("SELECT id, record FROM round")):
                record = json.loads(text)
                new = change(record)
                new = new if isinstance(new, str | bytes) else json.dumps(record)
                connection.execute("UPDATE round SET record = ? WHERE id = ?", (new, number))
        reseal(run)

    return spoil


def event(content: str) -> Callable[[Path], None]:
    return in_history(
        "INSERT INTO event (content, digest) VALUES (?, ?)",
        *map(brace_free, (content, digest(content))),
    )


def brace_free(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def journal(run: Path) -> None:
    """Leave a journal that belongs to several databases: SQLite would delete what it names."""
    sector = bytes.fromhex("d9d505f920a163d7") + struct.pack(">IIIII", 0, 7, 1, 512, 4096)
    name = str(run.parent / CANARY).encode()
    end = struct.pack(">I", 1) + name + struct.pack(">II", len(name), sum(name))
    (run / "history.sqlite-journal").write_bytes(
        sector.ljust(512, b"\0") + end + bytes.fromhex("d9d505f920a163d7")
    )


def forged_weights(run: Path) -> None:
    with sqlite3.connect(run / "history.sqlite") as connection:
        for number, name in list(connection.execute("SELECT id, weights FROM round WHERE stored")):
            arrays = read_tensors(run / name)
            next(iter(arrays.values())).fill(np.nan)
            sha256 = write_tensors(run / name, arrays)
            connection.execute("UPDATE round SET weights_sha256 = ? WHERE id = ?", (sha256, number))
    reseal(run)


def write_ahead(run: Path) -> None:
    with sqlite3.connect(run / "history.sqlite") as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


PERSONAL = {"tensors": ["fc1.weight", "fc2.weight"], "seed": 1, "sites": ["detroit"],
            "objective": None}  # fmt: skip
LINES = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 0}]" for i in range(30))
DEEP = "[" * 100_000 + "]" * 100_000

HOSTILE: dict[str, Callable[[Path], None]] = {
    "task runs a command": in_config(lambda c: c.update(task=TOUCH)),
    "strategy runs a command": in_config(lambda c: c.update(strategy=SYSTEM)),
    "a walk through torch": in_config(lambda c: c.update(task=WALK)),
    "a walk through ours": in_config(lambda c: c.update(task=OURS)),
    "nested in a strategy": in_config(lambda c: c["strategy"].update(strategy=TOUCH)),
    "in a list": in_config(lambda c: c["strategy"].update(more=[[TOUCH]])),
    "a data set": in_config(lambda c: c.update(data=TOUCH)),
    "a partition": in_config(lambda c: c.update(partition=TOUCH)),
    "a tracker": in_config(lambda c: c.update(tracker=TOUCH)),
    "an objective": in_config(lambda c: c.update(objective=TOUCH)),
    "a server": in_config(lambda c: c.update(server=TOUCH)),
    "a transform": in_config(lambda c: c.update(transforms={"x": TOUCH})),
    "a client mod": in_config(lambda c: c.update(client_mods=[{**SYSTEM, "_partial_": True}])),
    "a client mod by name": in_config(lambda c: c.update(client_mods=["os.system"])),
    "a class of another kind": in_config(
        lambda c: c.update(task={"_target_": "fedpdm.data.sources.files.FilesSource"})
    ),
    "the engine of the manifest": in_json(
        "manifest.json", lambda m: m["engine"].update(settings=TOUCH)
    ),
    "imports": in_config(lambda c: c.update(imports=["sent"])),
    "imports of a model": in_json("model.json", lambda c: c.update(imports=["sent"])),
    "a model's task": in_json("model.json", lambda c: c.update(task={"name": "x", **TOUCH})),
    "a reference to the environment": as_text("config.yaml", "rounds: ${oc.env:HOME}\n"),
    "a yaml bomb": as_text("config.yaml", LINES),
    "a yaml tag": as_text("config.yaml", "rounds: !!python/object/apply:os.mkdir [canary]\n"),
    "yaml that is deep": as_text("config.yaml", f"rounds: {DEEP}"),
    "yaml that is no text": as_text("config.yaml", b"\xff\xfe\x00"),
    "a manifest that is a list": as_text("manifest.json", "[]"),
    "a deep manifest": as_text("manifest.json", DEEP),
    "a card that is deep": as_text("model.json", DEEP),
    "a card that is a number": as_text("model.json", "7"),
    "a schema of the future": in_json("model.json", lambda c: c.update(schema=99)),
    "a threshold of 7": in_json("model.json", lambda c: c.update(threshold=7)),
    "a threshold that is no number": in_json(
        "model.json", lambda c: c.update(threshold=float("nan"))
    ),
    "a window that has no end": in_json("model.json", lambda c: c.update(window=10**9)),
    "data with an endless window": in_config(lambda c: c["data"].update(window=10**9)),
    "a huge input": in_json("model.json", lambda c: c.update(input_dim=10**12)),
    "a huge layer": in_json("model.json", lambda c: c["config"].update(hidden=[900_000] * 9)),
    "a scaler of NaN": scaler(lambda a: a["federated/mean"].fill(np.nan)),
    "a negative scale": scaler(lambda a: a["federated/scale"].fill(-1.0)),
    "a scaler of another shape": scaler(lambda a: a.update({"federated/mean": np.zeros((9, 1))})),
    "weights outside": in_history("UPDATE round SET weights = ?", "{run}/../canary"),
    "weights above": in_history("UPDATE round SET weights = ?", "../canary"),
    "state outside": in_history("UPDATE round SET state = ?, state_sha256 = 'x'", "../canary"),
    "a number that is text": in_history("UPDATE round SET attempt = ?", "../canary"),
    "a client outside": in_history(
        "INSERT INTO client_state VALUES (?, ?, 0, NULL, NULL)", "detroit", "../../canary"
    ),
    "a trigger": in_history("CREATE TRIGGER t AFTER INSERT ON event BEGIN SELECT 1; END"),
    "a view": in_history("CREATE VIEW v AS SELECT 1"),
    "a link for the rounds": link("rounds", "/tmp"),
    "a link for the card": link("model.json", "/dev/zero"),
    "a link for the config": link("config.yaml", "/dev/zero"),
    "a link for the history": link("history.sqlite", "/dev/zero"),
    "a link for the split": link("split.csv.gz", "/dev/zero"),
    "a link for the lock": link("lock", f"../{CANARY}"),
    "a link for a journal": link("history.sqlite-journal", f"../{CANARY}"),
    "a link for what is being written": link("config.yaml.tmp", f"../{CANARY}"),
    "a link deep inside": link("rounds/undone", ".."),
    "a tracker elsewhere": in_config(lambda c: c.update(tracker=MLFLOW)),
    "a tracker's files elsewhere": in_config(
        lambda c: c.update(tracker={**TENSORBOARD, "folder": f"{CANARY}s"})
    ),
    "a cluster elsewhere": in_config(lambda c: c.update(engine={**RAY, "address": "10.0.0.1:9"})),
    "a cluster in the manifest": in_json(
        "manifest.json", lambda m: m["engine"].update(settings={**RAY, "address": "10.0.0.1:9"})
    ),
    "a journal that deletes": journal,
    "a log written ahead": write_ahead,
    "a sealed file outside": in_history(
        "INSERT INTO setting VALUES (?, 'x')", "file:../canary"
    ),
    "an attempt that is text": in_history(
        "UPDATE setting SET value = ? WHERE name = 'attempt'", "x"
    ),
    "a retry that is text": in_history("UPDATE setting SET value = ? WHERE name = 'retry'", "x"),
    "a deep record": in_records(lambda record: DEEP),
    "an empty record": in_records(lambda record: "{}"),
    "a record that is a list": in_records(lambda record: "[1]"),
    "a record of bytes": in_records(lambda record: b"\xff"),
    "a record of a long number": in_records(lambda record: "9" * 5000),
    "a record of text": in_records(lambda record: record.update(bytes_up="x")),
    "a deep event": event(DEEP),
    "an event that is a list": event("[1,2]"),
    "a deep state": in_history("UPDATE round SET skeleton = ?", DEEP),
    "weights of NaN": forged_weights,
    "a bootstrap without an end": in_config(lambda c: c["evaluate"].update(bootstrap=10**9)),
    "a rocket without an end": in_config(
        lambda c: c["baselines"]["minirocket"].update(features=10**9)
    ),
    "a model of its site's own": in_json(
        "model.json",
        lambda c: (c["config"].update(hidden=[60_000, 60_000]), c.update(personal=PERSONAL)),
    ),
    "a gap of text": in_json("model.json", lambda c: c["data"].update(max_gap="<script>")),
    "metrics of bytes": as_text("metrics.csv", b"round,site\n\xff\xfe,1\n"),
    "metrics of one cell": as_text("metrics.csv", "round,site\n" + "x" * 200_000),
    "a time without an end": as_text(
        "summary.json", '{"seed": 1, "rounds": 2, "test": {}, "processor_seconds": {"x": 1e999}}'
    ),
    "a split of lists": in_json(
        "manifest.json", lambda m: m["data"].update(split={"content_sha256": ["x"]})
    ),
    "a summary of nothing": as_text("summary.json", '{"test": 5}'),
    "a score of 7": in_json(
        "summary.json", lambda s: s["test"]["global"].update(average_precision=7)
    ),
}  # fmt: skip
REWRITTEN = ("a card", "a link for the card", "a schema", "a threshold", "a window", "a huge",
             "a scaler", "a negative", "a model", "imports of", "a summary", "a score", "a gap",
             "metrics", "a time")  # fmt: skip
"""Files that a resume writes again, so it need not check them."""


def commands(place: Path) -> dict[str, Callable[[], int]]:
    run = str(place / "run")
    return {
        "predict": lambda: predict.main([run, str(place / "rows.csv"), "--out", "scores.csv"]),
        "compare": lambda: compare.main([run, "--out", "scores"]),
        "list": lambda: history_command(["list", run]),
        "show": lambda: history_command(["show", run, "2"]),
        "resume": lambda: simulate.main([f"resume={run}", "rounds=3"]),
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_refused_in_one_sentence(
    place: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (place / CANARY).write_text("alive")
    (place / "sent.py").write_text(f"open({CANARY!r}, 'w').write('ran')")
    HOSTILE[name](place / "run")
    outside = sorted(place.iterdir())
    refused, told_all = [], ""
    calls = commands(place)
    if name.startswith(REWRITTEN):
        del calls["resume"]
    for command, call in calls.items():
        capfd.readouterr()
        begun = time.monotonic()
        code = call()
        told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        assert time.monotonic() - begun < 10, command
        assert (place / CANARY).read_text() == "alive", command
        assert code == 0 or (code == 2 and len(told) == 1), (command, code, told)
        refused += [command] if code == 2 else []
        told_all += "".join(told)
        made = {path.name for path in place.iterdir()} - {path.name for path in outside}
        assert made <= {"scores.csv", "scores-machines.csv"}, made
    assert "compare" in refused  # one run has nothing to be compared with
    assert len(refused) > 1 or "summary.json" in told_all or "metrics.csv" in told_all


@pytest.mark.parametrize(
    ("key", "value", "spoil"),
    [
        ("tracker.uri", MLFLOW["uri"], in_config(lambda c: c.update(tracker=MLFLOW))),
        ("tracker.folder", "logs", in_config(
            lambda c: c.update(tracker={**TENSORBOARD, "folder": "logs"})
        )),
        ("engine.address", "nowhere", in_config(
            lambda c: c.update(engine={**RAY, "address": "nowhere"})
        )),
    ],
)  # fmt: skip
def test_what_reaches_outside_the_folder_is_said_again(
    place: Path, key: str, value: str, spoil: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, told = f"resume={place / 'run'}", f"{key}={value}"
    assert simulate.main([run, told]) == 2
    assert f"{told} cannot be changed" in capsys.readouterr().err
    spoil(place / "run")
    for words in ([], [f"{key}=another"]):
        assert simulate.main([run, *words]) == 2
        assert f"add {shlex.quote(told)}" in capsys.readouterr().err
    # What the sentence says to type is taken, as a shell would hand it over.
    simulate.main([run, *shlex.split(shlex.quote(told)), "rounds=3"])
    assert "reaches outside" not in capsys.readouterr().err


def test_a_folder_that_is_not_the_runs_own_may_be_a_link(place: Path) -> None:
    (place / "run" / "data").symlink_to(place)
    assert simulate.main([f"resume={place / 'run'}", "rounds=3"]) == 0


def test_a_resume_misses_its_split(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = place / "run" / "split.csv.gz"
    for spoil in (lambda: split.write_bytes(split.read_bytes()[:-9]), split.unlink):
        spoil()
        assert simulate.main([f"resume={place / 'run'}", "rounds=3"]) == 2
        assert "split.csv.gz" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json", "scaler.safetensors"])
def test_a_crash_before_a_file_is_sealed_loses_nothing(
    place: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = place / "run"
    with History.open(run) as one, suppress(KeyboardInterrupt), one.sealed.writing(name):
        raise KeyboardInterrupt
    if name == "scaler.safetensors":
        assert predict.main([str(run), str(place / "rows.csv")]) == 2
        assert "finish it with resume" in capsys.readouterr().err
    assert simulate.main([f"resume={run}", "rounds=3"]) == 0
    with History.open(run) as one:
        assert one.sealed.flaws() == [] and name in one.sealed.names()
        assert "" not in one._index.files().values()


# Damage ------------------------------------------------------------------------------------


def shown(place: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return what the commands show of a folder; the one sentence of those that refuse it."""
    run, found = str(place / "run"), {}

    def compared() -> int:
        """Print all that a comparison takes from the folder."""
        runs, left_out = find_runs([place / "run"])
        print(runs, [one.test_machines() for one in runs])
        print(left_out, file=sys.stderr)
        return 2 if left_out else 0

    calls: dict[str, Callable[[], int]] = {
        "predict": lambda: predict.main([run, "rows.csv", "--out", "scores.csv"]),
        "compare": compared,
        "list": lambda: history_command(["list", run]),
        **{f"show {n}": partial(history_command, ["show", run, str(n)]) for n in range(3)},
    }
    for command, call in calls.items():
        capsys.readouterr()
        code = call()
        output = capsys.readouterr()
        assert code in (0, 2), command
        found[command] = f"refused: {output.err}" if code else output.out
        if command == "predict" and not code:
            found[command] += Path("scores.csv").read_text()
    return found


FLIPS = [pytest.param(seed, marks=[pytest.mark.long] if seed >= 4 else []) for seed in range(20)]


@pytest.mark.parametrize("seed", FLIPS)
def test_ten_flipped_bytes_are_found_or_change_nothing(
    place: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = shown(place, capsys)
    assert not [said for said in whole.values() if said.startswith("refused")], whole
    files = sorted(p for p in (place / "run").rglob("*") if p.is_file() and p.stat().st_size)
    generator = np.random.default_rng(seed)
    for _ in range(10):
        path = files[generator.integers(len(files))]
        before = bytearray(path.read_bytes())
        flipped = before.copy()
        position = int(generator.integers(len(before)))
        flipped[position] ^= int(generator.integers(1, 256))
        path.write_bytes(flipped)
        now = shown(place, capsys)
        for command, said in now.items():
            kept = said == whole[command] or said.startswith("refused: ")
            assert kept, (path.name, position, command, said)
        path.write_bytes(before)
