import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from trimgate.errors import InvalidInput
from trimgate.judge import metrics
from trimgate.judge._view import View

few = settings(max_examples=60)


@st.composite
def classified(draw, classes):
    """Labels with every class, and coarse probabilities, so that there are many ties."""
    rows = draw(st.integers(classes, 40))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    labels[:classes] = range(classes)
    parts = draw(
        st.lists(
            st.lists(st.integers(0, 4), min_size=classes, max_size=classes),
            min_size=rows,
            max_size=rows,
        )
    )
    scores = np.array(parts, dtype=np.float64) + 0.25
    return np.array(labels), scores / scores.sum(axis=1, keepdims=True)


BINARY = {
    "accuracy": lambda y, p: sk.accuracy_score(y, p.argmax(1)),
    "balanced_accuracy": lambda y, p: sk.balanced_accuracy_score(y, p.argmax(1)),
    "f1": lambda y, p: sk.f1_score(y, p.argmax(1), zero_division=0.0),
    "roc_auc": lambda y, p: sk.roc_auc_score(y, p[:, 1]),
    "average_precision": lambda y, p: sk.average_precision_score(y, p[:, 1]),
    "log_loss": lambda y, p: sk.log_loss(y, p),
    "brier": lambda y, p: sk.brier_score_loss(y, p[:, 1]),
}
MULTICLASS = {
    **BINARY,
    "f1": lambda y, p: sk.f1_score(y, p.argmax(1), average="macro", zero_division=0.0),
    "roc_auc": lambda y, p: sk.roc_auc_score(y, p, multi_class="ovr", average="macro"),
    "average_precision": lambda y, p: sk.average_precision_score(y, p, average="macro"),
    "brier": lambda y, p: sk.brier_score_loss(y, p),
}


@pytest.mark.parametrize("name", BINARY)
@few
@given(classified(2))
def test_binary_equals_sklearn(name, sample):
    labels, scores = sample
    assert metrics.compute(name, labels, scores, (0, 1)) == pytest.approx(
        BINARY[name](labels, scores), abs=1e-12
    )


@pytest.mark.parametrize("name", MULTICLASS)
@few
@given(classified(4))
def test_multiclass_equals_sklearn(name, sample):
    labels, scores = sample
    assert metrics.compute(name, labels, scores, (0, 1, 2, 3)) == pytest.approx(
        MULTICLASS[name](labels, scores), abs=1e-12
    )


@few
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=30))
def test_regression_equals_sklearn(pairs):
    labels, scores = np.array(pairs, dtype=np.float64).T
    for name, reference in {
        "rmse": sk.root_mean_squared_error,
        "mae": sk.mean_absolute_error,
        "r2": sk.r2_score,
    }.items():
        assert metrics.compute(name, labels, scores) == pytest.approx(reference(labels, scores))


@pytest.mark.parametrize("name", [*BINARY, "ece"])
@few
@given(classified(2), st.integers(0, 2**32 - 1))
def test_weights_equal_repeated_rows(name, sample, seed):
    labels, scores = sample
    counts = np.random.default_rng(seed).integers(0, 4, len(labels))
    counts[:2] += 1  # every class stays
    view = View(labels, scores, (0, 1))
    view.weigh(counts.astype(np.float64))
    repeated = View(labels.repeat(counts), scores.repeat(counts, axis=0), (0, 1))
    function = metrics.spec(name).function
    assert function(view) == pytest.approx(function(repeated), abs=1e-12)


def test_ece_of_a_known_case():
    scores = np.array([[0.1, 0.9]] * 10)
    labels = np.array([1] * 7 + [0] * 3)
    assert metrics.compute("ece", labels, scores, (0, 1)) == pytest.approx(0.2)


def test_string_labels_follow_the_order_of_the_classes():
    labels = np.array(["no", "yes", "yes"], dtype=object)
    scores = np.array([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1]])
    assert metrics.compute("accuracy", labels, scores, ("no", "yes")) == pytest.approx(2 / 3)


def test_default_metric():
    assert metrics.default_metric("regression", [1.0, 2.0]) == "rmse"
    assert metrics.default_metric("multiclass", [0, 1, 2]) == "accuracy"
    assert metrics.default_metric("binary", [0, 1] * 50) == "accuracy"
    assert metrics.default_metric("binary", [0] * 96 + [1] * 4) == "average_precision"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused_with_the_row(bad):
    scores = np.array([[0.5, 0.5], [0.5, bad]])
    with pytest.raises(InvalidInput, match="1 scores are NaN or infinite, the first in row 1"):
        metrics.compute("accuracy", [0, 1], scores, (0, 1))


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_ranking_with_one_class_only_is_refused(name):
    with pytest.raises(InvalidInput, match="needs rows of every class"):
        metrics.compute(name, [1, 1], np.full((2, 2), 0.5), (0, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nonsense", [0, 1], np.full((2, 2), 0.5), (0, 1)), "there is no such metric"),
        (("rmse", [0, 1], np.full((2, 2), 0.5), (0, 1)), "is not for a classifier"),
        (("accuracy", [0.0, 1.0], np.zeros(2)), "is not for a regressor"),
        (("accuracy", [0, 2], np.full((2, 2), 0.5), (0, 1)), "none of the model's classes"),
        (("accuracy", [0, 1], np.zeros((2, 3)), (0, 1)), "do not fit"),
        (("accuracy", [], np.zeros((0, 2)), (0, 1)), "one column with rows"),
        (("rmse", [0.0, np.nan], np.zeros(2)), "NaN or infinite"),
        (("accuracy", ["a", None], np.full((2, 2), 0.5), ("a", "b")), "missing values"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        metrics.compute(*arguments)


def test_check_metric_names_those_that_suit():
    metrics.check_metric("f1", "binary")
    with pytest.raises(InvalidInput, match="rmse"):
        metrics.check_metric("f1", "regression")
