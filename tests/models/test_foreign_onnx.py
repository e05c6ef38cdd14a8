"""ONNX files that others made."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput
from trimgate.models import ModelSource, build_inputs, feature_names, import_model, to_scores
from trimgate.models.directory import ONNX_FILE, ModelInfo
from trimgate.models.export import run_onnx


def bring(proto: Any, data: Dataset, tmp_path: Path, **more: Any) -> ModelInfo:
    file = tmp_path / "m.onnx"
    file.write_bytes(proto.SerializeToString())
    return import_model(ModelSource(path=file, **more), data, tmp_path / "out")


def scores(info: ModelInfo, data: Dataset, tmp_path: Path) -> Any:
    raw = run_onnx(tmp_path / "out" / ONNX_FILE, info, build_inputs(info, data.features))
    return to_scores(raw, info)


def matrix(data: Dataset) -> Any:
    return np.stack(list(data.features.values()), axis=1)


def dense(batch: Any, *, reshape: bool = False, mean: bool = False, columns: int = 2) -> Any:
    """A small network on four numbers, optionally with a batch that is written into it."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.normal(size=(4, columns)).astype(np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"])]
    constants = [weight]
    last = "m"
    if reshape:
        shape = np.array([batch, columns], dtype=np.int64)
        constants.append(numpy_helper.from_array(shape, "s"))
        nodes.append(helper.make_node("Reshape", [last, "s"], ["r"]))
        last = "r"
    if mean:
        nodes.append(helper.make_node("ReduceMean", [last], ["mean"], keepdims=1))
        nodes.append(helper.make_node("Sub", [last, "mean"], ["centred"]))
        last = "centred"
    nodes.append(helper.make_node("Identity", [last], ["out"]))
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, columns])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("zipmap", [True, False])
def test_sklearn_export_with_text_labels(zipmap: bool, iris: Dataset, tmp_path: Path):
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(5, random_state=0).fit(matrix(iris), iris.labels)
    proto = to_onnx(
        model, matrix(iris)[:1].astype(np.float32), options={id(model): {"zipmap": zipmap}}
    )
    info = bring(proto, iris, tmp_path)
    assert info.framework == "onnx"
    assert info.runtime.name == "onnxruntime"
    assert (info.task, info.family, info.score_kind) == ("multiclass", "trees", "probability")
    assert info.labels == ("setosa", "versicolor", "virginica")
    found = scores(info, iris, tmp_path)
    assert (found.argmax(axis=1) == model.predict_proba(matrix(iris)).argmax(axis=1)).mean() > 0.98


def test_regression(diabetes: Dataset, tmp_path: Path):
    from skl2onnx import to_onnx
    from sklearn.linear_model import Ridge

    model = Ridge().fit(matrix(diabetes), diabetes.labels)
    info = bring(to_onnx(model, matrix(diabetes)[:1]), diabetes, tmp_path)
    assert (info.task, info.score_kind, info.labels) == ("regression", "value", ())
    assert info.inputs[0].dtype == "float64"
    np.testing.assert_allclose(
        scores(info, diabetes, tmp_path), model.predict(matrix(diabetes)), rtol=1e-5
    )


def test_one_input_per_column(mixed: Dataset, tmp_path: Path):
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    keep = np.array([v is not None for v in mixed.features["city of"]])
    part = mixed.take(keep)
    data = Dataset({n: part.features[n] for n in ("city of", "scores")}, part.labels)
    columns = ColumnTransformer([("c", OneHotEncoder(), [0]), ("n", StandardScaler(), [1])])
    model = make_pipeline(columns, LogisticRegression()).fit(
        np.stack(list(data.features.values()), axis=1), data.labels
    )
    proto = convert_sklearn(
        model,
        initial_types=[
            ("city_of", StringTensorType([None, 1])),
            ("scores", FloatTensorType([None, 1])),
        ],
    )
    info = bring(proto, data, tmp_path)
    assert [(i.name, i.dtype, i.features) for i in info.inputs] == [
        ("city_of", "string", ("city of",)),
        ("scores", "float32", ("scores",)),
    ]
    other = Dataset(
        {"city of": data.features["city of"], "score": data.features["scores"]}, data.labels
    )
    with pytest.raises(InvalidInput, match=r"lacks scores.*does not know score"):
        bring(proto, other, tmp_path / "other")


@pytest.fixture
def flowers(iris: Dataset) -> Dataset:
    """The first two kinds of iris."""
    return iris.take(slice(0, 100))


def test_logits_and_labels_of_the_data(flowers: Dataset, tmp_path: Path):
    info = bring(dense("rows"), flowers, tmp_path)
    assert (info.score_kind, info.labels) == ("logit", ("setosa", "versicolor"))
    assert info.inputs[0].no_nan == tuple(flowers.features)


@pytest.mark.parametrize("reshape", [False, True])
def test_fixed_batch_is_freed(reshape: bool, flowers: Dataset, tmp_path: Path):
    info = bring(dense(4, reshape=reshape), flowers, tmp_path)
    assert info.inputs[0].shape == (-1, 4)
    bring(dense("rows"), flowers, tmp_path / "free")
    free = scores(info, flowers, tmp_path / "free")
    np.testing.assert_allclose(scores(info, flowers, tmp_path), free, rtol=1e-6)


def test_rows_that_depend_on_each_other_are_refused(flowers: Dataset, tmp_path: Path):
    with pytest.raises(InvalidInput, match="comes with other rows"):
        bring(dense("rows", mean=True), flowers, tmp_path)
    assert not (tmp_path / "out").exists()


def test_width_that_differs(cancer: Dataset, tmp_path: Path):
    with pytest.raises(InvalidInput, match="takes 4 columns, and the data has 30"):
        bring(dense("rows"), cancer, tmp_path)


def test_scores_that_do_not_fit_the_labels(iris: Dataset, tmp_path: Path):
    with pytest.raises(InvalidInput, match="2 scores a row, and the data has 3 classes"):
        bring(dense("rows"), iris, tmp_path)


def test_output_must_exist(flowers: Dataset, tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"score_output = 'nope'.*it has out"):
        bring(dense("rows"), flowers, tmp_path, score_output="nope")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    for name in ("other", "free"):
        (tmp_path / name).mkdir()


def test_names_of_the_inputs_are_those_of_the_data(tmp_path: Path):
    from onnx import TensorProto, helper, numpy_helper

    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 1])
        for name in ("income_value", "age")
    ]
    # graphs before IR version 4 list their constants among the inputs
    constant = helper.make_tensor_value_info("w", TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["income_value", "age"], ["sum"]),
            helper.make_node("Mul", ["sum", "w"], ["y"]),
        ],
        "old",
        [*inputs, constant],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=3)
    file = tmp_path / "m.onnx"
    file.write_bytes(model.SerializeToString())
    source = ModelSource(path=file)
    assert feature_names(source) == ["income_value", "age"]
    assert feature_names(source, ["age", "income value", "id"]) == ["income value", "age"]
