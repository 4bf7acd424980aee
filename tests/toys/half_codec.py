"""A codec: differences travel as 16-bit numbers, and what is cut off is sent next time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fedpdm.aggregation.update import Update
from fedpdm.transforms.base import Stage, Transform


class HalfCodec(Transform):
    """Sends float records as float16 differences. A site remembers the rest of each."""

    stage = Stage.COMPRESS
    needs_values = True  # to decode them

    def encode(
        self, update: Update, state: dict[str, Any], generator: np.random.Generator
    ) -> Update:
        sent = {}
        for record in update.records:
            rest = state.get(record, {})
            whole = {n: d + rest.get(n, 0) for n, d in update.delta(record).items()}
            sent[record] = {
                n: np.asarray(d, np.float16) if d.dtype.kind == "f" else d for n, d in whole.items()
            }
            state[record] = {n: d - sent[record][n].astype(d.dtype) for n, d in whole.items()}
        return replace(update, records=sent)

    def decode(self, update: Update) -> Update:
        for record, delta in dict(update.records).items():
            update = update.with_delta(dict(delta), record)
        return update
