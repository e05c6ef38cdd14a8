"""What a canary has to show before it gets more of the traffic."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

Ratio = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]


class RolloutPolicy(BaseModel):
    """How a release goes from a first share of the traffic to all of it.

    Attributes:
        steps: Shares of the traffic in percent, rising to 100. The last makes the canary the
            stable model.
        interval: Seconds between two looks.
        minimum_seconds: Seconds that a step lasts at least.
        minimum_requests: Requests that the canary must have answered in a step.
        ready_timeout: Seconds after a commit in which the cluster must carry it out and the model
            must become ready; when they are over the canary is rolled back.
        step_timeout: Seconds after a commit in which a step must have its evidence; when they are
            over the canary is rolled back.
        confidence: One-sided. To advance, each check must hold with it; a canary that is as good
            as the stable model is rolled back, over all looks, checks and steps of a rollout,
            with a probability of `1 - confidence` at most.
        golden: Rows that the served model must answer as the library does.
        golden_tolerance: Largest relative difference of their scores; more than rounding where
            the model is served on another kind of CPU than the watcher's.
        max_disagreement: Largest share of requests that stable and canary answer differently.
        max_label_disagreement: The same among the requests that stable gives one and the same
            label; a rare label need not be proven, but a breach is one.
        score_tolerance: Probabilities (or values, relative to the stable one's) that differ by
            more count as another answer, also when the label is the same.
        max_error_rate: A canary that fails no more of its requests than this is not in breach.
        max_error_ratio: Most failures per request, those of the stable model being 1.
        max_latency_ratio: By percentile (`p50`, `p95`): the longest time of a request, that of
            the stable model being 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    steps: tuple[Annotated[int, Field(ge=1, le=100)], ...] = (10, 50, 100)
    interval: float = Field(default=15, gt=0, allow_inf_nan=False)
    minimum_seconds: float = Field(default=300, ge=0, allow_inf_nan=False)
    minimum_requests: int = Field(default=200, ge=1)
    ready_timeout: float = Field(default=900, gt=0, allow_inf_nan=False)
    step_timeout: float = Field(default=7200, gt=0, allow_inf_nan=False)
    confidence: float = Field(default=0.95, ge=0.5, lt=1)
    golden: int = Field(default=32, ge=1, le=1000)
    golden_tolerance: float = Field(default=1e-5, gt=0, allow_inf_nan=False)
    max_disagreement: Share = 0.01
    max_label_disagreement: Share = 0.05
    score_tolerance: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    max_error_rate: Share = 0.01
    max_error_ratio: Ratio = 1.5
    max_latency_ratio: dict[str, Ratio] = Field(default_factory=lambda: {"p50": 1.25, "p95": 1.5})

    @field_validator("steps")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)) or value[-1:] != (100,) or len(value) < 2:
            raise ValueError("must rise from a first share to 100, such as [10, 50, 100]")
        return value

    @field_validator("max_latency_ratio")
    @classmethod
    def _percentiles(cls, value: dict[str, float]) -> dict[str, float]:
        for key in value:
            if not (key[:1] == "p" and key[1:].isdigit() and 0 < int(key[1:]) < 100):
                raise ValueError(f"{key!r} is no percentile; write p50, p95, ...")
        return value

    @property
    def alpha(self) -> float:
        """The error that a single check may have when the canary is advanced."""
        return 1 - self.confidence

    @property
    def breach_alpha(self) -> float:
        """The error that a single check of a step may have when the canary is rolled back."""
        # errors, disagreement, disagreement by label, and each percentile
        checks = 3 + len(self.max_latency_ratio)
        return self.alpha / (checks * (len(self.steps) - 1))

    def after(self, share: int) -> int:
        """The share that follows one: the first step above it."""
        return next(step for step in self.steps if step > share)
