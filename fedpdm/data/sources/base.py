"""The interface of a data set. One file under ``fedpdm/data/`` and one yaml each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from fedpdm.data.operating import OperatingConditions
from fedpdm.data.rows import Bools, Rows


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
    evaluation_stride: int = 1
    """The same for validation, test and held-out windows."""
    conditions: int = 1
    """Number of operating conditions that scaling tells apart."""
    operating: OperatingConditions | None = None
    """How new rows get their condition; needed for ``predict`` where there are several."""
    categorical: tuple[str, ...] = ()
    """Features that are kinds or ranks, not quantities: nothing lies between two values."""
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
    warnings: Sequence[str] = ()
    """What a person should know about the data read so far."""

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

    def rules(self, rows: Rows) -> Bools | None:
        """Return (R,) what known physical rules alone would predict, or None without rules.

        A control without learning, printed beside the baselines.
        """
        return None
