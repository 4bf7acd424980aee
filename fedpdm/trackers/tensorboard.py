"""``tracker=tensorboard``: event files in the run folder, for ``tensorboard --logdir runs``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpdm.errors import ConfigError
from fedpdm.trackers import Record


class TensorBoard:
    """Writes TensorBoard's event files, without TensorFlow.

    Args:
        folder: where; null: ``tensorboard`` in the run folder.

    Raises:
        ConfigError: the package is not installed.
    """

    def __init__(self, folder: str | None = None) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer import event_file_writer
        except ImportError as error:
            raise ConfigError(
                f"tracker=tensorboard needs a package that is not installed ({error.name}): "
                "pip install 'fedpdm[tensorboard]'"
            ) from error
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._open = event_file_writer.EventFileWriter
        self._folder = folder
        self._writer: Any = None

    def begin(self, folder: Path, config: Record, state: dict[str, Any]) -> None:
        target = folder / "tensorboard" if self._folder is None else Path(self._folder)
        target.mkdir(parents=True, exist_ok=True)
        self._writer = self._open(str(target))

    def round(self, number: int, scalars: Mapping[str, float], seconds_since_1970: float) -> None:
        values = [
            self._summary.Value(tag=name, simple_value=value) for name, value in scalars.items()
        ]
        written = self._summary(value=values)
        self._writer.add_event(
            self._event(wall_time=seconds_since_1970, step=number, summary=written)
        )
        self._writer.flush()  # a round that is reported as sent is on the disk

    def end(self, scalars: Mapping[str, float], summary: Record) -> None:
        self.round(int(summary["best_round"]), scalars, time.time())
        self._writer.close()
