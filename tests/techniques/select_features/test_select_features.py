"""Selecting features."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import skops.io
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from trimgate.data.dataset import Dataset
from trimgate.judge import metrics
from trimgate.models import ModelSource, directory, import_model, load_trainable
from trimgate.techniques import Context
from trimgate.techniques.select_features import TECHNIQUE, SelectFeaturesConfig
from trimgate.techniques.select_features._learners import _Estimator
from trimgate.techniques.select_features._search import grid
from trimgate.training import estimator_scores


def scores(path: Path, rows: Dataset) -> Any:
    info = directory.read(path)
    return estimator_scores(load_trainable(path, info), info, rows)


def check_ignores_dropped(path: Path, context: Context) -> None:
    """The original row goes in, and what was dropped plays no part; what was kept does."""
    info = directory.read(path)
    rows = context.validation
    notes = info.notes["select_features"]
    assert set(notes["kept"]) | set(notes["dropped"]) == set(info.features)
    assert set(notes["dropped"]) == set(info.unused_features)
    before = scores(path, rows)
    generator = np.random.default_rng(1)

    def shuffled(names: list[str]) -> Dataset:
        return Dataset(
            {n: generator.permutation(v) if n in names else v for n, v in rows.features.items()},
            rows.labels,
        )

    np.testing.assert_array_equal(scores(path, shuffled(notes["dropped"])), before)
    assert not np.array_equal(scores(path, shuffled(notes["kept"])), before)
    value = metrics.compute(context.metric, rows.labels, before, info.labels)
    assert notes["metric_after"] == pytest.approx(value)


def pipeline(text: Any, numbers: Any) -> Pipeline:
    return make_pipeline(
        ColumnTransformer(
            [
                ("text", OneHotEncoder(handle_unknown="ignore"), text),
                ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), numbers),
            ]
        ),
        LogisticRegression(),
    )


ESTIMATORS: dict[str, Callable[[], Any]] = {
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=30, random_state=0),
    "forest without a seed": lambda: RandomForestClassifier(n_estimators=20),
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "lightgbm": lambda: lightgbm.LGBMClassifier(
        n_estimators=20, num_leaves=7, subsample=0.8, subsample_freq=1, verbose=-1, n_jobs=1
    ),
    "xgboost in a pipeline": lambda: make_pipeline(
        StandardScaler(), xgboost.XGBClassifier(n_estimators=20, max_depth=3, n_jobs=1)
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_numbers(
    name: str, cancer: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = ESTIMATORS[name]().fit(matrix(cancer.train), cancer.train.labels)
    source = bring(model, cancer.train)
    info = conformance.check(
        TECHNIQUE, SelectFeaturesConfig(tolerance=0.01), source, cancer, tmp_path
    )
    notes = info.notes["select_features"]
    assert len(notes["kept"]) < 30
    assert notes["metric_after"] >= notes["metric_before"] - 0.01
    importances = list(notes["importances"].values())
    assert importances == sorted(importances, reverse=True)
    check_ignores_dropped(tmp_path / "first", cancer)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (["city", "noise_text"], ["noise_1", "age", "signal", "noise_2"]),
        (make_column_selector(dtype_include=object), make_column_selector(dtype_include=float)),
        ([1, 3], [0, 2, 4, 5]),
        ([1, 3], [True, False, True, False, True, True]),
    ],
)
def test_strings_and_missing_values(
    text: Any, numbers: Any, mixed: Context, bring: Any, conformance: Any, tmp_path: Path
) -> None:
    model = pipeline(text, numbers).fit(mixed.train.frame(), mixed.train.labels)
    source = bring(model, mixed.train)
    info = conformance.check(TECHNIQUE, SelectFeaturesConfig(keep=3), source, mixed, tmp_path)
    assert info.notes["select_features"]["kept"] == ["city", "age", "signal"]
    check_ignores_dropped(tmp_path / "first", mixed)


def test_remainder_is_listed_and_empty_parts_go(
    mixed: Context, bring: Any, conformance: Any, tmp_path: Path
) -> None:
    model = make_pipeline(
        ColumnTransformer(
            [
                ("noise", StandardScaler(), ["noise_1", "noise_2"]),
                (
                    "text",
                    OrdinalEncoder(
                        categories=[["Oslo", "Paris", "Rome", "none"], ["a", "b"]],
                    ),
                    ["city", "noise_text"],
                ),
            ],
            remainder="passthrough",
        ),
        HistGradientBoostingClassifier(max_iter=30, random_state=0),
    )
    filled = {
        name: np.array(["none" if v is None else v for v in values], dtype=object)
        if values.dtype == object
        else values
        for name, values in mixed.train.features.items()
    }
    train = Dataset(filled, mixed.train.labels)
    context = Context(train, train, mixed.metric, mixed.target)
    source = bring(model.fit(train.frame(), train.labels), train)
    info = conformance.check(TECHNIQUE, SelectFeaturesConfig(keep=3), source, context, tmp_path)
    selected = load_trainable(tmp_path / "first", info)[0]
    assert set(info.notes["select_features"]["kept"]) >= {"signal", "city"}
    assert selected.remainder == "drop"
    check_ignores_dropped(tmp_path / "first", context)


def test_the_order_of_the_table_is_kept(
    cancer: Context, bring: Any, matrix: Any, tmp_path: Path
) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression())
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    info = TECHNIQUE.apply(source, tmp_path / "out", SelectFeaturesConfig(keep=5), cancer)
    kept = info.notes["select_features"]["kept"]
    assert kept == [name for name in info.features if name in kept]
    trained = load_trainable(tmp_path / "out", info)
    by_hand = make_pipeline(StandardScaler(), LogisticRegression()).fit(
        np.column_stack([cancer.train.features[name] for name in kept]), cancer.train.labels
    )
    np.testing.assert_allclose(
        trained.predict_proba(matrix(cancer.validation)),
        by_hand.predict_proba(np.column_stack([cancer.validation.features[name] for name in kept])),
    )
    # and once more on top of that
    again = TECHNIQUE.apply(
        tmp_path / "out", tmp_path / "two", SelectFeaturesConfig(keep=2), cancer
    )
    assert set(again.notes["select_features"]["kept"]) < set(kept)
    assert len(again.unused_features) == 28
    assert again.features == info.features


@pytest.mark.parametrize(
    "config",
    [
        SelectFeaturesConfig(method="mutual_information", keep=0.5),
        SelectFeaturesConfig(method="model", keep=4),
        SelectFeaturesConfig(keep="auto", tolerance=0.02),
    ],
)
def test_regression_by_each_method(
    config: SelectFeaturesConfig, diabetes: Context, bring: Any, matrix: Any, conformance: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    source = bring(
        Ridge(alpha=0.1).fit(matrix(diabetes.train), diabetes.train.labels), diabetes.train
    )
    info = conformance.check(TECHNIQUE, config, source, diabetes, tmp_path)
    assert {"bmi", "s5"} <= set(info.notes["select_features"]["kept"])
    check_ignores_dropped(tmp_path / "first", diabetes)


def test_mutual_information_knows_strings(mixed: Context, bring: Any, tmp_path: Path) -> None:
    model = pipeline(["city", "noise_text"], ["noise_1", "age", "signal", "noise_2"])
    source = bring(model.fit(mixed.train.frame(), mixed.train.labels), mixed.train)
    config = SelectFeaturesConfig(method="mutual_information", keep=2)
    info = TECHNIQUE.apply(source, tmp_path / "out", config, mixed)
    assert info.notes["select_features"]["kept"] == ["city", "signal"]


def test_xgboost_needs_its_parameters(
    cancer: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = xgboost.XGBClassifier(n_estimators=20, max_depth=2, learning_rate=0.5, n_jobs=1)
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    parameters = {"max_depth": 2, "learning_rate": 0.5}
    config = SelectFeaturesConfig(keep=6, parameters=parameters)
    info = conformance.check(TECHNIQUE, config, source, cancer, tmp_path)
    assert info.framework == "xgboost"
    check_ignores_dropped(tmp_path / "first", cancer)
    booster = load_trainable(tmp_path / "first", info)
    assert booster.num_boosted_rounds() == 20
    without = directory.read(source).model_copy(update={"notes": {}})
    directory.seal(source, without)
    words = conformance.check_refusal(
        TECHNIQUE, SelectFeaturesConfig(keep=6), source, cancer, tmp_path
    )
    assert "hyper-parameters" in words
    noted = {"hyperparameters": {**parameters, "n_estimators": 20, "random_state": 0}}
    directory.seal(source, without.model_copy(update={"notes": noted}))
    same = TECHNIQUE.apply(source, tmp_path / "noted", SelectFeaturesConfig(keep=6), cancer)
    assert same.digest == info.digest


def test_an_xgboost_estimator_brings_its_parameters(
    cancer: Context, bring: Any, matrix: Any, tmp_path: Path
) -> None:
    model = xgboost.XGBClassifier(n_estimators=9, max_depth=2, learning_rate=0.5, n_jobs=1)
    model.fit(matrix(cancer.train), cancer.train.labels)
    file = tmp_path / "estimator.skops"
    skops.io.dump(model, file)
    source = tmp_path / "estimator"
    info = import_model(ModelSource(path=file), cancer.train, source)
    noted = info.notes["hyperparameters"]
    assert noted["max_depth"] == 2
    assert noted["learning_rate"] == 0.5
    assert not {"missing", "n_jobs"} & set(noted)
    made = TECHNIQUE.apply(source, tmp_path / "out", SelectFeaturesConfig(keep=6), cancer)
    trained = load_trainable(tmp_path / "out", made)
    assert trained.num_boosted_rounds() == 9
    depths = [line.count("\t") for tree in trained.get_dump() for line in tree.splitlines()]
    assert max(depths) == 2


def test_refuses_positions_that_would_change(
    cancer: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = HistGradientBoostingClassifier(max_iter=5, monotonic_cst=[0] * 29 + [1], random_state=0)
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    words = conformance.check_refusal(
        TECHNIQUE, SelectFeaturesConfig(keep=3), source, cancer, tmp_path
    )
    assert "monotonic_cst" in words


def test_refuses_when_every_feature_is_needed(
    mixed: Context, bring: Any, conformance: Any, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    columns = {name: generator.normal(size=300) for name in ("left", "right")}
    rows = Dataset(columns, (columns["left"] + columns["right"] > 0).astype(np.int64))
    few = Context(rows, rows, "accuracy", mixed.target)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    source = bring(model.fit(rows.frame().to_numpy(), rows.labels), rows)
    words = conformance.check_refusal(
        TECHNIQUE, SelectFeaturesConfig(tolerance=0.0), source, few, tmp_path
    )
    assert "2 features" in words
    conformance.check_refusal(TECHNIQUE, SelectFeaturesConfig(keep=2), source, few, tmp_path)


def test_refuses_training_rows_without_a_class(
    cancer: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = LogisticRegression(max_iter=5000)
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    one = cancer.train.take(cancer.train.labels == 1)
    context = Context(one, cancer.validation, cancer.metric, cancer.target)
    words = conformance.check_refusal(
        TECHNIQUE, SelectFeaturesConfig(keep=3), source, context, tmp_path
    )
    assert "class" in words


@pytest.mark.parametrize("keep", [0, -1, 1.0, 0.0, 1.5, "some"])
def test_config_refuses_nonsense(keep: Any) -> None:
    with pytest.raises(ValidationError):
        SelectFeaturesConfig(keep=keep)


@given(st.integers(2, 5000))
def test_grid_stays_below_the_number(count: int) -> None:
    sizes = grid(count)
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 1
    assert sizes[-1] < count


@pytest.mark.parametrize("method", ["permutation", "rfe", "forward", "backward"])
def test_a_killed_step_goes_on(
    method: Any, diabetes: Context, bring: Any, matrix: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What was trained before is not trained again, and the result is the same."""
    source = bring(Ridge().fit(matrix(diabetes.train), diabetes.train.labels), diabetes.train)
    step = SelectFeaturesConfig(method=method, tolerance=0.05)
    plain = TECHNIQUE.apply(source, tmp_path / "plain", step, diabetes)
    kept = replace(diabetes, work=tmp_path / "work")
    usual, trained = _Estimator.fit, list[int]()

    def dies_at(last: float) -> None:
        def fit(self: _Estimator, names: Any, rows: Dataset) -> Any:
            if len(trained) >= last:
                raise KeyboardInterrupt
            trained.append(0)
            return usual(self, names, rows)

        monkeypatch.setattr(_Estimator, "fit", fit)
        trained.clear()

    dies_at(float("inf"))
    TECHNIQUE.apply(source, tmp_path / "whole", step, replace(diabetes, work=tmp_path / "other"))
    all_of_them = len(trained)
    dies_at(all_of_them - 1)
    with pytest.raises(KeyboardInterrupt):
        TECHNIQUE.apply(source, tmp_path / "killed", step, kept)
    assert not (tmp_path / "killed").exists()
    dies_at(float("inf"))
    assert TECHNIQUE.apply(source, tmp_path / "killed", step, kept).digest == plain.digest
    # the one it died in, and the chosen model, of which only the scores were kept
    assert len(trained) <= 3 < all_of_them
