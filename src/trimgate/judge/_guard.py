"""Against over-optimization: a gain below its noise, quality spent for a gain nobody asked for."""

from trimgate.errors import InvalidInput
from trimgate.judge._outcomes import failed, negated, result
from trimgate.judge.metrics import higher_is_better
from trimgate.judge.objective import Objective, gains, timed_batches, weighted_gain, words
from trimgate.judge.policy import GatePolicy
from trimgate.judge.records import Benchmark, Evaluation, Interval, RuleResult


def guard_rules(
    policy: GatePolicy, candidate: Evaluation, benchmark: Benchmark | None
) -> list[RuleResult]:
    """Two lines: whether the gain is real, and whether a loss of quality bought it."""
    guard = policy.guard
    if guard is None:
        return []
    limit = guard.least_gain
    if benchmark is None or not benchmark.batches or not guard.objective:
        what = "objective" if benchmark and benchmark.batches else "benchmark"
        return [failed("guard.gain", f"the {what} is missing", limit=limit)]
    all_gains = gains(benchmark)
    gain = weighted_gain(all_gains, guard.objective)
    told = f"{gain.value:.3g} times {words(guard.objective)} [{gain.low:.3g}, {gain.high:.3g}]"
    void = any(batch.state == "void" for batch in timed_batches(benchmark, guard.objective))
    if void:
        line = result("guard.gain", "inconclusive", gain, limit, "the timing of the gain is void")
    elif gain.low >= limit:
        line = result("guard.gain", "pass", gain, limit, told)
    elif gain.high < limit:
        line = result("guard.gain", "fail", gain, limit, f"{told}: no gain beyond noise")
    else:
        why = f"{told}: cannot be told from noise; measure longer"
        line = result("guard.gain", "inconclusive", gain, limit, why)
    return [line, _trade(policy, candidate, line, all_gains)]


def _trade(
    policy: GatePolicy,
    candidate: Evaluation,
    gained: RuleResult,
    all_gains: dict[Objective, Interval],
) -> RuleResult:
    rule, primary = "guard.trade", candidate.primary
    if primary not in candidate.differences:
        return failed(rule, f"the paired difference of {primary} is missing")
    try:
        seen = candidate.differences[primary].at(2 * policy.confidence - 1)
    except InvalidInput as error:
        return failed(rule, str(error))
    worse = negated(seen) if higher_is_better(primary) else seen
    flips = candidate.flips
    beyond_chance = (
        flips is not None
        and flips.p_value is not None
        and flips.lost > flips.won
        and flips.p_value < 1 - policy.confidence
        and primary == "accuracy"
    )
    if not (worse.low > 0 or beyond_chance):
        return result(rule, "pass", seen, None, f"{primary} is not shown to be worse at all")
    told = f"{primary} is worse by {worse.value:.4g} beyond chance"
    if gained.outcome == "pass":
        return result(rule, "pass", seen, None, f"{told}, for {gained.reason}")
    others = [n for n, g in all_gains.items() if g.low >= (gained.limit or 1)]
    instead = f"the gain is in {', '.join(others)} instead" if others else "nothing was gained"
    return result(rule, "fail", seen, None, f"{told}, and {instead}")
