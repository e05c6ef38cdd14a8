"""Selection: which candidate goes before the gate, judged on the validation split alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from trimgate.judge import _rules
from trimgate.judge.constraints import excess
from trimgate.judge.metrics import higher_is_better
from trimgate.judge.objective import (
    Constrained,
    Goal,
    gains,
    label,
    timed_batches,
    weighted_gain,
    words,
)
from trimgate.judge.policy import LEAST_GAIN, GatePolicy
from trimgate.judge.records import (
    Candidate,
    Evaluation,
    Interval,
    Ranked,
    Selection,
)

BASELINE = "baseline"
DEFAULT_MARGIN = 0.01


@dataclass(frozen=True)
class _Entry:
    """A candidate with what it is judged by.

    Attributes:
        gain: Above 1 is better than the baseline.
        refusal: Why it cannot win.
        doubt: The rule on quality that the validation rows do not show to hold.
        excess: Limits of the objective that it does not keep, in words.
    """

    candidate: Candidate
    gain: Interval | None
    refusal: str | None
    doubt: str | None = None
    excess: dict[str, str] = field(default_factory=dict)


def select(
    baseline: Evaluation,
    candidates: Sequence[Candidate],
    *,
    objective: Goal,
    policy: GatePolicy | None = None,
    max_drop: float | None = None,
    baseline_uri: str = "",
) -> Selection:
    """Ranks the candidates and names the winner, which may be `baseline`.

    It does not depend on the order of the candidates, and never names one that breaks a rule or a
    limit, nor one that an admissible candidate of no more steps, and of no more doubt, equals or
    beats in the metric, speed, size, memory, cost and objective at once.

    A candidate is admissible when it was evaluated beside the baseline and measured, is not
    hopeless on validation (no metric dropped by more than its margin, no rule on speed, size
    or memory broken), and its gain in the objective is real: the interval lies beyond 1 and
    the value is at least 1.03. Candidates that pass the gate's non-inferiority tests on the
    validation rows go before those on which these rows are inconclusive, and the test rows may
    well be too. Among equals the largest gain wins; gains
    within 3 % of it, or whose interval overlaps with its interval, are a tie, which goes to fewer
    steps: a difference that was not shown is not worth a step. Among those with as few steps the
    largest gain wins again, and within 3 % of it the smaller model.

    With a constrained objective a candidate must also keep every limit, at the bad end of its
    interval. The baseline is then beaten by any such candidate where it does not keep the limits
    itself; where it does, the gain must be real as ever.

    Args:
        baseline: The baseline on the validation split.
        candidates: On the same split.
        objective: What to be best at, several with their weights, or least of what within
            limits.
        policy: The gate's rules; a candidate that cannot pass them is not chosen.
        max_drop: Margin of the primary metric; by default the policy's, else 0.01 (for errors
            without a fixed scale 1 % of the baseline's).
        baseline_uri: Where the baseline's model directory is.

    Raises:
        ValueError: The baseline was not evaluated on validation, or two candidates share a name.
    """
    if baseline.split != "validation":
        raise ValueError(f"selection looks at the validation split, not at {baseline.split}")
    names = [candidate.name for candidate in candidates]
    if len(set(names)) < len(names) or BASELINE in names:
        raise ValueError(f"the candidates' names must differ and not be 'baseline': {names}")
    rules = _margins(baseline, policy or GatePolicy(), max_drop)
    entries = [_judge(baseline, candidate, objective, rules) for candidate in candidates]
    entries.sort(key=_order)
    admissible = [entry for entry in entries if entry.refusal is None]
    winner = _winner(admissible)
    top = admissible[0] if admissible else None
    if winner is not None:
        entries.sort(key=lambda entry: entry is not winner)
    front = _front(baseline, entries)
    ranking = [
        _line(entry, baseline.primary, entry.candidate.name in front, entry is winner, objective)
        for entry in entries
    ]
    ranking.insert(
        len(admissible), _baseline_line(baseline, entries, baseline_uri, winner is None, front)
    )
    return Selection(
        objective=label(objective),
        metric=baseline.primary,
        higher_is_better=higher_is_better(baseline.primary),
        ranking=tuple(
            line.model_copy(update={"rank": rank}) for rank, line in enumerate(ranking, start=1)
        ),
        winner=winner.candidate.name if winner else BASELINE,
        reason=_reason(winner, top, entries, objective),
        constraints=_limits(objective),
    )


def _limits(objective: Goal) -> dict[str, float]:
    if not isinstance(objective, Constrained):
        return {}
    return {str(name): limit for name, limit in objective.subject_to.items()}


def _margins(baseline: Evaluation, policy: GatePolicy, max_drop: float | None) -> GatePolicy:
    """The policy with a margin for the primary metric."""
    primary = baseline.primary
    if max_drop is None and primary in policy.max_drop:
        return policy
    if max_drop is None:
        max_drop = DEFAULT_MARGIN
        if not higher_is_better(primary):
            max_drop *= abs(baseline.metrics[primary].interval.value)
    return policy.model_copy(update={"max_drop": {**policy.max_drop, primary: max_drop}})


def _judge(
    baseline: Evaluation, candidate: Candidate, objective: Goal, policy: GatePolicy
) -> _Entry:
    measured = candidate.benchmark
    gain = None if measured is None else weighted_gain(gains(measured), objective)
    refusal = _refusal(baseline, candidate, gain, objective, policy)
    doubt = None if refusal else _doubt(candidate, policy)
    return _Entry(candidate, gain, refusal, doubt, _excess(candidate, objective))


def _excess(candidate: Candidate, objective: Goal) -> dict[str, str]:
    if not isinstance(objective, Constrained) or candidate.benchmark is None:
        return {}
    return excess(objective, candidate.benchmark, candidate.evaluation)


def _doubt(candidate: Candidate, policy: GatePolicy) -> str | None:
    """The first rule on quality that the validation rows do not show to hold, or None."""
    if candidate.evaluation is None:
        return None
    results = _rules.metric_rules(policy, None, candidate.evaluation)
    return next((result.rule for result in results if result.outcome != "pass"), None)


def _refusal(
    baseline: Evaluation,
    candidate: Candidate,
    gain: Interval | None,
    objective: Goal,
    policy: GatePolicy,
) -> str | None:
    """Why it cannot win, or None."""
    evaluation, benchmark = candidate.evaluation, candidate.benchmark
    if candidate.refusal is not None:
        return candidate.refusal
    if evaluation is None or benchmark is None or gain is None:
        return "it was not evaluated and measured"
    if evaluation.model == baseline.model:
        return "it is the baseline itself"
    if evaluation.split != baseline.split or evaluation.data != baseline.data:
        return "it was evaluated on other rows than the baseline"
    if {evaluation.model, benchmark.model} != {candidate.model}:
        return "its records are of another model"
    if benchmark.baseline_model != baseline.model:
        return "it was measured against another baseline"
    if benchmark.format is not None and benchmark.format.unsupported:
        return f"{benchmark.target} cannot run it: {'; '.join(benchmark.format.unsupported)}"
    for metric, margin in policy.max_drop.items():
        if metric not in evaluation.differences:
            return f"its difference of {metric} from the baseline is missing"
        seen = evaluation.differences[metric].value
        worse = -seen if higher_is_better(metric) else seen
        if not worse <= margin:
            return f"{metric} is {worse:.4g} worse on validation, beyond the margin of {margin:.4g}"
    for result in _rules.metric_rules(policy, None, evaluation):
        if result.outcome == "fail" and result.rule.startswith("slices.max_drop["):
            return f"{result.rule}: {result.reason}"
    for result in _rules.benchmark_rules(policy, benchmark):
        if result.outcome != "pass":
            return f"{result.rule}: {result.reason}"
    if any(timed.state == "void" for timed in timed_batches(benchmark, objective)):
        return "its timing is void: the machine was too busy to conclude"
    if isinstance(objective, Constrained):
        if objective.shown and (doubt := _doubt(candidate, policy)):
            return f"the validation rows do not show that it keeps {doubt}"
        if broken := _excess(candidate, objective):
            return "; ".join(broken.values())
        if excess(objective, benchmark, None, baseline=True):
            return None  # better than a baseline that may not be used is anything that may
    if not (gain.low > 1 and gain.value >= LEAST_GAIN):
        return (
            f"it is not surely {words(objective)} than the baseline: "
            f"{gain.value:.3g} times [{gain.low:.3g}, {gain.high:.3g}]"
        )
    return None


def _order(entry: _Entry) -> tuple[bool, bool, bool, float, int, int, str]:
    """Admissible, shown to hold, measured, then by gain; the name makes it a total order."""
    gain = entry.gain.value if entry.gain else 0.0
    return (
        entry.refusal is not None,
        entry.doubt is not None,
        entry.gain is None,
        -gain,
        len(entry.candidate.steps),
        _size(entry),
        entry.candidate.name,
    )


def _size(entry: _Entry) -> int:
    return entry.candidate.benchmark.candidate.size if entry.candidate.benchmark else 0


def _winner(admissible: Sequence[_Entry]) -> _Entry | None:
    """The simplest of those whose gain cannot be told from the largest."""
    if not admissible:
        return None
    best = admissible[0]
    tied = [e for e in admissible if _ties(e, best) and (e.doubt is None) == (best.doubt is None)]
    fewest = min(len(e.candidate.steps) for e in tied)
    simple = [e for e in tied if len(e.candidate.steps) == fewest]
    fastest = max(map(_value, simple))
    equal = [e for e in simple if _value(e) * LEAST_GAIN >= fastest]
    kept = [e for e in equal if not any(_beats((*_point(o), _value(o)), (*_point(e), _value(e)))
                                        for o in equal)]  # fmt: skip
    return min(kept, key=lambda e: (_size(e), -_value(e), e.candidate.name))


def _ties(entry: _Entry, best: _Entry) -> bool:
    if entry.gain is None or best.gain is None:
        return False
    near = entry.gain.value * LEAST_GAIN >= best.gain.value
    return near or entry.gain.high >= best.gain.low


def _value(entry: _Entry) -> float:
    return entry.gain.value if entry.gain else 0.0


def _front(baseline: Evaluation, entries: Sequence[_Entry]) -> set[str]:
    """Names on the Pareto front of metric, speed-up, size, memory and cost; more is better."""
    primary = baseline.primary
    points: dict[str, tuple[float, ...]] = {}
    for entry in entries:
        evaluation, benchmark = entry.candidate.evaluation, entry.candidate.benchmark
        if evaluation is None or benchmark is None or primary not in evaluation.metrics:
            continue
        points[entry.candidate.name] = _point(entry)
        points[BASELINE] = (
            _goodness(baseline),
            1.0,
            -benchmark.baseline.size,
            -benchmark.baseline.peak_rss,
            1.0,
        )
    return {
        name
        for name, point in points.items()
        if not any(_beats(other, point) for other in points.values())
    } or {BASELINE}


def _point(entry: _Entry) -> tuple[float, ...]:
    """Metric, speed-up, size, memory and cost of a measured candidate; more is better."""
    evaluation, benchmark = entry.candidate.evaluation, entry.candidate.benchmark
    if evaluation is None or benchmark is None:
        return ()
    return (
        _goodness(evaluation),
        benchmark.batches[0].wall.value,
        -benchmark.candidate.size,
        -benchmark.candidate.peak_rss,
        benchmark.batches[0].cpu.value,
    )


def _goodness(evaluation: Evaluation) -> float:
    value = evaluation.metrics[evaluation.primary].interval.value
    return value if higher_is_better(evaluation.primary) else -value


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def _line(entry: _Entry, primary: str, pareto: bool, winner: bool, objective: Goal) -> Ranked:
    candidate = entry.candidate
    evaluation, benchmark = candidate.evaluation, candidate.benchmark
    known = evaluation is not None and primary in evaluation.metrics
    gain = entry.gain
    reason = entry.refusal
    if reason is None and gain is not None:
        reason = f"{gain.value:.3g} times {words(objective)}"
        if entry.doubt:
            reason += f"; the validation rows do not show that it keeps {entry.doubt}"
    return Ranked(
        rank=0,
        name=candidate.name,
        uri=candidate.uri,
        model=candidate.model,
        steps=candidate.steps,
        metric=evaluation.metrics[primary].interval if evaluation and known else None,
        difference=evaluation.differences.get(primary) if evaluation else None,
        speedup=benchmark.batches[0].wall if benchmark else None,
        size=benchmark.candidate.size if benchmark else None,
        peak_rss=benchmark.candidate.peak_rss if benchmark else None,
        cpu=benchmark.batches[0].cpu if benchmark else None,
        admissible=entry.refusal is None,
        pareto=pareto,
        winner=winner,
        reason=reason or "",
        excess=entry.excess,
    )


def _baseline_line(
    baseline: Evaluation, entries: Sequence[_Entry], uri: str, winner: bool, front: set[str]
) -> Ranked:
    measured = next((e.candidate.benchmark for e in entries if e.candidate.benchmark), None)
    return Ranked(
        rank=0,
        name=BASELINE,
        uri=uri,
        model=baseline.model,
        steps=(),
        metric=baseline.metrics[baseline.primary].interval,
        difference=None,
        speedup=None,
        size=measured.baseline.size if measured else None,
        peak_rss=measured.baseline.peak_rss if measured else None,
        cpu=None,
        admissible=True,
        pareto=BASELINE in front,
        winner=winner,
        reason="the model as it was given",
    )


def _reason(
    winner: _Entry | None,
    top: _Entry | None,
    entries: Sequence[_Entry],
    objective: Goal,
) -> str:
    if winner is None:
        if not entries:
            return "there are no candidates"
        if isinstance(objective, Constrained) and any(entry.excess for entry in entries):
            return _infeasible(entries, objective)
        best = entries[0]
        told = f"; {best.candidate.name}: {best.refusal}" if best.refusal else ""
        return f"none of {len(entries)} candidates beats the baseline{told}"
    told = f"{winner.candidate.name} is {_value(winner):.3g} times {words(objective)}"
    if top is not None and winner is not top:
        told += f", which cannot be told from {top.candidate.name}, and it is simpler or smaller"
    return told


def _infeasible(entries: Sequence[_Entry], objective: Constrained) -> str:
    """Which limit excludes which candidate, and by how little."""
    told = [f"{e.candidate.name}: {'; '.join(e.excess.values())}" for e in entries if e.excess]
    measured = next(e.candidate.benchmark for e in entries if e.candidate.benchmark)
    own = excess(objective, measured, None, baseline=True)
    keeps = f"does not keep them either ({'; '.join(own.values())})" if own else "keeps them"
    return (
        f"none of {len(entries)} candidates wins within the limits ({' | '.join(told)}); "
        f"the baseline {keeps}"
    )
