"""What a user may say about evaluation: the operating point, costs and slices."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Windows = Literal["day", "week", "month", "year"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class PointRule(_Section):
    """How the threshold of a binary model is found; exactly one of these.

    Attributes:
        recall_at_precision: The highest recall at a precision of at least this.
        precision_at_recall: The highest precision at a recall of at least this.
        threshold: This score of the positive class, for baseline and candidate alike.
    """

    recall_at_precision: Share | None = None
    precision_at_recall: Share | None = None
    threshold: Share | None = None

    @model_validator(mode="after")
    def _one(self) -> "PointRule":
        given = (self.recall_at_precision, self.precision_at_recall, self.threshold)
        if sum(v is not None for v in given) != 1:
            raise ValueError("give one of recall_at_precision, precision_at_recall and threshold")
        return self


class BinaryCosts(_Section):
    """What the two mistakes of a binary model cost, in any unit."""

    false_positive: Cost
    false_negative: Cost


class Slicing(_Section):
    """One way to divide the rows; exactly one of `column`, `time` and `score_bands`.

    Attributes:
        column: A column of the rows; it may be one that `data.drop` keeps from the model. Each
            of its values is a slice, or each band of values when it holds more than `bands`
            different numbers.
        bands: Number of bands of a numeric column, with as many rows each.
        time: A column of times, or of numbers that grow with time.
        windows: A day, week, month or year; or a number of windows with as many rows each.
        score_bands: Number of bands of the baseline's score (of the positive class, of the
            predicted class, or the predicted value), as wide as each other; by rows for
            regression.
    """

    column: str | None = None
    bands: int = Field(default=4, ge=2, le=20)
    time: str | None = None
    windows: Windows | Annotated[int, Field(ge=2, le=60)] = 4
    score_bands: Annotated[int, Field(ge=2, le=20)] | None = None

    @model_validator(mode="after")
    def _one(self) -> "Slicing":
        if sum(v is not None for v in (self.column, self.time, self.score_bands)) != 1:
            raise ValueError("give one of column, time and score_bands")
        return self


class EvaluationSettings(_Section):
    """How models are evaluated, besides the metric.

    Attributes:
        operating_point: For binary models: where the threshold lies. `f1`: where F1 is highest;
            `cost`: where the mean cost is least; or a `PointRule`. It is chosen for each model
            on the validation rows that guide techniques, and carried to the rows that rank and
            to the test rows. Left out: `f1` when the primary metric is average precision, else
            none.
        costs: Of the two mistakes of a binary model; or a matrix by true class (rows) and
            predicted class (columns), in the order of the model's labels.
        slices: How the rows are divided.
        min_rows: A slice with fewer rows is not judged; nor is one with fewer than
            `min_class_rows` rows of a class, where the metric needs every class.
        min_class_rows: See there.
        stream_rows: A split with more rows is scored and judged in batches, in memory that does
            not grow with the rows.
    """

    operating_point: Literal["f1", "cost"] | PointRule | None = None
    costs: BinaryCosts | tuple[tuple[Cost, ...], ...] | None = None
    slices: tuple[Slicing, ...] = ()
    min_rows: int = Field(default=100, ge=2)
    min_class_rows: int = Field(default=10, ge=1)
    stream_rows: int = Field(default=2_000_000, ge=1)

    @field_validator("costs")
    @classmethod
    def _square(cls, value: object) -> object:
        if isinstance(value, tuple):
            if len(value) < 2 or any(len(row) != len(value) for row in value):
                raise ValueError("the matrix must have as many rows as columns, one per class")
            if not any(any(row) for row in value):
                raise ValueError("no mistake costs anything")
        return value

    @model_validator(mode="after")
    def _costed(self) -> "EvaluationSettings":
        if self.operating_point == "cost" and self.costs is None:
            raise ValueError("the operating point `cost` needs `costs`")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that slices are made of."""
        named = [s.column or s.time for s in self.slices]
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def matrix(self) -> tuple[tuple[float, ...], ...] | None:
        """The costs as a matrix by true class and predicted class."""
        if isinstance(self.costs, BinaryCosts):
            return (0.0, self.costs.false_positive), (self.costs.false_negative, 0.0)
        return self.costs
