"""The native runtime, with every framework."""

import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from trimgate import runtimes
from trimgate.errors import InvalidInput
from trimgate.models import save_trainable
from trimgate.models.directory import ModelInfo, RuntimeChoice, TensorSpec, seal, writing

Repeat = Callable[[np.ndarray], np.ndarray]


def test_scikit_learn_matrix(
    conformance: ModuleType, make_case: Any, thousand: Repeat, tmp_path: Path
) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
    case = make_case(tmp_path / "m", model, thousand(rows), family="linear", framework="sklearn")
    conformance.check(case)
    conformance.check_options(case)


def test_labels_in_another_order_than_the_estimators(
    make_case: Any, thousand: Repeat, tmp_path: Path
) -> None:
    rows, numbers = load_breast_cancer(return_X_y=True)
    names = np.where(numbers == 1, "benign", "malignant")
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, names)
    case = make_case(
        tmp_path / "m",
        model,
        thousand(rows),
        family="linear",
        framework="sklearn",
        labels=("malignant", "benign"),
    )
    scores = runtimes.load(case.directory).predict(case.inputs)
    np.testing.assert_array_equal(scores, case.expected[:, ::-1])


def test_labels_that_the_estimator_does_not_know(
    conformance: ModuleType, make_case: Any, thousand: Repeat, tmp_path: Path
) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
    case = make_case(
        tmp_path / "m",
        model,
        thousand(rows),
        family="linear",
        framework="sklearn",
        labels=("no", "yes"),
    )
    assert "labels" in conformance.check_refusal(case)


def test_scikit_learn_data_frame_with_text(conformance: ModuleType, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": generator.normal(40, 9, 1000),
            "town": generator.choice(["Rome", "Oslo", None], 1000),
            "paid": generator.integers(0, 5, 1000).astype(float),
        }
    )
    frame["town"] = frame["town"].astype(object).where(frame["town"].notna(), np.nan)
    labels = (frame["age"] + 9 * (frame["town"] == "Oslo") > 43).to_numpy()
    columns = ColumnTransformer(
        [("n", StandardScaler(), ["age", "paid"]), ("t", OneHotEncoder(), ["town"])]
    )
    model = make_pipeline(columns, LogisticRegression()).fit(frame, labels)
    info = ModelInfo(
        name="case",
        task="binary",
        family="linear",
        framework="sklearn",
        inputs=(
            TensorSpec(name="numbers", dtype="float64", shape=(-1, 2), features=("age", "paid")),
            TensorSpec(name="town", dtype="string", shape=(-1, 1), features=("town",), missing=""),
        ),
        labels=(False, True),
        features=("age", "town", "paid"),
    )
    with writing(tmp_path / "m") as partial:
        save_trainable(model, partial, info)
        info = seal(partial, info)
    town = frame["town"].where(frame["town"].notna(), "").to_numpy(dtype=object)[:, None]
    inputs = {"numbers": frame[["age", "paid"]].to_numpy(), "town": town}

    class Case:
        directory = tmp_path / "m"
        expected = model.predict_proba(frame)

    Case.info, Case.inputs = info, inputs  # type: ignore[attr-defined]
    conformance.check(Case)


@pytest.mark.filterwarnings("error:X does not have valid feature names")
def test_an_estimator_trained_on_a_data_frame_gets_one(
    conformance: ModuleType, make_case: Any, thousand: Repeat, tmp_path: Path
) -> None:
    rows, labels = load_diabetes(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels > 140)
    names = tuple(rows.columns)
    tensor = TensorSpec(name="input", dtype="float64", shape=(-1, 10), features=names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case = make_case(
            tmp_path / "m",
            model,
            thousand(rows.to_numpy()),
            family="linear",
            framework="sklearn",
            inputs=(tensor,),
            features=names,
        )
    conformance.check(case)


def test_labels_only(make_case: Any, thousand: Repeat, tmp_path: Path) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LinearSVC()).fit(rows, labels)
    case = make_case(
        tmp_path / "m",
        model,
        thousand(rows),
        family="linear",
        framework="sklearn",
        score_kind="label",
    )
    scores = runtimes.load(case.directory).predict(case.inputs)
    np.testing.assert_array_equal(scores[:, 1], case.expected)


def test_scikit_learn_threads_are_given_back(
    make_case: Any, thousand: Repeat, tmp_path: Path
) -> None:
    from threadpoolctl import threadpool_info

    def threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info()}

    rows, labels = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
    case = make_case(tmp_path / "m", model, thousand(rows), family="linear", framework="sklearn")
    before = threads()
    session = runtimes.load(case.directory, threads=1)
    assert threads() == {1}
    session.close()
    assert threads() == before


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_xgboost(
    kind: str, conformance: ModuleType, make_case: Any, thousand: Repeat, tmp_path: Path
) -> None:
    import xgboost

    rows, labels = _data(kind)
    family = xgboost.XGBRegressor if kind == "regression" else xgboost.XGBClassifier
    model = family(n_estimators=15, max_depth=3, n_jobs=1).fit(rows, labels)
    case = make_case(tmp_path / "m", model, thousand(rows), family="trees", framework="xgboost")
    conformance.check(case)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_lightgbm(
    kind: str, conformance: ModuleType, make_case: Any, thousand: Repeat, tmp_path: Path
) -> None:
    import lightgbm

    rows, labels = _data(kind)
    family = lightgbm.LGBMRegressor if kind == "regression" else lightgbm.LGBMClassifier
    model = family(n_estimators=10, num_leaves=7, n_jobs=1, verbose=-1).fit(rows, labels)
    case = make_case(tmp_path / "m", model, thousand(rows), family="trees", framework="lightgbm")
    conformance.check(case)


def build_small_net(width: int) -> Any:
    """The builder that the torch case names."""
    import torch

    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10)
    )


def test_torch(
    conformance: ModuleType, thousand: Repeat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    import torch

    monkeypatch.setitem(sys.modules, "small_nets", sys.modules[__name__])
    torch.manual_seed(0)
    model = build_small_net(16).eval()
    rows = thousand(load_digits().images.astype(np.float32)[:, None])
    info = ModelInfo(
        name="case",
        task="multiclass",
        family="mlp",
        framework="torch",
        inputs=(
            TensorSpec(name="image", dtype="float32", shape=(-1, 1, 8, 8), features=("image",)),
        ),
        score_kind="logit",
        labels=tuple(range(10)),
        builder="small_nets:build_small_net",
        builder_arguments={"width": 16},
        features=("image",),
    )
    with writing(tmp_path / "m") as partial:
        save_trainable(model, partial, info)
        info = seal(partial, info)

    class Case:
        directory = tmp_path / "m"
        inputs = {"image": rows}  # noqa: RUF012

    Case.info = info  # type: ignore[attr-defined]
    with torch.inference_mode():
        Case.expected = torch.softmax(model(torch.from_numpy(rows)), 1).numpy()  # type: ignore[attr-defined]
    conformance.check(Case, threads=2)
    assert torch.get_num_threads() == 2
    conformance.check(Case, threads=1)
    assert torch.get_num_threads() == 1


def test_refuses_what_has_no_framework(
    conformance: ModuleType, make_case: Any, thousand: Repeat, tmp_path: Path
) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
    case = make_case(tmp_path / "m", model, thousand(rows), family="linear", framework="sklearn")
    native = runtimes.get("native")
    assert "ONNX form only" in str(
        native.refusal(case.info.model_copy(update={"framework": "onnx"}))
    )
    half = case.info.model_copy(update={"runtime": RuntimeChoice(precision="bf16")})
    assert "f32" in str(native.refusal(half))


def test_says_which_package_is_missing(
    conformance: ModuleType,
    make_case: Any,
    thousand: Repeat,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
    case = make_case(tmp_path / "m", model, thousand(rows), family="linear", framework="sklearn")
    conformance.check_missing(case, "sklearn", "sklearn", monkeypatch)


def test_an_unknown_runtime_is_named() -> None:
    with pytest.raises(InvalidInput, match="onnxruntime"):
        runtimes.get("tensorflow")


def _data(kind: str) -> tuple[np.ndarray, np.ndarray]:
    load = {"binary": load_breast_cancer, "multiclass": load_digits, "regression": load_diabetes}
    rows, labels = load[kind](return_X_y=True)
    return rows.astype(np.float32), labels
