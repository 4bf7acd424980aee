"""How long the stages of rounds take."""

from __future__ import annotations

import time

STAGES = ("start", "send", "train", "aggregate", "evaluate", "commit")


class Stages:
    """Seconds of this machine's clock, whatever time a simulation keeps.

    Attributes:
        seconds: by stage, over all rounds. ``start``: until sites can be asked, workers and the
            shared scaler included; ``send``: choosing sites and writing their messages;
            ``train``: until their replies are there, both ways on the wire included;
            ``aggregate``: from replies to a new model; ``evaluate``: it at the sites, and what
            each site brought; ``commit``: the round into the history.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._since = 0.0

    def begin(self) -> None:
        """A stage begins now."""
        self._since = time.perf_counter()

    def end(self, stage: str) -> None:
        """This stage ends now, and another one begins."""
        before = self._since
        self.begin()
        self.seconds[stage] += self._since - before
