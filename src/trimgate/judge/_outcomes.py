"""From an interval and a limit to an outcome; what is no number, or contradicts itself, fails."""

import math

from trimgate.judge.records import Interval, Outcome, RuleResult


def result(
    rule: str,
    outcome: Outcome,
    observed: Interval | None,
    limit: float | None,
    reason: str,
    *,
    rows_needed: int | None = None,
) -> RuleResult:
    """One line of the verdict."""
    if observed is not None:
        ends = (observed.low, observed.value, observed.high)
        if any(math.isnan(end) for end in ends):
            outcome, reason, rows_needed = "fail", "the observed value is not a number", None
        elif not observed.low <= observed.value <= observed.high:
            outcome, rows_needed = "fail", None
            reason = f"the record contradicts itself: {observed.value:g} lies outside its interval"
    return RuleResult(
        rule=rule,
        outcome=outcome,
        observed=observed,
        limit=limit,
        rows_needed=rows_needed,
        reason=reason,
    )


def failed(rule: str, reason: str, *, limit: float | None = None) -> RuleResult:
    """A rule that fails for want of something."""
    return result(rule, "fail", None, limit, reason)


def exact(rule: str, seen: float, limit: float, reason: str) -> RuleResult:
    """A rule on a number that was measured without an interval."""
    return result(rule, "pass" if seen <= limit else "fail", point(seen), limit, reason)


def speed(rule: str, ratio: Interval, limit: float, where: str) -> RuleResult:
    """A rule on a ratio of times, above 1 being faster."""
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
    return result(rule, outcome, ratio, limit, reason)


def below(seen: Interval, limit: float) -> Outcome:
    """The non-inferiority rule; touching the limit is not enough."""
    return "pass" if seen.high < limit else "fail" if seen.low > limit else "inconclusive"


def at_most(seen: Interval, limit: float) -> Outcome:
    """A rule on a value; touching the limit is allowed."""
    return "pass" if seen.high <= limit else "fail" if seen.low > limit else "inconclusive"


def negated(seen: Interval) -> Interval:
    """The interval of minus the value."""
    return seen.model_copy(update={"value": -seen.value, "low": -seen.high, "high": -seen.low})


def more(needed: int | None) -> str:
    """How many rows would decide, in words."""
    if needed is None:
        return "; more rows would hardly decide it, as it sits on the limit"
    return f"; about {needed:,} rows would"


def point(value: float) -> Interval:
    """A value without an interval."""
    return Interval(value=value, low=value, high=value, confidence=1.0, method="exact")
