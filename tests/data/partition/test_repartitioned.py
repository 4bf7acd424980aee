"""Generated machines, pooled and dealt: whole machines, one calendar, no leak."""

from __future__ import annotations

import numpy as np
import pytest

from fedpdm.config.compose import compose
from fedpdm.data.fleet.source import FleetSource
from fedpdm.data.leakage import checks as guards
from fedpdm.data.partition import ByMachine, ByTime, Dirichlet, Iid, Partition, RepartitionedSource
from fedpdm.data.rows import Split
from fedpdm.runs.experiment import build

SITES = {"detroit": {"machines": 10}, "houston": {"machines": 10}}


def dealt(partition: Partition, seed: int = 3) -> RepartitionedSource:
    fleet = FleetSource(sites=SITES, seed=seed, reach=7.0, days=200, step_hours=12)
    return RepartitionedSource(fleet, partition, seed, 7.0)


@pytest.mark.parametrize(
    "partition",
    [Iid(4), Dirichlet(0.5, 4), ByMachine(4)],
    ids=["iid", "dirichlet", "machine"],
)
def test_every_machine_goes_whole_to_one_site(partition: Partition) -> None:
    source = dealt(partition)
    assert source.sites == ("plant-01", "plant-02", "plant-03", "plant-04")
    owned = [set(source.rows(site).machine) for site in source.sites]
    assert sum(len(machines) for machines in owned) == len(set.union(*owned)) == 20
    original = source.source.rows("detroit")
    machine = original.machine[0]
    owner = next(s for s, machines in zip(source.sites, owned, strict=True) if machine in machines)
    rows = source.rows(owner)
    mine, before = rows.machine == machine, original.machine == machine
    assert np.array_equal(rows.values[mine], original.values[before], equal_nan=True)
    assert np.array_equal(rows.time_to_failure[mine], original.time_to_failure[before],
                          equal_nan=True)  # fmt: skip


def test_all_partitions_test_the_same_machines_in_the_same_weeks() -> None:
    parts = []
    for partition in (Iid(4), Dirichlet(0.5, 4)):
        source = dealt(partition)
        rows = [source.rows(site) for site in source.sites]
        machine = np.concatenate([r.machine for r in rows])
        time = np.concatenate([r.time for r in rows])
        split = np.concatenate([r.split for r in rows])
        order = np.lexsort((time, machine))
        parts.append((machine[order], time[order], split[order]))
    for one, other in zip(*parts, strict=True):
        assert np.array_equal(one, other)


def test_the_cuts_are_common_and_the_guards_find_no_leak() -> None:
    source = dealt(Dirichlet(0.5, 4))
    guards.check(source, source.sites, source.rows, 7.0)
    rows = [source.rows(site) for site in source.sites]
    last = {part: max(r.time[r.split == part].max() for r in rows if (r.split == part).any())
            for part in (Split.TRAIN, Split.VALIDATION)}  # fmt: skip
    first = {part: min(r.time[r.split == part].min() for r in rows if (r.split == part).any())
             for part in (Split.VALIDATION, Split.TEST)}  # fmt: skip
    assert first[Split.VALIDATION] - last[Split.TRAIN] >= 7.0
    assert first[Split.TEST] - last[Split.VALIDATION] >= 7.0
    heldout = {m for r in rows for m in r.machine[r.split == Split.HELDOUT]}
    used = (Split.TRAIN, Split.VALIDATION, Split.TEST)
    others = {m for r in rows for m in r.machine[np.isin(r.split, used)]}
    assert len(heldout) == 4 and not heldout & others


def test_time_blocks_of_the_pool_pass_the_guards() -> None:
    source = dealt(ByTime(2, 7.0))
    assert source.shares_machines
    assert guards.check(source, source.sites, source.rows, 7.0) == []
    rows = [source.rows(site) for site in source.sites]
    latest = max(r.time[r.split >= 0].max() for r in rows)
    assert latest <= source.source.rows("detroit").time.max() - 7.0


def test_the_same_seed_deals_the_same_and_another_differently() -> None:
    def shas(seed: int) -> list[str]:
        source = dealt(Dirichlet(0.5, 4), seed)
        return [source.rows(site).sha256() for site in source.sites]

    assert shas(3) == shas(3) != shas(4)


def test_a_partition_on_the_fleet_deals_the_named_sites_machines() -> None:
    experiment = build(compose(["partition=dirichlet", "partition.sites=4", "site=detroit,pune"]))
    source = experiment.federation.source
    assert isinstance(source, RepartitionedSource) and len(experiment.federation.sites) == 4
    assert source.source.sites == ("detroit", "pune")
    natural = build(compose(["site=detroit,pune"]))
    assert natural.federation.sites == ("detroit", "pune")


def test_networkfed_is_the_reference_grid_on_the_same_optimizer() -> None:
    cfg = compose(["experiment=networkfed", "strategy=fednova", "partition=iid", "model=cnn"])
    assert (cfg.training.optimizer, cfg.training.learning_rate) == ("sgd", 0.2)
    avg = compose(["experiment=networkfed", "partition=iid", "model=cnn"])
    assert avg.training == cfg.training
    assert len(build(cfg).federation.sites) == 6


def test_without_a_number_as_many_sites_are_made_as_machines_came_from() -> None:
    partition = Dirichlet(0.5)
    source = dealt(partition)
    assert len(source.sites) == len(source.source.sites) and source.sites[0] == "plant-01"
    assert partition.sites is None, "the caller's own is left as it was"
