"""What a gate policy may say."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trimgate.judge.evaluation import CONFIDENCES
from trimgate.judge.metrics import higher_is_better, spec

# Two sessions of one and the same model differ by up to 1.2 %; less than this is no gain.
LEAST_GAIN = 1.03

Margin = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Floor = Annotated[float, Field(allow_inf_nan=False)]


class GatePolicy(BaseModel):
    """The rules that a winner has to pass; a policy without rules passes nothing.

    Attributes:
        max_drop: By metric: by how much it may get worse than the baseline's, absolute (0.01 is
            one point of accuracy; for `rmse` it is in the label's unit). Judged as a paired
            non-inferiority test.
        min: By metric: the worst value allowed (for `rmse` and its like the highest).
        confidence: One-sided, of the rules on metrics and disagreement.
        min_speedup: Least speed-up at the target's first batch size; the lower end of its
            interval has to reach it. 1.03 or more asks for a gain; 1 or less allows a loss.
        max_size_ratio: Largest size of the served form, the baseline's being 1.
        max_peak_rss_mb: Largest peak memory of a process that loads and calls it, in MiB.
        max_served_p99_ms: Largest 99th percentile of the served latency, in milliseconds.
        min_served_speedup: As `min_speedup`, for the served median latency.
        max_disagreement: Largest share of rows whose answer differs from the baseline's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    max_drop: dict[str, Margin] = Field(default_factory=dict)
    min: dict[str, Floor] = Field(default_factory=dict)
    confidence: float = 0.95
    min_speedup: Limit | None = None
    max_size_ratio: Limit | None = None
    max_peak_rss_mb: Limit | None = None
    max_served_p99_ms: Limit | None = None
    min_served_speedup: Limit | None = None
    max_disagreement: float | None = Field(default=None, ge=0, lt=1)

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
    def has_rules(self) -> bool:
        """Whether it asks for anything."""
        return bool(self.max_drop or self.min) or any(
            getattr(self, key) is not None
            for key in (
                "min_speedup",
                "max_size_ratio",
                "max_peak_rss_mb",
                "max_served_p99_ms",
                "min_served_speedup",
                "max_disagreement",
            )
        )


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
