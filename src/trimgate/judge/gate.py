"""The gate: three outcomes for each rule, and no pass without evidence."""

from trimgate.errors import InvalidInput
from trimgate.judge import _evidence, _guard, _rules
from trimgate.judge._outcomes import failed as _failed
from trimgate.judge.metrics import Task, check_metric
from trimgate.judge.policy import GatePolicy, default_policy
from trimgate.judge.records import Benchmark, Evaluation, Outcome, RuleResult, Served, Verdict

__all__ = ["GatePolicy", "check_policy", "default_policy", "gate", "keep_baseline"]


def gate(
    policy: GatePolicy,
    *,
    baseline: Evaluation | None,
    candidate: Evaluation | None,
    benchmark: Benchmark | None = None,
    served: Served | None = None,
    name: str | None = None,
) -> Verdict:
    """Judges the winner by a policy, from records alone.

    A rule on a drop is a non-inferiority test: it passes when the one-sided lower bound of the
    paired difference is above minus the margin, fails when the upper bound is below it, and is
    inconclusive between the two. What is missing, does not belong together or was measured
    under void conditions never passes. The verdict passes when every rule does; it fails when
    one fails.

    Args:
        policy: The rules.
        baseline: The baseline on the test split.
        candidate: The winner on the test split, evaluated beside the baseline.
        benchmark: The winner beside the baseline; needed for rules on speed, size and memory.
        served: What the model server did; needed for rules on serving. When it is given, each
            of its checks has to hold.
        name: The winner's name in the verdict; by default its evaluation's.
    """
    results = _evidence.problems(baseline, candidate, benchmark, served)
    if not policy.has_rules:
        why = "the policy has no rules, and without rules nothing passes"
        results.append(_failed("policy", why))
    if candidate is not None:
        results += _rules.metric_rules(policy, baseline, candidate)
    results += _rules.benchmark_rules(policy, benchmark)
    results += _rules.load_rules(policy, benchmark, served)
    results += _rules.served_rules(policy, served)
    if candidate is not None:
        results += _guard.guard_rules(policy, candidate, benchmark)
    verdict = _verdict(results, baseline, candidate, name)
    return verdict.model_copy(update={"policy": policy.model_dump(mode="json", exclude_none=True)})


def check_policy(policy: GatePolicy, task: Task) -> None:
    """Refuses a policy that no model of this task could pass.

    Raises:
        InvalidInput: It has no rules, or a rule on a metric that does not suit the task.
    """
    if not policy.has_rules:
        raise InvalidInput(
            "has no rules, and without rules nothing passes",
            key="gate",
            mend="add one, such as `max_drop: {accuracy: 0.01}`",
        )
    for key, metrics in (("max_drop", policy.max_drop), ("min", policy.min)):
        for metric in metrics:
            check_metric(metric, task, key=f"gate.{key}")


def keep_baseline(baseline: Evaluation, reason: str) -> Verdict:
    """The verdict when nothing beats the baseline: there is nothing to promote.

    The outcome is `fail`, so that no promotion can follow, with `keeps_baseline` set, so that a
    card can say that the baseline stays.

    Args:
        baseline: Its evaluation on the test split.
        reason: Why, in words (`Selection.reason`).
    """
    return Verdict(
        outcome="fail",
        candidate=baseline.model,
        baseline=baseline.model,
        name="baseline",
        rules=(_failed("selection", reason),),
        summary=f"Keep the baseline: {reason}",
        keeps_baseline=True,
    )


def _verdict(
    results: list[RuleResult],
    baseline: Evaluation | None,
    candidate: Evaluation | None,
    name: str | None,
) -> Verdict:
    failed = [r for r in results if r.outcome == "fail"]
    unsure = [r for r in results if r.outcome == "inconclusive"]
    name = name or (candidate.name if candidate else "the candidate")
    outcome: Outcome = "fail" if failed else "inconclusive" if unsure else "pass"
    if failed:
        summary = f"Reject {name}: {failed[0].rule}: {failed[0].reason}"
    elif unsure:
        summary = f"Not shown for {name}: {unsure[0].rule}: {unsure[0].reason}"
    else:
        summary = f"Promote {name}: all {len(results)} rules pass"
    others = len(failed or unsure) - 1
    if others > 0:
        summary += f" (and {others} more)"
    return Verdict(
        outcome=outcome,
        candidate=candidate.model if candidate else "",
        baseline=baseline.model if baseline else "",
        name=name,
        rules=tuple(results),
        summary=summary,
    )
