"""scikit-learn models: import, and export with equal scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimgate.data.dataset import Dataset
from trimgate.errors import NotApplicable
from trimgate.models import build_inputs
from trimgate.models.export import run_onnx, scores_of

Trip = Callable[..., Any]


def estimators() -> dict[str, Callable[[], Any]]:
    from sklearn import (
        calibration,
        discriminant_analysis,
        ensemble,
        linear_model,
        naive_bayes,
        neighbors,
        neural_network,
        svm,
    )
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def scaled(model: Any) -> Any:
        return make_pipeline(StandardScaler(), model)

    return {
        "logistic": lambda: scaled(linear_model.LogisticRegression()),
        "gradient boosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=10),
        "hist gradient boosting": lambda: ensemble.HistGradientBoostingClassifier(max_iter=10),
        "forest": lambda: ensemble.RandomForestClassifier(10),
        "extra trees": lambda: ensemble.ExtraTreesClassifier(10),
        "mlp": lambda: scaled(neural_network.MLPClassifier((8,), max_iter=400)),
        "svc": lambda: scaled(svm.SVC()),
        "linear svc": lambda: scaled(svm.LinearSVC()),
        "calibrated": lambda: scaled(
            calibration.CalibratedClassifierCV(linear_model.LogisticRegression())
        ),
        "voting": lambda: ensemble.VotingClassifier(
            [("a", scaled(linear_model.LogisticRegression())), ("b", naive_bayes.GaussianNB())],
            voting="soft",
        ),
        "naive bayes": naive_bayes.GaussianNB,
        "discriminant": discriminant_analysis.LinearDiscriminantAnalysis,
        "neighbours": lambda: scaled(neighbors.KNeighborsClassifier()),
    }


@pytest.mark.parametrize(("trees", "depth"), [(30, None), (2, 6)])
def test_rows_on_which_a_forest_is_divided_stay_ties(
    trees: int, depth: int | None, skops_trip: Trip, tmp_path: Path
):
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(0)
    x = rng.normal(size=(6000, 5)).astype(np.float32).astype(float)
    y = (x[:, 0] + 2 * rng.normal(size=6000) > 0).astype(int)
    forest = RandomForestClassifier(trees, max_depth=depth, max_samples=0.2, random_state=0)
    rows = Dataset({f"x{i}": x[:, i] for i in range(5)}, y)
    _, onnx, _ = skops_trip(forest, rows.take(slice(0, 1500)))
    scores = forest.predict_proba(x)
    assert (scores[:, 0] == scores[:, 1]).sum() > 50
    tensors = build_inputs(onnx, rows.features)
    found = scores_of(run_onnx(tmp_path / "model.onnx", onnx, tensors), onnx)
    assert np.array_equal(found.argmax(axis=1), scores.argmax(axis=1))


@pytest.mark.parametrize("name", sorted(estimators()))
def test_binary(name: str, skops_trip: Trip, cancer: Dataset):
    info, onnx, difference = skops_trip(estimators()[name](), cancer)
    assert info.task == "binary"
    assert info.labels == (0, 1)
    assert [i.shape for i in onnx.inputs] == [(-1, 30)]
    assert difference < 1e-4


@pytest.mark.parametrize(
    "name",
    [
        "logistic",
        "gradient boosting",
        "hist gradient boosting",
        "forest",
        "svc",
        "mlp",
        "discriminant",
    ],
)
def test_multiclass_with_text_labels(name: str, skops_trip: Trip, iris: Dataset):
    info, onnx, difference = skops_trip(estimators()[name](), iris)
    assert info.task == "multiclass"
    assert info.labels == ("setosa", "versicolor", "virginica")
    assert onnx.outputs[0].shape == (-1, 3)
    assert difference < 1e-5


def regressors() -> dict[str, Callable[[], Any]]:
    from sklearn import ensemble, linear_model, neighbors

    return {
        "forest": lambda: ensemble.RandomForestRegressor(5),
        "gradient boosting": lambda: ensemble.GradientBoostingRegressor(n_estimators=10),
        "hist": lambda: ensemble.HistGradientBoostingRegressor(max_iter=10),
        "poisson": lambda: ensemble.HistGradientBoostingRegressor(max_iter=10, loss="poisson"),
        "ridge": linear_model.Ridge,
        "neighbours": neighbors.KNeighborsRegressor,
    }


@pytest.mark.parametrize("name", sorted(regressors()))
def test_regression(name: str, skops_trip: Trip, diabetes: Dataset):
    info, onnx, difference = skops_trip(regressors()[name](), diabetes)
    assert info.task == "regression"
    assert info.labels == ()
    assert onnx.score_kind == "value"
    assert difference < 1e-3


@pytest.mark.parametrize("name", ["hist gradient boosting", "forest", "extra trees"])
def test_trees_with_missing_values(name: str, skops_trip: Trip, gappy: Dataset):
    info, onnx, difference = skops_trip(estimators()[name](), gappy)
    assert info.inputs[0].no_nan == ()
    assert onnx.inputs[0].no_nan == ()
    assert difference < 1e-6


def test_values_that_float32_cannot_hold_get_float64_inputs(skops_trip: Trip):
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(0)
    when = rng.integers(10**8, 10**8 + 5000, 800)
    data = Dataset({"when": when, "x": rng.normal(size=800)}, (when % 1000 < 300).astype(np.int64))
    _, onnx, difference = skops_trip(HistGradientBoostingClassifier(max_iter=20), data)
    assert onnx.inputs[0].dtype == "float64"
    assert difference < 1e-6


def mixed_pipelines() -> dict[str, Callable[[], Any]]:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import (
        FunctionTransformer,
        OneHotEncoder,
        OrdinalEncoder,
        StandardScaler,
        TargetEncoder,
    )

    def make(text: Any, numbers: Any, last: Any) -> Any:
        parts = [("text", text, ["city of", "job"]), ("numbers", numbers, ["age", "scores"])]
        return make_pipeline(ColumnTransformer(parts, remainder="passthrough"), last)

    def filled(*more: Any, **settings: Any) -> Any:
        return make_pipeline(SimpleImputer(**settings), *more)

    def logistic() -> Any:
        return LogisticRegression(max_iter=500)

    ordinal = {"handle_unknown": "use_encoded_value", "unknown_value": -1}
    nan_ordinal = {"handle_unknown": "use_encoded_value", "unknown_value": np.nan}
    return {
        "most frequent, one-hot": lambda: make(
            filled(OneHotEncoder(handle_unknown="ignore"), strategy="most_frequent"),
            filled(StandardScaler()),
            logistic(),
        ),
        "constant, one-hot dense": lambda: make(
            filled(
                OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                strategy="constant",
                fill_value="none",
            ),
            filled(add_indicator=True),
            logistic(),
        ),
        "one-hot of None, infrequent, drop": lambda: make(
            OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=50, drop="first"),
            filled(strategy="median"),
            logistic(),
        ),
        "ordinal, forest": lambda: make(
            OrdinalEncoder(**ordinal), "passthrough", RandomForestClassifier(10)
        ),
        "ordinal, categories of trees": lambda: make(
            OrdinalEncoder(**nan_ordinal),
            "passthrough",
            HistGradientBoostingClassifier(max_iter=10, categorical_features=[0, 1]),
        ),
        "target": lambda: make(TargetEncoder(), filled(), logistic()),
        "function": lambda: make(
            OneHotEncoder(handle_unknown="ignore"),
            filled(FunctionTransformer(np.log1p)),
            logistic(),
        ),
        "text dropped": lambda: make(
            "drop", "passthrough", HistGradientBoostingClassifier(max_iter=5)
        ),
    }


@pytest.mark.parametrize("name", sorted(mixed_pipelines()))
def test_mixed_tables(name: str, skops_trip: Trip, mixed: Dataset):
    info, onnx, difference = skops_trip(mixed_pipelines()[name](), mixed, frame=True)
    assert [i.name for i in onnx.inputs] == ["city of", "age", "member", "scores_input", "job"]
    assert {i.dtype for i in onnx.inputs} <= {"string", "float32", "float64"}
    assert info.features == tuple(mixed.features)
    assert difference < 1e-5


def test_unknown_categories_and_missing_text(tmp_path: Path, mixed: Dataset):
    """Rows with what training never saw get what the native pipeline says."""
    import skops.io

    from trimgate.models import (
        ModelSource,
        build_inputs,
        export_onnx,
        import_model,
        load_trainable,
        predict_native,
    )
    from trimgate.models.export import run_onnx

    model = mixed_pipelines()["most frequent, one-hot"]().fit(mixed.frame(), mixed.labels)
    skops.io.dump(model, tmp_path / "m.skops")
    info = import_model(ModelSource(path=tmp_path / "m.skops"), mixed, tmp_path / "model")
    trained = load_trainable(tmp_path / "model", info)
    final = info.model_copy(
        update={**export_onnx(trained, info, mixed, tmp_path / "m.onnx"), "notes": {}}
    )
    strange = {**mixed.take(slice(0, 4)).features}
    strange["city of"] = np.array(["Atlantis", None, "Rome", float("nan")], dtype=object)
    strange["age"] = np.array([np.nan, 1.0, 2.0, np.nan])
    expected = predict_native(trained, info, build_inputs(info, strange))
    found = run_onnx(tmp_path / "m.onnx", final, build_inputs(final, strange))
    assert np.abs(expected - found).max() < 1e-5


def test_category_bound_to_numbers(skops_trip: Trip, mixed: Dataset):
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    names = ["member", "scores"]
    data = Dataset({n: mixed.features[n] for n in names}, mixed.labels)
    one_hot = ColumnTransformer([("c", OneHotEncoder(handle_unknown="ignore"), names)])
    _, onnx, difference = skops_trip(make_pipeline(one_hot, LogisticRegression()), data, frame=True)
    assert [i.name for i in onnx.inputs] == ["input"]
    assert difference < 1e-6


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_booster_as_last_step(kind: str, skops_trip: Trip, mixed: Dataset):
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    data = Dataset(mixed.features, (mixed.labels == "high").astype(np.int64))
    last: Any
    if kind == "xgboost":
        from xgboost import XGBClassifier

        last = XGBClassifier(n_estimators=5, n_jobs=1)
    else:
        from lightgbm import LGBMClassifier

        last = LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1)
    encoder = ColumnTransformer(
        [("c", OneHotEncoder(handle_unknown="ignore"), ["city of", "job"])],
        remainder="passthrough",
    )
    info, _, difference = skops_trip(make_pipeline(encoder, last), data, frame=True)
    assert info.framework == "sklearn"
    assert info.family == "trees"
    assert difference < 1e-5


def test_what_cannot_be_converted_is_named(skops_trip: Trip, cancer: Dataset, tmp_path: Path):
    from sklearn.neighbors import NearestCentroid
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), NearestCentroid())
    with pytest.raises(NotApplicable, match="NearestCentroid"):
        skops_trip(model, cancer)
    assert not (tmp_path / "model.onnx").exists()
