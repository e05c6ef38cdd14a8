"""The gate's rule on slices."""

from trimgate.errors import InvalidInput
from trimgate.judge._outcomes import below, failed, more, negated, result
from trimgate.judge._rows import rows_for_accuracy, rows_for_interval
from trimgate.judge.metrics import higher_is_better
from trimgate.judge.policy import SliceRule
from trimgate.judge.records import Evaluation, Outcome, RuleResult, Slice

_SHOWN = 10


def slice_rules(rule: SliceRule, candidate: Evaluation, confidence: float) -> list[RuleResult]:
    """A line for each slice that does not pass (the ten worst), and one for all others."""
    name = "slices.max_drop"
    if not candidate.slices:
        why = "no slices in the candidate's evaluation: set evaluation.slices"
        return [failed(name, why, limit=rule.max_drop)]
    present = {part.name: part for part in candidate.slices}
    results = []
    for wanted, margin in rule.overrides.items():
        part = present.get(wanted)
        if part is None or part.difference is None:
            why = part.reason if part is not None else "there is no such slice"
            results.append(failed(f"{name}[{wanted}]", f"not judged: {why}", limit=margin))
    judged = [part for part in candidate.slices if part.difference is not None]
    small = [part for part in candidate.slices if part.difference is None]
    if not judged:
        why = f"none of {len(small)} slices could be judged; {small[0].name}: {small[0].reason}"
        return [*results, failed(name, why, limit=rule.max_drop)]
    lines = []
    for part in judged:
        margin = rule.overrides.get(part.name, rule.max_drop)
        lines.append(_judge(f"{name}[{part.name}]", part, margin, candidate, confidence, rule))
    bad = [line for line in lines if line.outcome != "pass"]
    bad.sort(key=lambda line: (line.outcome != "fail", line.rule))
    results += bad[:_SHOWN]
    worst = max(lines, key=lambda line: _loss(line, candidate.primary))
    told = f"{len(lines) - len(bad)} of {len(lines)} slices pass"
    if len(bad) > _SHOWN:
        told += f", {len(bad) - _SHOWN} more do not"
    if small:
        listed = ", ".join(part.name for part in small[:3])
        told += f"; {len(small)} too small to judge ({listed}{', ...' if len(small) > 3 else ''})"
    if not bad:
        told += f"; the worst, {worst.rule.partition('[')[2][:-1]}: {worst.reason}"
    outcomes = {line.outcome for line in lines}
    outcome: Outcome = "fail" if "fail" in outcomes else "inconclusive" if bad else "pass"
    return [*results, result(name, outcome, worst.observed, worst.limit, told)]


def _loss(line: RuleResult, primary: str) -> float:
    if line.observed is None:
        return 0.0
    return -line.observed.value if higher_is_better(primary) else line.observed.value


def _judge(
    name: str,
    part: Slice,
    margin: float,
    candidate: Evaluation,
    confidence: float,
    rule: SliceRule,
) -> RuleResult:
    if part.difference is None or part.simultaneous is None:
        return failed(name, "the paired difference is missing", limit=margin)
    try:
        alone = part.difference.at(2 * confidence - 1)
        together = part.simultaneous.at(2 * confidence - 1)
    except InvalidInput as error:
        return failed(name, str(error), limit=margin)
    up = higher_is_better(candidate.primary)
    seen, surely = (negated(alone), negated(together)) if up else (alone, together)
    if surely.low > margin:
        lost = f"; lost {part.flips.lost} rows, won {part.flips.won}" if part.flips else ""
        why = (
            f"broken: {seen.value:.4g} worse on {part.rows} rows, at least {surely.low:.4g} after "
            f"correction for {sum(s.difference is not None for s in candidate.slices)} slices{lost}"
        )
        return result(name, "fail", alone, margin, why)
    outcome = below(seen, margin)
    if outcome == "pass":
        why = f"at most {seen.high:.2g} worse on {part.rows} rows"
        return result(name, "pass", alone, margin, why)
    why = f"{seen.value:+.4f} worse on {part.rows} rows, at most {seen.high:.2g}"
    if not rule.prove:
        return result(name, "pass", alone, margin, f"not shown to be broken: {why}")
    if candidate.primary == "accuracy" and part.flips is not None:
        needed = rows_for_accuracy(part.flips, margin, confidence)
    else:
        needed = rows_for_interval(seen, margin, part.rows, confidence)
    return result(
        name,
        "inconclusive",
        alone,
        margin,
        f"cannot be told from a drop of {margin:g}: {why}{more(needed)} (of the slice)",
        rows_needed=needed,
    )
