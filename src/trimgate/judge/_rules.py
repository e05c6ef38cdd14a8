"""Each gate rule: one function from records to a `RuleResult`."""

from collections.abc import Callable

from trimgate.errors import InvalidInput
from trimgate.judge import _slice_rules
from trimgate.judge._outcomes import (
    at_most,
    below,
    exact,
    failed,
    more,
    negated,
    point,
    result,
    speed,
)
from trimgate.judge._rows import rows_for_accuracy, rows_for_interval, rows_for_share
from trimgate.judge._stats import wilson
from trimgate.judge.metrics import higher_is_better
from trimgate.judge.policy import GatePolicy
from trimgate.judge.records import (
    BASELINE_SERVED,
    BatchBenchmark,
    Benchmark,
    Evaluation,
    Interval,
    RuleResult,
    Served,
)

_MIB = 2**20
# A 99th percentile of fewer requests is the slowest one or a guess.
LEAST_REQUESTS = 100


def metric_rules(
    policy: GatePolicy, baseline: Evaluation | None, candidate: Evaluation
) -> list[RuleResult]:
    """The rules on quality, from the candidate's paired evaluation."""
    results = []
    for metric, margin in policy.max_drop.items():
        if baseline is not None and metric not in baseline.metrics:
            why = f"{metric} is missing from the baseline's evaluation"
            results.append(failed(f"max_drop.{metric}", why, limit=margin))
        else:
            results.append(_drop(metric, margin, candidate, policy.confidence))
    for metric, floor in policy.min.items():
        results.append(_floor(metric, floor, candidate, policy.confidence))
    results += _calibration(policy, candidate)
    if policy.max_disagreement is not None:
        results.append(_disagreement(policy.max_disagreement, candidate, policy.confidence))
    if policy.slices is not None:
        results += _slice_rules.slice_rules(policy.slices, candidate, policy.confidence)
    return results


def _calibration(policy: GatePolicy, candidate: Evaluation) -> list[RuleResult]:
    limits, results = policy.calibration, list[RuleResult]()
    if limits is None:
        return results
    for metric, rise, limit in (
        ("ece", limits.max_ece_rise, limits.max_ece),
        ("brier", limits.max_brier_rise, limits.max_brier),
    ):
        if rise is not None:
            rule = f"calibration.max_{metric}_rise"
            results.append(_drop(metric, rise, candidate, policy.confidence, rule=rule))
        if limit is not None:
            rule = f"calibration.max_{metric}"
            results.append(_floor(metric, limit, candidate, policy.confidence, rule=rule))
    return results


def _drop(
    metric: str, margin: float, candidate: Evaluation, confidence: float, *, rule: str = ""
) -> RuleResult:
    rule = rule or f"max_drop.{metric}"
    if metric not in candidate.differences:
        why = f"the paired difference of {metric} is missing from the candidate's evaluation"
        return failed(rule, why, limit=margin)
    try:
        difference = candidate.differences[metric].at(2 * confidence - 1)
    except InvalidInput as error:
        return failed(rule, str(error), limit=margin)
    worse = negated(difference) if higher_is_better(metric) else difference
    outcome = below(worse, margin)
    needed = None
    if outcome == "inconclusive":
        if metric == "accuracy" and candidate.flips is not None:
            needed = rows_for_accuracy(candidate.flips, margin, confidence)
        else:
            needed = rows_for_interval(worse, margin, candidate.rows, confidence)
    bound = f"at most {worse.high:.2g} worse, with {confidence:.4g} confidence"
    what = "rise" if rule.startswith("calibration") else "drop"
    reason = {
        "pass": f"the {what} is below {margin:g} ({bound})",
        "fail": f"the {what} is above {margin:g}: at least {worse.low:.4g}",
        "inconclusive": f"{candidate.rows} rows cannot tell whether the {what} stays below "
        f"{margin:g} ({bound}){more(needed)}",
    }[outcome]
    return result(
        rule,
        outcome,
        difference,
        margin,
        reason + _lost(metric, candidate),
        rows_needed=needed,
    )


def _lost(metric: str, candidate: Evaluation) -> str:
    """A word on the flips, where they say that the candidate is worse at all."""
    flips = candidate.flips
    if metric != "accuracy" or flips is None or flips.p_value is None or flips.lost <= flips.won:
        return ""
    told = f"; lost {flips.lost} rows, won {flips.won} (exact McNemar p = {flips.p_value:.2g})"
    return told + (": worse beyond chance" if flips.p_value < 0.05 else "")


def _floor(
    metric: str, floor: float, candidate: Evaluation, confidence: float, *, rule: str = ""
) -> RuleResult:
    rule = rule or f"min.{metric}"
    if metric not in candidate.metrics:
        return failed(rule, f"{metric} is missing from the candidate's evaluation", limit=floor)
    try:
        seen = candidate.metrics[metric].interval.at(2 * confidence - 1)
    except InvalidInput as error:
        return failed(rule, str(error), limit=floor)
    up = higher_is_better(metric)
    gap = negated(seen) if up else seen
    limit = -floor if up else floor
    outcome = at_most(gap, limit)
    needed = None
    if outcome == "inconclusive":
        needed = rows_for_interval(gap, limit, candidate.rows, confidence)
    side = "least" if up else "most"
    worst, best = (seen.low, seen.high) if up else (seen.high, seen.low)
    reason = {
        "pass": f"{metric} is at {side} {worst:.4g}",
        "fail": f"{metric} is {'at most' if up else 'at least'} {best:.4g}",
        "inconclusive": f"{metric} is {seen.value:.4g}, between {seen.low:.4g} and "
        f"{seen.high:.4g}{more(needed)}",
    }[outcome]
    return result(rule, outcome, seen, floor, reason, rows_needed=needed)


def _disagreement(limit: float, candidate: Evaluation, confidence: float) -> RuleResult:
    rule = "max_disagreement"
    if candidate.parity is None:
        return failed(rule, "the comparison with the baseline's answers is missing", limit=limit)
    rows = candidate.parity.rows
    share = 1 - candidate.parity.agreement
    level = 2 * confidence - 1
    low, high = wilson(share * rows, rows, level)
    seen = Interval(value=share, low=low, high=high, confidence=level, method="Wilson score")
    outcome = at_most(seen, limit)
    needed = None
    if outcome == "inconclusive":
        needed = rows_for_share(share, limit, rows, confidence)
    reason = f"{share:.3%} of {rows} rows are answered differently (at most {high:.3%})"
    reason += more(needed) if outcome == "inconclusive" else ""
    return result(rule, outcome, seen, limit, reason, rows_needed=needed)


def benchmark_rules(policy: GatePolicy, benchmark: Benchmark | None) -> list[RuleResult]:
    """The rules on speed, size, memory, cost and latency under load on the session."""
    results = []
    for rule, judge in _BENCHMARK_RULES.items():
        limit = getattr(policy, rule)
        if limit is None:
            continue
        if benchmark is None or not benchmark.batches:
            results.append(failed(rule, "the benchmark is missing", limit=limit))
        else:
            results.append(judge(rule, limit, benchmark))
    return results


def _speedup(rule: str, limit: float, benchmark: Benchmark) -> RuleResult:
    first = benchmark.batches[0]
    if benchmark.standing.get("latency", "measured").startswith("checked"):
        why = (
            f"{first.wall.value:.3g} times as fast on this CPU, and not measured on "
            f"{benchmark.target}: measure there"
        )
        return result(rule, "inconclusive", first.wall, limit, why)
    if first.state == "void":
        return result(rule, "inconclusive", first.wall, limit, _void(first))
    return speed(rule, first.wall, limit, f"at batch size {first.batch_size}")


def _void(batch: BatchBenchmark) -> str:
    return (
        "the timing is void: the baseline against itself came out at "
        f"{batch.control.value:.3f}, so the machine was too busy to conclude"
    )


def _cost_ratio(rule: str, limit: float, benchmark: Benchmark) -> RuleResult:
    """By CPU time, which is what a machine costs, where no price is known."""
    first = benchmark.batches[0]
    gain = benchmark.cost.ratio if benchmark.cost else first.cpu
    if gain.low <= 0:
        return failed(rule, "a cost of 0 or less was recorded", limit=limit)
    seen = gain.model_copy(
        update={"value": 1 / gain.value, "low": 1 / gain.high, "high": 1 / gain.low, "others": ()}
    )
    if first.state == "void":
        return result(rule, "inconclusive", seen, limit, _void(first))
    outcome = at_most(seen, limit)
    reason = f"{seen.value:.3g} times the baseline's cost [{seen.low:.3g}, {seen.high:.3g}]"
    if outcome == "inconclusive":
        reason += f": whether it stays within {limit:g} cannot be told; measure longer"
    return result(rule, outcome, seen, limit, reason)


def _ratio(what: str, words: str) -> "_Judge":
    def judge(rule: str, limit: float, benchmark: Benchmark) -> RuleResult:
        before, after = getattr(benchmark.baseline, what), getattr(benchmark.candidate, what)
        if before <= 0 or after <= 0:
            return failed(rule, f"a {words} of 0 bytes was recorded", limit=limit)
        ratio = after / before
        return exact(rule, ratio, limit, f"{ratio:.3g} times the baseline's {words}")

    return judge


def _limit(what: str, words: str, unit: str, divisor: float) -> "_Judge":
    def judge(rule: str, limit: float, benchmark: Benchmark) -> RuleResult:
        seen = getattr(benchmark.candidate, what) / divisor
        if seen <= 0:
            return failed(rule, f"a {words} of 0 was recorded", limit=limit)
        return exact(rule, seen, limit, f"a {words} of {seen:.4g} {unit}")

    return judge


_Judge = Callable[[str, float, Benchmark], RuleResult]
_BENCHMARK_RULES: dict[str, _Judge] = {
    "min_speedup": _speedup,
    "max_size_ratio": _ratio("size", "size"),
    "max_memory_ratio": _ratio("peak_rss", "peak memory"),
    "max_cost_ratio": _cost_ratio,
    "max_size_mb": _limit("size", "size", "MiB", _MIB),
    "max_peak_rss_mb": _limit("peak_rss", "peak memory", "MiB", _MIB),
    "max_cold_start_s": _limit("cold_start", "cold start", "s", 1),
}


def load_rules(
    policy: GatePolicy, benchmark: Benchmark | None, served: Served | None
) -> list[RuleResult]:
    """The rule on the 99th percentile under open-loop load."""
    asked = policy.load
    if asked is None:
        return []
    rule, limit = "load.max_p99_ms", asked.max_p99_ms
    measured = (served.load if served else ()) if asked.where == "server" else ()
    if asked.where == "session" and benchmark is not None:
        measured = benchmark.load
    fitting = [x for x in measured if x.where == asked.where and x.rate >= asked.rate * (1 - 1e-9)]
    where = f"of the {asked.where} at {asked.rate:g} requests a second"
    if not fitting:
        why = f"the latency {where} was not measured: add it to the target's rates"
        return [failed(rule, why, limit=limit)]
    seen = min(fitting, key=lambda x: x.rate)
    if not seen.valid:
        why = f"the load proves nothing: {seen.reason}"
        return [result(rule, "inconclusive", None, limit, why)]
    load = seen.candidate
    lost = load.errors + load.dropped
    if load.requests <= 0 or load.p99 is None or lost > asked.max_error_share * load.requests:
        why = f"{lost} of {load.requests} requests failed or were not sent, {where}"
        return [failed(rule, why, limit=limit)]
    interval = load.p99_interval or point(load.p99)
    if load.requests < LEAST_REQUESTS:
        why = f"{load.requests} requests are too few for a 99th percentile"
        return [result(rule, "inconclusive", _in_ms(interval), limit, why)]
    ms = _in_ms(interval)
    outcome = at_most(ms, limit)
    reason = f"p99 {where} is {ms.value:.3g} ms [{ms.low:.3g}, {ms.high:.3g}]"
    if outcome == "inconclusive":
        reason += f": whether it stays within {limit:g} ms cannot be told; measure longer"
    return [result(rule, outcome, ms, limit, reason)]


def _in_ms(seconds: Interval) -> Interval:
    scaled = {end: getattr(seconds, end) * 1e3 for end in ("value", "low", "high")}
    return seconds.model_copy(update={**scaled, "others": ()})


def served_rules(policy: GatePolicy, served: Served | None) -> list[RuleResult]:
    """The rules on serving; the checks of a served model have to hold in any case."""
    results = []
    if served is not None:
        results.append(_checks(served))
    p99, speedup = policy.max_served_p99_ms, policy.min_served_speedup
    if p99 is not None:
        rule = "max_served_p99_ms"
        if served is None:
            results.append(failed(rule, "the served measurement is missing", limit=p99))
        elif served.requests < LEAST_REQUESTS:
            why = f"{served.requests} requests are too few for a 99th percentile"
            seen = point(served.p99 * 1e3)
            results.append(result(rule, "inconclusive", seen, p99, why))
        else:
            seen_ms = served.p99 * 1e3
            results.append(exact(rule, seen_ms, p99, f"{seen_ms:.3g} ms when served"))
    if speedup is not None:
        rule = "min_served_speedup"
        if served is not None and served.latency is None and served.errors:
            why = "it was not measured: " + "; ".join(served.errors[:3])
            results.append(result(rule, "inconclusive", None, speedup, why))
        elif served is None or served.latency is None:
            results.append(
                failed(rule, "the served speed-up over the baseline is missing", limit=speedup)
            )
        else:
            results.append(speed(rule, served.latency, speedup, "when served"))
    return results


def _checks(served: Served) -> RuleResult:
    # whether the baseline's server starts says nothing of the winner
    own = {name: held for name, held in served.checks.items() if name != BASELINE_SERVED}
    broken = [name for name, held in own.items() if not held]
    alone = served.checks.get(BASELINE_SERVED) is False
    if broken or len(served.errors) > alone:
        told = [*served.errors[:3]]
        if broken:
            told.append(f"failed: {', '.join(broken)}")
        why = f"the model server did not answer as it should: {'; '.join(told)}"
        return failed("served.checks", why)
    if not own:
        return failed("served.checks", "no check of the served model was recorded")
    if alone:
        why = "the winner is served as it should be, the baseline could not be: "
        why += "; ".join(served.errors)
        return result("served.checks", "inconclusive", None, None, why)
    why = f"all {len(served.checks)} checks of the served model hold"
    return result("served.checks", "pass", None, None, why)
