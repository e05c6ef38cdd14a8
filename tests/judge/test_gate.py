import math

import numpy as np
import pytest
from pydantic import ValidationError

from trimgate.errors import InvalidInput
from trimgate.judge import _stats
from trimgate.judge._rows import rows_for_accuracy, rows_for_interval, rows_for_share
from trimgate.judge.evaluation import evaluate
from trimgate.judge.gate import GatePolicy, check_policy, default_policy, gate, keep_baseline
from trimgate.judge.records import Flips, Interval

POINT = GatePolicy(max_drop={"accuracy": 0.01})


def only(verdict):
    assert len(verdict.rules) == 1, verdict.summary
    return verdict.rules[0]


# ------------------------------------------------------------------------------- planted cases


def test_seven_of_899_lost_and_none_won_does_not_pass_a_one_point_gate(make_pair):
    baseline, candidate = make_pair(899, lost=7)
    verdict = gate(POINT, baseline=baseline, candidate=candidate)
    rule = only(verdict)
    assert verdict.outcome == rule.outcome == "inconclusive"
    assert rule.observed.value == pytest.approx(-7 / 899)
    assert rule.observed.low < -0.01
    assert "lost 7 rows, won 0 (exact McNemar p = 0.016): worse beyond chance" in rule.reason
    assert rule.rows_needed > 899


def test_a_tie_on_few_rows_is_inconclusive_and_passes_when_the_rows_suffice(make_pair):
    baseline, candidate = make_pair(114, lost=0, won=0)
    rule = only(gate(POINT, baseline=baseline, candidate=candidate))
    assert rule.outcome == "inconclusive"
    assert rule.rows_needed == pytest.approx(_stats.two_sided_z(0.9) ** 2 * 0.99 / 0.01, abs=1.5)
    enough = make_pair(rule.rows_needed + 2)
    assert gate(POINT, baseline=enough[0], candidate=enough[1]).outcome == "pass"


def test_a_loss_beyond_the_margin_fails(make_pair):
    baseline, candidate = make_pair(2000, lost=60, won=5)
    verdict = gate(POINT, baseline=baseline, candidate=candidate)
    assert verdict.outcome == "fail"
    assert "the drop is above 0.01" in verdict.summary


def test_a_small_loss_on_many_rows_passes(make_pair):
    baseline, candidate = make_pair(20_000, lost=60, won=20)
    assert gate(POINT, baseline=baseline, candidate=candidate).outcome == "pass"


def test_a_metric_where_less_is_better_is_turned_round():
    rng = np.random.default_rng(0)
    values = rng.normal(size=4000)
    before = values + rng.normal(size=4000)
    common = {"split": "test", "data": "d", "task": "regression", "resamples": 300}
    base = evaluate(values, before, (), name="baseline", model="base", **common)
    verdicts = []
    for shift in (before + 0.001, before + 1.0, values + 0.5 * (before - values)):
        other = evaluate(
            values, shift, (), name="c", model="cand", baseline_scores=before, **common
        )
        policy = GatePolicy(max_drop={"rmse": 0.02})
        verdicts.append(gate(policy, baseline=base, candidate=other).outcome)
    assert verdicts == ["pass", "fail", "pass"]


# --------------------------------------------------------------------------------- fail-closed


def test_no_rules_do_not_pass(make_pair):
    baseline, candidate = make_pair(5000)
    verdict = gate(GatePolicy(), baseline=baseline, candidate=candidate)
    assert verdict.outcome == "fail"
    assert "no rules" in verdict.summary


@pytest.mark.parametrize("absent", ["baseline", "candidate"])
def test_a_missing_evaluation_does_not_pass(make_pair, absent):
    given = dict(zip(("baseline", "candidate"), make_pair(5000), strict=True))
    given[absent] = None
    verdict = gate(POINT, **given)
    assert verdict.outcome == "fail"
    assert f"the {absent}'s evaluation is missing" in verdict.summary


@pytest.mark.parametrize(
    ("role", "changes", "message"),
    [
        ("candidate", {"split": "validation"}, "not on the test split"),
        ("baseline", {"split": "validation"}, "not on the test split"),
        ("candidate", {"data": "others"}, "different rows"),
        ("candidate", {"rows": 4999}, "different rows"),
        ("candidate", {"model": "base"}, "the candidate is the baseline itself"),
        ("candidate", {"task": "multiclass"}, "the tasks differ"),
        ("candidate", {"baseline_model": "another"}, "against another baseline"),
        ("candidate", {"differences": {}}, "difference of accuracy is missing"),
        ("baseline", {"metrics": {}}, "missing from the baseline's evaluation"),
    ],
)
def test_records_that_do_not_belong_together_do_not_pass(make_pair, role, changes, message):
    given = dict(zip(("baseline", "candidate"), make_pair(5000), strict=True))
    assert gate(POINT, **given).outcome == "pass"
    given[role] = given[role].model_copy(update=changes)
    verdict = gate(POINT, **given)
    assert verdict.outcome == "fail"
    assert any(message in rule.reason for rule in verdict.rules)


def test_a_difference_that_is_not_the_values_difference_does_not_pass(make_pair):
    baseline, candidate = make_pair(5000, lost=20)
    better = baseline.metrics["accuracy"].interval.model_copy(update={"value": 0.5})
    forged = baseline.metrics["accuracy"].model_copy(update={"interval": better})
    altered = baseline.model_copy(update={"metrics": {"accuracy": forged}})
    verdict = gate(POINT, baseline=altered, candidate=candidate)
    assert verdict.outcome == "fail"
    assert "is not the candidate's value minus" in verdict.summary


def test_a_record_without_the_gates_confidence_does_not_pass(make_pair):
    baseline, candidate = make_pair(5000)
    bare = candidate.differences["accuracy"].model_copy(update={"others": ()})
    candidate = candidate.model_copy(update={"differences": {"accuracy": bare}})
    verdict = gate(POINT, baseline=baseline, candidate=candidate)
    assert verdict.outcome == "fail"
    assert "no interval at confidence 0.9" in verdict.summary


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_do_not_pass(make_pair, make_benchmark, bad):
    baseline, candidate = make_pair(5000)
    policy = GatePolicy(min_speedup=1.03)
    odd = make_benchmark(low=math.nan, value=bad, high=bad)
    verdict = gate(policy, baseline=baseline, candidate=candidate, benchmark=odd)
    assert verdict.outcome != "pass"


@pytest.mark.parametrize("rule", ["min_speedup", "max_size_ratio", "max_peak_rss_mb"])
def test_a_missing_benchmark_does_not_pass(make_pair, rule):
    baseline, candidate = make_pair(5000)
    verdict = gate(GatePolicy(**{rule: 0.5}), baseline=baseline, candidate=candidate)
    assert verdict.outcome == "fail"
    assert "the benchmark is missing" in verdict.summary


def test_a_baseline_that_could_not_be_served_is_not_held_against_the_winner(make_pair, make_served):
    baseline, candidate = make_pair(5000)
    served = make_served()
    unserved = served.model_copy(
        update={
            "checks": {**served.checks, "baseline_served": False},
            "latency": None,
            "errors": ("the baseline's server: did not answer within 300 s",),
        }
    )
    policy = GatePolicy(min_served_speedup=1.5)
    verdict = gate(policy, baseline=baseline, candidate=candidate, served=unserved)
    found = {rule.rule: rule for rule in verdict.rules}
    for rule in ("served.checks", "min_served_speedup"):
        assert found[rule].outcome == "inconclusive"
        assert "did not answer within 300 s" in found[rule].reason
    broken = unserved.model_copy(update={"checks": {**unserved.checks, "grpc": False}})
    verdict = gate(policy, baseline=baseline, candidate=candidate, served=broken)
    assert verdict.outcome == "fail"


@pytest.mark.parametrize("rule", ["max_served_p99_ms", "min_served_speedup"])
def test_a_missing_served_record_does_not_pass(make_pair, rule):
    baseline, candidate = make_pair(5000)
    verdict = gate(GatePolicy(**{rule: 0.5}), baseline=baseline, candidate=candidate)
    assert verdict.outcome == "fail"
    assert "missing" in verdict.summary


def test_records_of_other_models_do_not_pass(make_pair, make_benchmark, make_served):
    baseline, candidate = make_pair(5000)
    for extra in (
        {"benchmark": make_benchmark(model="x")},
        {"benchmark": make_benchmark(baseline="x")},
        {"served": make_served(model="x")},
    ):
        verdict = gate(POINT, baseline=baseline, candidate=candidate, **extra)
        assert verdict.outcome == "fail"
        assert "another" in verdict.summary


# ---------------------------------------------------------------------------------- the rules


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"min_speedup": 1.9}, "pass"),
        ({"min_speedup": 2.05}, "inconclusive"),
        ({"min_speedup": 2.2}, "fail"),
        ({"max_size_ratio": 0.5}, "pass"),
        ({"max_size_ratio": 0.49}, "fail"),
        ({"max_peak_rss_mb": 100}, "pass"),
        ({"max_peak_rss_mb": 99}, "fail"),
        ({"max_served_p99_ms": 3}, "pass"),
        ({"max_served_p99_ms": 2.9}, "fail"),
        ({"min_served_speedup": 1.5}, "pass"),
        ({"min_served_speedup": 1.8}, "fail"),
        ({"max_disagreement": 0.01}, "pass"),
        ({"max_disagreement": 0.006}, "inconclusive"),
        ({"max_disagreement": 0.001}, "fail"),
        ({"min": {"accuracy": 0.93}}, "pass"),
        ({"min": {"accuracy": 0.943}}, "inconclusive"),
        ({"min": {"accuracy": 0.97}}, "fail"),
        ({"min": {"f1": 0.5}}, "fail"),
    ],
)
def test_outcomes(make_pair, make_benchmark, make_served, policy, expected):
    baseline, candidate = make_pair(5000, lost=25)
    verdict = gate(
        GatePolicy(**policy), baseline=baseline, candidate=candidate,
        benchmark=make_benchmark(), served=make_served(),
    )  # fmt: skip
    name = next(iter(policy))
    rule = next(rule for rule in verdict.rules if rule.rule.startswith(name))
    assert rule.outcome == expected, rule.reason
    assert verdict.outcome == expected
    metric_rule = not any("speedup" in key for key in policy)
    assert (rule.rows_needed is not None) == (expected == "inconclusive" and metric_rule)


def test_void_timing_is_inconclusive_and_loaded_timing_counts(make_pair, make_benchmark):
    baseline, candidate = make_pair(5000)
    outcomes = {
        state: gate(
            GatePolicy(min_speedup=1.03), baseline=baseline, candidate=candidate,
            benchmark=make_benchmark(state=state),
        ).outcome
        for state in ("clean", "loaded", "void")
    }  # fmt: skip
    assert outcomes == {"clean": "pass", "loaded": "pass", "void": "inconclusive"}


def test_sequential_timing_is_not_believed(make_pair, make_benchmark):
    baseline, candidate = make_pair(5000)
    slower = make_benchmark(low=0.74, value=0.75, high=0.76)
    policy = GatePolicy(min_speedup=1.03)
    verdict = gate(policy, baseline=baseline, candidate=candidate, benchmark=slower)
    assert verdict.outcome == "fail"


@pytest.mark.parametrize(
    "changes",
    [
        {"checks": {"ready": True, "golden": False}},
        {"checks": {}},
        {"errors": ("connection refused",)},
    ],
)
def test_a_served_model_that_misbehaves_fails_whatever_the_rules(make_pair, make_served, changes):
    baseline, candidate = make_pair(5000)
    served = make_served(**changes)
    assert gate(POINT, baseline=baseline, candidate=candidate, served=served).outcome == "fail"


def test_p99_of_few_requests_is_inconclusive(make_pair, make_served):
    baseline, candidate = make_pair(5000)
    policy = GatePolicy(max_served_p99_ms=100)
    served = make_served(requests=50)
    verdict = gate(policy, baseline=baseline, candidate=candidate, served=served)
    assert verdict.outcome == "inconclusive"


def test_one_rule_that_does_not_pass_is_enough(make_pair, make_benchmark):
    baseline, candidate = make_pair(5000)
    policy = GatePolicy(max_drop={"accuracy": 0.01}, max_size_ratio=0.1)
    verdict = gate(
        policy, baseline=baseline, candidate=candidate, benchmark=make_benchmark(), name="int8"
    )
    assert [rule.outcome for rule in verdict.rules] == ["pass", "fail"]
    assert verdict.outcome == "fail"
    assert verdict.summary.startswith("Reject int8: max_size_ratio")


def test_keeping_the_baseline_promotes_nothing(make_pair):
    baseline, _ = make_pair(500)
    verdict = keep_baseline(baseline, "none of 4 candidates beats the baseline")
    assert verdict.keeps_baseline
    assert verdict.outcome == "fail"
    assert verdict.summary == "Keep the baseline: none of 4 candidates beats the baseline"


# --------------------------------------------------------------------------------- the policy


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_dorp": {"accuracy": 0.01}},
        {"max_drop": {"acuracy": 0.01}},
        {"max_drop": {"accuracy": -0.01}},
        {"max_drop": {"accuracy": math.nan}},
        {"confidence": 0.93},
        {"min_speedup": 1.01},
        {"min_speedup": math.inf},
        {"max_disagreement": 1.5},
    ],
)
def test_policies_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ValidationError):
        GatePolicy.model_validate(wrong)


def test_check_policy():
    check_policy(POINT, "binary")
    with pytest.raises(InvalidInput, match="has no rules"):
        check_policy(GatePolicy(), "binary")
    with pytest.raises(InvalidInput, match=r"gate.max_drop = 'accuracy': is no metric for regr"):
        check_policy(POINT, "regression")


def test_default_policy():
    assert default_policy("accuracy").max_drop == {"accuracy": 0.01}
    assert default_policy("rmse", baseline_value=50.0).max_drop == {"rmse": 0.5}
    assert default_policy("r2").has_rules


# ---------------------------------------------------------------------------------- rows needed


@pytest.mark.parametrize(("lost", "won"), [(0.012, 0.010), (0.03, 0.03), (0.006, 0.0)])
def test_rows_needed_for_accuracy_gives_the_stated_power(lost, won):
    seen = Flips(won=round(won * 1000), lost=round(lost * 1000), changed=0, rows=1000)
    needed = rows_for_accuracy(seen, 0.01, 0.95)
    rng = np.random.default_rng(0)
    draws = rng.multinomial(needed, [lost, won, 1 - lost - won], size=600)
    passed = np.mean([_stats.tango(w, b, needed, 0.9)[0] > -0.01 for b, w, _ in draws])
    assert 0.65 < passed < 0.9


def test_rows_needed_for_a_bootstrapped_metric_follows_the_square_root_law():
    half = 1.6449 * 0.02  # standard error 0.02 on 1000 rows
    seen = Interval(value=0.0, low=-half, high=half, confidence=0.9)
    expected = 1000 * (0.02 * (1.6449 + 0.8416) / 0.01) ** 2
    assert rows_for_interval(seen, 0.01, 1000, 0.95) == pytest.approx(expected, rel=1e-3)


def test_a_drop_that_sits_on_the_margin_is_not_decided_by_rows():
    sits = Interval(value=0.01, low=0.0, high=0.02, confidence=0.9)
    assert rows_for_interval(sits, 0.01, 1000, 0.95) is None
    flips = Flips(won=0, lost=10, changed=10, rows=1000)
    assert rows_for_accuracy(flips, 0.01, 0.95) is None
    assert rows_for_share(0.02, 0.02, 1000, 0.95) is None
