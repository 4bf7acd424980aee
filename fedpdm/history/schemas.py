"""Schemas of a run folder's JSON files: types, ranges, sizes, whoever wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedpdm.errors import HistoryError
from fedpdm.storage import parse_json

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Size = Annotated[int, Field(ge=1, le=65_536)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Name = Annotated[str, Field(max_length=200)]
Names = Annotated[list[Name], Field(max_length=65_536)]
LARGEST_SETTING = 1_000_000
"""No number of units, layers or rows in a model's settings is larger."""


class _File(BaseModel):
    """A JSON file; keys that are not named here are data that nothing computes with."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
    version: Literal[1] = Field(1, alias="schema")

    @classmethod
    def read(cls, content: bytes, where: Path) -> dict[str, Any]:
        """Return the plain values of a file, checked.

        Args:
            content: of the file.
            where: its path, for messages.

        Raises:
            HistoryError: it is not what such a file holds; names the key.
        """
        value = parse_json(content, where)
        try:
            cls.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part)[:60] for part in first["loc"]) or "the file"
            raise HistoryError(f"{where} is damaged: {place}: {first['msg']}") from None
        return dict(value)


class _Split(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    content_sha256: Name | None = None


class Manifest(_File):
    """``manifest.json``: what the run was begun with."""

    class Data(BaseModel):
        model_config = ConfigDict(extra="allow", strict=True)
        sha256: Name | None = None
        sites: dict[str, Name] = {}
        split: _Split | None = None

    class Engine(BaseModel):
        model_config = ConfigDict(extra="allow", strict=True)
        name: Name
        settings: dict[str, Any] = {}

    class Evaluate(BaseModel):
        model_config = ConfigDict(extra="allow", strict=True)
        fraction: Annotated[float, Field(gt=0, le=1)]

    seed: int = 0
    config: dict[str, Any]
    data: Data = Data()
    engine: Engine | None = None
    evaluate: Evaluate | None = None
    git_commit: Name | None = None


class Scores(BaseModel):
    """Metrics of some test windows; what could not be computed is null."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
    average_precision: Share | None = None
    roc_auc: Share | None = None
    f1: Share | None = None
    brier: Share | None = None
    ece: Share | None = None
    prevalence: Share | None = None
    mcc: Annotated[float, Field(ge=-1, le=1)] | None = None
    rmse: float | None = None
    n: Annotated[float, Field(ge=0)] | None = None
    positives: Annotated[float, Field(ge=0)] | None = None


class Summary(_File):
    """``summary.json``: the result."""

    class Tested(BaseModel):
        model_config = ConfigDict(extra="allow", strict=True, populate_by_name=True)
        together: Scores | None = Field(None, alias="global")
        mean_site: Scores | None = None
        per_site: dict[str, Scores | None] = {}
        baselines: dict[str, dict[str, Any] | None] = {}

    class Bytes(BaseModel):
        model_config = ConfigDict(extra="allow", strict=True)
        up: Count | None = None
        down: Count | None = None

    class Data(BaseModel):
        model_config = ConfigDict(extra="allow", strict=True)
        name: Name | None = None
        sha256: Name | None = None
        time_unit: Name | None = None

    seed: int
    rounds: Count
    best_round: Count | None = None
    task: Name | None = None
    gain_against: Name | None = None
    test: Tested
    bytes: Bytes | None = None
    seconds: dict[str, Seconds | dict[str, Seconds] | None] | None = None
    processor_seconds: dict[str, Seconds | None] | None = None
    data: Data | None = None
    versions: dict[str, Name] | None = None


class _Calibration(BaseModel):
    class Corners(BaseModel):
        said: list[Share] = Field(max_length=1_000_000)
        calibrated: list[Share]

        @model_validator(mode="after")
        def _pairs(self) -> Self:
            if len(self.said) != len(self.calibrated) or self.said != sorted(self.said):
                raise ValueError("corners must be pairs that rise")
            return self

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    method: Literal["temperature", "isotonic"]
    temperature: Annotated[float, Field(gt=0)] = 1.0
    corners: list[Corners] = []


class _Interval(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")
    level: Share
    factor: Annotated[float, Field(ge=0)] | None
    cap: Annotated[float, Field(gt=0)]
    machines: Count


class Card(_File):
    """``model.json``: how to build the model and read new rows."""

    class Task(BaseModel):
        model_config = ConfigDict(extra="allow", strict=True)
        name: Name

    class Data(BaseModel):
        model_config = ConfigDict(extra="allow", strict=True)
        name: Name
        time_unit: Name
        max_gap: Annotated[float, Field(gt=0)] | None = None

    class Personal(BaseModel):
        model_config = ConfigDict(strict=True)
        tensors: Names
        seed: Count
        sites: Names
        objective: dict[str, Any] | None
        method: Name | None = None

    model_type: Name
    config: dict[str, Any]
    input_dim: Size
    num_classes: Size
    sequence_length: Size | None
    features: Names
    window: Size | None
    inputs: dict[str, Any] = {}
    conditions: Annotated[int, Field(ge=1, le=1000)]
    operating: dict[str, list[Any]] | None = None
    imports: Names = []
    task: Task
    data: Data
    scaling: Literal["federated", "plant"]
    best_round: Count | None
    threshold: Annotated[float, Field(ge=0)] | None
    thresholds: dict[str, Annotated[float, Field(ge=0)] | None] = {}
    threshold_by_risk: dict[str, Annotated[float, Field(ge=0)] | None] = {}
    calibration: _Calibration | None = None
    calibrations: dict[str, _Calibration | None] = {}
    interval: _Interval | None = None
    intervals: dict[str, _Interval | None] = {}
    sites: dict[str, dict[str, Any] | None]
    personal: Personal | None = None
    locale: Literal["en", "de"] = "en"

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        """Refuse sizes that no model has: building it would not end."""
        waiting: list[Any] = [self.config, self.inputs, *(self.task.model_extra or {}).values()]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict | list):
                waiting += value.values() if isinstance(value, dict) else value
            elif isinstance(value, int | float) and not abs(value) <= LARGEST_SETTING:
                raise ValueError(f"{value:g} is no size or setting of a model")
        return self
