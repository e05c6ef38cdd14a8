"""Whether a model keeps the limits of a constrained objective, and by how much it does not."""

from typing import NamedTuple

from trimgate.errors import InvalidInput
from trimgate.judge.metrics import higher_is_better
from trimgate.judge.objective import Constrained, Constraint
from trimgate.judge.records import Benchmark, Evaluation, Timing

_MIB = 2**20
# One-sided 95 %, as the gate's rules: the end of the two-sided 90 % interval.
_CONFIDENCE = 0.9


class Seen(NamedTuple):
    """A quantity of a model: its value, and the bad end of its interval."""

    value: float
    worst: float


def excess(
    goal: Constrained,
    benchmark: Benchmark,
    evaluation: Evaluation | None,
    *,
    baseline: bool = False,
) -> dict[str, str]:
    """The limits that are not kept, each with by how much, in words.

    A quantity that was not measured keeps no limit.

    Args:
        goal: The limits.
        benchmark: Of the candidate beside the baseline.
        evaluation: Of the candidate on validation; None gives no `drop`.
        baseline: Look at the baseline of the benchmark in place of the candidate.
    """
    broken: dict[str, str] = {}
    for name, limit in goal.subject_to.items():
        seen = _seen(name, benchmark, evaluation, baseline)
        if isinstance(seen, str):
            broken[name] = f"{name} is not known: {seen}"
        elif seen.value > limit:
            broken[name] = f"{name} is {seen.value:.4g}, {_beyond(seen.value, limit)} {limit:g}"
        elif seen.worst > limit:
            broken[name] = (
                f"{name} is {seen.value:.4g} but may be {seen.worst:.4g}, "
                f"{_beyond(seen.worst, limit)} {limit:g}"
            )
    return broken


def _beyond(value: float, limit: float) -> str:
    share = f" ({(value - limit) / limit:.1%})" if limit else ""
    return f"{value - limit:.3g}{share} beyond the limit of"


def _seen(
    name: Constraint, benchmark: Benchmark, evaluation: Evaluation | None, baseline: bool
) -> Seen | str:
    """The quantity, or why it is not known."""
    footprint = benchmark.baseline if baseline else benchmark.candidate
    if name == "drop":
        return Seen(0.0, 0.0) if baseline else _drop(evaluation)
    if name == "size_mb":
        return _exact(footprint.size / _MIB)
    if name == "memory_mb":
        return _exact(footprint.peak_rss / _MIB)
    if name == "cold_start_s":
        return _exact(footprint.cold_start)
    first = benchmark.batches[0]
    # a time of its own has no interval, but it is as uncertain as the ratio to the baseline's
    wide = first.wall.value / max(first.wall.low, 1e-12)
    if name == "cost_per_million":
        if benchmark.cost is None:
            return "no price is known"
        money = benchmark.cost.baseline if baseline else benchmark.cost.candidate
        return Seen(money, money * first.cpu.value / max(first.cpu.low, 1e-12))
    if name == "latency_p99_ms" and benchmark.load:
        return _under_load(benchmark, baseline)
    timing: Timing = first.baseline if baseline else first.candidate
    seconds = getattr(timing, name.removeprefix("latency_").removesuffix("_ms"))
    if seconds is None:
        return "the machine was too busy for a 99th percentile"
    return Seen(seconds * 1e3, seconds * 1e3 * wide)


def _exact(value: float) -> Seen:
    return Seen(value, value)


def _under_load(benchmark: Benchmark, baseline: bool) -> Seen | str:
    result = benchmark.load[0]
    point = result.baseline if baseline else result.candidate
    if not result.valid or point is None:
        return f"the load test does not count: {result.reason}"
    if point.p99 is None or point.p99_interval is None:
        return f"at {result.rate:g} requests per second there is no 99th percentile"
    return Seen(point.p99 * 1e3, point.p99_interval.high * 1e3)


def _drop(evaluation: Evaluation | None) -> Seen | str:
    if evaluation is None or evaluation.primary not in evaluation.differences:
        return "the candidate was not evaluated beside the baseline"
    difference = evaluation.differences[evaluation.primary]
    try:
        difference = difference.at(_CONFIDENCE)
    except InvalidInput as error:
        return str(error)
    if higher_is_better(evaluation.primary):
        return Seen(-difference.value, -difference.low)
    return Seen(difference.value, difference.high)
