"""Attacks of a run: made from the config, said aloud, and what they came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from flwr.serverapp.strategy import Strategy
from torch import nn

from fedpdm.client.attacks.backdoor import Backdoor
from fedpdm.client.attacks.base import Attack
from fedpdm.config.values import Config, make, select
from fedpdm.data.rows import Split
from fedpdm.errors import ConfigError
from fedpdm.evaluation.final_test import FinalTest, run_final_test
from fedpdm.evaluation.protocol import EvaluationProtocol
from fedpdm.evaluation.wording import attack_sentence
from fedpdm.federation import Federation, Site
from fedpdm.server.selection import fraction_of, sample_size
from fedpdm.strategies.fltrust import FLTrust
from fedpdm.strategies.resilience import statements
from fedpdm.strategies.wrappers import unwrap

SIMULATED = (
    "attacks are made in a simulation only, with python -m fedpdm.simulate, and never on the sites "
    "of others; leave it out"
)


def is_attacked(cfg: Config) -> bool:
    """Return whether a config chooses an attack."""
    return select(cfg, "attack._target_") is not None


def build_attack(
    cfg: Config, federation: Federation, strategy: Strategy, rounds: int, seed: int
) -> Attack | None:
    """Make what malicious sites do; None where all are honest.

    Raises:
        ConfigError: the attack cannot be made on this run, or the strategy trusts a malicious
            site.
    """
    roots = [layer for layer in unwrap(strategy) if isinstance(layer, FLTrust)]
    trusted = {layer.trusted(federation.sites) for layer in roots}
    if not is_attacked(cfg):
        return None
    attack = cast(Attack, make(cfg.attack, "attack"))
    attack.settle(federation, rounds, seed)
    if bad := sorted(trusted & set(attack.malicious)):
        raise ConfigError(
            f"attack.sites has {bad[0]}, the site that strategy FLTrust trusts: nothing defends it "
            "then; name other sites, or another strategy.root"
        )
    return attack


def warnings_of(
    strategy: Strategy, attack: Attack | None, sites: Sequence[str], buffers: Sequence[str]
) -> list[tuple[str, str]]:
    """Return what is said before the first round, sentences with their kinds; notes are no events.

    Args:
        strategy: the run's.
        attack: the run's.
        sites: of the federation.
        buffers: names of the model's buffers.
    """
    sampled = sample_size(fraction_of(strategy), len(sites))
    malicious = None if attack is None else len(attack.malicious)
    events = statements(strategy, sampled, malicious)
    if events and buffers:
        said = (
            f"the model's {len(buffers)} buffers (BatchNorm) are averaged by examples whatever the "
            "strategy: no defence protects them (model=mlp and model=lstm have none)"
        )
        events.append(("warning", said))
    if attack is not None:
        events.insert(0, ("attack", attack_sentence(attack.described(len(sites)))))
    return events


def came_to(
    attack: Attack,
    model_of: Callable[[str], nn.Module],
    trial: FinalTest,
    federation: Federation,
    device: torch.device,
    protocol: EvaluationProtocol,
) -> dict[str, Any]:
    """Return the attack as ``summary.json`` tells it, with what can be measured of it.

    Args:
        attack: the run's.
        model_of: gives a site's model, as in the final test.
        trial: the final test.
        federation: the run's sites.
        device: where the models are.
        protocol: of the final test.
    """
    found: dict[str, Any] = attack.described(len(federation.sites))
    found["backdoor"] = None
    if not isinstance(attack, Backdoor):
        return found
    sites = [
        Site(site.name, {**site.windows, Split.TEST: attack.triggered(site.test)})
        for site in trial.sites
    ]
    # Calibration and thresholds come from validation windows, which are those of the trial.
    shown = run_final_test(model_of, sites, federation, device, replace(protocol, bootstrap=0))
    with_trigger, counted = _share_in_target(attack, shown, federation)
    without, _ = _share_in_target(attack, trial, federation)
    found["backdoor"] = {
        "target": attack.target, "windows": counted, "success": with_trigger,
        "without_trigger": without,
    }  # fmt: skip
    return found


def _share_in_target(
    attack: Backdoor, trial: FinalTest, federation: Federation
) -> tuple[float | None, int]:
    """Return the share of test windows of the other class that are given to the target."""
    risk = federation.task.risks[0]
    if trial.threshold is None:
        return None, 0
    wanted = attack.target == "failure"
    hits = []
    for site in trial.sites:
        truth = risk.of(site.test.y).astype(bool)
        alarm = risk.of(trial.predictions[site.name][Split.TEST]) >= trial.levels.at(
            site.name, risk
        )
        hits.append((alarm == wanted)[truth != wanted])
    found = np.concatenate(hits)
    return (float(found.mean()) if len(found) else None), len(found)
