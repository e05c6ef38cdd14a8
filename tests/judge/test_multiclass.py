"""More than two classes: curves, and metrics that rank, at once and in batches."""

import numpy as np
import pytest

from trimgate.judge.evaluation import evaluate
from trimgate.judge.stream import StreamJudge

CLASSES = ("ash", "birch", "cedar", "oak")
ROWS = 6000
METRICS = ["accuracy", "roc_auc", "average_precision"]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    codes = rng.choice(4, ROWS, p=[0.5, 0.3, 0.15, 0.05])
    logits = rng.normal(size=(ROWS, 4)) + 2.0 * np.eye(4)[codes]
    blurred = logits + 0.5 * rng.normal(size=logits.shape)
    scores = [np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (blurred, logits)]
    return np.array(CLASSES)[codes], *scores


@pytest.fixture(scope="module")
def whole(rows):
    labels, scores, baseline = rows
    return evaluate(
        labels, scores, CLASSES, name="blurred", model="m", split="test", data="d",
        task="multiclass", primary="roc_auc", metrics=METRICS, baseline_scores=baseline,
        baseline_model="b", resamples=200,
    )  # fmt: skip


@pytest.fixture(scope="module")
def stream(rows):
    judge = StreamJudge(
        CLASSES, task="multiclass", primary="roc_auc", metrics=METRICS, paired=True
    )
    for start in range(0, ROWS, 1700):
        judge.add(*(part[start : start + 1700] for part in rows))
    return judge.finish(
        name="blurred", model="m", split="test", data="d", baseline_model="b", confidence=0.95
    )


def test_curves_are_the_mean_over_the_classes(whole):
    roc, ranked = whole.curves
    assert (roc.kind, roc.classes, ranked.kind) == ("roc", 4, "precision_recall")
    area = np.trapezoid(roc.y, roc.x)
    assert area == pytest.approx(whole.metrics["roc_auc"].interval.value, abs=2e-3)
    area = np.trapezoid(ranked.y, ranked.x)
    assert area == pytest.approx(whole.metrics["average_precision"].interval.value, abs=5e-3)
    assert (np.diff(roc.y) >= -1e-12).all()


def test_batches_give_what_the_whole_gives(whole, stream):
    for name in METRICS:
        for found in (whole, stream):
            assert found.differences[name].high < 0.01
        one, other = whole.metrics[name].interval, stream.metrics[name].interval
        assert other.value == pytest.approx(one.value, abs=3e-3), name
        assert other.low < one.value < other.high, name
        assert stream.differences[name].value == pytest.approx(
            whole.differences[name].value, abs=3e-3
        )
    for one, other in zip(whole.curves, stream.curves, strict=True):
        assert (one.kind, one.classes) == (other.kind, other.classes)
        heights = np.interp(np.linspace(0.01, 0.99, 50), one.x, one.y)
        again = np.interp(np.linspace(0.01, 0.99, 50), other.x, other.y)
        assert np.abs(heights - again).max() < 0.03


@pytest.mark.parametrize("classes", [CLASSES, CLASSES[:2]])
def test_batches_without_a_metric_that_ranks_have_no_curves(rows, classes):
    labels, scores, _ = rows
    chosen = np.isin(labels, classes)
    few = scores[chosen][:, : len(classes)]
    few /= few.sum(axis=1, keepdims=True)
    judge = StreamJudge(
        classes, task="binary" if len(classes) == 2 else "multiclass", primary="accuracy",
        metrics=["accuracy"],
    )  # fmt: skip
    judge.add(labels[chosen], few)
    found = judge.finish(name="n", model="m", split="test", data="d")
    assert found.curves == ()
    assert found.metrics["accuracy"].interval.value == np.mean(
        np.array(classes)[few.argmax(axis=1)] == labels[chosen]
    )
