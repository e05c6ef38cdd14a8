"""Whether the records that a gate is given belong together."""

import math

from trimgate.judge.records import Benchmark, Evaluation, RuleResult, Served


def problems(
    baseline: Evaluation | None,
    candidate: Evaluation | None,
    benchmark: Benchmark | None,
    served: Served | None,
) -> list[RuleResult]:
    """Each thing that forbids a pass, whatever the rules say, as a failed rule."""
    found: list[tuple[str, str]] = []
    if baseline is None:
        found.append(("baseline", "the baseline's evaluation is missing"))
    if candidate is None:
        found.append(("candidate", "the candidate's evaluation is missing"))
    for role, evaluation in (("baseline", baseline), ("candidate", candidate)):
        if evaluation is not None and evaluation.split != "test":
            why = f"the {role} was evaluated on the {evaluation.split} split, not on the test split"
            found.append((f"{role}.split", why))
        if evaluation is not None and evaluation.rows < 1:
            found.append((f"{role}.rows", f"the {role} was evaluated on no rows"))
    if baseline is not None and candidate is not None:
        found += _pair(baseline, candidate)
    if benchmark is not None and candidate is not None and benchmark.model != candidate.model:
        found.append(("benchmark.model", "the benchmark is of another model than the candidate"))
    if (
        benchmark is not None
        and baseline is not None
        and (benchmark.baseline_model != baseline.model)
    ):
        found.append(("benchmark.baseline", "the benchmark is against another baseline"))
    if served is not None and candidate is not None and served.model != candidate.model:
        found.append(("served.model", "the served model is another one than the candidate"))
    return [
        RuleResult(
            rule=f"evidence.{what}", outcome="fail", observed=None, limit=None, reason=reason
        )
        for what, reason in found
    ]


def _pair(baseline: Evaluation, candidate: Evaluation) -> list[tuple[str, str]]:
    found = []
    if baseline.model == candidate.model:
        found.append(("candidate.model", "the candidate is the baseline itself"))
    if baseline.data != candidate.data or baseline.rows != candidate.rows:
        found.append(("data", "baseline and candidate were evaluated on different rows"))
    if baseline.task != candidate.task:
        found.append(("task", f"the tasks differ: {baseline.task} and {candidate.task}"))
    if candidate.baseline_model not in (None, baseline.model):
        found.append(("differences", "the differences are against another baseline"))
    for metric, difference in candidate.differences.items():
        if metric not in candidate.metrics or metric not in baseline.metrics:
            continue  # a rule that asks for the metric says that it is missing
        apart = candidate.metrics[metric].interval.value - baseline.metrics[metric].interval.value
        if not math.isclose(apart, difference.value, rel_tol=1e-6, abs_tol=1e-9):
            why = f"the difference of {metric} is not the candidate's value minus the baseline's"
            found.append(("differences", why))
            break
    for role, flips in (("flips", candidate.flips), ("parity", candidate.parity)):
        if flips is not None and flips.rows != candidate.rows:
            found.append((role, f"the {role} are of other rows than the evaluation"))
    return found
