"""The decision after a look: a function of what was seen, and of nothing else.

Advance only when every check holds; roll back when one is in breach, or when time is up; else
hold. What was not seen does not hold.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from trimgate.judge import sequential
from trimgate.judge.records import Interval, RuleResult
from trimgate.ops.rollout.observations import Condition, Observation, Pair, Traffic
from trimgate.ops.rollout.policy import RolloutPolicy

Action = Literal["advance", "hold", "roll back"]
_LONGEST = 400  # characters of a condition's reason, which may end in a server's log
_METHOD = "confidence sequence (Beta mixture)"


class Decision(BaseModel):
    """What to do, and why.

    Attributes:
        reason: In words, one line.
        checks: Every check of the step; `rows_needed` is how many more requests would decide it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    action: Action
    reason: str
    checks: tuple[RuleResult, ...]


def decide(seen: Observation, policy: RolloutPolicy, share: int) -> Decision:
    """What follows from a look.

    Args:
        seen: The look.
        policy: What the canary has to show.
        share: Its share of the traffic in percent; 100 when it was made the stable model, and
            only has to answer as the library does.
    """
    served = [_in_place(seen), _ready(seen), _golden(seen)]
    evidence: list[RuleResult] = []
    if share < 100:
        evidence = [_duration(seen, policy), _requests(seen, policy), _errors(seen, policy)]
        evidence += _latency(seen, policy)
        evidence += _agreement(seen, policy)
    checks = (*served, *evidence)

    def found(outcome: str, among: Sequence[RuleResult]) -> list[RuleResult]:
        return [check for check in among if check.outcome == outcome]

    def result(action: Action, reason: str) -> Decision:
        return Decision(action=action, reason=reason, checks=checks)

    if failed := found("fail", checks):
        # a server that is down is why its requests fail
        down = [] if found("fail", served) else found("inconclusive", [_ready(seen)])
        return result("roll back", _joined([*down, *failed]))
    waiting = found("inconclusive", served)
    age = (seen.now - seen.committed).total_seconds()
    if waiting and age > policy.ready_timeout:
        return result(
            "roll back", f"not served {_seconds(age)} after the commit: {_joined(waiting)}"
        )
    if age > policy.step_timeout and (open_ := found("inconclusive", checks)):
        return result("roll back", f"no proof {_seconds(age)} after the commit: {_joined(open_)}")
    if waiting:
        return result("hold", _joined(waiting))
    if open_ := found("inconclusive", evidence):
        more = max((check.rows_needed or 0 for check in open_), default=0)
        told = f"; about {more} more requests may decide it" if more else ""
        return result("hold", _joined(open_) + told)
    return result("advance", "every check holds")


def _in_place(seen: Observation) -> RuleResult:
    if seen.failed is not None:
        return _check("in place", "fail", seen.failed)
    if seen.applied is None:
        return _check(
            "in place",
            "inconclusive",
            seen.problems.get("in place", "the commit is not carried out yet"),
        )
    return _check("in place", "pass", f"carried out since {_clock(seen.applied)}")


def _ready(seen: Observation) -> RuleResult:
    if seen.ready:
        return _check("ready", "pass", "the model answers")
    bad = [_told(condition) for condition in _bad(seen.conditions)]
    why = "; ".join(bad) or seen.problems.get("ready", "it is not known whether the model is ready")
    return _check("ready", "inconclusive", why)


def _golden(seen: Observation) -> RuleResult:
    if seen.golden is None or seen.golden.rows < 1:
        return _unseen("golden inputs", seen)
    if seen.golden.problem is not None:
        return _check("golden inputs", "fail", seen.golden.problem)
    return _check(
        "golden inputs", "pass", f"{seen.golden.rows} rows are answered as the library answers them"
    )


def _duration(seen: Observation, policy: RolloutPolicy) -> RuleResult:
    since = None if seen.applied is None else (seen.now - seen.applied).total_seconds()
    if since is None or since < policy.minimum_seconds:
        told = "has not begun" if since is None else f"lasts {_seconds(since)}"
        return _check(
            "duration", "inconclusive", f"the step {told}, at least {policy.minimum_seconds:g} s"
        )
    return _check("duration", "pass", f"the step lasts {_seconds(since)}")


def _requests(seen: Observation, policy: RolloutPolicy) -> RuleResult:
    if seen.canary is None:
        return _unseen("requests", seen, "traffic")
    count, least = seen.canary.requests, policy.minimum_requests
    if count < least:
        return _check(
            "requests",
            "inconclusive",
            f"the canary had {count} of at least {least}",
            limit=least,
            more=least - count,
        )
    return _check("requests", "pass", f"the canary had {count}", limit=least)


def _errors(seen: Observation, policy: RolloutPolicy) -> RuleResult:
    """Fewer failures than the rate that is always allowed, or not many more than stable has."""
    name, limit = "errors", policy.max_error_ratio
    if seen.canary is None or seen.stable is None or seen.canary.requests < 1:
        return _unseen(name, seen, "traffic")
    own, other = ((t.errors, t.requests) for t in (seen.canary, seen.stable))
    allowed = policy.max_error_rate
    rate = _proportion(*own, policy, allowed)
    _, high = sequential.rate_ratio(own, other, policy.alpha, limit)
    low, _ = sequential.rate_ratio(own, other, policy.breach_alpha, limit)
    value = own[0] / own[1] / (other[0] / other[1]) if other[0] else math.inf
    ratio = None
    if own[0] and math.isfinite(high):
        ratio = _interval(value, low, high, policy)
    shown = f"{own[0]} of {own[1]} requests failed, of the stable model {other[0]} of {other[1]}"
    if rate.high <= allowed or high <= limit:
        return _check(name, "pass", shown, observed=rate if ratio is None else ratio, limit=limit)
    if low > limit and rate.low > allowed:
        return _check(
            name,
            "fail",
            f"{shown}: at least {low:.3g} times as often, {limit:g} is allowed",
            observed=ratio or rate,
            limit=limit,
        )
    more = sequential.rows_to_stay_below(*own, allowed, policy.alpha)
    return _check(
        name,
        "inconclusive",
        f"{shown}: not shown that it is at most {allowed:.3g} or {limit:g} times as often",
        observed=rate,
        limit=allowed,
        more=more,
    )


def _latency(seen: Observation, policy: RolloutPolicy) -> Iterator[RuleResult]:
    for key, limit in sorted(policy.max_latency_ratio.items()):
        name = f"latency {key}"
        both = (seen.stable, seen.canary)
        if not all(t is not None and t.edges and sum(t.counts) > 0 for t in both):
            yield _unseen(name, seen, "traffic")
            continue
        probability = int(key[1:]) / 100
        ends = [
            _latency_ends(both, probability, alpha) for alpha in (policy.breach_alpha, policy.alpha)
        ]
        low, high = ends[0][0], ends[1][1]
        value = math.sqrt(low * high) if low > 0 and math.isfinite(high) else None
        observed = None if value is None else _interval(value, low, high, policy)
        if high <= limit:
            yield _check(
                name, "pass", f"at most {high:.2f} times the stable model's", observed, limit
            )
        elif low > limit:
            yield _check(
                name,
                "fail",
                f"at least {low:.2f} times the stable model's, {limit:g} is allowed",
                observed,
                limit,
            )
        else:
            # The width falls with the root of the requests.
            yield _check(
                name,
                "inconclusive",
                f"between {low:.2f} and {high:.2f} times the stable model's, {limit:g} is allowed",
                observed,
                limit,
                more=_latency_more(both, value, high, limit),
            )


def _latency_ends(
    both: tuple[Traffic | None, Traffic | None], probability: float, alpha: float
) -> tuple[float, float]:
    """Ends of the ratio canary / stable of a percentile; half of `alpha` for each model."""
    (stable_low, stable_high), (own_low, own_high) = (
        sequential.quantile(t.edges, t.counts, probability, alpha / 2)
        for t in both
        if t is not None
    )
    low = own_low / stable_high if math.isfinite(stable_high) and stable_high > 0 else 0.0
    high = own_high / stable_low if stable_low > 0 else math.inf
    return low, high


def _latency_more(
    both: tuple[Traffic | None, Traffic | None],
    value: float | None,
    high: float,
    limit: float,
) -> int | None:
    rows = min(int(sum(t.counts)) for t in both if t is not None)
    if value is None:
        return rows
    if value >= limit:
        return None
    return max(1, round(rows * ((math.log(high / value) / math.log(limit / value)) ** 2 - 1)))


def _agreement(seen: Observation, policy: RolloutPolicy) -> Iterator[RuleResult]:
    """How often both models answer alike, over all requests and by the stable model's label."""
    if not seen.pairs:
        yield _unseen("agreement", seen)
        return
    changed = [_differs(pair, policy.score_tolerance) for pair in seen.pairs]
    limit = policy.max_disagreement
    count, rows = sum(changed), len(changed)
    share = _proportion(count, rows, policy, limit)
    told = f"{count} of {rows} requests were answered otherwise than by the stable model"
    if missing := sum(pair.failed for pair in seen.pairs):
        told += f", {missing} of them not at all"
    if share.high <= limit:
        yield _check("agreement", "pass", f"{told}: at most {share.high:.2%}", share, limit)
    elif share.low > limit:
        yield _check(
            "agreement", "fail", f"{told}: at least {share.low:.2%}, {limit:.2%} is allowed",
            share, limit,
        )  # fmt: skip
    else:
        yield _check(
            "agreement", "inconclusive", f"{told}: not shown that it is at most {limit:.2%}",
            share, limit, more=sequential.rows_to_stay_below(count, rows, limit, policy.alpha),
        )  # fmt: skip
    yield _by_label(seen.pairs, changed, policy)


def _by_label(pairs: Sequence[Pair], changed: Sequence[bool], policy: RolloutPolicy) -> RuleResult:
    """The worst label; it passes unless it is in breach, since rare labels are never proven."""
    limit = policy.max_label_disagreement
    name = "agreement by label"
    rows = Counter(pair.stable for pair in pairs)
    counts = Counter(pair.stable for pair, odd in zip(pairs, changed, strict=True) if odd)
    alpha = policy.breach_alpha / len(rows)
    worst = max(
        rows,
        key=lambda label: sequential.proportion_low(counts[label], rows[label], alpha, limit),
    )
    low = sequential.proportion_low(counts[worst], rows[worst], alpha, limit)
    told = f"{counts[worst]} of {rows[worst]} requests" + (
        "" if worst is None else f" that the stable model calls {worst!r}"
    )
    if low > limit:
        return _check(
            name, "fail",
            f"{told} were answered otherwise: at least {low:.2%}, {limit:.2%} is allowed",
            limit=limit,
        )  # fmt: skip
    return _check(name, "pass", f"no breach; the most changed: {told}", limit=limit)


def _differs(pair: Pair, tolerance: float) -> bool:
    return pair.failed or pair.stable != pair.canary or not pair.gap <= tolerance


def _proportion(successes: int, rows: int, policy: RolloutPolicy, limit: float) -> Interval:
    """Its lower end is what a breach is judged by, its upper end what a proof is."""
    return _interval(
        successes / rows,
        sequential.proportion_low(successes, rows, policy.breach_alpha, limit),
        sequential.proportion_high(successes, rows, policy.alpha, limit),
        policy,
    )


def _interval(value: float, low: float, high: float, policy: RolloutPolicy) -> Interval:
    confidence = 1 - policy.alpha - policy.breach_alpha
    return Interval(value=value, low=low, high=high, confidence=confidence, method=_METHOD)


def _check(
    rule: str,
    outcome: Literal["pass", "fail", "inconclusive"],
    reason: str,
    observed: Interval | None = None,
    limit: float | None = None,
    more: int | None = None,
) -> RuleResult:
    return RuleResult(
        rule=rule, outcome=outcome, observed=observed, limit=limit, rows_needed=more, reason=reason
    )


def _unseen(name: str, seen: Observation, what: str | None = None) -> RuleResult:
    return _check(name, "inconclusive", seen.problems.get(what or name, "nothing was seen yet"))


def _bad(conditions: Sequence[Condition]) -> list[Condition]:
    return [condition for condition in conditions if condition.status is not True]


def _told(condition: Condition) -> str:
    status = {False: "False", None: "Unknown"}.get(condition.status, "True")
    since = "" if condition.since is None else f" since {_clock(condition.since)}"
    why = " ".join(": ".join(filter(None, (condition.reason, condition.message))).split())
    return f"{condition.name} is {status}{since}" + (f" ({why[:_LONGEST]})" if why else "")


def _joined(checks: Sequence[RuleResult]) -> str:
    """Every reason once, with the checks that give it."""
    rules: dict[str, list[str]] = {}
    for check in checks:
        rules.setdefault(check.reason, []).append(check.rule)
    return "; ".join(f"{', '.join(named)}: {reason}" for reason, named in rules.items())


def _clock(time: datetime) -> str:
    return f"{time:%H:%M:%S}"


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"
