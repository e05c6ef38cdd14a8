import numpy as np
import pytest

from trimgate.errors import InvalidInput
from trimgate.judge import _stats, records
from trimgate.judge.evaluation import evaluate, parity
from trimgate.judge.predictions import load_predictions, save_predictions


def binary(rows, share, seed=0, noise=0.0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < share).astype(np.int64)
    labels[:3] = 1
    logits = rng.normal(size=rows) + 3 * labels - 1.5
    noisy = logits + noise * rng.normal(size=rows)

    def scores(values):
        positive = 1 / (1 + np.exp(-values))
        return np.stack([1 - positive, positive], axis=1)

    return labels, scores(logits), scores(noisy)


def judge(labels, scores, before=None, task="binary", classes=(0, 1), **more):
    more = {"resamples": 200, **more}
    return evaluate(
        labels, scores, classes, name="c", model="m", split="test", data="d", task=task,
        baseline_scores=before, **more,
    )  # fmt: skip


def test_record_holds_paired_differences_and_every_level():
    labels, before, after = binary(2000, 0.3, noise=0.3)
    record = judge(labels, after, before, baseline_model="b")
    assert record.primary == "accuracy"
    assert record.baseline_model == "b"
    assert set(record.metrics) == set(record.differences)
    for name, difference in record.differences.items():
        value = record.metrics[name].interval.value
        assert difference.low <= difference.value <= difference.high
        widths = [difference.at(c).high - difference.at(c).low for c in (0.8, 0.9, 0.95, 0.99)]
        assert widths == sorted(widths)
        alone = judge(labels, before).metrics[name].interval.value
        assert value - alone == pytest.approx(difference.value, abs=1e-12)
    with pytest.raises(InvalidInput, match="no interval at confidence"):
        record.differences["accuracy"].at(0.85)


def test_equal_seeds_give_equal_records_and_survive_saving(tmp_path):
    labels, before, after = binary(500, 0.3, noise=0.3)
    first, second = (judge(labels, after, before, seed=3) for _ in range(2))
    assert first == second
    assert first != judge(labels, after, before, seed=4)
    records.save(first, tmp_path / "e.json")
    assert records.load(records.Evaluation, tmp_path / "e.json") == first


def test_flips_and_the_closed_form_of_accuracy():
    labels, before, after = binary(3000, 0.5, noise=1.0)
    record = judge(labels, after, before)
    right, was = after.argmax(1) == labels, before.argmax(1) == labels
    won, lost = int((right & ~was).sum()), int((was & ~right).sum())
    assert (record.flips.won, record.flips.lost) == (won, lost)
    assert record.flips.p_value == pytest.approx(_stats.mcnemar(won, lost))
    difference = record.differences["accuracy"]
    assert (difference.low, difference.high) == _stats.tango(won, lost, 3000, 0.95)
    assert "Tango" in difference.method


def test_paired_interval_of_the_difference_is_narrower_than_the_single_ones():
    labels, before, after = binary(4000, 0.02, noise=0.05)
    record = judge(labels, after, before)
    assert record.primary == "average_precision"
    single = record.metrics["average_precision"].interval
    difference = record.differences["average_precision"]
    assert difference.high - difference.low < (single.high - single.low) / 4
    assert "stratified" in difference.method


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc", "average_precision", "f1", "log_loss"])
def test_identical_answers_are_never_a_point(metric):
    """The same scores on few rows prove little, on many rows much."""
    widths = []
    for rows in (100, 10_000):
        labels, before, _ = binary(rows, 0.3)
        record = judge(labels, before.astype(np.float32), before, metrics=[metric], resamples=50)
        difference = record.differences[metric]
        assert difference.value == pytest.approx(0, abs=1e-6)
        widths.append(difference.high - difference.low)
    assert widths[0] > 20 * widths[1] > 0


def test_labels_that_agree_by_chance_are_charged_by_class():
    """Scores moved, no label flipped: a rare class could hide a loss that counts."""
    labels, before, _ = binary(4000, 0.01)
    after = before * 0.98 + 0.01
    keep = before.argmax(1) == after.argmax(1)
    record = judge(labels[keep], after[keep], before[keep], metrics=["balanced_accuracy"])
    difference = record.differences["balanced_accuracy"]
    positives = int(labels[keep].sum())
    expected = _stats.rule_of_three(positives, 0.95) / 2
    assert difference.high == pytest.approx(expected)
    assert difference.low == pytest.approx(-expected)


def test_perfect_scores_have_an_interval_below_one():
    labels = np.arange(40) % 2
    scores = np.stack([1 - labels, labels], axis=1) * 0.8 + 0.1
    record = judge(labels, scores, metrics=["accuracy", "roc_auc", "f1"])
    for metric in record.metrics.values():
        assert metric.interval.value == pytest.approx(1)
        assert metric.interval.low < 0.93
        assert metric.interval.high == pytest.approx(1)


def test_multiclass_and_regression():
    from sklearn.datasets import load_diabetes, load_iris
    from sklearn.linear_model import LinearRegression, LogisticRegression

    rows, labels = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=200).fit(rows[::2], labels[::2])
    scores = model.predict_proba(rows)
    record = judge(
        labels, scores, scores.round(2), "multiclass", (0, 1, 2), metrics=["accuracy", "roc_auc"]
    )
    assert record.metrics["roc_auc"].interval.value > 0.95
    rows, values = load_diabetes(return_X_y=True)
    fitted = LinearRegression().fit(rows, values).predict(rows)
    record = judge(values, fitted + 1.0, fitted, "regression", ())
    assert record.primary == "rmse"
    assert record.flips.p_value is None
    assert record.differences["rmse"].value > 0
    assert record.differences["r2"].value < 0
    assert record.parity.agreement < 0.1


def test_bootstrap_interval_of_a_mean_has_the_right_width():
    rng = np.random.default_rng(1)
    values = rng.normal(size=400)
    record = judge(values, np.zeros(400), task="regression", classes=(), resamples=2000)
    interval = record.metrics["mae"].interval
    error = np.abs(values).std(ddof=1) / 20
    assert (interval.high - interval.low) / 2 == pytest.approx(1.97 * error, rel=0.08)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros(10, dtype=int)}, "have one class"),
        ({"scores": np.full((10, 2), np.nan)}, "NaN"),
        ({"before": np.full((9, 2), 0.5)}, "do not fit"),
        ({"task": "regression"}, "does not fit 2 classes"),
        ({"metrics": ["rmse"]}, "is not for a classifier"),
    ],
)
def test_bad_input_is_refused(changes, message):
    arguments = {"labels": np.arange(10) % 2, "scores": np.full((10, 2), 0.5), **changes}
    with pytest.raises(InvalidInput, match=message):
        judge(**arguments)


def test_parity():
    reference = np.array([[0.6, 0.4], [0.2, 0.8]])
    found = parity(np.array([[0.4, 0.6], [0.2, 0.8]]), reference)
    assert found.max_difference == pytest.approx(0.2)
    assert found.agreement == 0.5
    assert parity(np.array([0.0, 1.0]), np.array([0.0, 1.00001])).agreement == 1.0


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array([0, 1, 1]), (0, 1)),
        (np.array(["a", "b", "b"], dtype=object), ("a", "b")),
        (np.array([True, False, True]), (False, True)),
    ],
)
def test_predictions_round_trip(tmp_path, labels, classes):
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], dtype=np.float32)
    save_predictions(tmp_path / "p.parquet", labels, scores, classes)
    loaded = load_predictions(tmp_path / "p.parquet")
    assert loaded.labels.tolist() == labels.tolist()
    assert loaded.classes == classes
    assert loaded.rows.tolist() == [0, 1, 2]
    assert loaded.predicted.tolist() == [classes[0], classes[1], classes[0]]
    np.testing.assert_array_equal(loaded.scores, scores)
    assert loaded.scores.dtype == np.float32


def test_predictions_of_a_regression_and_foreign_files(tmp_path):
    save_predictions(tmp_path / "p.parquet", np.array([1.0, 2.0]), np.array([1.5, 2.5]), ())
    assert load_predictions(tmp_path / "p.parquet").scores.tolist() == [1.5, 2.5]
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(InvalidInput, match="not a Parquet file"):
        load_predictions(tmp_path / "x.parquet")
    with pytest.raises(InvalidInput, match="missing"):
        load_predictions(tmp_path / "none.parquet")
