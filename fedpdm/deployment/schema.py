"""The schema of a site's JSON: numbers in their ranges, short words, nothing else.

A reply comes from another machine. What does not fit is refused before it touches the run.
What fits is kept as it came.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    model_validator,
)

from fedpdm.server.reported import flaw_of

Name = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f<>]*$")]
"""A name that a person gave: of a site, a feature, a unit."""
Word = Annotated[str, StringConstraints(max_length=100, pattern=r"^[\w .,:%+*/-]*$")]
"""One of our own words: of a method, an aim, a period."""
Count = Annotated[int, Field(strict=True, ge=0, le=10**12)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[Real, Field(ge=0, le=1)]
Level = Annotated[Real, Field(ge=0, le=1.0001)]
"""A threshold of risks; "never an alarm" lies just above 1."""

DEEPEST = 8
MOST = 10_000
"""Values in one mapping or list."""
_LEAF: TypeAdapter[Any] = TypeAdapter(bool | Real | Word | None)
_WORD: TypeAdapter[str] = TypeAdapter(Word)


def plain(value: Any, depth: int = 0) -> Any:
    """Refuse a tree that holds anything but numbers and words.

    Raises:
        ValueError: it does, or is too deep or too long.
    """
    if depth > DEEPEST or (isinstance(value, dict | list) and len(value) > MOST):
        raise ValueError("too deep or too long")
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else ():
            _WORD.validate_python(key)
        for each in value.values() if isinstance(value, dict) else value:
            plain(each, depth + 1)
    else:
        _LEAF.validate_python(value)
    return value


def _measured(values: dict[str, Any]) -> dict[str, Any]:
    if flaw := flaw_of({name: value for name, value in values.items() if value is not None}):
        raise ValueError(flaw)
    return values


Measured = Annotated[dict[Word, Real | None], Field(max_length=MOST), AfterValidator(_measured)]
"""Metrics by name; None is one that could not be computed."""


class Part(BaseModel):
    """A mapping: keys that have a field here are of its type, the others are plain values."""

    model_config = ConfigDict(extra="allow")

    def model_post_init(self, context: Any) -> None:
        plain(self.model_extra)


class Data(Part):
    """Counts and shares of a site's data (``Federation.shape``)."""

    site: Name = ""
    rows: Count = 0
    machines: Count = 0
    failures: Count = 0
    missing: Share = 0.0
    windows: dict[Word, Count] = Field({}, max_length=9)
    prevalence: dict[Word, Share | None] | None = None
    sha256: Word = ""


class Thresholds(Part):
    common: dict[Word, Level | None] = Field({}, max_length=MOST)


class Calibration(Part):
    method: Word | None = None
    temperature: Real | None = None
    corners: list[dict[Word, list[Share]]] | None = Field(None, max_length=MOST)


class Episodes(Part):
    episodes: Count = 0
    failures: Count = 0
    exposure: Real | None = None
    event_recall: Share | None = None


class Alarms(Part):
    own: Episodes | None = None
    horizons: dict[Word, Episodes] = Field({}, max_length=MOST)


class Interval(Part):
    coverage: Share | None = None
    width: Real | None = None


class Intervals(Part):
    level: Share | None = None
    own: Interval | None = None


class Card(Part):
    """What ``predict`` needs at the site."""

    threshold: Level | None = None
    thresholds: dict[Word, Level | None] | None = Field(None, max_length=MOST)
    calibration: Calibration | None = None
    interval: dict[Word, Real | None] | None = Field(None, max_length=MOST)


class Inspected(BaseModel):
    """How many machines a site has, and how many of them are in alarm."""

    machines: Count
    alarms: Count

    @model_validator(mode="after")
    def _of_them(self) -> Self:
        if self.alarms > self.machines:
            raise ValueError("more machines in alarm than there are")
        return self


class Details(Part):
    """A site's own findings besides its metrics (``deployment.site_results``)."""

    thresholds: Thresholds | None = None
    calibration: Calibration | None = None
    alarms: Alarms | None = None
    intervals: Intervals | None = None
    card: Card | None = None
    inspect: Inspected | None = None


class Tested(BaseModel):
    """A site's test results."""

    threshold: Level | None = None
    validation: Measured | None = None
    test: Measured | None
    heldout: Measured | None
    details: Details | None = None


def _described(value: dict[str, Any]) -> dict[str, Any]:
    Data.model_validate(value)
    return value


Shape = Annotated[dict[str, Any], AfterValidator(_described)]
