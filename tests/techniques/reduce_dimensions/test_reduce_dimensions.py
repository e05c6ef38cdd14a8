"""Components in place of columns, inside the served model."""

import contextlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from trimgate import runtimes, techniques
from trimgate.errors import InvalidInput
from trimgate.models import build_inputs, directory, load_trainable
from trimgate.techniques import Context, StepConfig
from trimgate.techniques.reduce_dimensions import TECHNIQUE, ReduceDimensionsConfig
from trimgate.training import FinetuneConfig, estimator_scores, grid

TUNE = FinetuneConfig(epochs=3, learning_rate=3e-3)


def check_served(path: Path, context: Context) -> onnx.ModelProto:
    """The ONNX form takes the original row and says what the trained model says."""
    info = directory.read(path)
    export = techniques.get("optimize_graph")
    step = techniques.parse_step({"technique": "optimize_graph"})
    out = path.with_name(f"{path.name}-served")
    made = export.apply(path, out, step, context)
    assert [s.name for s in made.inputs] == [s.name for s in info.inputs]
    assert made.features == info.features
    parity = made.notes["optimize_graph"]["parity"]
    assert parity["agreement"] == 1.0
    rows = context.validation.features
    with (
        contextlib.closing(runtimes.load(out)) as served,
        contextlib.closing(runtimes.load(path)) as native,
    ):
        np.testing.assert_allclose(
            served.predict(build_inputs(made, rows)),
            native.predict(build_inputs(info, rows)),
            atol=1e-4,
        )
    return onnx.load(out / directory.ONNX_FILE)


NUMERIC: dict[str, Any] = {
    "scaled pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "bare estimator": lambda: LogisticRegression(max_iter=5000),
    "neighbours": lambda: make_pipeline(StandardScaler(), KNeighborsClassifier(9)),
    "support vectors": lambda: make_pipeline(
        StandardScaler(), SVC(probability=True, random_state=0)
    ),
    "bare trees": lambda: RandomForestClassifier(20, random_state=0),
    "xgboost in a pipeline": lambda: make_pipeline(
        StandardScaler(), xgboost.XGBClassifier(n_estimators=9, max_depth=3, n_jobs=1)
    ),
}


@pytest.mark.filterwarnings("ignore:.*probability.*:FutureWarning")
@pytest.mark.parametrize("name", NUMERIC)
def test_numbers(
    name: str, cancer: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    source = bring(NUMERIC[name]().fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    # trees cut along the columns, and components lie across them: too much is lost for `auto`
    trees = name in ("bare trees", "xgboost in a pipeline")
    config = ReduceDimensionsConfig(tolerance=0.02, components=8 if trees else "auto")
    info = conformance.check(TECHNIQUE, config, source, cancer, tmp_path)
    notes = info.notes["reduce_dimensions"]
    assert notes["method"] == "pca"
    assert notes["columns_after"] < notes["columns_before"] == 30
    assert trees or notes["metric_at_worst"] >= notes["metric_before"] - 0.02 - 1e-9
    # columns of very different scales are brought to one, scaled ones are left alone
    assert notes["scaled"] == name.startswith("bare")
    steps = [step for step, _ in load_trainable(tmp_path / "first", info).steps]
    assert steps[-2] == "reduce_dimensions"
    if name != "support vectors":
        check_served(tmp_path / "first", cancer)


def test_strings_and_gaps(mixed: Context, bring: Any, conformance: Any, tmp_path: Path) -> None:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    model = make_pipeline(
        ColumnTransformer(
            [
                (
                    "text",
                    OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                    ["city", "noise_text"],
                ),
                ("numbers", numbers, ["noise_1", "age", "signal", "noise_2"]),
            ]
        ),
        LogisticRegression(),
    )
    source = bring(model.fit(mixed.train.frame(), mixed.train.labels), mixed.train)
    config = ReduceDimensionsConfig(components=0.95, picture=True)
    info = conformance.check(TECHNIQUE, config, source, mixed, tmp_path)
    notes = info.notes["reduce_dimensions"]
    assert notes["explained_variance"] >= 0.95
    assert not notes["imputed"]
    assert len(notes["picture"]["x"]) == len(mixed.validation)
    assert notes["picture"]["groups"] == ["no", "yes"]
    check_served(tmp_path / "first", mixed)


def test_sparse_columns_take_truncated_svd(
    cities: Context, bring: Any, conformance: Any, tmp_path: Path
) -> None:
    model = make_pipeline(
        ColumnTransformer(
            [("text", OneHotEncoder(handle_unknown="ignore"), ["city", "shop"])],
            sparse_threshold=1.0,
        ),
        LogisticRegression(C=0.5),
    )
    source = bring(model.fit(cities.train.frame(), cities.train.labels), cities.train)
    config = ReduceDimensionsConfig(components=40)
    info = conformance.check(TECHNIQUE, config, source, cities, tmp_path)
    notes = info.notes["reduce_dimensions"]
    assert notes["method"] == "truncated_svd"
    assert (notes["columns_before"], notes["columns_after"]) == (60, 40)
    check_served(tmp_path / "first", cities)
    dense = ReduceDimensionsConfig(method="pca", components=3)
    words = conformance.check_refusal(TECHNIQUE, dense, source, cities, tmp_path)
    assert "use truncated_svd" in words


def test_gaps_that_an_estimator_takes_are_filled(
    cancer: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = HistGradientBoostingClassifier(max_iter=10, random_state=0)
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    assert not directory.read(source).inputs[0].no_nan
    config = ReduceDimensionsConfig(components=5)
    info = conformance.check(TECHNIQUE, config, source, cancer, tmp_path)
    assert info.notes["reduce_dimensions"]["imputed"]
    gaps = {
        n: np.where(np.arange(len(v)) % 3 == 0, np.nan, v)
        for n, v in cancer.validation.features.items()
    }
    trained = load_trainable(tmp_path / "first", info)
    rows = type(cancer.validation)(gaps, cancer.validation.labels)
    assert np.isfinite(estimator_scores(trained, info, rows)).all()
    odd = {**cancer.validation.features, "mean radius": np.full(len(rows), np.inf)}
    with pytest.raises(InvalidInput, match="infinite"):
        build_inputs(info, odd)


@pytest.mark.parametrize("components", [3, 0.6, "auto"])
def test_regression(
    components: Any, diabetes: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = make_pipeline(StandardScaler(), Ridge())
    source = bring(model.fit(matrix(diabetes.train), diabetes.train.labels), diabetes.train)
    pictured = components == 3
    config = ReduceDimensionsConfig(components=components, tolerance=0.05, picture=pictured)
    info = conformance.check(TECHNIQUE, config, source, diabetes, tmp_path)
    notes = info.notes["reduce_dimensions"]
    if components == 3:
        assert notes["columns_after"] == 3
    if components == 0.6:
        assert notes["explained_variance"] >= 0.6
    if pictured:
        assert set(notes["picture"]["group"]) == {0, 1, 2, 3}
    check_served(tmp_path / "first", diabetes)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("net", ["mlp", "normed"])
def test_networks(
    net: str, whiten: bool, cancer: Context, bring_module: Any, conformance: Any, tmp_path: Path
) -> None:
    source = bring_module(net, cancer, features=30, hidden=64)
    config = ReduceDimensionsConfig(components=6, whiten=whiten, finetune=TUNE)
    info = conformance.check(TECHNIQUE, config, source, cancer, tmp_path)
    notes = info.notes["reduce_dimensions"]
    assert notes["metric_after"] > notes["metric_before"] - 0.05
    assert notes["layer"] == {"mlp": "0", "normed": "1.0"}[net]
    proto = check_served(tmp_path / "first", cancer)
    shapes = {tuple(sorted(t.dims)) for t in proto.graph.initializer}
    assert (30, 64) not in shapes, "the wide layer is still there"


def test_a_network_keeps_what_the_components_keep(
    cancer: Context, bring_module: Any, tmp_path: Path
) -> None:
    """With no fine-tuning and nearly all components the answers are nearly those of before."""
    source = bring_module("mlp", cancer, features=30, hidden=640)
    still = FinetuneConfig(epochs=0)
    config = ReduceDimensionsConfig(components=28, finetune=still, whiten=True)
    info = TECHNIQUE.apply(source, tmp_path / "out", config, cancer)
    notes = info.notes["reduce_dimensions"]
    assert notes["explained_variance"] > 0.9999
    assert notes["metric_after"] == pytest.approx(notes["metric_before"], abs=0.005)


def test_after_select_features(cancer: Context, bring: Any, matrix: Any, tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression())
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    select = techniques.get("select_features")
    step = techniques.parse_step({"technique": "select_features", "keep": 12})
    chosen = select.apply(source, tmp_path / "selected", step, cancer)
    info = TECHNIQUE.apply(
        tmp_path / "selected", tmp_path / "out", ReduceDimensionsConfig(components=4), cancer
    )
    assert info.unused_features == chosen.unused_features
    assert info.notes["reduce_dimensions"]["columns_before"] == 12
    check_served(tmp_path / "out", cancer)


def test_what_components_cannot_stand_before(
    cancer: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    numbers = itertools.count()

    def words(model: Any, **said: Any) -> str:
        source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
        config = ReduceDimensionsConfig(components=3, **said)
        found: str = conformance.check_refusal(TECHNIQUE, config, source, cancer, tmp_path)
        source.rename(tmp_path / f"source-{next(numbers)}")
        return found

    assert "MultinomialNB" in words(make_pipeline(MinMaxScaler(), MultinomialNB()))
    bound = HistGradientBoostingClassifier(max_iter=3, monotonic_cst=[0] * 29 + [1])
    assert "monotonic_cst" in words(bound)
    assert "last step of a scikit-learn pipeline" in words(
        xgboost.XGBClassifier(n_estimators=2, n_jobs=1)
    )
    assert "whitened" in words(
        LogisticRegression(max_iter=3000), method="truncated_svd", whiten=True
    )
    forest = RandomForestClassifier(10, random_state=0)
    source = bring(forest.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    for config, said in (
        (ReduceDimensionsConfig(components=30), "at most 29 components"),
        (ReduceDimensionsConfig(tolerance=0.0, confidence=0.99), "99% one-sided confidence"),
    ):
        assert said in conformance.check_refusal(TECHNIQUE, config, source, cancer, tmp_path)


def test_tsne_is_no_stage() -> None:
    for name in ("tsne", "t-SNE"):
        with pytest.raises(InvalidInput, match="no formula for a new one") as caught:
            techniques.parse_step({"technique": "reduce_dimensions", "method": name})
        assert "picture: true" in str(caught.value)


def test_orders_that_make_no_sense() -> None:
    def step(name: str) -> StepConfig:
        return techniques.parse_step({"technique": name})

    once = ReduceDimensionsConfig()
    assert TECHNIQUE.order_problem(once, []) is None
    assert "already" in (TECHNIQUE.order_problem(once, [once]) or "")
    assert "undoes prune" in (TECHNIQUE.order_problem(once, [step("prune")]) or "")
    select = techniques.get("select_features")
    assert "select_features first" in (select.order_problem(step("select_features"), [once]) or "")


@pytest.mark.parametrize("components", [0, -1, 1.0, 0.0, "some", True])
def test_config_refuses_nonsense(components: Any) -> None:
    with pytest.raises(ValidationError):
        ReduceDimensionsConfig(components=components)


@given(st.integers(2, 5000))
def test_grid_stays_below_the_number(count: int) -> None:
    assert all(1 <= size < count for size in grid(count))
