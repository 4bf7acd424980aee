"""Writes a generated fleet to a folder of files, and reads it back.

    FOLDER/summary.json             settings, counts, gates, sha256 of every file
    FOLDER/plants/detroit.parquet   machine, time (days), one column per sensor
    FOLDER/logs/detroit.csv         machine, time, kind (failure | maintenance), downtime_days
    FOLDER/exogenous/…              time, weather, hall temperature, planned load, working
    FOLDER/truth/detroit.parquet    per row: wear per mode, mode, scenario, asset, load, …
    FOLDER/truth/detroit-lives.csv  per life: when, how it ended, of what, which scenario
    FOLDER/truth/detroit-links.csv  per failure of a data link: when, and how many rows it cost

Nothing below ``truth/`` is needed to train, and none of it may be used to. Numbers are
written so that they read back to the bit, in Parquet and in CSV.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedpdm.data.fleet.assets import KINDS, MODES, NAMES
from fedpdm.data.fleet.life import FAILURE, MAINTENANCE
from fedpdm.data.fleet.record import Latent, Log, Record
from fedpdm.data.fleet.settings import SCENARIOS
from fedpdm.data.rows import Floats, Strings
from fedpdm.errors import ConfigError, DataError
from fedpdm.storage import sha256_of

FORMAT = 1
SUMMARY = "summary.json"
NONE = "none"
WORDS = {
    "mode": ("mode", (*MODES, NONE)),
    "scenario": ("scenario", SCENARIOS),
    "asset": ("kind", KINDS),
}
"""Columns of the truth that are words: the field of ``Latent``, and the words by position."""

Columns = dict[str, Any]


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
            self.seed = int(self.summary["seed"])
            self.files: dict[str, str] = self.summary["files"]
            self.profiles: dict[str, Any] = self.summary["settings"]["plants"]
        except FileNotFoundError:
            raise DataError(
                f"data.path={path} holds no {SUMMARY}: name a folder that "
                "'python -m fedpdm.data generate' wrote, or leave data.path out"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
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
        made, wanted = dict(self.summary["settings"]["data"]), dict(settings)
        for site, profile in profiles.items():
            if site not in self.profiles:
                raise ConfigError(
                    f"data.path={self.path} has no site {site}; there are "
                    f"{', '.join(self.profiles)}"
                )
            wanted |= {f"sites.{site}.{key}": value for key, value in profile.items()}
            made |= {f"sites.{site}.{key}": value for key, value in self.profiles[site].items()}
        wanted = json.loads(json.dumps(wanted))  # lists, as in the file
        for key, value in wanted.items():
            if value != made.get(key):
                raise ConfigError(
                    f"{key}={value}, but the files in {self.path} were generated with "
                    f"{made.get(key)}: give the settings of the command in its {SUMMARY}, or "
                    "generate another fleet"
                )

    def readings(self, site: str) -> tuple[Strings, Floats, Floats, Log]:
        """Return (R,) machine, (R,) time, (R, F) values and the log of a site."""
        table = read_table(self._checked("plants", site), ["time", *NAMES], ["machine"])
        path = self._checked("logs", site)
        log = read_table(path, ["time", "downtime_days"], ["machine", "kind"])
        values = np.stack([table[name] for name in NAMES], axis=1)
        events = Log(log["machine"], log["time"], log["kind"] == FAILURE, log["downtime_days"])
        return table["machine"], table["time"], values, events

    def latent(self, site: str) -> Latent:
        """Return the truth behind the rows of a site."""
        wear = [f"wear_{name}" for name in MODES]
        table = read_table(self._checked("truth", site), [*wear, "load", "regime"], [*WORDS])
        positions = {}
        for name, (which, known) in WORDS.items():
            index = {word: place for place, word in enumerate(known)} | {NONE: -1}
            words, inverse = np.unique(table[name], return_inverse=True)
            positions[which] = np.array([index[word] for word in words.tolist()])[inverse]
        return Latent(
            wear=np.stack([table[name] for name in wear], axis=1),
            load=table["load"],
            regime=table["regime"].astype(np.int64),
            **positions,
        )

    def _checked(self, kind: str, site: str) -> Path:
        """Return the path of a site's file, if it is still the one that was generated."""
        names = [f"{kind}/{site}.{suffix}" for suffix in ("parquet", "csv")]
        name = next((name for name in names if name in self.files), None)
        if name is None:
            raise DataError(f"{site}: {self.path / SUMMARY} lists no file of kind {kind}")
        path = self.path / name
        try:
            same = sha256_of(path) == self.files[name]
        except OSError as error:
            raise DataError(
                f"{site}: {path} cannot be read ({error.strerror}): generate the fleet again"
            ) from None
        if not same:
            raise DataError(
                f"{site}: {path} is not as it was generated (its sha256 differs): generate the "
                "fleet again, or read your own files with data=files"
            )
        return path


def write_site(folder: Path, site: str, made: Record, csv: bool) -> list[str]:
    """Write one site's files below ``folder``; return their paths, relative to it."""
    suffix = "csv" if csv else "parquet"
    latent, around, log = made.latent, made.around, made.log
    rows: Columns = {"machine": made.machine, "time": made.time}
    tables: dict[str, Columns] = {
        f"plants/{site}.{suffix}": rows | dict(zip(NAMES, made.values.T, strict=True)),
        f"logs/{site}.csv": {
            "machine": log.machine,
            "time": log.time,
            "kind": np.where(log.failure, FAILURE, MAINTENANCE),
            "downtime_days": log.downtime,
        },
        f"exogenous/{site}.{suffix}": {
            "time": around.time,
            "weather_c": around.weather,
            "hall_temperature_c": around.ambient,
            "planned_load": around.planned,
            "working": around.working.astype(np.int64),
        },
        f"truth/{site}.{suffix}": rows
        | {f"wear_{name}": wear for name, wear in zip(MODES, latent.wear.T, strict=True)}
        | {name: np.array(known)[getattr(latent, which)] for name, (which, known) in WORDS.items()}
        | {"load": latent.load, "regime": latent.regime},
        f"truth/{site}-lives.csv": _columns(
            ["machine", "life", "begin", "end", "ended_by", "mode", "scenario", "wear_before_jump"],
            [
                (name, number, around.time[life.begin], life.time, life.end, MODES[life.mode],
                 SCENARIOS[life.scenario], life.onset)
                for name, number, life in made.lives
            ],
        ),
        f"truth/{site}-links.csv": _columns(
            ["machine", "begin", "end", "rows_lost"],
            [(link.machine, link.begin, link.end, link.rows) for link in made.links],
        ),
    }  # fmt: skip
    for path, columns in tables.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_table(folder / path, columns)
    return list(tables)


def _columns(names: list[str], rows: list[tuple[Any, ...]]) -> Columns:
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return {name: np.array(column) for name, column in zip(names, columns, strict=True)}


def write_table(path: Path, columns: Columns) -> None:
    """Write columns as CSV or Parquet by the path's ending; NaN becomes an empty cell."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    arrays = {}
    for name, values in columns.items():
        if values.dtype.kind == "U":  # few different names, many rows: written once each
            known, index = np.unique(values, return_inverse=True)
            words = pa.array(known.tolist(), pa.string())
            encoded = pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32)), words)
            arrays[name] = encoded.cast(pa.string()) if path.suffix == ".csv" else encoded
        else:
            arrays[name] = pa.array(np.ascontiguousarray(values), from_pandas=True)
    table = pa.table(arrays)
    if path.suffix == ".csv":
        pa.csv.write_csv(table, path, pa.csv.WriteOptions(quoting_style="none"))
    else:
        # Readings are noise to the last digit: looking for repeated ones costs time, not bytes.
        words = [name for name, values in columns.items() if values.dtype.kind == "U"]
        pa.parquet.write_table(
            table, path, compression="zstd", compression_level=1, use_dictionary=words,
            store_schema=False,
        )  # fmt: skip


def read_table(path: Path, numbers: list[str], words: list[str]) -> Columns:
    """Return the named columns of a table that ``write_table`` wrote: float64, and text.

    Raises:
        DataError: it is missing, damaged, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if path.suffix == ".csv":
            types = dict.fromkeys(numbers, pa.float64()) | dict.fromkeys(words, pa.string())
            options = pa.csv.ConvertOptions(
                column_types=types, include_columns=[*words, *numbers], strings_can_be_null=False
            )
            table = pa.csv.read_csv(path, convert_options=options)
        else:
            table = pa.parquet.read_table(path, columns=[*words, *numbers])
        found: Columns = {
            name: table[name].to_numpy().astype(np.float64, copy=False) for name in numbers
        }
        for name in words:
            coded = table[name].to_pandas(strings_to_categorical=True).cat
            found[name] = coded.categories.to_numpy(dtype=np.str_)[coded.codes]
        return found
    except FileNotFoundError:
        raise DataError(f"{path} is missing: generate the fleet again") from None
    except (pa.ArrowException, OSError, KeyError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} cannot be read ({cause}): generate the fleet again") from None
