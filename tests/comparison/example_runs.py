"""Made-up but realistic runs for the tests of what a person sees."""

from __future__ import annotations

from typing import Any

import numpy as np

Json = dict[str, Any]
BASELINES = ("trivial", "alone", "pooled", "hgb")


def failure_run(count: int = 2, rounds: int = 12, seed: int = 0, faults: bool = True) -> Json:
    """Return keyword arguments of ``write_report`` for a failure task."""
    draw = np.random.default_rng(seed)
    many = [f"plant-{i:03d}" for i in range(1, count + 1)]
    sites = ["detroit", "houston", "seattle"][:count] if count <= 3 else many
    per: dict[str, Json] = {n: {} for n in ("federated", "trivial", "alone", "pooled", "hgb")}
    for index, site in enumerate(sites):
        prevalence = float(draw.uniform(0.02, 0.06))
        n = int(draw.integers(2000, 9000))
        unlucky = count > 3 and index % 17 == 5
        federated = float(np.clip(draw.normal(0.52, 0.08), 0.1, 0.95))
        for name, value in (
            ("federated", federated),
            ("trivial", prevalence),
            ("alone", federated - float(draw.normal(0.07, 0.05 if count > 3 else 0.02))),
            ("pooled", federated + float(draw.normal(0.03, 0.02))),
            ("hgb", federated + float(draw.normal(-0.01, 0.03))),
        ):
            per[name][site] = classification(
                None if unlucky else value, 0.0 if unlucky else prevalence, n
            )
    tested = {
        "global": classification(0.534, 0.041, 11840) | {
            "threshold": 0.31, "f1": 0.55, "precision": 0.61, "recall": 0.498, "mcc": 0.53
        },
        "mean_site": {"average_precision": 0.52},
        "per_site": per["federated"],
        "baselines": {
            name: {"global": classification(value, 0.041, 11840), "per_site": per[name]}
            for name, value in zip(BASELINES, (0.041, 0.43, 0.56, 0.51), strict=True)
        },
    }  # fmt: skip
    records = round_records(sites, rounds, "average_precision", True, draw, faults)
    summary = common(sites, rounds, records, "average_precision") | {
        "task": "failure",
        "model": "lstm",
        "threshold": 0.31,
        "test": tested,
        "heldout": unseen(sites, 0.46) | {
            "baselines": {
                name: unseen(sites, value)
                for name, value in zip(BASELINES, (0.05, 0.39, 0.48, 0.45), strict=True)
            }
        },
    }  # fmt: skip
    summary["data"] = {"name": "fleet", "window": 32, "sha256": "9f2c" * 16, "time_unit": "hours"}
    return wrapped(summary, records, draw)


def life_run(count: int = 10, rounds: int = 10, seed: int = 0) -> Json:
    """Return keyword arguments of ``write_report`` for a remaining-life task."""
    draw = np.random.default_rng(seed)
    sites = [f"machines-{i:02d}" for i in range(1, count + 1)]
    per: dict[str, Json] = {n: {} for n in ("federated", "trivial", "alone", "pooled", "hgb")}
    for site in sites:
        federated = float(draw.normal(14.0, 1.2))
        for name, value in (
            ("federated", federated),
            ("trivial", 41.0 + float(draw.normal(0, 2))),
            ("alone", federated + float(draw.normal(3.0, 2.2))),
            ("pooled", federated - float(draw.normal(0.4, 0.4))),
            ("hgb", federated + float(draw.normal(1.0, 0.8))),
        ):
            per[name][site] = life(value, 10)
    tested = {
        "global": life(13.9, 100),
        "mean_site": {"rmse": 13.8},
        "per_site": per["federated"],
        "baselines": {
            name: {"global": life(value, 100), "per_site": per[name]}
            for name, value in zip(BASELINES, (41.5, 17.2, 13.4, 15.0), strict=True)
        },
    }
    records = round_records(sites, rounds, "rmse", False, draw, False)
    summary = common(sites, rounds, records, "rmse") | {
        "task": "rul", "model": "lstm", "threshold": None, "test": tested, "heldout": None,
    }  # fmt: skip
    summary["data"] = {"name": "cmapss", "window": 30, "sha256": "51ab" * 16, "time_unit": "cycles"}
    return wrapped(summary, records, draw)


def classification(value: float | None, prevalence: float, n: int) -> Json:
    return {
        "average_precision": value,
        "roc_auc": None if value is None else min(0.99, 0.5 + value / 2),
        "brier": 0.03,
        "ece": 0.012,
        "prevalence": prevalence,
        "n": float(n),
        "positives": float(round(prevalence * n)),
    }


def unseen(sites: list[str], value: float) -> Json:
    return {
        "global": classification(value, 0.05, 900 * len(sites)),
        "per_site": {site: classification(value, 0.05, 900) for site in sites},
    }


def life(value: float, n: int) -> Json:
    return {
        "rmse": value,
        "rmse_uncapped": value + 4.1,
        "mae": value * 0.8,
        "nasa_score": value * 24.0,
        "n": float(n),
    }


def common(sites: list[str], rounds: int, records: list[Json], name: str) -> Json:
    return {
        "schema": 1,
        "run": "20260114-101500-a1b2c3",
        "sites": sites,
        "strategy": "fedavg",
        "engine": "serial",
        "rounds": rounds,
        "best_round": rounds - 1,
        "validation": {"metric": name, "best": 0.56},
        "bytes": {
            "up": sum(r["bytes_up"] for r in records),
            "down": sum(r["bytes_down"] for r in records),
        },
        "seconds": {
            "setup": 0.9,
            "training": 5.1,
            "evaluation": 0.6,
            "baselines": 2.7,
            "total": 9.8,
        },
        "seed": 0,
        "versions": {"fedpdm": "0.1.0", "flwr": "1.41.0", "torch": "2.13.0", "python": "3.11.9"},
        "events": [e for r in records for e in r["events"]],
        "gain": {},
    }


def round_records(
    sites: list[str], rounds: int, name: str, higher: bool, draw: np.random.Generator, faults: bool
) -> list[Json]:
    """Return round records; with faults, a refused update, a poisoned round and a rollback."""
    records = []

    def record(number: int, attempt: int, poisoned: bool = False) -> Json:
        level = 0.55 * (1 - np.exp(-number / 4)) if higher else 13.5 + 26 * np.exp(-number / 2.5)
        loss = 0.12 + 0.35 * float(np.exp(-number / 3))
        if poisoned:
            level, loss = (0.06, 3.1) if higher else (60.0, 3.1)
        spread = 0.03 if higher else 0.8
        per_site = {
            site: {
                "examples": int(draw.integers(900, 4000)),
                "train_loss": loss * float(draw.uniform(0.85, 1.15)),
                "validation": {name: float(level + draw.normal(0, spread))},
                "update_norm": float(draw.uniform(0.5, 2.0)),
            }
            for site in sites
        }
        return {
            "round": number,
            "attempt": attempt,
            "sampled": sites,
            "metrics": {
                "train_loss": loss,
                "validation_loss": loss * 1.12,
                name: float(np.mean([s["validation"][name] for s in per_site.values()])),
            },
            "sites": per_site,
            "bytes_up": 223_500 * len(sites),
            "bytes_down": 223_800 * len(sites),
            "seconds": float(draw.uniform(0.4, 0.6)),
            "events": [],
        }

    for number in range(1, rounds + 1):
        if faults and number == 4:
            refused = record(4, 1)
            why = "its update holds NaN in lstm.weight_ih_l0 (1,204 of 20,480 values)"
            refused["events"].append(event("refused", 4, 1, sites[-1], why, "server"))
            records.append(refused)
        elif faults and number == 7:
            bad = record(7, 1, poisoned=True) | {"undone": True}
            why = "validation loss 3.47 is over 10 times the best so far (0.24); back to round 6"
            bad["events"].append(event("rollback", 7, 1, sites[0], why, "monitor"))
            records += [bad, record(7, 2)]
        else:
            records.append(record(number, 2 if faults and number > 7 else 1))
    return records


def event(kind: str, number: int, attempt: int, site: str, message: str, by: str) -> Json:
    return {
        "kind": kind,
        "round": number,
        "attempt": attempt,
        "site": site,
        "message": message,
        "by": by,
    }


def wrapped(summary: Json, records: list[Json], draw: np.random.Generator) -> Json:
    shape = [
        {
            "site": site,
            "rows": int(draw.integers(9000, 40000)),
            "machines": 10,
            "heldout_machines": 2,
            "failures": int(draw.integers(5, 60)),
            "missing": 0.013,
            "windows": {"train": 3120, "validation": 810, "test": 790, "heldout": 900},
            "prevalence": {"train": 0.05, "validation": 0.04, "test": 0.04, "heldout": None},
            "sha256": "ab" * 32,
        }
        for site in summary["sites"]
    ]
    manifest = {
        "config": {
            "data": {
                "_target_": "fedpdm.data.fleet.source.Fleet",
                "window": 32,
                "features": ["a", "b"],
            },
            "strategy": {"_target_": "flwr.serverapp.strategy.FedAvg", "fraction_train": 1.0},
            "rounds": summary["rounds"],
            "seed": 0,
        },
        "versions": summary["versions"],
        "git_commit": "617d0b8c0ffee617d0b8c0ffee617d0b8c0ffee0",
        "hashes": {"data": "9f2c" * 16, "splits": "77aa" * 16},
    }
    return {"summary": summary, "rounds": records, "manifest": manifest, "data_shape": shape}
