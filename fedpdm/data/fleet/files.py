"""A generated fleet as a folder of files: its tables, written and read.

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

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpdm.data.fleet.life import FAILURE, MAINTENANCE
from fedpdm.data.rows import Strings
from fedpdm.errors import DataError

if TYPE_CHECKING:
    from fedpdm.data.fleet.record import Record

Columns = dict[str, Any]


def write_site(folder: Path, site: str, made: Record, csv: bool) -> list[str]:
    """Write one site's files below ``folder``; return their paths, relative to it."""
    suffix = "csv" if csv else "parquet"
    latent, around = made.latent, made.around
    readings: Columns = {"machine": made.machine, "time": made.time}
    readings |= dict(zip(made.features, made.values.T, strict=True))
    modes = np.array([*latent.modes, "none"])
    truth: Columns = {"machine": made.machine, "time": made.time}
    truth |= {f"wear_{name}": wear for name, wear in zip(latent.modes, latent.wear.T, strict=True)}
    truth |= {
        "mode": modes[latent.mode],
        "scenario": np.array(latent.scenarios)[latent.scenario],
        "asset": np.array(latent.kinds)[latent.kind],
        "load": latent.load,
        "regime": latent.regime,
    }
    time, lives = around.time, made.lives
    tables: dict[str, Columns] = {
        f"plants/{site}.{suffix}": readings,
        f"logs/{site}.csv": {
            "machine": made.log.machine,
            "time": made.log.time,
            "kind": np.where(made.log.failure, FAILURE, MAINTENANCE),
            "downtime_days": made.log.downtime,
        },
        f"exogenous/{site}.{suffix}": {
            "time": time,
            "weather_c": around.weather,
            "hall_temperature_c": around.ambient,
            "planned_load": around.planned,
            "working": around.working.astype(np.int64),
        },
        f"truth/{site}.{suffix}": truth,
        f"truth/{site}-lives.csv": {
            "machine": np.array([name for name, _, _ in lives], dtype=np.str_),
            "life": np.array([number for _, number, _ in lives], dtype=np.int64),
            "begin": np.array([time[life.begin] for _, _, life in lives], dtype=np.float64),
            "end": np.array([life.time for _, _, life in lives], dtype=np.float64),
            "ended_by": np.array([life.end for _, _, life in lives], dtype=np.str_),
            "mode": np.array([latent.modes[life.mode] for _, _, life in lives], dtype=np.str_),
            "scenario": np.array(
                [latent.scenarios[life.scenario] for _, _, life in lives], dtype=np.str_
            ),
            "wear_before_jump": np.array([life.onset for _, _, life in lives], dtype=np.float64),
        },
        f"truth/{site}-links.csv": {
            "machine": np.array([link.machine for link in made.links], dtype=np.str_),
            "begin": np.array([link.begin for link in made.links], dtype=np.float64),
            "end": np.array([link.end for link in made.links], dtype=np.float64),
            "rows_lost": np.array([link.rows for link in made.links], dtype=np.int64),
        },
    }
    for path, columns in tables.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_table(folder / path, columns)
    return list(tables)


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
        found |= {name: _words(table[name]) for name in words}
        return found
    except FileNotFoundError:
        raise DataError(f"{path} is missing: generate the fleet again") from None
    except (pa.ArrowException, OSError, KeyError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} cannot be read ({cause}): generate the fleet again") from None


def _words(column: Any) -> Strings:
    encoded = column.combine_chunks().dictionary_encode()
    if hasattr(encoded, "combine_chunks"):
        encoded = encoded.combine_chunks()
    known = np.array(encoded.dictionary.to_pylist(), dtype=np.str_)
    if len(known) == 0:
        return np.zeros(0, dtype=np.str_)
    return np.asarray(known[encoded.indices.to_numpy()])
