"""Synthetic data of the FedProx paper, and what is stored of FedAvg and FedProx on it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import synthetic
from benchmarks.synthetic import DATA, DRAWN, METHODS, RESULTS, STRAGGLERS, key_of


def test_the_same_seed_makes_the_same_devices_and_they_differ_from_each_other() -> None:
    first, again, other = (synthetic.devices(1.0, 1.0, seed) for seed in (3, 3, 4))
    assert len(first) == 30 and all(40 <= len(d.x) <= 240 for d in first)
    assert all(torch.equal(a.x, b.x) and torch.equal(a.y, b.y) for a, b in zip(first, again))  # noqa: B905
    assert not torch.equal(first[0].x[:40], other[0].x[:40])
    # With beta = 0 all devices' inputs have centres around 0; with 1 around a value of their own.
    spread = [
        float(np.var([float(d.x.mean()) for d in synthetic.devices(value, value, 3)]))
        for value in (0.0, 1.0)
    ]
    assert spread[1] > 5 * spread[0]


def test_stragglers_are_some_of_the_drawn_devices_and_do_less() -> None:
    chosen, slow = synthetic.drawn(0, 1, 0.9)
    assert len(set(chosen)) == DRAWN and len(slow) == 9 and set(slow) <= set(chosen)
    assert all(1 <= epochs <= synthetic.EPOCHS for epochs in slow.values())
    assert synthetic.drawn(0, 1, 0.9) == (chosen, slow) != synthetic.drawn(0, 2, 0.9)
    assert synthetic.drawn(0, 1, 0.0) == (chosen, {})


def test_fedavg_drops_stragglers_and_without_any_it_is_fedprox_with_mu_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(synthetic, "MOST_ROWS", 50)
    monkeypatch.setattr(synthetic, "EPOCHS", 2)
    made = synthetic.devices(0.0, 0.0, 0)
    nobody = synthetic.trained(made, 1.0, None, 0, rounds=1)
    assert nobody["loss"] == pytest.approx(math.log(10)), "all were dropped: the model is still 0"
    assert synthetic.trained(made, 1.0, 0.0, 0, rounds=1)["loss"] < 0.99 * math.log(10)
    plain, proximal = (synthetic.trained(made, 0.0, mu, 0, rounds=1) for mu in (None, 0.0))
    assert plain == proximal
    held = synthetic.trained(made, 0.0, 100.0, 0, rounds=1)
    assert held["loss"] > plain["loss"]


def test_measuring_goes_on_where_it_was_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[float] = []

    def fake(made: object, share: float, mu: float | None, seed: int) -> dict[str, float]:
        calls.append(share)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return {"loss": share + seed - (mu or 0.0), "accuracy": 0.5}

    monkeypatch.setattr(synthetic, "trained", fake)
    monkeypatch.setattr(synthetic, "devices", lambda *_: [])
    path = tmp_path / "synthetic.json"
    with pytest.raises(KeyboardInterrupt):
        synthetic.measure([0, 1], path)
    assert len(json.loads(path.read_text())["cells"]) == 4
    cells = synthetic.measure([0, 1], path)
    assert len(calls) == len(cells) + 1 == 2 * len(DATA) * len(STRAGGLERS) * len(METHODS) + 1
    found = json.loads(path.read_text())["differences"]["(0,0) 0% fedavg - fedprox-1"]
    assert found == {"mean": 1.0, "low": 1.0, "high": 1.0, "seeds": 2}


def test_the_order_of_the_paper_holds_in_what_is_stored() -> None:
    stored = json.loads(RESULTS.read_text("utf-8"))
    cells, found = stored["cells"], stored["differences"]
    again = synthetic.differences(cells)
    assert found.keys() == again.keys()
    for name, each in again.items():
        assert found[name] == pytest.approx(each), name
    seeds = {int(key.rpartition(" ")[2]) for key in cells}
    assert len(seeds) >= 3
    for data in DATA:
        for seed in seeds:
            same = [cells[key_of(data, 0.0, m, seed)] for m in ("fedavg", "fedprox-0")]
            assert same[0] == same[1], "without stragglers the two are one"
        ahead = found[f"({data}) 90% fedavg - fedprox-0"]
        assert ahead["low"] > 0, "with nine stragglers in ten, their partial work counts"
