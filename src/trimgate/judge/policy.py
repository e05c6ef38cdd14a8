"""What a gate policy may say."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trimgate.judge._intervals import CONFIDENCES
from trimgate.judge.metrics import higher_is_better, spec
from trimgate.judge.objective import Objective

# Two sessions of one and the same model differ by up to 1.2 %; less than this is no gain.
LEAST_GAIN = 1.03

Margin = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Floor = Annotated[float, Field(allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class SliceRule(_Section):
    """What every slice of `evaluation.slices` has to hold, in the primary metric.

    Attributes:
        max_drop: By how much it may get worse than the baseline's on the same rows, absolute.
        prove: Every slice has to be shown to stay within its margin. Without it, only a slice
            that is shown to lose more fails, after correction for the number of slices.
        overrides: Margins of single slices by name (`country = NO`); such a slice has to be there
            and to be judged.
    """

    max_drop: Margin
    prove: bool = True
    overrides: dict[str, Margin] = Field(default_factory=dict)


class CalibrationRule(_Section):
    """How far the scores may be from probabilities.

    Attributes:
        max_ece: Largest expected calibration error.
        max_ece_rise: By how much it may grow against the baseline's.
        max_brier: Largest Brier score.
        max_brier_rise: By how much it may grow.
    """

    max_ece: Margin | None = None
    max_ece_rise: Margin | None = None
    max_brier: Margin | None = None
    max_brier_rise: Margin | None = None


class LoadRule(_Section):
    """Latency under open-loop load, where waiting in the queue counts.

    Attributes:
        rate: Requests per second that it has to carry; the target's `rates` say what is measured,
            and the nearest rate above or equal counts.
        max_p99_ms: Largest 99th percentile of the latency there, in milliseconds.
        where: Of the model server, or of the session alone.
        max_error_share: Share of requests that may fail or not be sent in time.
    """

    rate: Limit
    max_p99_ms: Limit
    where: Literal["server", "session"] = "server"
    max_error_share: float = Field(default=0.0, ge=0, lt=1)


class Guard(_Section):
    """Against over-optimization: a gain below its noise, or quality spent for another gain.

    Attributes:
        objective: What was asked for, with weights; a run takes it from the config.
        least_gain: The lower end of the gain's interval has to reach it.
    """

    objective: dict[Objective, Limit] = Field(default_factory=dict)
    least_gain: float = Field(default=LEAST_GAIN, ge=1, allow_inf_nan=False)


class GatePolicy(_Section):
    """The rules that a winner has to pass; a policy without rules passes nothing.

    Attributes:
        max_drop: By metric: by how much it may get worse than the baseline's, absolute (0.01 is
            one point of accuracy; for `rmse` it is in the label's unit). Judged as a paired
            non-inferiority test.
        min: By metric: the worst value allowed (for `rmse` and its like the highest).
        confidence: One-sided, of the rules on metrics, slices, calibration and disagreement.
        slices: What every slice has to hold.
        calibration: How far the scores may be from probabilities.
        max_disagreement: Largest share of rows whose answer differs from the baseline's.
        min_speedup: Least speed-up at the target's first batch size; the lower end of its
            interval has to reach it. 1.03 or more asks for a gain; 1 or less allows a loss.
        max_size_ratio: Largest size of the served form, the baseline's being 1.
        max_memory_ratio: Largest peak memory, the baseline's being 1.
        max_cost_ratio: Largest cost of a prediction, the baseline's being 1 (by CPU time where no
            price is known); the upper end of its interval has to stay within.
        max_size_mb: Largest size of the served form, in MiB.
        max_peak_rss_mb: Largest peak memory of a process that loads and calls it, in MiB.
        max_cold_start_s: Longest cold start (engine, loading, first answer), in seconds.
        load: Latency under load.
        max_served_p99_ms: Largest 99th percentile of the served latency, in milliseconds.
        min_served_speedup: As `min_speedup`, for the served median latency.
        guard: Against over-optimization. In a run it is on unless set to null.
    """

    max_drop: dict[str, Margin] = Field(default_factory=dict)
    min: dict[str, Floor] = Field(default_factory=dict)
    confidence: float = 0.95
    slices: SliceRule | None = None
    calibration: CalibrationRule | None = None
    max_disagreement: float | None = Field(default=None, ge=0, lt=1)
    min_speedup: Limit | None = None
    max_size_ratio: Limit | None = None
    max_memory_ratio: Limit | None = None
    max_cost_ratio: Limit | None = None
    max_size_mb: Limit | None = None
    max_peak_rss_mb: Limit | None = None
    max_cold_start_s: Limit | None = None
    load: LoadRule | None = None
    max_served_p99_ms: Limit | None = None
    min_served_speedup: Limit | None = None
    guard: Guard | None = None

    @field_validator("max_drop", "min")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        for metric in value:
            spec(metric)
        return value

    @field_validator("confidence")
    @classmethod
    def _kept(cls, value: float) -> float:
        allowed = [round((1 + c) / 2, 4) for c in CONFIDENCES]
        if not any(abs(value - c) < 1e-9 for c in allowed):
            raise ValueError(f"must be one of {allowed}, as the records hold these")
        return value

    @model_validator(mode="after")
    def _above_noise(self) -> "GatePolicy":
        for key in ("min_speedup", "min_served_speedup"):
            value = getattr(self, key)
            if value is not None and 1 < value < LEAST_GAIN:
                raise ValueError(
                    f"{key} = {value:g} cannot be told from noise: ask for {LEAST_GAIN} or more, "
                    "or 1 or less"
                )
        return self

    @property
    def metrics(self) -> set[str]:
        """The metrics that its rules look at."""
        limits = self.calibration
        named = {*self.max_drop, *self.min}
        if limits is not None:
            named |= {"ece"} if (limits.max_ece, limits.max_ece_rise) != (None, None) else set()
            named |= (
                {"brier"} if (limits.max_brier, limits.max_brier_rise) != (None, None) else set()
            )
        return named

    @property
    def has_rules(self) -> bool:
        """Whether it asks for anything; the guard alone does not count."""
        asked = self.model_dump(exclude_defaults=True, exclude={"confidence", "guard"})
        return any(value not in ({}, None) for value in asked.values())


def default_policy(primary: str, *, baseline_value: float | None = None) -> GatePolicy:
    """What is asked when the user says nothing: as good as the baseline, and faster.

    Args:
        primary: The primary metric. It may drop by one point; a metric without a fixed scale
            (`rmse`, `mae`, `log_loss`) may get worse by 1 % of `baseline_value`.
        baseline_value: The baseline's value of it, for the metrics without a fixed scale.
    """
    known = spec(primary)
    margin = 0.01
    if not known.bounded and not higher_is_better(primary):
        if baseline_value is None:
            raise ValueError(f"{primary} has no fixed scale: give the baseline's value")
        margin = 0.01 * abs(baseline_value)
    return GatePolicy(max_drop={primary: margin}, min_speedup=LEAST_GAIN)
