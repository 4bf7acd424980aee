"""The benchmark of several horizons: its commands can be typed, its table says what there is."""

from __future__ import annotations

from omegaconf import OmegaConf

from benchmarks import horizons
from fedpdm.config.compose import compose
from fedpdm.config.schema import check_keys


def test_every_arm_is_a_command_and_no_two_share_a_folder():
    jobs = list(horizons.jobs())
    assert len({job.folder for _, _, job in jobs}) == len(jobs)
    per_seed = [(arm, subset) for arm, subset, job in jobs if job.seed == 0]
    assert {subset for arm, subset in per_seed if arm == "mixer"} == set(horizons.SUBSETS)
    assert len(jobs) == len(per_seed) * len(horizons.SEEDS)
    for arm, subset, job in jobs[: len(per_seed)]:
        cfg = compose(list(job.overrides))
        check_keys(cfg)
        assert cfg.data.subset == subset and cfg.task.horizons == list(horizons.HORIZONS)
        assert (cfg.travels == "adapters") is arm.startswith("adapters")
        before = horizons.pretraining(arm, subset, 0)
        assert (before is not None) is (", " in arm) is (cfg.init.run is not None)
        if before is not None:
            first = compose(list(before.overrides))
            check_keys(first)
            assert horizons.ROOT / cfg.init.run == before.folder
            settings = first.model.config.settings
            assert all(cfg.model.config[name] == value for name, value in settings.items())
            for name in ("data.subset", "data.window", "data.features", "partition.sites"):
                assert OmegaConf.select(first, name) == OmegaConf.select(cfg, name)
    assert {name for pair in horizons.PAIRS for name in pair} <= {*horizons.ARMS, *horizons.TREES}


def test_the_table_tells_means_and_what_is_not_there():
    def found(*ap: float | None, **more: int) -> dict[str, object]:
        return {"ap": {str(h): v for h, v in zip(horizons.HORIZONS, ap, strict=True)}, **more}

    stored = {
        "mixer": {"FD001": {"0": found(0.8, 0.9, 0.7, bytes_up=2_000_000),
                            "1": found(0.9, 0.9, 0.9, bytes_up=4_000_000)},
                  "FD004": {"0": found(0.65, 0.7, 0.9, bytes_up=1_000_000)}},
        "trees alone": {"FD001": {"0": found(None, 0.5, 0.6)}},
    }  # fmt: skip
    lines = horizons.table(stored).splitlines()
    assert lines[2].startswith("| mixer | FD001 | 0.850 ± 0.071 | 0.900 ± 0.000 |")
    assert lines[2].endswith("| 3.0 | 2 |")
    assert lines[4] == "| trees alone | FD001 | – | 0.500 | 0.600 | – | 1 |"
    assert lines[6] == "within 30: 0.750 over FD001, FD004; asked 0.90"


def test_arms_are_compared_within_a_seed_and_what_is_missing_is_named():
    def found(ap: float, validation: float) -> dict[str, object]:
        return {"ap": {str(h): ap for h in horizons.HORIZONS}, "validation_ap": validation}

    stored = {
        "adapters": {"FD001": {"0": found(0.7, 0.8), "1": found(0.5, 0.8), "3": found(0.1, 0.1)}},
        "encoder trained": {"FD001": {"0": found(0.6, 0.7), "1": found(0.2, 0.6)}},
        "encoder frozen": {"FD001": {"3": found(0.2, 0.1)}},
    }
    lines = horizons.differences(stored).splitlines()
    # differences of 10 and 30 points: mean 20, standard error 10, t of one degree 12.706
    one, two = "+20.0 [-107.1, +147.1]", "+15.0 [-48.5, +78.5]"
    assert lines[2:] == [
        f"| adapters − encoder trained | FD001 | {one} | {one} | {one} | {two} | 2 |",
        "| adapters − encoder frozen | FD001 | -10.0 | -10.0 | -10.0 | +0.0 | 1 |",
    ]
    missing = list(horizons.missing(stored))
    assert "not measured: adapters, FD001, seed 2, 4" in missing
    assert "not measured: trees pooled, FD003, seed 0, 1, 2, 3, 4" in missing


def test_the_parts_of_the_bytes_are_those_of_the_model():
    """The totals are those of ``tests/client/test_adapters.py``."""
    parts = horizons.of_bytes()
    assert sum(part["in use"] for part in parts.values()) == 634_556
    assert sum(part["sent"] for part in parts.values()) == 291_324
    assert parts["encoder"]["sent"] == 0 and parts["heads"]["sent"] == 6_540
