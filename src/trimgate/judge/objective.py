"""What a user wants most of a model: one gain, several weighed, or the least within limits."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from trimgate.judge.records import BatchBenchmark, Benchmark, Interval

Objective = Literal["latency", "throughput", "size", "memory", "cost"]
Weights = Mapping[Objective, float]
Constraint = Literal[
    "drop",
    "latency_p50_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "size_mb",
    "memory_mb",
    "cold_start_s",
    "cost_per_million",
]
CHEAPEST = "cheapest-that-passes"


class Constrained(BaseModel):
    """The least of one quantity among the candidates that keep every limit.

    The candidates are a finite list, so that this is a filter and then the best of what is left.
    A limit is kept when the bad end of the candidate's interval keeps it.

    Attributes:
        minimize: What to have least of (for `throughput`: time at the largest batch size).
        subject_to: Upper limits by name. `drop`: of the primary metric, against the baseline.
            `latency_*_ms`: at the target's first batch size, p99 under the load of the target's
            first rate where it has one. `size_mb`, `memory_mb`: MiB. `cost_per_million`: in the
            currency of the price.
        shown: Whether the rules of the gate on quality must be shown to hold on the validation
            rows, and not only not be broken there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    minimize: Objective
    subject_to: dict[Constraint, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    shown: bool = False


Goal = Objective | Weights | Constrained

_TIMED: frozenset[Constraint] = frozenset(get_args(Constraint)) - {
    "drop",
    "size_mb",
    "memory_mb",
    "cold_start_s",
}
_WORDS: dict[Objective, str] = {
    "latency": "faster at the first batch size",
    "throughput": "faster at the largest batch size",
    "size": "smaller",
    "memory": "lighter in memory",
    "cost": "cheaper in CPU time",
}


def goal(given: str | Mapping[Any, Any] | Constrained) -> Goal:
    """A goal as it stands in a config or in a pipeline's parameter.

    Args:
        given: A single objective, `cheapest-that-passes`, weights, or `minimize` with
            `subject_to`.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(given, Constrained):
        return given
    if given == CHEAPEST:
        return Constrained(minimize="cost", shown=True)
    if isinstance(given, str):
        return TypeAdapter[Objective](Objective).validate_python(given)
    if "minimize" in given:
        return Constrained.model_validate(dict(given))
    return TypeAdapter(Weights).validate_python(dict(given))


def dump(wanted: Goal) -> dict[str, Any]:
    """A goal as JSON values, which `goal` reads."""
    if isinstance(wanted, Constrained):
        return wanted.model_dump(mode="json")
    return {str(name): weight for name, weight in weights_of(wanted).items()}


def weights_of(objective: Goal) -> dict[Objective, float]:
    """Weights that sum to 1; a single objective, and one within limits, has the weight 1.

    Raises:
        ValueError: No weight, or one that is not above 0.
    """
    if isinstance(objective, Constrained):
        return {objective.minimize: 1.0}
    weights: dict[Objective, float] = (
        {objective: 1.0} if isinstance(objective, str) else dict(objective)
    )
    if not weights or any(not (0 < w < math.inf) for w in weights.values()):
        raise ValueError("give each objective a weight above 0")
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def words(objective: Goal) -> str:
    """What a gain of 2 means: "2 times ..."."""
    weights = weights_of(objective)
    if len(weights) == 1:
        return _WORDS[next(iter(weights))]
    return f"better by {label(objective)}"


def label(objective: Goal) -> str:
    """The objective as records and cards name it."""
    if isinstance(objective, Constrained):
        limits = [f"{name} up to {limit:g}" for name, limit in objective.subject_to.items()]
        passes = ["what passes the gate's rules on validation"] if objective.shown else []
        return f"least {objective.minimize} of {', '.join(limits + passes) or 'all'}"
    weights = weights_of(objective)
    if len(weights) == 1:
        return next(iter(weights))
    return " and ".join(f"{name} ({weight:.0%})" for name, weight in weights.items())


def gains(benchmark: Benchmark) -> dict[Objective, Interval]:
    """The gain in each objective; above 1 is better than the baseline."""
    first = benchmark.batches[0]
    return {
        "latency": first.wall,
        "throughput": largest(benchmark).wall,
        "size": _ratio(benchmark.baseline.size, benchmark.candidate.size),
        "memory": _ratio(benchmark.baseline.peak_rss, benchmark.candidate.peak_rss),
        "cost": first.cpu,
    }


def weighted_gain(gains: Mapping[Objective, Interval], objective: Goal) -> Interval:
    """The weighted geometric mean of the gains, so that twice as good is worth the same in each.

    The ends are made of the ends, which is wider than the mean's own interval.
    """
    weights = weights_of(objective)
    if len(weights) == 1:
        return gains[next(iter(weights))]

    def mean(end: str) -> float:
        return math.exp(
            sum(w * math.log(max(getattr(gains[n], end), 1e-12)) for n, w in weights.items())
        )

    return Interval(
        value=mean("value"),
        low=mean("low"),
        high=mean("high"),
        confidence=min(gains[n].confidence for n in weights),
        method="weighted geometric mean",
    )


def timed_batches(benchmark: Benchmark, objective: Goal) -> list[BatchBenchmark]:
    """The timings that the objective rests on."""
    weights = weights_of(objective)
    limited = isinstance(objective, Constrained) and bool(_TIMED & set(objective.subject_to))
    first = limited or bool({"latency", "cost"} & set(weights))
    found = [benchmark.batches[0]] if first else []
    return found + ([largest(benchmark)] if "throughput" in weights else [])


def largest(benchmark: Benchmark) -> BatchBenchmark:
    """The timing at the largest batch size."""
    return max(benchmark.batches, key=lambda batch: batch.batch_size)


def _ratio(before: int, after: int) -> Interval:
    ratio = before / max(1, after)
    return Interval(value=ratio, low=ratio, high=ratio, confidence=1.0, method="exact")
