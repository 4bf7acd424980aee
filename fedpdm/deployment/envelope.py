"""What travels between the server and sites beside ``fedpdm.wire.records``.

    every message  down  letter{config, site?}             the composed config, whom it is for
    query.describe up    description{site, features, …}    counts and names, never rows
    query.test     down  arrays  buffers?  scaler?
                   up    tested{validation, test, heldout} metrics, as JSON

The config travels with every message because a site's app is a fresh process each time,
and because a resumed run goes by the config in its folder, not by the command line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from fedpdm.storage import cleaned

ENVELOPE, DESCRIPTION, TESTED = "letter", "description", "tested"
DESCRIBE_QUERY, TEST_QUERY = "query.describe", "query.test"

ANOTHER_SITE = 990
"""Error code of a reply: the node is not, or no longer, the site that was asked."""


@dataclass(frozen=True)
class Envelope:
    """What stands in every message: the run's config as yaml, and whom it is for."""

    config: str
    site: str = ""

    def record(self) -> ConfigRecord:
        return ConfigRecord({"config": self.config, "site": self.site})

    @classmethod
    def of(cls, content: RecordDict) -> Envelope:
        """Return the letter in a message.

        Raises:
            KeyError: it carries none: it does not come from fedpdm's the server.
        """
        record = content.config_records[ENVELOPE]
        return cls(str(record["config"]), str(record["site"]))


@dataclass(frozen=True)
class Description:
    """What a site says of itself: names and counts, never rows.

    Attributes:
        site: its name in the config.
        data: name of the data set, for example ``files``.
        features: names, in the order of the model's input.
        window: rows in a model input; None for single rows.
        conditions: operating conditions that scaling tells apart.
        time_unit: for example ``days``.
        version: of the site's fedpdm.
        shape: what the report says about the data (``Federation.shape``), with its sha256.
        warnings: what a person should know about the data.
        units: of features, where the site states one.
    """

    site: str
    data: str
    features: tuple[str, ...]
    window: int | None
    conditions: int
    time_unit: str
    version: str
    shape: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    units: dict[str, str] = field(default_factory=dict)

    def content(self) -> RecordDict:
        return RecordDict({DESCRIPTION: ConfigRecord({"json": json.dumps(cleaned(vars(self)))})})

    @classmethod
    def of(cls, content: RecordDict) -> Description:
        values = json.loads(str(content.config_records[DESCRIPTION]["json"]))
        # Another version may say more or less of itself; that it is another, is said then.
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        return cls(
            **{
                **known,
                "features": tuple(known["features"]),
                "warnings": tuple(known.get("warnings", ())),
            }
        )

    def differs(self, other: Description) -> str | None:
        """Return what makes two sites impossible in one federation, or None."""
        for what in ("version", "data", "features", "window", "conditions", "time_unit"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                name = {"version": "fedpdm version", "time_unit": "time unit"}.get(what, what)
                return (
                    f"{self.site} and {other.site} disagree on the {name}: "
                    f"{self.site} has {_shown(mine)}, {other.site} has {_shown(theirs)}"
                )
        for name in self.units.keys() & other.units.keys():
            if self.units[name] != other.units[name]:
                return (
                    f"{self.site} and {other.site} disagree on the unit of {name}: {self.site} has "
                    f"{self.units[name]}, {other.site} has {other.units[name]}; say in one site's "
                    "yaml what it is converted into (features.NAME.into)"
                )
        return None


def result_content(result: dict[str, Any]) -> RecordDict:
    """Return a site's test results as a reply."""
    return RecordDict({TESTED: ConfigRecord({"json": json.dumps(cleaned(result))})})


def result_in(content: RecordDict) -> dict[str, Any]:
    """Return the test results of a reply."""
    result: dict[str, Any] = json.loads(str(content.config_records[TESTED]["json"]))
    return result


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
