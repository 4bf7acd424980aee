"""The benchmark of several horizons: its commands can be typed, its table says what there is."""

from __future__ import annotations

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
        assert (cfg.travels == "adapters") is (arm == "adapters")


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
