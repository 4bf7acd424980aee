"""The interface of a data source. Each has one file here and one yaml in ``conf/data``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import get_annotations
from types import MappingProxyType
from typing import Any

import numpy as np

from fedpdm.data.rows import Bools, Floats, Ints, Rows, Strings
from fedpdm.errors import ConfigError, DataError


@dataclass(frozen=True)
class OperatingConditions:
    """The set points that machines run at; part of the model card, so that new rows get theirs.

    Attributes:
        columns: S names of the settings' columns.
        points: (K, S) settings of each condition; the first setting tells them apart.
        tolerance: (S,) how far a row's settings may lie from its point.
    """

    columns: tuple[str, ...]
    points: tuple[tuple[float, ...], ...]
    tolerance: tuple[float, ...]

    def of(self, settings: Floats, where: str, hint: str = "") -> Ints:
        """Return (R,) the set point that each row's (R, S) settings round to.

        Args:
            settings: of the rows, in the order of ``columns``.
            where: whose rows, for the message.
            hint: ends the message.

        Raises:
            DataError: a row is near none of the set points.
        """
        points = np.array(self.points)
        nearest: Ints = np.abs(settings[:, :1] - points[:, 0]).argmin(axis=1).astype(np.int64)
        far = (np.abs(settings - points[nearest]) > np.array(self.tolerance)).any(axis=1)
        if far.any():
            given = ", ".join(f"{value:g}" for value in settings[far][0])
            raise DataError(
                f"{where}: settings {given} belong to none of the "
                f"{len(points)} known operating conditions{hint}"
            )
        return nearest


class Source(ABC):
    """A data set as sites see it. Made from a ``conf/data`` yaml by its ``_target_``.

    Every source takes at least ``sites`` (the composed site configs, by name), ``seed``
    and ``reach`` (how far past a row its label looks, in the data's time unit, for
    purging at time cuts). Reading is lazy: ``rows`` is first called when a site is
    first needed.
    """

    name: str
    """Short name for reports, for example ``fleet``."""
    time_unit: str
    """Plural noun, for example ``days`` or ``cycles``."""
    features: tuple[str, ...]
    """Feature names, known before any site is read."""
    window: int | None
    """Rows in a model input, or None for tabular data."""
    stride: int
    """Rows between the ends of two training windows."""
    max_gap: float | None = None
    """The longest time between two rows of a window, where the user says so."""
    evaluation_stride: int = 1
    """The same for validation, test and held-out windows."""
    conditions: int = 1
    """Number of operating conditions that scaling tells apart."""
    operating: OperatingConditions | None = None
    """How new rows get their condition; needed for ``predict`` where there are several."""
    categorical: tuple[str, ...] = ()
    """Features that are kinds or ranks, not quantities: nothing lies between two values."""
    levels: Mapping[str, int] = MappingProxyType({})
    """Categorical features that are codes 0 … n - 1, and their n: they are not scaled, and a
    model that has embeddings (``model=sensor_encoder``) embeds them."""
    groups: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Names of features by the group of sensors that they come from, for ablations."""
    generated: bool = False
    """Whether sites are made on demand, so that ``replicas`` can multiply them."""
    pad_training: bool = False
    """Whether every training row ends a window, early ones padded with their first row."""
    test_truncated: bool = False
    """Whether test machines are cut before they fail, while validation machines run to failure.
    Then thresholds and calibration need validation machines that are cut in the same way."""
    shares_machines: bool = False
    """Whether sites may see the same machines, each its own rows. If so, a machine is of one
    split at all of them, or cut in time with its labels apart."""
    local_machines: bool = False
    """Whether machine ids are a site's own, so that two sites may use the same ones."""
    tells_age: bool = True
    """Whether a model may know how long a machine has run; C-MAPSS can withhold the cycle."""
    units: Mapping[str, str] = MappingProxyType({})
    """Unit of a feature, where the user states one: sites that state one must state the same."""
    families: Mapping[str, str] = MappingProxyType({})
    """Which kind of site each one is, where whoever made the data knows it. No training does."""
    warnings: Sequence[str] = ()
    """What a person should know about the data read so far."""
    facts: tuple[str, ...] = ()
    """What is known of how generated data came to be, and stands beside the result; each the
    middle of a sentence: ``detroit's repaired machines fail in other ways from day 143 on``."""

    @property
    @abstractmethod
    def sites(self) -> tuple[str, ...]:
        """Names of all sites, in the order of reports."""

    @abstractmethod
    def rows(self, site: str) -> Rows:
        """Return the rows of ``site`` with their splits.

        The same arguments give the same bytes, whatever was called before.

        Raises:
            DataError: the site's data cannot be used; the message names site and file.
        """

    def expected_rows(self, site: str) -> int | None:
        """Return about how many rows a site will have, or None if only reading it tells."""
        return None

    def truth(self, site: str) -> Mapping[str, Strings]:
        """Return (R,) words of the truth behind ``rows(site)``, by name; real data has none.

        Labels may come from it, inputs never.
        """
        return {}

    def rules(self, rows: Rows) -> Bools | None:
        """Return (R,) what known physical rules alone would predict, or None without rules.

        A baseline without learning.
        """
        return None


class WrappedSource(Source):
    """Another source with something changed: what a subclass does not say stays as it is.

    Args:
        inner: the data.
    """

    def __init__(self, inner: Source) -> None:
        for name in get_annotations(Source):  # name, unit, features, window …
            setattr(self, name, getattr(inner, name))
        self.inner = inner

    @property
    def sites(self) -> tuple[str, ...]:
        return self.inner.sites

    def rows(self, site: str) -> Rows:
        return self.inner.rows(site)

    def expected_rows(self, site: str) -> int | None:
        return self.inner.expected_rows(site)

    def truth(self, site: str) -> Mapping[str, Strings]:
        return self.inner.truth(site)

    def rules(self, rows: Rows) -> Bools | None:
        return self.inner.rules(rows)


def expand_replicas(sites: dict[str, Any], replicas: int) -> dict[str, Any]:
    """Return each named site ``replicas`` times: ``detroit-001`` … with the same settings."""
    if replicas < 1:
        raise ConfigError(f"replicas={replicas} must be at least 1")
    if replicas == 1:
        return dict(sites)
    width = max(3, len(str(replicas)))
    return {
        f"{name}-{number:0{width}d}": settings
        for name, settings in sites.items()
        for number in range(1, replicas + 1)
    }


def require_choice(key: str, value: object, choices: Iterable[str], null: bool = False) -> None:
    """Raise ConfigError unless an option's value is one of ``choices``.

    Args:
        key: the option.
        value: what it was set to.
        choices: what it may be.
        null: whether the message names null as a further choice.
    """
    known = list(choices)
    if value not in known:
        *most, last = [*known, "null"] if null else known
        raise ConfigError(f"{key}={value} is unknown; choose {', '.join(most)} or {last}")


def require_positive(key: str, value: object) -> int:
    """Return an option's value as an integer of at least 1, or raise ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{key}={value} must be a whole number of at least 1")
    return value


def require_fraction(key: str, value: float) -> float:
    """Return an option's value, a share of at least 0 and below 1, or raise ConfigError."""
    if not 0 <= value < 1:
        raise ConfigError(f"{key}={value} must be at least 0 and below 1")
    return value
