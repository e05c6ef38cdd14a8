"""XGBoost and LightGBM files: import, and export with equal scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models import load_trainable

Trip = Callable[..., Any]


def matrix(data: Dataset) -> Any:
    return np.stack(list(data.features.values()), axis=1)


def numbered(data: Dataset) -> Any:
    return np.unique(data.labels, return_inverse=True)[1]


def xgb(objective: str, x: Any, y: Any, **more: Any) -> Any:
    import xgboost

    parameters = {"objective": objective, "nthread": 1, **more}
    return xgboost.train(parameters, xgboost.DMatrix(x, y), 5)


def lgb(objective: str, x: Any, y: Any, **more: Any) -> Any:
    import lightgbm

    categorical = more.pop("categorical", "auto")
    parameters = {"objective": objective, "num_threads": 1, "verbose": -1, **more}
    return lightgbm.train(parameters, lightgbm.Dataset(x, y, categorical_feature=categorical), 5)


@pytest.mark.parametrize("suffix", [".json", ".ubj"])
@pytest.mark.parametrize(
    ("objective", "more"),
    [
        ("binary:logistic", {}),
        ("binary:logitraw", {}),
        ("binary:logistic", {"booster": "dart", "rate_drop": 0.5}),
    ],
)
def test_xgboost_binary(
    suffix: str, objective: str, more: dict[str, Any], round_trip: Trip, gappy: Dataset
):
    booster = xgb(objective, matrix(gappy), gappy.labels, **more)
    info, onnx, difference = round_trip(booster.save_model, suffix, gappy)
    assert (info.framework, info.task, info.labels) == ("xgboost", "binary", (0, 1))
    assert onnx.inputs[0].dtype == "float32"
    assert difference < 1e-6


@pytest.mark.parametrize("objective", ["multi:softprob", "multi:softmax"])
def test_xgboost_multiclass_takes_the_labels_of_the_data(
    objective: str, round_trip: Trip, iris: Dataset
):
    booster = xgb(objective, matrix(iris), numbered(iris), num_class=3)
    info, _, difference = round_trip(booster.save_model, ".json", iris)
    assert info.labels == ("setosa", "versicolor", "virginica")
    assert difference < 1e-6


@pytest.mark.parametrize("objective", ["reg:squarederror", "count:poisson"])
def test_xgboost_regression(objective: str, round_trip: Trip, diabetes: Dataset):
    booster = xgb(objective, matrix(diabetes), diabetes.labels)
    info, _, difference = round_trip(booster.save_model, ".json", diabetes)
    assert info.task == "regression"
    assert difference < 1e-2


def test_xgboost_stops_at_the_best_iteration(round_trip: Trip, cancer: Dataset, tmp_path: Path):
    import xgboost

    x, y = matrix(cancer), cancer.labels
    model = xgboost.XGBClassifier(n_estimators=30, early_stopping_rounds=2, n_jobs=1)
    model.fit(x[:400], y[:400], eval_set=[(x[400:], y[400:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    info, _, _ = round_trip(model.save_model, ".json", cancer)
    booster = load_trainable(tmp_path / "model", info)
    assert booster.num_boosted_rounds() == model.best_iteration + 1
    expected = model.predict_proba(x)[:, 1]
    np.testing.assert_allclose(booster.inplace_predict(x), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("objective", "more"),
    [("rank:pairwise", {}), ("binary:logistic", {"booster": "gblinear"})],
)
def test_xgboost_of_another_kind_is_refused(
    objective: str, more: dict[str, Any], round_trip: Trip, cancer: Dataset
):
    booster = xgb(objective, matrix(cancer), cancer.labels, **more)
    with pytest.raises(InvalidInput, match=r"rank:pairwise|gblinear"):
        round_trip(booster.save_model, ".json", cancer)


@pytest.mark.parametrize(
    "more", [{}, {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}]
)
def test_lightgbm_binary(more: dict[str, Any], round_trip: Trip, gappy: Dataset):
    booster = lgb("binary", matrix(gappy), gappy.labels, **more)
    info, _, difference = round_trip(booster.save_model, ".txt", gappy)
    assert (info.framework, info.family, info.labels) == ("lightgbm", "trees", (0, 1))
    assert difference < 1e-6


def test_lightgbm_multiclass(round_trip: Trip, iris: Dataset):
    booster = lgb("multiclass", matrix(iris), numbered(iris), num_class=3)
    info, _, difference = round_trip(booster.save_model, ".txt", iris)
    assert info.labels == ("setosa", "versicolor", "virginica")
    assert difference < 1e-6


@pytest.mark.parametrize("objective", ["regression", "poisson"])
def test_lightgbm_regression(objective: str, round_trip: Trip, diabetes: Dataset):
    booster = lgb(objective, matrix(diabetes), diabetes.labels)
    info, _, difference = round_trip(booster.save_model, ".txt", diabetes)
    assert info.task == "regression"
    assert difference < 1e-2


def test_lightgbm_categories(round_trip: Trip):
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 12, 600).astype(float)
    x = np.stack([kind, rng.normal(size=600)], axis=1)
    y = (np.isin(kind, [1, 4, 7]) ^ (x[:, 1] > 1)).astype(np.int64)
    booster = lgb("binary", x, y, categorical=[0], min_data_per_group=5, max_cat_to_onehot=2)
    data = Dataset({"kind": kind, "x": x[:, 1]}, y)
    _, _, difference = round_trip(booster.save_model, ".txt", data)
    assert difference < 1e-6


def test_lightgbm_objective_without_onnx_form(round_trip: Trip, iris: Dataset):
    booster = lgb("multiclassova", matrix(iris), numbered(iris), num_class=3)
    with pytest.raises(NotApplicable, match="multiclassova"):
        round_trip(booster.save_model, ".txt", iris)


def test_wrapper_from_a_pickle_keeps_its_labels(round_trip: Trip, iris: Dataset):
    import joblib
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1).fit(matrix(iris), iris.labels)
    info, _, _ = round_trip(lambda file: joblib.dump(model, file), ".pkl", iris, allow_pickle=True)
    assert info.framework == "lightgbm"
    assert list(info.files) == ["model.txt"]
    assert info.labels == ("setosa", "versicolor", "virginica")


def test_names_that_differ_are_named(round_trip: Trip, cancer: Dataset):
    import xgboost

    names = [*list(cancer.features)[:-1], "other"]
    data = xgboost.DMatrix(matrix(cancer), cancer.labels, feature_names=names)
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 2)
    with pytest.raises(InvalidInput, match=r"lacks other.*does not know x29"):
        round_trip(booster.save_model, ".json", cancer)
