"""What a user wants most of a model: one gain, or several weighed."""

import math
from collections.abc import Mapping
from typing import Literal

from trimgate.judge.records import BatchBenchmark, Benchmark, Interval

Objective = Literal["latency", "throughput", "size", "memory", "cost"]
Weights = Mapping[Objective, float]

_WORDS: dict[Objective, str] = {
    "latency": "faster at the first batch size",
    "throughput": "faster at the largest batch size",
    "size": "smaller",
    "memory": "lighter in memory",
    "cost": "cheaper in CPU time",
}


def weights_of(objective: Objective | Weights) -> dict[Objective, float]:
    """Weights that sum to 1; a single objective has the weight 1.

    Raises:
        ValueError: No weight, or one that is not above 0.
    """
    weights: dict[Objective, float] = (
        {objective: 1.0} if isinstance(objective, str) else dict(objective)
    )
    if not weights or any(not (0 < w < math.inf) for w in weights.values()):
        raise ValueError("give each objective a weight above 0")
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def words(objective: Objective | Weights) -> str:
    """What a gain of 2 means: "2 times ..."."""
    weights = weights_of(objective)
    if len(weights) == 1:
        return _WORDS[next(iter(weights))]
    return f"better by {label(objective)}"


def label(objective: Objective | Weights) -> str:
    """The objective as records and cards name it."""
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


def weighted_gain(gains: Mapping[Objective, Interval], objective: Objective | Weights) -> Interval:
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


def timed_batches(benchmark: Benchmark, objective: Objective | Weights) -> list[BatchBenchmark]:
    """The timings that the objective rests on."""
    weights = weights_of(objective)
    found = [benchmark.batches[0]] if {"latency", "cost"} & set(weights) else []
    return found + ([largest(benchmark)] if "throughput" in weights else [])


def largest(benchmark: Benchmark) -> BatchBenchmark:
    """The timing at the largest batch size."""
    return max(benchmark.batches, key=lambda batch: batch.batch_size)


def _ratio(before: int, after: int) -> Interval:
    ratio = before / max(1, after)
    return Interval(value=ratio, low=ratio, high=ratio, confidence=1.0, method="exact")
