"""What a watcher sees of a rollout at one look; None is what it could not see."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Condition(_Record):
    """One condition of what is served, as Kubernetes has them.

    Attributes:
        name: Such as `Ready` or `PredictorReady`.
        status: True, False, or None for unknown.
        reason, message: Why, as the platform says it.
        since: When it last changed.
    """

    name: str
    status: bool | None
    reason: str = ""
    message: str = ""
    since: datetime | None = None


class Traffic(_Record):
    """What one model answered since the step began.

    Attributes:
        requests: Requests, failed ones too.
        errors: Those that failed: answered with 5xx, or not at all.
        edges: Upper edges of the latency buckets in seconds, rising.
        counts: Requests in each bucket, and above the last.
    """

    requests: int = Field(ge=0)
    errors: int = Field(ge=0)
    edges: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()


class Pair(_Record):
    """One row that both models answered.

    Attributes:
        stable, canary: Predicted labels; None for regression, or where there was no answer.
        gap: Largest difference of a probability; for regression that of the values, relative to
            the stable one's.
        failed: The canary gave no answer, and the stable model did.
    """

    stable: str | None = None
    canary: str | None = None
    gap: float = Field(default=0.0, ge=0)
    failed: bool = False


class Golden(_Record):
    """How the served model answered the golden inputs.

    Attributes:
        rows: Rows that were asked.
        problem: What was not as the library answers, in words; None when all was.
    """

    rows: int
    problem: str | None = None


class Observation(_Record):
    """One look.

    Attributes:
        now: The time of the look.
        committed: When the commit was made that the step follows from.
        applied: Since when the platform has carried it out; None while it has not.
        conditions: Of the canary; of the stable model once it was promoted.
        ready: Whether it answers; None when that is not known.
        failed: Why it never will, as the platform says it.
        golden: Its answers to the golden inputs.
        stable, canary: What each answered since the step began.
        pairs: Requests that both answered since then.
        problems: What could not be seen and why, by what it is.
    """

    now: datetime
    committed: datetime
    applied: datetime | None = None
    conditions: tuple[Condition, ...] = ()
    ready: bool | None = None
    failed: str | None = None
    golden: Golden | None = None
    stable: Traffic | None = None
    canary: Traffic | None = None
    pairs: tuple[Pair, ...] | None = None
    problems: dict[str, str] = Field(default_factory=dict)
