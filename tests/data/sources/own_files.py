"""Files as people bring them, made small: two plain sites, and three strangers' sites."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

Tables = tuple[pd.DataFrame, pd.DataFrame]


def plain(seed: int, machines: int = 10, steps: int = 300, freq: str = "D") -> Tables:
    """Machines that wear out, and get warmer: rows, and a log of failures."""
    draw = np.random.default_rng(seed)
    rows, log = [], []
    for machine in range(machines):
        wear = draw.uniform(0, 0.8)
        for time in pd.date_range("2024-01-01", periods=steps, freq=freq):
            wear += draw.gamma(2, 0.01)
            rows.append(
                (f"{seed}M{machine}", time, round(60 + 12 * wear**3 + draw.normal(0, 2), 2))
            )
            if wear > 1:
                log.append((f"{seed}M{machine}", time + pd.Timedelta("15h"), "failure"))
                wear = 0
    return (
        pd.DataFrame(rows, columns=["asset", "timestamp", "T1"]),
        pd.DataFrame(log, columns=["asset", "timestamp", "kind"]),
    )


def two_sites(
    folder: Path,
    rewrite: Callable[[str, pd.DataFrame, pd.DataFrame], Tables] = lambda name, rows, log: (
        rows,
        log,
    ),
    names: tuple[str, str] = ("gdansk", "lyon"),
    csv: Mapping[str, Any] | None = None,
    made: Mapping[str, Any] | None = None,
    **keys: Any,
) -> Path:
    """Write two sites' files and yamls.

    Args:
        folder: where to.
        rewrite: changes a site's rows and log.
        names: of the sites.
        csv: options of ``to_csv``.
        made: options of ``plain``.
        **keys: of the yamls; a function is called with the site's name.
    """
    (folder / "site").mkdir(parents=True, exist_ok=True)
    for seed, name in zip((11, 12), names, strict=True):
        rows, log = rewrite(name, *plain(seed, **(made or {})))
        options = {"index": False, **(csv or {})}
        rows.to_csv(folder / f"{name}.csv", **options)
        log.to_csv(folder / f"{name}_log.csv", **options)
        settings = {
            "path": f"{name}.csv",
            "machine": "asset",
            "time": "timestamp",
            "features": ["T1"],
            "failures": f"{name}_log.csv",
        } | {key: value(name) if callable(value) else value for key, value in keys.items()}
        write_yaml(folder, name, yaml.safe_dump({name: settings}, sort_keys=False))
    return folder


def write_yaml(folder: Path, name: str, text: str) -> None:
    (folder / "site").mkdir(parents=True, exist_ok=True)
    (folder / "site" / f"{name}.yaml").write_text(f"# @package sites\n{text}", encoding="utf-8")


def settings_in(folder: Path) -> dict[str, Any]:
    """Return the sites' blocks of the yamls in a folder."""
    sites: dict[str, Any] = {}
    for path in sorted((folder / "site").glob("*.yaml")):
        sites |= yaml.safe_load(path.read_text(encoding="utf-8"))
    return sites


def valve_rig(folder: Path, name: str = "rig", seed: int = 0) -> None:
    """A valve rig: 30 runs in files of their own, semicolons, no column of machines."""
    draw = np.random.default_rng(seed)
    for run in range(30):
        steps = 240
        when = pd.Timestamp("2020-03-09 10:00") + pd.Timedelta(minutes=45 * run)
        fault = np.zeros(steps, dtype=int)
        begin = int(draw.integers(100, 150))
        fault[begin : begin + 50] = 1
        rows = pd.DataFrame(
            {
                "datetime": pd.date_range(when, periods=steps, freq="5s"),
                "Pressure": draw.normal(1, 0.1, steps) + 0.6 * fault,
                "Volume Flow RateRMS": draw.normal(120, 3, steps) - 9 * fault,
                "anomaly": fault.astype(float),
            }
        )
        place = folder / f"valve{run // 15 + 1}"
        place.mkdir(parents=True, exist_ok=True)
        rows.to_csv(place / f"{run % 15}.csv", sep=";", index=False)
    write_yaml(
        folder,
        name,
        f"""{name}:
  path: valve*/*.csv
  sep: ';'
  time: datetime
  features: {{pressure: Pressure, flow: Volume Flow RateRMS}}
  label: anomaly
""",
    )


def machine_tables(folder: Path, name: str = "model3") -> None:
    """Telemetry, failures, maintenance and machines of two models, zipped; ids in two spellings."""
    rows, log = plain(21, machines=16, steps=240)
    number = rows["asset"].str.partition("M")[2].astype(int)
    telemetry = pd.DataFrame(
        {
            "datetime": rows["timestamp"].dt.strftime("%m/%d/%Y %I:%M:%S %p"),
            "machineID": number.astype(float),
            "volt": rows["T1"],
            "mode": np.where(number % 3 == 0, "eco", np.where(number % 3 == 1, "full", "idle")),
        }
    )
    failures = pd.DataFrame(
        {
            "datetime": log["timestamp"].dt.strftime("%d/%m/%Y"),
            "machineID": log["asset"].str.partition("M")[2].astype(int),
            "failure": "comp2",
        }
    )
    when = pd.to_datetime("2024-02-10") + pd.to_timedelta(np.arange(16), unit="D")
    services = pd.DataFrame({"datetime": when, "machineID": np.arange(16), "comp": "comp1"})
    machines = pd.DataFrame(
        {
            "machineID": np.arange(16),
            "model": np.where(np.arange(16) < 8, "model3", "model4"),
            "age": np.arange(16) + 2,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "azure.zip", "w") as archive:
        for table, frame in (("telemetry", telemetry), ("failures", failures),
                             ("maint", services), ("machines", machines)):  # fmt: skip
            archive.writestr(f"PdM_{table}.csv", frame.to_csv(index=False))
    for site in (name, "model4"):
        write_yaml(
            folder,
            site,
            f"""{site}:
  path: azure.zip/PdM_telemetry.csv
  machine: machineID
  time: datetime
  time_format: '%m/%d/%Y %I:%M:%S %p'
  machines: azure.zip/PdM_machines.csv
  where: {{model: {site}}}
  features:
    volt: volt
    age: age
    mode: {{column: mode, values: [eco, full, idle]}}
  failures: {{path: azure.zip/PdM_failures.csv, time_format: '%d/%m/%Y', unknown_machines: ignore}}
  maintenance: {{path: azure.zip/PdM_maint.csv, time_format: '%Y-%m-%d', unknown_machines: ignore}}
""",
        )


def wind_farm(folder: Path, name: str = "farm") -> None:
    """Turbines in one file, times with a zone; a log of other turbines too, without one."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, log = plain(31, machines=5, steps=300)
    rows["Timestamp"] = rows["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%S+00:00")
    rows["Turbine"] = "T0" + rows["asset"].str[-1]
    rows["state"] = np.where(np.arange(len(rows)) % 9 == 0, "Off", "On")
    log["Turbine"] = "T0" + log["asset"].str[-1]
    log["Timestamp"] = log["timestamp"] + pd.Timedelta("1h")  # Lisbon's clocks in summer time
    log["end"] = log["Timestamp"] + pd.Timedelta("3D")
    log["what"] = np.where(np.arange(len(log)) % 4 == 3, "Inspection", "Gearbox")
    other = log.head(3).assign(Turbine="T11", Timestamp="2024-05-05 12:00:00", end="")
    columns = ["Turbine", "Timestamp", "end", "what"]
    rows[["Turbine", "Timestamp", "T1", "state"]].to_csv(folder / "signals.csv", index=False)
    pd.concat([log, other])[columns].to_csv(folder / "failures.csv", index=False)
    write_yaml(
        folder,
        name,
        f"""{name}:
  path: signals.csv
  machine: Turbine
  time: Timestamp
  features: {{gearbox: T1, state: state}}
  failures:
    path: failures.csv
    time_zone: Europe/Lisbon
    end: end
    kind: what
    failure_kinds: [gearbox]
    repair_kinds: [inspection]
    unknown_machines: ignore
""",
    )
