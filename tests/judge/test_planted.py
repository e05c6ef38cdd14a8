"""What a sceptic would try: each case is planted, and the gate must not be taken in."""

import numpy as np
import pytest

from trimgate.data import load_splits
from trimgate.errors import InvalidInput
from trimgate.judge.evaluation import Threshold, choose_threshold, evaluate
from trimgate.judge.gate import GatePolicy, gate
from trimgate.judge.policy import CalibrationRule, Guard, LoadRule, SliceRule
from trimgate.judge.records import LoadPoint, LoadResult
from trimgate.judge.settings import PointRule, Slicing
from trimgate.judge.slices import slice_rows

POINT = GatePolicy(max_drop={"accuracy": 0.01})
COUNTRIES = ["DE", "FR", "NO", "SE"]


def said(hit, labels, sure=0.75):
    predicted = np.where(hit, labels, 1 - labels)
    return np.where(predicted[:, None] == np.arange(2), sure, 1 - sure)


def pair(labels, before, after, *, slicings=(), columns=None, **more):
    """Evaluations of a baseline and a candidate from their scores."""
    common = {
        "split": "test", "data": "rows", "task": "binary", "primary": "accuracy",
        "metrics": ["accuracy"], "resamples": 100, **more,
    }  # fmt: skip
    slices = slice_rows(slicings, columns or {}, before)
    base = evaluate(labels, before, (0, 1), name="baseline", model="base", **common)
    candidate = evaluate(
        labels, after, (0, 1), name="quick", model="cand", baseline_scores=before,
        baseline_model="base", slices=slices, **common,
    )  # fmt: skip
    return base, candidate


def by_country(rows, lost_in_norway, *, share=0.05):
    """Answers that are equal but for rows lost in one country of few rows."""
    rng = np.random.default_rng(0)
    country = rng.choice(COUNTRIES, size=rows, p=[0.5, 0.25, share, 0.25 - share]).astype(object)
    labels = np.arange(rows) % 2
    right = rng.random(rows) < 0.9
    norway = np.flatnonzero((country == "NO") & right)
    after = right.copy()
    after[norway[: int(lost_in_norway * (country == "NO").sum())]] = False
    return pair(
        labels, said(right, labels), said(after, labels),
        slicings=[Slicing(column="country")], columns={"country": country},
    )  # fmt: skip


# ------------------------------------------------------------------------------- quality at large


def test_seven_of_899_images_lost_and_none_won_is_noticed_at_any_margin(make_pair):
    baseline, candidate = make_pair(899, lost=7)
    told = "lost 7 rows, won 0 (exact McNemar p = 0.016): worse beyond chance"
    for margin, outcome in ((0.01, "inconclusive"), (0.02, "pass"), (0.001, "fail")):
        policy = GatePolicy(max_drop={"accuracy": margin})
        verdict = gate(policy, baseline=baseline, candidate=candidate)
        assert verdict.outcome == outcome
        assert told in verdict.rules[0].reason


def test_a_true_tie_is_inconclusive_on_too_few_rows_and_passes_on_as_many_as_it_asks(make_pair):
    baseline, candidate = make_pair(114)
    rule = gate(POINT, baseline=baseline, candidate=candidate).rules[0]
    assert (rule.outcome, rule.observed.value) == ("inconclusive", 0)
    enough = make_pair(rule.rows_needed + 2)
    assert gate(POINT, baseline=enough[0], candidate=enough[1]).outcome == "pass"


def test_test_rows_from_the_training_set_are_refused_with_their_count(tmp_path):
    rng = np.random.default_rng(0)
    rows = {n: rng.normal(size=(60, 3)) for n in ("train", "validation", "test")}
    rows["test"][:7] = rows["train"][:7]
    files = []
    for name, values in rows.items():
        files.append(tmp_path / f"{name}.npz")
        columns = {f"x{i}": values[:, i] for i in range(3)}
        np.savez(files[-1], **columns, y=np.arange(60) % 2)
    with pytest.raises(InvalidInput, match="7 of 60 test rows also stand in train or validation"):
        load_splits(tuple(files), label="y")
    dropped = load_splits(tuple(files), label="y", overlap="drop")
    assert len(dropped.test) == 53
    assert "7 of 60 test rows" in dropped.notes[0]


# ----------------------------------------------------------------------------------------- slices


def test_a_candidate_that_is_fine_overall_and_broken_on_a_slice_fails():
    baseline, candidate = by_country(20_000, 0.12)
    assert gate(POINT, baseline=baseline, candidate=candidate).outcome == "pass"
    for prove in (True, False):
        policy = POINT.model_copy(update={"slices": SliceRule(max_drop=0.05, prove=prove)})
        verdict = gate(policy, baseline=baseline, candidate=candidate)
        assert verdict.outcome == "fail"
        broken = [rule for rule in verdict.rules if rule.outcome == "fail"]
        assert broken[0].rule == "slices.max_drop[country = NO]"
        assert "broken: 0.1198 worse on 1018 rows" in broken[0].reason
        assert "correction for 4 slices" in broken[0].reason
    part = next(s for s in candidate.slices if s.name == "country = NO")
    assert part.p_value < part.adjusted_p_value < 1e-6
    assert (part.flips.lost, part.flips.won) == (122, 0)


def test_slices_that_are_as_good_pass_and_one_too_small_to_tell_does_not():
    baseline, candidate = by_country(20_000, 0.0)
    policy = GatePolicy(slices=SliceRule(max_drop=0.02))
    verdict = gate(policy, baseline=baseline, candidate=candidate)
    assert verdict.outcome == "pass"
    assert "4 of 4 slices pass" in verdict.rules[0].reason
    baseline, candidate = by_country(4000, 0.0, share=0.03)
    verdict = gate(policy, baseline=baseline, candidate=candidate)
    assert verdict.outcome == "inconclusive"
    assert verdict.rules[0].rule == "slices.max_drop[country = NO]"
    assert verdict.rules[0].rows_needed > 120
    seen = GatePolicy(slices=SliceRule(max_drop=0.02, prove=False))
    assert gate(seen, baseline=baseline, candidate=candidate).outcome == "pass"


def test_many_slices_do_not_make_one_look_broken_by_chance():
    rng = np.random.default_rng(3)
    rows, failures = 6000, 0
    for _ in range(20):
        labels = np.arange(rows) % 2
        part = rng.integers(0, 20, rows)
        right = rng.random(rows) < 0.85
        after = np.where(rng.random(rows) < 0.1, rng.random(rows) < 0.85, right)
        policy = GatePolicy(slices=SliceRule(max_drop=0.0, prove=False))
        baseline, candidate = pair(
            labels, said(right, labels), said(after, labels), metrics=["accuracy"],
            slicings=[Slicing(column="part", bands=20)], columns={"part": part.astype(np.int64)},
        )  # fmt: skip
        failures += gate(policy, baseline=baseline, candidate=candidate).outcome == "fail"
    assert failures <= 4  # uncorrected, one of twenty slices looks worse in most runs


@pytest.mark.parametrize(
    ("slices", "rule", "message"),
    [
        ((), SliceRule(max_drop=0.1), "no slices"),
        (None, SliceRule(max_drop=0.1, overrides={"country = DK": 0.01}), "there is no such slice"),
        ("small", SliceRule(max_drop=0.1), "none of 4 slices could be judged"),
    ],
)
def test_a_slice_that_is_not_there_does_not_pass(slices, rule, message):
    baseline, candidate = by_country(4000, 0.0)
    if slices == ():
        candidate = candidate.model_copy(update={"slices": ()})
    if slices == "small":
        bare = {"difference": None, "simultaneous": None, "reason": "20 rows"}
        small = tuple(s.model_copy(update=bare) for s in candidate.slices)
        candidate = candidate.model_copy(update={"slices": small})
    verdict = gate(GatePolicy(slices=rule), baseline=baseline, candidate=candidate)
    assert verdict.outcome == "fail"
    assert any(message in r.reason for r in verdict.rules)


# --------------------------------------------------------------------------- calibration, threshold


def test_scores_that_were_sharpened_break_calibration_with_the_same_answers():
    rng = np.random.default_rng(1)
    true = rng.random(8000)
    labels = (rng.random(8000) < true).astype(int)
    sharp = true**4 / (true**4 + (1 - true) ** 4)
    before, after = (np.stack([1 - p, p], axis=1) for p in (true, sharp))
    baseline, candidate = pair(labels, before, after, metrics=["accuracy", "ece", "brier"])
    assert candidate.flips.changed == 0
    for limits in (
        {"max_ece": 0.05}, {"max_ece_rise": 0.01}, {"max_brier_rise": 0.005}, {"max_brier": 0.17},
    ):  # fmt: skip
        policy = GatePolicy(max_drop={"accuracy": 0.01}, calibration=CalibrationRule(**limits))
        verdict = gate(policy, baseline=baseline, candidate=candidate)
        assert verdict.outcome == "fail", limits
        assert verdict.rules[1].rule == f"calibration.{next(iter(limits))}"
    same = gate(
        GatePolicy(calibration=CalibrationRule(max_ece=0.05)),
        baseline=baseline.model_copy(update={"model": "other"}),
        candidate=baseline.model_copy(update={"differences": {}}),
    )
    assert same.outcome == "pass"


def test_a_threshold_is_not_tuned_on_the_rows_that_are_judged():
    rng = np.random.default_rng(2)
    labels = (rng.random(6000) < 0.05).astype(int)
    score = 1 / (1 + np.exp(-(rng.normal(size=6000) + 2.5 * labels - 3)))
    scores = np.stack([1 - score, score], axis=1)
    guide, test = slice(0, 3000), slice(3000, None)
    rule = PointRule(recall_at_precision=0.6)
    chosen = choose_threshold(labels[guide], scores[guide], (0, 1), rule)
    assert chosen.rows == 3000
    assert "recall at precision >= 0.6" in chosen.rule
    record = evaluate(
        labels[test], scores[test], (0, 1), name="b", model="m", split="test", data="d",
        task="binary", primary="recall_at_point", threshold=chosen, resamples=200,
        costs=((0, 1), (20, 0)),
    )  # fmt: skip
    point = record.operating_point
    called = score[test] >= chosen.value
    assert point.precision == pytest.approx(labels[test][called].mean())
    assert point.recall == pytest.approx(called[labels[test] == 1].mean())
    wrong_calls = (called & (labels[test] == 0)).sum()
    missed = (~called & (labels[test] == 1)).sum()
    assert point.cost == pytest.approx((wrong_calls + 20 * missed) / 3000)
    assert record.confusion.matrix[0][1] == wrong_calls
    assert record.metrics["recall_at_point"].interval.low < point.recall
    with pytest.raises(InvalidInput, match="needs an operating point"):
        evaluate(
            labels, scores, (0, 1), name="b", model="m", split="test", data="d", task="binary",
            primary="recall_at_point",
        )  # fmt: skip


@pytest.mark.parametrize("rule", ["f1", "cost", PointRule(precision_at_recall=0.8)])
def test_the_chosen_threshold_is_the_best_of_all(rule):
    rng = np.random.default_rng(4)
    labels = (rng.random(400) < 0.2).astype(int)
    score = np.round(np.clip(rng.normal(0.3 + 0.3 * labels, 0.2), 0, 1), 2)  # with ties
    scores = np.stack([1 - score, score], axis=1)
    chosen = choose_threshold(labels, scores, (0, 1), rule, ((0, 1), (4, 0)))

    def value(threshold):
        called = score >= threshold
        hits = (called & (labels == 1)).sum()
        if rule == "f1":
            return 2 * hits / (called.sum() + labels.sum())
        if rule == "cost":
            return -((called.sum() - hits) + 4 * (labels.sum() - hits))
        return hits / max(1, called.sum()) if hits >= 0.8 * labels.sum() else -1.0

    assert value(chosen.value) == pytest.approx(max(map(value, np.unique(score))))


# --------------------------------------------------------------------------------------- the guard


def guarded(objective):
    return GatePolicy(max_drop={"accuracy": 0.05}, guard=Guard(objective={objective: 1.0}))


def test_a_gain_below_its_noise_does_not_pass(make_pair, make_benchmark):
    baseline, candidate = make_pair(5000)
    for low, value, high, outcome in (
        (0.98, 1.01, 1.02, "fail"), (0.99, 1.05, 1.2, "inconclusive"), (1.5, 1.6, 1.7, "pass"),
    ):  # fmt: skip
        timed = make_benchmark(low, value, high)
        policy = guarded("latency")
        verdict = gate(policy, baseline=baseline, candidate=candidate, benchmark=timed)
        assert verdict.outcome == outcome
    void = make_benchmark(1.5, 1.6, 1.7, state="void")
    verdict = gate(guarded("latency"), baseline=baseline, candidate=candidate, benchmark=void)
    assert verdict.outcome == "inconclusive"
    assert gate(guarded("latency"), baseline=baseline, candidate=candidate).outcome == "fail"


def test_accuracy_spent_for_a_gain_that_nobody_asked_for_fails(make_pair, make_benchmark):
    baseline, candidate = make_pair(5000, lost=40)
    slow_and_small = make_benchmark(0.98, 1.01, 1.1, size=20)
    given = {"baseline": baseline, "candidate": candidate, "benchmark": slow_and_small}
    verdict = gate(guarded("latency"), **given)
    trade = verdict.rules[-1]
    assert (verdict.outcome, trade.rule, trade.outcome) == ("fail", "guard.trade", "fail")
    assert "accuracy is worse by 0.008 beyond chance" in trade.reason
    assert "the gain is in size" in trade.reason
    assert gate(guarded("size"), **given).outcome == "pass"


# ------------------------------------------------------------------------------ limits and records


@pytest.mark.parametrize(
    ("rule", "passing", "failing"),
    [
        ("max_memory_ratio", 0.6, 0.4), ("max_cost_ratio", 0.6, 0.4), ("max_size_ratio", 0.6, 0.4),
        ("max_size_mb", 1.0, 1e-6), ("max_cold_start_s", 2.0, 0.5), ("max_peak_rss_mb", 120, 80),
    ],
)  # fmt: skip
def test_each_limit_of_the_target_is_held(make_pair, make_benchmark, rule, passing, failing):
    baseline, candidate = make_pair(5000)
    for limit, outcome in ((passing, "pass"), (failing, "fail")):
        policy = GatePolicy(**{rule: limit})
        given = {"baseline": baseline, "candidate": candidate}
        verdict = gate(policy, **given, benchmark=make_benchmark())
        assert verdict.outcome == outcome, verdict.summary
        assert verdict.rules[0].observed.value > 0
        assert gate(policy, **given).outcome == "fail"


def under_load(make_served, p99, *, rate=50, requests=1000, errors=0, valid=True):
    load = LoadPoint(
        requests=requests, errors=errors, dropped=0, late=0, achieved=rate, p50=1e-3, p95=2e-3,
        p99=p99,
    )  # fmt: skip
    result = LoadResult(
        where="server", rate=rate, concurrency=1, candidate=load, valid=valid, reason="it was late"
    )
    return make_served(load=(result,))


@pytest.mark.parametrize(
    ("changes", "outcome", "message"),
    [
        ({"p99": 0.01}, "pass", "10 ms"),
        ({"p99": 0.03}, "fail", "30 ms"),
        ({"p99": None}, "fail", "failed or were not sent"),
        ({"p99": 0.01, "errors": 3}, "fail", "3 of 1000 requests"),
        ({"p99": 0.01, "rate": 20}, "fail", "was not measured"),
        ({"p99": 0.01, "requests": 50}, "inconclusive", "too few"),
        ({"p99": 0.01, "valid": False}, "inconclusive", "it was late"),
    ],
)
def test_p99_counts_at_the_load_that_was_asked_for(
    make_pair, make_served, changes, outcome, message
):
    baseline, candidate = make_pair(5000)
    verdict = gate(
        GatePolicy(load=LoadRule(rate=50, max_p99_ms=20)),
        baseline=baseline,
        candidate=candidate,
        served=under_load(make_served, **changes),
    )
    assert verdict.outcome == outcome
    assert message in verdict.rules[0].reason


def test_numbers_that_are_none_and_intervals_that_contradict_themselves_fail(make_pair):
    baseline, candidate = make_pair(5000)
    for changes in ({"low": float("nan")}, {"low": 0.5, "high": 0.6}):
        forged = candidate.differences["accuracy"].model_copy(update={**changes, "others": ()})
        forged = forged.model_copy(update={"confidence": 0.9})
        altered = candidate.model_copy(update={"differences": {"accuracy": forged}})
        verdict = gate(POINT, baseline=baseline, candidate=altered)
        assert verdict.outcome == "fail", changes


def test_one_class_alone_is_refused_before_anything_is_judged():
    labels = np.ones(200, dtype=int)
    with pytest.raises(InvalidInput, match="have one class"):
        evaluate(
            labels, said(labels == 1, labels), (0, 1), name="b", model="m", split="test",
            data="d", task="binary",
        )  # fmt: skip


def test_the_baselines_threshold_is_its_own():
    """A candidate whose scores have shifted is judged at its own threshold, chosen like it."""
    rng = np.random.default_rng(5)
    labels = (rng.random(4000) < 0.1).astype(int)
    score = np.clip(rng.normal(0.3 + 0.3 * labels, 0.1), 0, 1)
    shifted = score / 2
    before, after = (np.stack([1 - p, p], axis=1) for p in (score, shifted))
    points = [choose_threshold(labels, p, (0, 1), "f1") for p in (before, after)]
    _, candidate = pair(
        labels, before, after, primary="f1_at_point", metrics=["f1"], threshold=points[1],
        baseline_threshold=points[0],
    )  # fmt: skip
    assert candidate.differences["f1_at_point"].value == pytest.approx(0, abs=1e-9)
    assert candidate.metrics["f1"].interval.value < 0.5
    given = Threshold(points[0].value, "given", 0)
    _, naive = pair(
        labels, before, after, primary="f1_at_point", threshold=given, baseline_threshold=given
    )
    assert naive.differences["f1_at_point"].value < -0.3
