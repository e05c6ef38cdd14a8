"""Decisions are a function of what was seen, and fail closed."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimgate.ops.rollout.decide import decide
from trimgate.ops.rollout.observations import Condition, Golden, Observation, Pair, Traffic
from trimgate.ops.rollout.policy import RolloutPolicy

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
POLICY = RolloutPolicy(minimum_seconds=60, max_latency_ratio={"p50": 1.5, "p95": 2})
EDGES = tuple(0.001 * 1.1**step for step in range(60))
SAME = Pair(stable="1", canary="1", gap=0.001)
OTHER = Pair(stable="1", canary="0", gap=0.7)


def traffic(requests=3000, errors=0, slower=1.0):
    """Requests whose median is 5 ms, or longer."""
    place = 17 + round((slower - 1) * 10)
    counts = [0.0] * 61
    for step, share in zip(range(-2, 3), (0.1, 0.2, 0.4, 0.2, 0.1), strict=True):
        counts[place + step] = requests * share
    return Traffic(requests=requests, errors=errors, edges=EDGES, counts=tuple(counts))


def seen(**changes):
    """A look at which every check holds."""
    good = {
        "now": NOW,
        "committed": NOW - timedelta(minutes=10),
        "applied": NOW - timedelta(minutes=9),
        "ready": True,
        "golden": Golden(rows=32),
        "stable": traffic(9000),
        "canary": traffic(1000),
        "pairs": (SAME,) * 1000,
    }
    return Observation(**{**good, **changes})


def outcome(decision, rule):
    return next(check.outcome for check in decision.checks if check.rule == rule)


def test_advance_when_every_check_holds():
    decision = decide(seen(), POLICY, 10)
    assert decision.action == "advance", decision.reason
    assert {check.outcome for check in decision.checks} == {"pass"}


MISSING = ["applied", "ready", "golden", "stable", "canary", "pairs"]


@pytest.mark.parametrize("what", MISSING)
def test_what_was_not_seen_is_no_proof(what):
    problems = {"traffic": "Prometheus is away"}
    decision = decide(seen(**{what: None}, problems=problems), POLICY, 10)
    assert decision.action == "hold"
    if what in ("stable", "canary"):
        assert "Prometheus is away" in decision.reason


@settings(max_examples=40)
@given(st.sets(st.sampled_from(MISSING), min_size=1), st.integers(0, 10**5))
def test_never_advances_on_missing_data(missing, age):
    given_ = seen(**dict.fromkeys(missing), committed=NOW - timedelta(seconds=age))
    assert decide(given_, POLICY, 10).action != "advance"


@pytest.mark.parametrize(
    ("change", "rule", "words"),
    [
        ({"failed": "digest differs"}, "in place", "digest differs"),
        ({"golden": Golden(rows=32, problem="label differs in 3 of 32 rows")}, "golden inputs",
         "3 of 32"),
        ({"canary": traffic(1000, errors=60)}, "errors", "60 of 1000 requests failed"),
        ({"canary": traffic(1000, slower=2.0)}, "latency p50", "at least"),
        ({"pairs": (SAME,) * 900 + (OTHER,) * 60}, "agreement", "60 of 960"),
        ({"pairs": (SAME,) * 900 + (Pair(stable="1", failed=True),) * 60}, "agreement",
         "60 of 960"),
        ({"pairs": (SAME,) * 5000 + (Pair(stable="2", canary="1"),) * 8}, "agreement by label",
         "8 of 8 requests that the stable model calls '2'"),
    ],
)  # fmt: skip
def test_a_breach_rolls_back_with_its_reason(change, rule, words):
    decision = decide(seen(**change), POLICY, 10)
    assert decision.action == "roll back"
    assert outcome(decision, rule) == "fail"
    assert words in decision.reason


def test_a_breach_counts_though_other_things_were_not_seen():
    bad = seen(pairs=(OTHER,) * 100, stable=None, golden=None, ready=None)
    assert decide(bad, POLICY, 10).action == "roll back"


def test_hold_says_how_many_more_requests_would_decide():
    decision = decide(seen(canary=traffic(150), pairs=(SAME,) * 150), POLICY, 10)
    assert decision.action == "hold"
    more = {check.rule: check.rows_needed for check in decision.checks}
    assert more["requests"] == 50
    assert 200 < more["agreement"] < 300
    assert "more requests may decide it" in decision.reason
    enough = seen(pairs=(SAME,) * (150 + more["agreement"]))
    assert outcome(decide(enough, POLICY, 10), "agreement") == "pass"


def test_as_many_failures_as_the_stable_model_are_no_breach_but_its_own_are():
    same = seen(stable=traffic(90000, errors=4500), canary=traffic(10000, errors=500))
    assert outcome(decide(same, POLICY, 10), "errors") == "pass"
    few = seen(stable=traffic(90000, errors=0), canary=traffic(10000, errors=5))
    assert outcome(decide(few, POLICY, 10), "errors") == "pass"  # below the rate always allowed
    all_ = seen(stable=traffic(9000, errors=9000), canary=traffic(1000, errors=1000), pairs=())
    assert decide(all_, POLICY, 10).action == "hold"  # nothing is known of the canary


def test_a_model_that_never_becomes_ready_times_out_with_the_condition():
    since = NOW - timedelta(minutes=16)
    stuck = seen(
        committed=NOW - timedelta(minutes=16),
        applied=None,
        ready=False,
        golden=None,
        conditions=(
            Condition(
                name="PredictorReady", status=None, reason="Progressing",
                message="0 of 2 pods", since=since,
            ),
        ),
    )  # fmt: skip
    decision = decide(stuck, POLICY, 10)
    assert decision.action == "roll back"
    assert "PredictorReady is Unknown since 11:44:00 (Progressing: 0 of 2 pods)" in decision.reason
    assert decide(stuck.model_copy(update={"now": since}), POLICY, 10).action == "hold"


def test_a_step_without_traffic_times_out():
    quiet = seen(committed=NOW - timedelta(hours=3), canary=traffic(3), pairs=(SAME,) * 3)
    decision = decide(quiet, POLICY, 50)
    assert decision.action == "roll back"
    assert "the canary had 3 of at least 200" in decision.reason


def test_after_the_promotion_only_the_served_model_counts():
    last = seen(stable=None, canary=None, pairs=None)
    assert decide(last, POLICY, 100).action == "advance"
    assert decide(last.model_copy(update={"golden": None}), POLICY, 100).action == "hold"
    bad = last.model_copy(update={"golden": Golden(rows=32, problem="value differs")})
    assert decide(bad, POLICY, 100).action == "roll back"


ORDER = {"roll back": 0, "hold": 1, "advance": 2}


@settings(max_examples=40)
@given(
    st.integers(1, 3000), st.integers(0, 30), st.integers(1, 3000), st.integers(0, 30),
    st.integers(1, 20),
)  # fmt: skip
def test_a_worse_canary_never_gets_further(requests, errors, pairs, changed, more):
    def action(errors, changed):
        look = seen(
            canary=traffic(requests, min(errors, requests)),
            pairs=(SAME,) * max(pairs - changed, 0) + (OTHER,) * min(changed, pairs),
        )
        return ORDER[decide(look, POLICY, 10).action]

    assert action(errors + more, changed) <= action(errors, changed)
    assert action(errors, changed + more) <= action(errors, changed)


def test_the_policy_refuses_steps_that_make_no_sense():
    for steps in ((100,), (50, 10, 100), (10, 50), (10, 10, 100)):
        with pytest.raises(ValueError, match="must rise"):
            RolloutPolicy(steps=steps)
    with pytest.raises(ValueError, match="no percentile"):
        RolloutPolicy(max_latency_ratio={"median": 2})
    assert RolloutPolicy().after(10) == 50
    assert RolloutPolicy().after(33) == 50
