"""Reading a generated fleet back from its folder (``fedpdm.data.fleet.files``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedpdm.data.fleet.assets import KINDS, MODES
from fedpdm.data.fleet.files import read_table
from fedpdm.data.fleet.life import FAILURE
from fedpdm.data.fleet.log import Log
from fedpdm.data.fleet.profile import SCENARIOS
from fedpdm.data.fleet.record import Latent
from fedpdm.data.rows import Floats, Strings
from fedpdm.data.sources.checksums import sha256_of
from fedpdm.errors import ConfigError, DataError

FORMAT = 1
SUMMARY = "summary.json"


class FleetFolder:
    """A folder that ``python -m fedpdm.data generate`` wrote.

    Args:
        path: the folder.

    Raises:
        DataError: it is not there, or its summary is not one of ours.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        try:
            self.summary: dict[str, Any] = json.loads((self.path / SUMMARY).read_text("utf-8"))
            form = self.summary["format"]
            self.files: dict[str, str] = self.summary["files"]
            self.profiles: dict[str, Any] = self.summary["settings"]["plants"]
        except FileNotFoundError:
            raise DataError(
                f"data.path={path} holds no {SUMMARY}: name a folder that "
                "'python -m fedpdm.data generate' wrote, or leave data.path out"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path / SUMMARY} cannot be read ({type(error).__name__}): generate the "
                "fleet again"
            ) from None
        if form != FORMAT:
            raise DataError(
                f"{self.path / SUMMARY} has format {form}, this version of fedpdm reads {FORMAT}: "
                "generate the fleet again"
            )

    def require(
        self, settings: Mapping[str, Any], profiles: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Refuse settings other than those that the folder was made with.

        Raises:
            ConfigError: names the first key that differs, or a site that is not there.
        """
        made = dict(self.summary["settings"]["data"])
        wanted = json.loads(json.dumps(dict(settings)))
        for site, profile in profiles.items():
            if site not in self.profiles:
                raise ConfigError(
                    f"data.path={self.path} has no site {site}; there are "
                    f"{', '.join(self.profiles)}"
                )
            pairs = json.loads(json.dumps(dict(profile)))
            wanted |= {f"sites.{site}.{key}": value for key, value in pairs.items()}
            made |= {f"sites.{site}.{key}": value for key, value in self.profiles[site].items()}
        for key, value in wanted.items():
            if value != made.get(key):
                raise ConfigError(
                    f"{key}={value}, but the files in {self.path} were generated with "
                    f"{made.get(key)}: give the settings of the command in its {SUMMARY}, or "
                    "generate another fleet"
                )

    def readings(self, site: str, features: tuple[str, ...]) -> tuple[Strings, Floats, Floats, Log]:
        """Return (R,) machine, (R,) time, (R, F) values and the log of a site."""
        table = read_table(self._checked("plants", site), ["time", *features], ["machine"])
        log = read_table(
            self._checked("logs", site), ["time", "downtime_days"], ["machine", "kind"]
        )
        values = np.stack([table[name] for name in features], axis=1)
        events = Log(log["machine"], log["time"], log["kind"] == FAILURE, log["downtime_days"])
        return table["machine"], table["time"], values, events

    def latent(self, site: str) -> Latent:
        """Return the truth behind the rows of a site."""
        wear = [f"wear_{name}" for name in MODES]
        numbers, words = [*wear, "load", "regime"], ["mode", "scenario", "asset"]
        table = read_table(self._checked("truth", site), numbers, words)

        def positions(column: str, names: tuple[str, ...]) -> Any:
            known = {name: index for index, name in enumerate(names)} | {"none": -1}
            words, index = np.unique(table[column], return_inverse=True)
            return np.array([known[word] for word in words.tolist()], dtype=np.int64)[index]

        return Latent(
            modes=MODES,
            wear=np.stack([table[name] for name in wear], axis=1),
            mode=positions("mode", MODES),
            scenarios=SCENARIOS,
            scenario=positions("scenario", SCENARIOS),
            kinds=KINDS,
            kind=positions("asset", KINDS),
            load=table["load"],
            regime=table["regime"].astype(np.int64),
        )

    def _checked(self, kind: str, site: str) -> Path:
        """Return the path of a site's file, if it is still the one that was generated."""
        for suffix in ("parquet", "csv"):
            name = f"{kind}/{site}.{suffix}"
            if name in self.files:
                path = self.path / name
                try:
                    same = sha256_of(path) == self.files[name]
                except OSError as error:
                    raise DataError(
                        f"{site}: {path} cannot be read ({error.strerror}): generate the fleet "
                        "again"
                    ) from None
                if not same:
                    raise DataError(
                        f"{site}: {path} is not as it was generated (its sha256 differs): generate "
                        "the fleet again, or read your own files with data=files"
                    )
                return path
        raise DataError(f"{site}: {self.path / SUMMARY} lists no file of kind {kind}")
