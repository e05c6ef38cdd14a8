"""Compiled trees: exact for every library, and refused where they could not be."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import ensemble as sk
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from trimgate import runtimes
from trimgate.errors import NotApplicable
from trimgate.models.directory import RuntimeChoice, TensorSpec
from trimgate.runtimes._ensembles import alike, below, ensemble

pytest.importorskip("daal4py")

Repeat = Callable[[np.ndarray], np.ndarray]

CLASSIFIERS: dict[str, Any] = {
    "GradientBoosting": lambda: sk.GradientBoostingClassifier(n_estimators=12),
    "exponential": lambda: sk.GradientBoostingClassifier(n_estimators=12, loss="exponential"),
    "HistGradientBoosting": lambda: sk.HistGradientBoostingClassifier(max_iter=6),
    "RandomForest": lambda: sk.RandomForestClassifier(n_estimators=12),
    "ExtraTrees": lambda: sk.ExtraTreesClassifier(n_estimators=12),
    "DecisionTree": lambda: DecisionTreeClassifier(),
    "XGBoost": lambda: xgboost.XGBClassifier(n_estimators=12, n_jobs=1),
    "LightGBM": lambda: lightgbm.LGBMClassifier(n_estimators=12, n_jobs=1, verbose=-1),
}
REGRESSORS: dict[str, Any] = {
    "GradientBoosting": lambda: sk.GradientBoostingRegressor(n_estimators=12),
    "HistGradientBoosting": lambda: sk.HistGradientBoostingRegressor(max_iter=6),
    "HistGradientBoosting poisson": lambda: sk.HistGradientBoostingRegressor(
        max_iter=6, loss="poisson"
    ),
    "RandomForest": lambda: sk.RandomForestRegressor(n_estimators=12),
    "XGBoost": lambda: xgboost.XGBRegressor(n_estimators=12, n_jobs=1),
    "XGBoost gamma": lambda: xgboost.XGBRegressor(n_estimators=12, n_jobs=1, objective="reg:gamma"),
    "LightGBM": lambda: lightgbm.LGBMRegressor(n_estimators=12, n_jobs=1, verbose=-1),
    "LightGBM poisson": lambda: lightgbm.LGBMRegressor(
        n_estimators=12, n_jobs=1, verbose=-1, objective="poisson"
    ),
}
TAKES_MISSING = ("HistGradientBoosting", "RandomForest", "XGBoost", "LightGBM")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_two_classes(
    name: str,
    dtype: str,
    conformance: ModuleType,
    make_case: Any,
    thousand: Repeat,
    tmp_path: Path,
) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    rows = rows.astype(dtype)
    _check(CLASSIFIERS[name]().fit(rows, labels), thousand(rows), make_case, conformance, tmp_path)


@pytest.mark.parametrize(
    "name", ["GradientBoosting", "HistGradientBoosting", "XGBoost", "LightGBM"]
)
def test_ten_classes_of_integer_features(
    name: str, conformance: ModuleType, make_case: Any, thousand: Repeat, tmp_path: Path
) -> None:
    rows, labels = load_digits(return_X_y=True)
    rows, labels = rows[:300].astype(np.float32), labels[:300]
    _check(CLASSIFIERS[name]().fit(rows, labels), thousand(rows), make_case, conformance, tmp_path)


@pytest.mark.parametrize("name", REGRESSORS)
def test_regression(
    name: str, conformance: ModuleType, make_case: Any, thousand: Repeat, tmp_path: Path
) -> None:
    rows, values = load_diabetes(return_X_y=True)
    _check(REGRESSORS[name]().fit(rows, values), thousand(rows), make_case, conformance, tmp_path)


@pytest.mark.parametrize("name", TAKES_MISSING)
def test_missing_values(
    name: str, conformance: ModuleType, make_case: Any, thousand: Repeat, tmp_path: Path
) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    rows[np.random.default_rng(0).random(rows.shape) < 0.1] = np.nan
    _check(CLASSIFIERS[name]().fit(rows, labels), thousand(rows), make_case, conformance, tmp_path)


@pytest.mark.parametrize("name", ["HistGradientBoosting", "XGBoost", "LightGBM"])
def test_values_missing_only_when_served(
    name: str, conformance: ModuleType, make_case: Any, thousand: Repeat, tmp_path: Path
) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    model = CLASSIFIERS[name]().fit(rows, labels)
    rows[np.random.default_rng(0).random(rows.shape) < 0.1] = np.nan
    _check(model, thousand(rows), make_case, conformance, tmp_path)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("name", ["XGBoost", "LightGBM"])
def test_boosters(
    name: str,
    kind: str,
    conformance: ModuleType,
    make_case: Any,
    thousand: Repeat,
    tmp_path: Path,
) -> None:
    load = {"binary": load_breast_cancer, "multiclass": load_digits, "regression": load_diabetes}
    rows, labels = load[kind](return_X_y=True)
    rows, labels = rows[:300].astype(np.float32), labels[:300]
    model = (REGRESSORS if kind == "regression" else CLASSIFIERS)[name]().fit(rows, labels)
    case = make_case(
        tmp_path / "m",
        model,
        thousand(rows),
        family="trees",
        framework=name.lower(),
        runtime=RuntimeChoice(name="daal4py"),
    )
    conformance.check(case, tolerance=5e-6)


def test_early_stopped_xgboost_uses_its_best_trees(
    conformance: ModuleType, make_case: Any, thousand: Repeat, tmp_path: Path
) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    model = xgboost.XGBClassifier(
        n_estimators=60, learning_rate=0.8, early_stopping_rounds=2, n_jobs=1
    )
    model.fit(rows[::2], labels[::2], eval_set=[(rows[1::2], labels[1::2])], verbose=False)
    assert model.best_iteration < 50
    _check(model, thousand(rows), make_case, conformance, tmp_path)


@given(
    threshold=st.floats(-(2.0**99), 2.0**99),
    value=st.floats(-(2.0**99), 2.0**99, width=32),
)
@settings(max_examples=200)
def test_thresholds_decide_alike_for_float32_rows(threshold: float, value: float) -> None:
    rounded = below(np.array([threshold]))[0]
    assert (np.float32(value) <= rounded) == (value <= threshold)


@given(threshold=st.floats(-(2.0**99), 2.0**99), value=st.floats(-(2.0**99), 2.0**99))
@settings(max_examples=200)
def test_float64_rows_decide_alike_if_float32_can_tell(threshold: float, value: float) -> None:
    if np.float32(value) != np.float32(threshold):
        assert (np.float32(value) <= alike(np.array([threshold]))[0]) == (value <= threshold)


@given(value=st.decimals(-10_000, 10_000, places=2))
@settings(max_examples=200)
def test_a_row_that_equals_its_threshold_goes_left(value: Any) -> None:
    assert np.float32(float(value)) <= alike(np.array([float(value)]))[0]


@given(low=st.floats(-(2.0**99), 2.0**99, width=32), step=st.integers(1, 3))
@settings(max_examples=200)
def test_neighbouring_float32_values_stay_apart(low: float, step: int) -> None:
    high = np.float32(low)
    for _ in range(step):
        high = np.nextafter(high, np.float32(np.inf))
    middle = np.array([float(low) / 2 + float(high) / 2])
    for threshold in (middle, np.nextafter(middle, np.inf)):
        assert np.float32(low) <= alike(threshold)[0] < high


def test_infinite_thresholds() -> None:
    """Histogram gradient boosting parts missing values from all others so."""
    assert alike(np.array([np.inf]))[0] == np.inf


def test_rows_that_equal_thresholds_which_float32_cannot_hold(
    conformance: ModuleType, make_case: Any, thousand: Repeat, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    rows = generator.choice([0.1, 0.3, 9.99, 19.99, 0.7], (900, 3))
    rows[:, 1] = generator.normal(size=900).round(2)
    labels = (rows[:, 0] <= 0.3).astype(int) ^ (rows[:, 1] <= 0.1)
    model = sk.HistGradientBoostingClassifier(max_iter=8, max_bins=8).fit(rows, labels)
    _check(model, thousand(rows), make_case, conformance, tmp_path)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda x, y: sk.RandomForestClassifier(3).fit(x, np.arange(len(y)) % 3), "more than two"),
        (lambda x, y: LogisticRegression().fit(x / 1000, y), "tree ensembles only"),
        (
            lambda x, y: lightgbm.LGBMRegressor(
                n_estimators=3, verbose=-1, linear_tree=True, n_jobs=1
            ).fit(x, y),
            "linear",
        ),
        (
            lambda x, y: lightgbm.LGBMRegressor(
                n_estimators=3, verbose=-1, zero_as_missing=True, n_jobs=1
            ).fit(x, y),
            "zero",
        ),
        (
            lambda x, y: lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(
                np.c_[np.arange(len(x)) % 5, x], y, categorical_feature=[0]
            ),
            "categorical",
        ),
        (
            lambda x, y: sk.HistGradientBoostingClassifier(
                max_iter=3, categorical_features=[0]
            ).fit(np.c_[np.arange(len(x)) % 5, x], y),
            "categorical",
        ),
        (
            lambda x, y: xgboost.XGBRegressor(n_estimators=3, booster="dart", n_jobs=1).fit(x, y),
            "dart",
        ),
        (
            lambda x, y: sk.GradientBoostingRegressor(
                n_estimators=3, init=DecisionTreeClassifier()
            ).fit(x, y),
            "init",
        ),
    ],
)
def test_refuses_what_it_does_not_know(model: Any, words: str) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    if words == "categorical":
        labels = (np.arange(len(labels)) % 5 > 1).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = model(rows, labels)
    with pytest.raises(NotApplicable, match=words):
        ensemble(fitted)


def test_refusals_from_the_record(
    conformance: ModuleType,
    make_case: Any,
    thousand: Repeat,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    model = CLASSIFIERS["DecisionTree"]().fit(rows, labels)
    case = make_case(
        tmp_path / "m",
        model,
        thousand(rows),
        family="trees",
        framework="sklearn",
        runtime=RuntimeChoice(name="daal4py"),
    )
    conformance.check_options(case)
    runtime = runtimes.get("daal4py")
    text = TensorSpec(name="t", dtype="string", shape=(-1, 1))
    for change, words in [
        ({"family": "mlp"}, "tree ensembles"),
        ({"framework": "onnx"}, "trained ensemble"),
        ({"inputs": (text,)}, "text"),
        ({"score_kind": "label"}, "label"),
        ({"runtime": RuntimeChoice(name="daal4py", precision="bf16")}, "f32"),
    ]:
        assert words in str(runtime.refusal(case.info.model_copy(update=change)))
    conformance.check_missing(case, "daal4py", "trees", monkeypatch)


def _check(
    model: Any, rows: np.ndarray, make_case: Any, conformance: ModuleType, tmp_path: Path
) -> None:
    case = make_case(
        tmp_path / "m",
        model,
        rows,
        family="trees",
        framework="sklearn",
        runtime=RuntimeChoice(name="daal4py"),
    )
    conformance.check(case, tolerance=5e-6)


def test_openvino_and_daal4py_in_one_process(tmp_path: Path) -> None:
    """Whichever comes first: both bring a TBB of the same name."""
    for first, second in (("openvino", "daal4py"), ("daal4py", "openvino")):
        script = (
            "from trimgate.runtimes._openvino import _import as openvino\n"
            "def daal4py():\n    import daal4py; daal4py.daalinit(1)\n"
            f"{first}(); {second}()\n"
            "print(openvino().Core().available_devices)\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", script],
            env={"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert "CPU" in result.stdout


def test_certain_trees_give_no_nan(
    conformance: ModuleType, make_case: Any, thousand: Repeat, tmp_path: Path
) -> None:
    """oneDAL's own sigmoid overflows for logits above 88."""
    rows, labels = load_breast_cancer(return_X_y=True)
    rows = rows.astype(np.float32)
    model = sk.GradientBoostingClassifier(n_estimators=5).fit(rows, labels)
    for tree in model.estimators_.ravel():
        tree.tree_.value[:] *= 1000
    assert np.abs(model.decision_function(rows)).max() > 100
    _check(model, thousand(rows), make_case, conformance, tmp_path)
