"""Refitting estimators, and what counts as no worse."""

from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trimgate.errors import InvalidInput
from trimgate.models.directory import ModelInfo, TensorSpec
from trimgate.training import Measure, seeded_clone, training_labels

X, Y = load_breast_cancer(return_X_y=True)


def info(task: Any, labels: tuple[Any, ...]) -> ModelInfo:
    return ModelInfo(
        name="m", task=task, family="trees", framework="sklearn", labels=labels,
        inputs=(TensorSpec(name="input", dtype="float64", shape=(-1, 2), features=("a", "b")),),
    )  # fmt: skip


def test_clone_fixes_the_seeds_that_were_left_to_chance() -> None:
    model = make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=3)).fit(X, Y)
    first, second = (seeded_clone(model, 5).fit(X, Y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert seeded_clone(model, 5).get_params()["randomforestclassifier__random_state"] == 5
    own = RandomForestClassifier(random_state=11).fit(X, Y)
    assert seeded_clone(own, 5).random_state == 11
    assert model[-1].random_state is None


def test_clone_of_an_early_stopped_model_can_be_fitted_without_validation_rows() -> None:
    stopped = xgboost.XGBClassifier(n_estimators=200, early_stopping_rounds=5, n_jobs=1)
    stopped.fit(X[:400], Y[:400], eval_set=[(X[400:], Y[400:])], verbose=False)
    clone = seeded_clone(stopped, 0).fit(X[:400], Y[:400])
    assert clone.get_booster().num_boosted_rounds() == stopped.best_iteration + 1 < 200
    light = lightgbm.LGBMClassifier(n_estimators=200, verbose=-1, n_jobs=1, num_leaves=7)
    light.fit(
        X[:400], Y[:400], eval_X=(X[400:],), eval_y=(Y[400:],),
        callbacks=[lightgbm.early_stopping(5, verbose=False)],
    )  # fmt: skip
    assert seeded_clone(light, 0).n_estimators == light.best_iteration_ < 200


def test_labels_become_positions_in_the_order_of_the_model() -> None:
    strings = np.array(["yes", "no", "yes"], dtype=object)
    positions = training_labels(info("binary", ("no", "yes")), strings)
    assert positions.dtype == np.int64
    assert positions.tolist() == [1, 0, 1]
    values = training_labels(info("regression", ()), np.array([1.5, 2.0]))
    assert values.dtype == np.float32
    with pytest.raises(InvalidInput, match="perhaps"):
        training_labels(info("binary", ("no", "yes")), np.array(["perhaps"], dtype=object))


@given(
    st.floats(-100, 100), st.floats(0, 1), st.sampled_from(["accuracy", "log_loss", "rmse", "r2"])
)
def test_acceptable_is_a_margin_in_the_right_direction(
    reference: float, tolerance: float, metric: str
) -> None:
    classes = ("no", "yes") if metric in ("accuracy", "log_loss") else ()
    measure = Measure(metric, np.array([]), classes)
    better = 1 if measure.higher_is_better else -1
    margin = tolerance * (abs(reference) if metric == "rmse" else 1)
    assert measure.acceptable(reference, reference, tolerance)
    assert measure.acceptable(reference + better, reference, tolerance)
    assert measure.acceptable(reference - better * 0.99 * margin, reference, tolerance)
    assert not measure.acceptable(reference - better * (margin * 1.01 + 1e-3), reference, tolerance)


def test_measure_is_the_metric_of_the_judge() -> None:
    labels = np.array(["no", "yes", "yes"], dtype=object)
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert Measure("accuracy", labels, ("no", "yes"))(scores) == pytest.approx(2 / 3)
