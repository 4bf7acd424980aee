"""Rows for tests: hand-made ones, and Hypothesis' idea of any site."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from fedpdm.data.rows import Rows, Split


def rows_of(
    machine: list[str],
    *,
    time: list[float] | None = None,
    life: list[int] | None = None,
    split: list[int] | None = None,
    values: np.ndarray | None = None,
    condition: list[int] | None = None,
    pad: bool = False,
    groups: dict[str, np.ndarray] | None = None,
) -> Rows:
    """Rows whose first feature is the row's own position, unless values are given."""
    count = len(machine)
    names = np.array(machine, dtype=str)
    if time is None:
        time = [float(machine[:k].count(name)) for k, name in enumerate(machine)]
    values = np.arange(count, dtype=np.float64)[:, None] if values is None else values
    return Rows(
        features=tuple(f"feature_{k}" for k in range(values.shape[1])),
        values=values,
        machine=names,
        time=np.array(time, dtype=np.float64),
        life=np.array(life or [0] * count, dtype=np.int64),
        time_to_failure=np.full(count, np.nan),
        observed=np.zeros(count),
        split=np.array(split or [Split.TRAIN] * count, dtype=np.int8),
        condition=np.array(condition or [0] * count, dtype=np.int64),
        pad=pad,
        groups=groups or {},
    )


@st.composite
def any_rows(draw: st.DrawFn, pad: bool | None = None) -> Rows:
    """A site of up to 4 machines, up to 3 lives each, each life cut into split runs."""
    machine: list[str] = []
    life: list[int] = []
    split: list[int] = []
    for name in "abcd"[: draw(st.integers(1, 4))]:
        for number in range(draw(st.integers(1, 3))):
            for _ in range(draw(st.integers(1, 2))):
                length = draw(st.integers(1, 12))
                machine += [name] * length
                life += [number] * length
                split += [draw(st.sampled_from(list(Split)))] * length
    chosen = draw(st.booleans()) if pad is None else pad
    return rows_of(machine, life=life, split=split, pad=chosen)
