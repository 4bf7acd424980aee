"""Records of a deployed run besides those of ``fedpdm.wire.records``.

    every message  down  envelope{config, site?, …}        the composed config, and its site
    query.describe up    description{site, features, …}    counts and names, never rows
    query.test     down  arrays  buffers?  scaler?
                   up    tested{validation, test, heldout} metrics, as JSON

The config travels with every message because a site's app is a fresh process each time,
and because a resumed run goes by the config in its folder, not by the command line.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from typing import Annotated, Any

from flwr.app import ConfigRecord, RecordDict
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as checked

from fedpdm.deployment.schema import Count, Name, Shape, Tested
from fedpdm.errors import ConfigError
from fedpdm.storage import cleaned

ENVELOPE, DESCRIPTION, TESTED = "envelope", "description", "tested"
DESCRIBE_QUERY, TEST_QUERY = "query.describe", "query.test"

MOST_TEXT = 2_000_000
"""Characters of JSON or yaml in one message; a config has some thousands."""

ANOTHER_SITE = 990
"""Error code of a reply: the node is not, or no longer, the site that was asked."""


@dataclass(frozen=True)
class Envelope:
    """What every message carries: the run's config, the site it is sent to, and the run's progress.

    Attributes:
        config: the composed config as yaml.
        site: the name of the site that is asked.
        run: hexadecimal digits that no other run has; none before its first commit.
        base: names what the site is to start from: what it remembered when an update of it last
            counted; none if there is no such.
        version: names what it will remember: the version that is being made.
        best: the same as ``base``, as of the best round so far: the one that is tested.
    """

    config: str
    site: str = ""
    run: str = ""
    base: str = ""
    version: str = ""
    best: str = ""

    def record(self) -> ConfigRecord:
        return ConfigRecord(dict(vars(self)))

    @classmethod
    def of(cls, content: RecordDict) -> Envelope:
        """Return the envelope of a message.

        Raises:
            KeyError: it carries none: it does not come from fedpdm's server.
            ConfigError: the config is longer than any config.
        """
        record = content.config_records[ENVELOPE]
        config = str(record["config"])
        if len(config) > MOST_TEXT:
            raise ConfigError(f"the run's config has {len(config)} characters; that is none")
        return cls(config, *(str(record[f.name]) for f in fields(cls)[1:]))


@checked(frozen=True, config=ConfigDict(extra="ignore"))
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
        notes: how many notes on its data stand in the site's own log; their texts name what is
            in the files and stay there.
        units: of features, where the site states one.
        levels: how many values the codes among the features have (``Source.levels``).
    """

    site: Name
    data: Name
    features: Annotated[tuple[Name, ...], Field(max_length=100_000)]
    window: Count | None
    conditions: Count
    time_unit: Name
    version: Name
    shape: Shape = Field(default_factory=dict)
    notes: Count = 0
    units: dict[Name, Name] = Field(default_factory=dict)
    levels: dict[Name, Count] = Field(default_factory=dict)

    def content(self) -> RecordDict:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return RecordDict({DESCRIPTION: ConfigRecord({"json": json.dumps(cleaned(values))})})

    @classmethod
    def of(cls, content: RecordDict) -> Description:
        """Return what a site said of itself.

        Raises:
            Exception: of any kind; a site may send whatever it likes.
        """
        values = _json(content, DESCRIPTION)
        # Another version may say more or less of itself; that it is another, is said then.
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})

    def differs(self, other: Description) -> str | None:
        """Return what makes two sites impossible in one federation, or None."""
        names = {"version": "fedpdm version", "time_unit": "time unit", "levels": "values of codes"}
        for what in ("version", "data", "features", "window", "conditions", "time_unit", "levels"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                name = names.get(what, what)
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
    """Return the test results of a reply, as ``Tested`` says.

    Raises:
        Exception: of any kind; a site may send whatever it likes.
    """
    result: dict[str, Any] = _json(content, TESTED)
    Tested.model_validate(result)
    return result


def why(error: Exception) -> str:
    """Return what is wrong with a reply, without what the site wrote into it."""
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(re.sub(r"\W", "?", str(part)) for part in first["loc"])[:100]
        return f"{place}: {first['type']}"
    return type(error).__name__


def _json(content: RecordDict, key: str) -> Any:
    text = str(content.config_records[key]["json"])
    if len(text) > MOST_TEXT:
        raise ValueError("too long")
    return json.loads(text)


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
