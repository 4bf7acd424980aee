"""Operating conditions: which set point a machine ran at, told from columns of settings.

K set points, S settings, R rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpdm.data.rows import Floats, Ints
from fedpdm.errors import DataError


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
