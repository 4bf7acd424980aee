"""What the gates ask for: ``conf/promote.yaml``, with the keys of a user's own file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedpdm.config.schema import conf_dir
from fedpdm.errors import ConfigError

Amount = Annotated[float, Field(ge=0)]


class Thresholds(BaseModel):
    """The values of ``conf/promote.yaml``, each explained there."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)
    critical: list[str]
    reproduced: Amount
    resamples: Annotated[int, Field(ge=200, le=100_000)]
    quality: dict[str, dict[str, float]]
    control_margin: Amount
    calibration_error: Amount
    coverage_shortfall: Amount
    site_margin: Amount
    seed_spread: Amount
    drift: Amount
    milliseconds: Amount
    slower: dict[str, Amount]
    parity: Amount

    def milliseconds_of(self, model: str) -> float:
        """Return how long one window of a kind of model may take."""
        return self.slower.get(model, self.milliseconds)


def load_thresholds(own: Path | None = None) -> Thresholds:
    """Return the thresholds.

    Args:
        own: a yaml with keys that differ from ``conf/promote.yaml``.

    Raises:
        ConfigError: it cannot be read, or a key is unknown or of the wrong kind.
    """
    values = _read(conf_dir() / "promote.yaml")
    if own is not None:
        values |= _read(own)
    try:
        return Thresholds.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{own}: {place}: {first['msg']}; the keys are in conf/promote.yaml"
        ) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--gates {path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"--gates {path} must hold keys and values, as conf/promote.yaml does")
    return values
