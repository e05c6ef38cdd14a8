"""Pipelines of scikit-learn, and boosters, with members of every kind, and rows for them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from trimgate.data.dataset import Dataset

TOWNS = ("Bonn", "Kiel", "Ulm")


def rows(count: int, seed: int, kind: str = "binary") -> Dataset:
    """Numbers with gaps, a whole number and text with gaps.

    Args:
        count: How many.
        seed: Of everything.
        kind: `binary`, `multiclass` (text labels) or `regression`.
    """
    rng = np.random.default_rng(seed)
    town = np.array(rng.choice(TOWNS, count), dtype=object)
    income, height = rng.normal(50, 10, count), rng.normal(0, 1, count)
    age = rng.integers(18, 80, count)
    score = 8.0 * (town == "Kiel") + income - 0.2 * age + 3 * height**2 + rng.normal(0, 2, count)
    town[rng.random(count) < 0.1] = None
    income[rng.random(count) < 0.1] = np.nan
    features = {"town": town, "income": income, "age": age.astype(np.int64), "height": height}
    if kind == "regression":
        return Dataset(features, score)
    if kind == "binary":
        return Dataset(features, (score > 45).astype(np.int64))
    names = np.array(["high", "low", "mid"], dtype=object)
    return Dataset(features, names[np.where(score > 50, 0, np.where(score < 40, 1, 2))])


def numbers(count: int, seed: int, kind: str = "binary") -> Dataset:
    """The same without text and gaps."""
    given = rows(count, seed, kind)
    kept = {name: given.features[name].astype(float) for name in ("income", "age", "height")}
    kept["income"] = np.nan_to_num(kept["income"], nan=50.0)
    return Dataset(kept, given.labels)


def _pipeline(estimator: Any) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="none"),
        OneHotEncoder(handle_unknown="ignore"),
    )
    figures = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer(
        [("words", words, ["town"]), ("figures", figures, ["income", "age", "height"])],
        sparse_threshold=0,
    )
    return make_pipeline(columns, estimator)


def _members(kind: str) -> dict[str, Callable[[], Any]]:
    """Estimators by name, for a task."""
    from sklearn import ensemble, linear_model, naive_bayes, neighbors, svm, tree
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures

    seed = {"random_state": 0}
    if kind == "regression":
        return {
            "RandomForestRegressor": lambda: ensemble.RandomForestRegressor(10, **seed),
            "GradientBoostingRegressor": lambda: ensemble.GradientBoostingRegressor(
                n_estimators=20, **seed
            ),
            "Ridge": linear_model.Ridge,
            "SVR": svm.SVR,
            "MLPRegressor": lambda: MLPRegressor(hidden_layer_sizes=(16,), max_iter=100, **seed),
            "VotingRegressor": lambda: ensemble.VotingRegressor(
                [("a", linear_model.Ridge()), ("b", tree.DecisionTreeRegressor(max_depth=4))]
            ),
        }
    forest = lambda: ensemble.RandomForestClassifier(10, max_depth=5, **seed)  # noqa: E731
    logistic = linear_model.LogisticRegression
    return {
        "RandomForest": forest,
        "ExtraTrees": lambda: ensemble.ExtraTreesClassifier(10, max_depth=5, **seed),
        "GradientBoosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=20, **seed),
        "HistGradientBoosting": lambda: ensemble.HistGradientBoostingClassifier(
            max_iter=20, **seed
        ),
        "AdaBoost": lambda: ensemble.AdaBoostClassifier(n_estimators=10, **seed),
        "Bagging": lambda: ensemble.BaggingClassifier(n_estimators=5, **seed),
        "Voting (soft)": lambda: ensemble.VotingClassifier(
            [("a", logistic()), ("b", forest())], voting="soft"
        ),
        "Voting (hard)": lambda: ensemble.VotingClassifier([("a", logistic()), ("b", forest())]),
        "Stacking": lambda: ensemble.StackingClassifier([("a", logistic()), ("b", forest())]),
        "Calibrated forest": lambda: CalibratedClassifierCV(forest(), cv=2),
        "Calibrated LinearSVC": lambda: CalibratedClassifierCV(svm.LinearSVC(), cv=2),
        "LogisticRegression, polynomial": lambda: make_pipeline(PolynomialFeatures(2), logistic()),
        "SVC": svm.SVC,
        "KNeighbors": neighbors.KNeighborsClassifier,
        "GaussianNB": naive_bayes.GaussianNB,
        "MLP": lambda: MLPClassifier((16,), max_iter=100, **seed),
    }


def names(kind: str) -> list[str]:
    """The estimators for a task."""
    return list(_members(kind))


def fitted(name: str, kind: str, given: Dataset) -> Any:
    """A pipeline with that estimator, fitted."""
    import pandas as pd

    table = pd.DataFrame(dict(given.features)).replace({None: np.nan})
    return _pipeline(_members(kind)[name]()).fit(table, given.labels)


def _xgboost(**said: Any) -> Callable[[Dataset], Any]:
    def train(given: Dataset) -> Any:
        import xgboost

        matrix = xgboost.DMatrix(np.column_stack(list(given.features.values())), given.labels)
        settings = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1, "seed": 0}
        return xgboost.train({**settings, **said}, matrix, 10)

    return train


def _lightgbm(categorical: bool, **said: Any) -> Callable[[Dataset], Any]:
    def train(given: Dataset) -> Any:
        import lightgbm

        rows = lightgbm.Dataset(
            np.column_stack(list(given.features.values())),
            given.labels,
            categorical_feature=[1] if categorical else [],
            free_raw_data=False,
        )
        settings = {"objective": "binary", "num_leaves": 7, "num_threads": 1, "verbose": -1}
        return lightgbm.train({**settings, **said}, rows, 10)

    return train


# Boosters by name; trained on rows of numbers.
BOOSTERS: dict[str, Callable[[Dataset], Any]] = {
    "XGBoost": _xgboost(),
    "XGBoost, DART": _xgboost(booster="dart", rate_drop=0.3),
    "XGBoost, random forest": _xgboost(num_parallel_tree=5, subsample=0.7, eta=1.0),
    "XGBoost, linear": _xgboost(booster="gblinear"),
    "LightGBM": _lightgbm(False),
    "LightGBM, categories": _lightgbm(True),
    "LightGBM, DART": _lightgbm(False, boosting="dart"),
    "LightGBM, random forest": _lightgbm(
        False, boosting="rf", bagging_freq=1, bagging_fraction=0.7
    ),
}
