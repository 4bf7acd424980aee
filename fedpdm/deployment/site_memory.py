"""What a site keeps between rounds, in files of its own: no other machine has it.

    FLWR_HOME/fedpdm/RUN-SITE/000004-20261128093015123.bin     after round 4, begun at that time

The server names the run and the version to start from, which it reads from its history: the last
one that an update of this site went into. So a resumed, repeated or refused round starts from
what the site had before it, whatever the supernode did in between.
"""

from __future__ import annotations

import hashlib
import re
import sys
from urllib.parse import quote

from flwr.app import RecordDict

from fedpdm.deployment.envelope import Envelope
from fedpdm.errors import ConfigError, HistoryError
from fedpdm.runs.experiment import Experiment
from fedpdm.storage import read_bytes, write_bytes
from fedpdm.strategies.base import ServerHalf
from fedpdm.strategies.wrappers import unwrap
from fedpdm.wire.flower import flower_home, pack_state, unpack_state

SUFFIX = ".bin"
DIGEST_BYTES = 32


def remembers(experiment: Experiment) -> bool:
    """Return whether sites may keep something between rounds.

    Only their own code knows that of transforms and of mods.
    """
    halves = [layer for layer in unwrap(experiment.strategy) if isinstance(layer, ServerHalf)]
    return bool(
        any(half.client.groups for half in halves)
        or experiment.personal
        or experiment.transforms.transforms
        or experiment.client_mods
    )


class SiteMemory:
    """A site's ``Context.state`` after the rounds of one run that it may have to start from.

    Args:
        site: its name.
        envelope: of the message: names the run and its versions.

    Raises:
        ConfigError: the message names no run, or no version that a server of ours would.
    """

    def __init__(self, site: str, envelope: Envelope) -> None:
        named = (envelope.base, envelope.version, envelope.best)
        if not re.fullmatch(r"[0-9a-f]{32}", envelope.run) or not all(
            re.fullmatch(r"(\d{6,9}-\d{1,30})?", name) for name in named
        ):
            raise ConfigError(f"{site}: the server does not say which run and round this is")
        self.site, self.run = site, envelope.run
        self.folder = flower_home() / "fedpdm" / f"{envelope.run}-{quote(site, safe='')}"

    def read(self, version: str) -> RecordDict | None:
        """Return what was kept after a version; None if it is not here or damaged.

        Args:
            version: its name; empty before the first one that the site had a part in.
        """
        if not version:
            return RecordDict()
        path = self.folder / f"{version}{SUFFIX}"
        try:
            content = read_bytes(path)
            digest, data = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
            if digest != self._digest(version, data):
                raise HistoryError(f"{path} is damaged: its checksum is not that of its content")
            return unpack_state(data)
        except HistoryError as error:
            print(f"{self.site}: {error}", file=sys.stderr, flush=True)  # in the site's own log
            return None

    def write(self, envelope: Envelope, state: RecordDict) -> None:
        """Keep a state for the version that is being made.

        What no round can start from any more goes. Newer ones stay: a slow process may write
        when the next one has already written.

        Raises:
            HistoryError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HistoryError(f"{self.folder} cannot be made ({error.strerror})") from None
        data = pack_state(state)
        name = f"{envelope.version}{SUFFIX}"
        write_bytes(self.folder / name, self._digest(envelope.version, data) + data)
        for path in self.folder.glob(f"*{SUFFIX}"):
            if path.stem < envelope.base and path.stem != envelope.best:
                path.unlink(missing_ok=True)

    def _digest(self, version: str, data: bytes) -> bytes:
        """Return a checksum that a file of another run, site or version does not have."""
        return hashlib.sha256(f"{self.run} {self.site} {version}\n".encode() + data).digest()
