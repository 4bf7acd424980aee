"""The gate that every scenario asked for shows up, in the truth and in the sensors.

A failure leaves a trace if one of its machine's last rows stands out, along the signature of
what failed, from all rows of 95 % of equally long stretches of sound machines of its kind.
What load and hall temperature explain is taken off first. The truth is used to know where to
look and for what: the gate asks whether there is something to find, not whether it is easy.
"""

from __future__ import annotations

import math

import numpy as np

from fedpdm.data.fleet.assets import SENSORS
from fedpdm.data.fleet.gates import Gate, skipped, verdict
from fedpdm.data.fleet.life import FAILURE
from fedpdm.data.fleet.log import blocks
from fedpdm.data.fleet.profile import SiteProfile
from fedpdm.data.fleet.record import Record
from fedpdm.data.rows import Floats

RECALL = 0.8
HEALTHY, AT_THE_END, FALSE_TRACES = 0.3, 4, 0.05
"""Wear of a sound machine; rows before a failure; share of sound stretches with a trace."""
FEWEST_STRETCHES = 50


def scenario_recall(site: str, profile: SiteProfile, made: Record) -> list[Gate]:
    """Return for every scenario the site asks for whether its failures can be measured.

    The gate fails where so few leave a trace that a recall of ``RECALL`` would give as few
    with a chance under 5 %: three failures of which one is missed are no proof.
    """
    failed = [(name, life) for name, _, life in made.lives if life.end == FAILURE]
    told, gates = None, []
    weights = profile.scenarios[:-1]
    for number, weight in enumerate(weights):
        scenario = made.latent.scenarios[number]
        name = f"scenario recall: {scenario}"
        if weight == 0:
            continue
        own = [(machine, life) for machine, life in failed if life.scenario == number]
        expected = len(failed) * weight / sum(weights)
        if not own and expected < 3:
            gates.append(skipped(name, site, RECALL, f"only {expected:.1f} failures to expect"))
            continue
        told = told or Traces(made)
        if not told.sound:
            gates.append(skipped(name, site, RECALL, "no stretch of sound machines to compare"))
            continue
        seen = [told.stands_out(machine, life.time, life.mode) for machine, life in own]
        tried, found = sum(one is not None for one in seen), sum(one is True for one in seen)
        if own and not tried:
            gates.append(skipped(name, site, RECALL, "no sound machine of the kind to compare"))
            continue
        recall = found / tried if tried else 0.0
        gates.append(
            verdict(
                name, site, not surely_below(found, tried, RECALL), recall, RECALL,
                f"{found} of {tried} failures leave a trace",
                f"{found} of {tried} failures by '{scenario}' leave a trace in the sensors: "
                "so few may be bad luck, try another --seed first; else lower "
                f"sites.{site}.noise, data.missing or data.step_hours, or raise data.days (--days)",
                "sites.", "data.",
            )
        )  # fmt: skip
    return gates


def surely_below(found: int, tried: int, share: float) -> bool:
    """Return whether so few of ``tried`` happen with a chance under 5 % if ``share`` is true."""
    if tried == 0:
        return True
    chances = (
        math.comb(tried, k) * share**k * (1 - share) ** (tried - k) for k in range(found + 1)
    )
    return found < share * tried and sum(chances) < 0.05


class Traces:
    """How far stretches of rows stand out along the signature of each mode."""

    def __init__(self, made: Record) -> None:
        self._made = made
        self._where = blocks(made.machine)
        sound = made.latent.wear.max(axis=1) < HEALTHY
        values = made.values - _usual_response(made)
        self._deviation = np.zeros_like(values)
        stretches: dict[int, list[Floats]] = {}
        for rows in self._where.values():
            usual = values[rows][sound[rows]]
            if len(usual) < AT_THE_END:
                continue
            there = ~np.isnan(usual).all(axis=0)
            centre = np.zeros(usual.shape[1])
            centre[there] = np.nanmedian(usual[:, there], axis=0)
            # What is missing says nothing: no deviation.
            self._deviation[rows] = np.nan_to_num(values[rows] - centre)
            mine = self._deviation[rows][sound[rows]]
            whole = len(mine) // AT_THE_END * AT_THE_END
            parts = mine[:whole].reshape(-1, AT_THE_END, mine.shape[1])
            stretches.setdefault(int(made.latent.kind[rows.start]), []).append(parts)
        # Kinds of machine differ in noise and in sensors: each is measured against its own.
        usual_of = {kind: np.concatenate(parts) for kind, parts in stretches.items()}
        self._told = {
            kind: _detector(usual)
            for kind, usual in usual_of.items()
            if len(usual) >= FEWEST_STRETCHES
        }
        self.sound = bool(self._told)

    def stands_out(self, machine: str, failed: float, mode: int) -> bool | None:
        """Return whether one of the last rows before a failure shows it; None: cannot tell."""
        if machine not in self._where:
            return None
        rows = self._where[machine]
        end = rows.start + int(np.searchsorted(self._made.time[rows], failed, side="right"))
        kind = int(self._made.latent.kind[rows.start])
        if end == rows.start or kind not in self._told:
            return None
        weights, bound = self._told[kind]
        scores = self._deviation[max(rows.start, end - AT_THE_END) : end] @ weights[:, mode]
        return bool((scores > bound[mode]).any())


def _detector(usual: Floats) -> tuple[Floats, Floats]:
    """Return (F, K) matched filters and (K,) bounds from (N, T, F) stretches of sound machines."""
    spread = np.array([sensor.spread for sensor in SENSORS])
    signature = np.array([sensor.wear for sensor in SENSORS]) * spread[:, None]
    noise = np.cov(usual.reshape(-1, len(spread)).T) + np.diag(1e-6 * spread**2)
    # A sensor that these machines lack never varies: it must not carry the whole filter.
    signature[np.diag(noise) < 1e-4 * spread**2] = 0.0
    weights = np.linalg.solve(noise, signature)
    scores = (usual @ weights).max(axis=1)
    return weights, np.quantile(scores, 1 - FALSE_TRACES, axis=0)


def _usual_response(made: Record) -> Floats:
    """Return (R, F) what load and hall temperature explain of the readings."""
    spread, load, heat = (
        np.array([getattr(sensor, key) for sensor in SENSORS]) for key in ("spread", "load", "heat")
    )
    ambient = made.around.ambient[np.searchsorted(made.around.time, made.time)]
    pushed = np.outer(made.latent.load, load / 0.1) + np.outer(ambient, heat / 10)
    return np.asarray(pushed * spread)
