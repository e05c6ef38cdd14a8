"""Each gate rule: one function from records to a `RuleResult`."""

from trimgate.errors import InvalidInput
from trimgate.judge._rows import rows_for_accuracy, rows_for_interval, rows_for_share
from trimgate.judge._stats import wilson
from trimgate.judge.metrics import higher_is_better
from trimgate.judge.policy import GatePolicy
from trimgate.judge.records import Benchmark, Evaluation, Interval, Outcome, RuleResult, Served

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
    if policy.max_disagreement is not None:
        results.append(_disagreement(policy.max_disagreement, candidate, policy.confidence))
    return results


def _drop(metric: str, margin: float, candidate: Evaluation, confidence: float) -> RuleResult:
    rule = f"max_drop.{metric}"
    if metric not in candidate.differences:
        why = f"the paired difference of {metric} is missing from the candidate's evaluation"
        return failed(rule, why, limit=margin)
    try:
        difference = candidate.differences[metric].at(2 * confidence - 1)
    except InvalidInput as error:
        return failed(rule, str(error), limit=margin)
    worse = _negated(difference) if higher_is_better(metric) else difference
    outcome = _below(worse, margin)
    needed = None
    if outcome == "inconclusive":
        if metric == "accuracy" and candidate.flips is not None:
            needed = rows_for_accuracy(candidate.flips, margin, confidence)
        else:
            needed = rows_for_interval(worse, margin, candidate.rows, confidence)
    bound = f"at most {worse.high:.2g} worse, with {confidence:.4g} confidence"
    reason = {
        "pass": f"the drop is below {margin:g} ({bound})",
        "fail": f"the drop is above {margin:g}: at least {worse.low:.4g}",
        "inconclusive": f"{candidate.rows} rows cannot tell whether the drop stays below "
        f"{margin:g} ({bound}){_more(needed)}",
    }[outcome]
    return RuleResult(
        rule=rule,
        outcome=outcome,
        observed=difference,
        limit=margin,
        rows_needed=needed,
        reason=reason + _lost(metric, candidate),
    )


def _lost(metric: str, candidate: Evaluation) -> str:
    """A word on the flips, where they say that the candidate is worse at all."""
    flips = candidate.flips
    if metric != "accuracy" or flips is None or flips.p_value is None or flips.lost <= flips.won:
        return ""
    told = f"; lost {flips.lost} rows, won {flips.won} (exact McNemar p = {flips.p_value:.2g})"
    return told + (": worse beyond chance" if flips.p_value < 0.05 else "")


def _floor(metric: str, floor: float, candidate: Evaluation, confidence: float) -> RuleResult:
    rule = f"min.{metric}"
    if metric not in candidate.metrics:
        return failed(rule, f"{metric} is missing from the candidate's evaluation", limit=floor)
    try:
        seen = candidate.metrics[metric].interval.at(2 * confidence - 1)
    except InvalidInput as error:
        return failed(rule, str(error), limit=floor)
    up = higher_is_better(metric)
    gap = _negated(seen) if up else seen
    limit = -floor if up else floor
    outcome = _at_most(gap, limit)
    needed = None
    if outcome == "inconclusive":
        needed = rows_for_interval(gap, limit, candidate.rows, confidence)
    side = "least" if up else "most"
    worst, best = (seen.low, seen.high) if up else (seen.high, seen.low)
    reason = {
        "pass": f"{metric} is at {side} {worst:.4g}",
        "fail": f"{metric} is {'at most' if up else 'at least'} {best:.4g}",
        "inconclusive": f"{metric} is {seen.value:.4g}, between {seen.low:.4g} and "
        f"{seen.high:.4g}{_more(needed)}",
    }[outcome]
    return RuleResult(
        rule=rule, outcome=outcome, observed=seen, limit=floor, rows_needed=needed, reason=reason
    )


def _disagreement(limit: float, candidate: Evaluation, confidence: float) -> RuleResult:
    rule = "max_disagreement"
    if candidate.parity is None:
        return failed(rule, "the comparison with the baseline's answers is missing", limit=limit)
    rows = candidate.parity.rows
    share = 1 - candidate.parity.agreement
    level = 2 * confidence - 1
    low, high = wilson(share * rows, rows, level)
    seen = Interval(value=share, low=low, high=high, confidence=level, method="Wilson score")
    outcome = _at_most(seen, limit)
    needed = None
    if outcome == "inconclusive":
        needed = rows_for_share(share, limit, rows, confidence)
    reason = f"{share:.3%} of {rows} rows are answered differently (at most {high:.3%})"
    return RuleResult(
        rule=rule,
        outcome=outcome,
        observed=seen,
        limit=limit,
        rows_needed=needed,
        reason=reason + (_more(needed) if outcome == "inconclusive" else ""),
    )


def benchmark_rules(policy: GatePolicy, benchmark: Benchmark | None) -> list[RuleResult]:
    """The rules on speed, size and memory."""
    results = []
    limits = {
        "min_speedup": policy.min_speedup,
        "max_size_ratio": policy.max_size_ratio,
        "max_peak_rss_mb": policy.max_peak_rss_mb,
    }
    for rule, limit in limits.items():
        if limit is None:
            continue
        if benchmark is None or not benchmark.batches:
            results.append(failed(rule, "the benchmark is missing", limit=limit))
        elif rule == "min_speedup":
            first = benchmark.batches[0]
            if benchmark.standing.get("latency", "measured").startswith("checked"):
                why = (
                    f"{first.wall.value:.3g} times as fast on this CPU, and not measured on "
                    f"{benchmark.target}: measure there"
                )
                results.append(_result(rule, "inconclusive", first.wall, limit, why))
            elif first.state == "void":
                why = (
                    "the timing is void: the baseline against itself came out at "
                    f"{first.control.value:.3f}, so the machine was too busy to conclude"
                )
                results.append(_result(rule, "inconclusive", first.wall, limit, why))
            else:
                where = f"at batch size {first.batch_size}"
                results.append(_speed(rule, first.wall, limit, where))
        elif rule == "max_size_ratio":
            if benchmark.baseline.size <= 0 or benchmark.candidate.size <= 0:
                results.append(failed(rule, "a size of 0 bytes was recorded", limit=limit))
                continue
            ratio = benchmark.candidate.size / benchmark.baseline.size
            results.append(_exact(rule, ratio, limit, f"{ratio:.3g} times the baseline's size"))
        else:
            peak = benchmark.candidate.peak_rss / _MIB
            if peak <= 0:
                results.append(failed(rule, "a memory of 0 bytes was recorded", limit=limit))
                continue
            results.append(_exact(rule, peak, limit, f"{peak:.0f} MiB at the peak"))
    return results


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
            seen = _point(served.p99 * 1e3)
            results.append(_result(rule, "inconclusive", seen, p99, why))
        else:
            seen_ms = served.p99 * 1e3
            results.append(_exact(rule, seen_ms, p99, f"{seen_ms:.3g} ms when served"))
    if speedup is not None:
        rule = "min_served_speedup"
        if served is None or served.latency is None:
            results.append(
                failed(rule, "the served speed-up over the baseline is missing", limit=speedup)
            )
        else:
            results.append(_speed(rule, served.latency, speedup, "when served"))
    return results


def _checks(served: Served) -> RuleResult:
    broken = [name for name, held in served.checks.items() if not held]
    if broken or served.errors:
        told = [*served.errors[:3]]
        if broken:
            told.append(f"failed: {', '.join(broken)}")
        why = f"the model server did not answer as it should: {'; '.join(told)}"
        return failed("served.checks", why)
    if not served.checks:
        return failed("served.checks", "no check of the served model was recorded")
    why = f"all {len(served.checks)} checks of the served model hold"
    return _result("served.checks", "pass", None, None, why)


def _speed(rule: str, ratio: Interval, limit: float, where: str) -> RuleResult:
    outcome: Outcome = "inconclusive"
    if ratio.low >= limit:
        outcome = "pass"
    elif ratio.high < limit:
        outcome = "fail"
    reason = f"{ratio.value:.3g} times as fast [{ratio.low:.3g}, {ratio.high:.3g}] {where}"
    if outcome == "inconclusive":
        reason += f": whether it reaches {limit:g} cannot be told; measure longer"
    if outcome == "fail":
        reason += f", and {limit:g} is asked for"
    return _result(rule, outcome, ratio, limit, reason)


def _exact(rule: str, seen: float, limit: float, reason: str) -> RuleResult:
    return _result(rule, "pass" if seen <= limit else "fail", _point(seen), limit, reason)


def _below(seen: Interval, limit: float) -> Outcome:
    """The non-inferiority rule; touching the limit is not enough."""
    return "pass" if seen.high < limit else "fail" if seen.low > limit else "inconclusive"


def _at_most(seen: Interval, limit: float) -> Outcome:
    return "pass" if seen.high <= limit else "fail" if seen.low > limit else "inconclusive"


def _negated(seen: Interval) -> Interval:
    return seen.model_copy(update={"value": -seen.value, "low": -seen.high, "high": -seen.low})


def _more(needed: int | None) -> str:
    if needed is None:
        return "; more rows would hardly decide it, as it sits on the limit"
    return f"; about {needed:,} rows would"


def _point(value: float) -> Interval:
    return Interval(value=value, low=value, high=value, confidence=1.0, method="exact")


def failed(rule: str, reason: str, *, limit: float | None = None) -> RuleResult:
    """A rule that fails for want of something."""
    return _result(rule, "fail", None, limit, reason)


def _result(
    rule: str, outcome: Outcome, observed: Interval | None, limit: float | None, reason: str
) -> RuleResult:
    return RuleResult(rule=rule, outcome=outcome, observed=observed, limit=limit, reason=reason)
