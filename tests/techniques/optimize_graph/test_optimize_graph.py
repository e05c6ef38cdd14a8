"""The technique optimize_graph on scikit-learn models."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from trimgate.data.dataset import Dataset
from trimgate.errors import NotApplicable
from trimgate.models import build_inputs, load_trainable, predict_native, to_scores
from trimgate.models.directory import ONNX_FILE, read
from trimgate.models.export import run_onnx, scores_of
from trimgate.targets import Target
from trimgate.techniques.optimize_graph import TECHNIQUE, OptimizeGraphConfig


def same_scores(source: Path, made: Path, data: Dataset) -> float:
    """Largest difference of a score between a native parent and its ONNX child."""
    parent, info = read(source), read(made)
    model = load_trainable(source, parent)
    expected = to_scores(predict_native(model, parent, build_inputs(parent, data.features)), parent)
    raw = run_onnx(made / ONNX_FILE, info, build_inputs(info, data.features))
    return float(np.abs(expected - scores_of(raw, info)).max())


def test_conformance_trees(make: Any, cancer: Dataset, tmp_path: Path, conformance: ModuleType):
    from sklearn.ensemble import HistGradientBoostingClassifier

    source, context = make(HistGradientBoostingClassifier(max_iter=10), cancer)
    info = conformance.check(TECHNIQUE, OptimizeGraphConfig(), source, context, tmp_path)
    assert info.runtime.name == "onnxruntime"
    assert info.notes["optimize_graph"]["parity"]["agreement"] == 1.0
    assert same_scores(source, tmp_path / "first", cancer) < 1e-6


def test_conformance_mixed_table(
    make: Any, mixed: Dataset, tmp_path: Path, conformance: ModuleType
):
    source, context = make(pipeline(), mixed, frame=True)
    info = conformance.check(TECHNIQUE, OptimizeGraphConfig(), source, context, tmp_path)
    assert [i.dtype for i in info.inputs] == ["string", "float32", "float32", "float32"]
    assert same_scores(source, tmp_path / "first", mixed) < 1e-5


def pipeline() -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    text = make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
    )
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = ColumnTransformer(
        [("text", text, ["city"]), ("numbers", numbers, ["age", "visits"])],
        remainder="passthrough",
    )
    return make_pipeline(columns, LogisticRegression())


def test_again_on_its_own_result_keeps_the_scores(
    make: Any, cancer: Dataset, tmp_path: Path, conformance: ModuleType
):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    source, context = make(make_pipeline(StandardScaler(), LogisticRegression()), cancer)
    TECHNIQUE.apply(source, tmp_path / "once", OptimizeGraphConfig(level="none"), context)
    info = conformance.check(
        TECHNIQUE, OptimizeGraphConfig(level="extended"), tmp_path / "once", context, tmp_path
    )
    assert [s["level"] for s in info.recipe] == ["none", "extended"]
    assert same_scores(source, tmp_path / "first", cancer) < 1e-5


def test_unconvertible_step_is_named(
    make: Any, cancer: Dataset, tmp_path: Path, conformance: ModuleType
):
    from sklearn.neighbors import NearestCentroid

    source, context = make(NearestCentroid(), cancer)
    words = conformance.check_refusal(TECHNIQUE, OptimizeGraphConfig(), source, context, tmp_path)
    assert "NearestCentroid" in words


def test_impossible_tolerance_is_refused(make: Any, cancer: Dataset, tmp_path: Path):
    from sklearn.linear_model import LogisticRegression

    source, context = make(LogisticRegression(max_iter=50), cancer)
    config = OptimizeGraphConfig(score_tolerance=1e-30, row_share=1.0)
    with pytest.raises(NotApplicable, match="another score"):
        TECHNIQUE.apply(source, tmp_path / "out", config, context)
    assert not (tmp_path / "out").exists()


def test_target_without_onnx_engine_is_refused(make: Any, cancer: Dataset, tmp_path: Path):
    from sklearn.tree import DecisionTreeClassifier

    source, _ = make(DecisionTreeClassifier(max_depth=3), cancer)
    target = Target(name="bare", runtimes=("native",))
    words = TECHNIQUE.refusal(read(source), OptimizeGraphConfig(), target)
    assert words is not None
    assert "bare" in words


def test_a_gpu_target_computes_on_the_gpu(make: Any, cancer: Dataset):
    from sklearn.tree import DecisionTreeClassifier

    from trimgate.targets import PROFILES
    from trimgate.techniques.optimize_graph._technique import _runtime

    source, _ = make(DecisionTreeClassifier(max_depth=3), cancer)
    info = read(source)
    assert _runtime(info, PROFILES["gpu"], OptimizeGraphConfig()).options == {"device": "gpu"}
    assert _runtime(info, PROFILES["cloud-cpu"], OptimizeGraphConfig()).options == {}


def test_conformance_foreign_onnx(cancer: Dataset, tmp_path: Path, conformance: ModuleType):
    """A model without a trainable form gets a leaner graph with the same scores."""
    from onnx import TensorProto, helper, numpy_helper

    from trimgate.models import ModelSource, import_model
    from trimgate.targets import PROFILES
    from trimgate.techniques import Context

    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=(30, 2)).astype(np.float32), name)
        for name in ("w", "v")
    ]
    nodes = [
        helper.make_node("Add", ["w", "v"], ["sum"]),
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("MatMul", ["y", "sum"], ["product"]),
        helper.make_node("Softmax", ["product"], ["p"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 30])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 2])],
        weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    source = tmp_path / "source"
    import_model(ModelSource(path=tmp_path / "m.onnx"), cancer, source)
    context = Context(
        train=cancer, validation=cancer, metric="accuracy", target=PROFILES["cloud-cpu"]
    )
    info = conformance.check(TECHNIQUE, OptimizeGraphConfig(), source, context, tmp_path)
    assert info.framework == "onnx"
    import onnx

    left = onnx.load(tmp_path / "first" / ONNX_FILE).graph.node
    assert [node.op_type for node in left] == ["MatMul", "Softmax"]


def test_trees_stay_standard_operators(make: Any, cancer: Dataset, tmp_path: Path):
    import onnx
    from sklearn.ensemble import RandomForestClassifier

    source, context = make(RandomForestClassifier(5), cancer)
    TECHNIQUE.apply(source, tmp_path / "out", OptimizeGraphConfig(), context)
    model = onnx.load(tmp_path / "out" / ONNX_FILE)
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx.ml"}
    assert {o.domain for o in model.opset_import} == {"", "ai.onnx.ml"}
    assert "TreeEnsembleRegressor" in {node.op_type for node in model.graph.node}
