"""Outliers moved from activations to weights."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from trimgate.data.dataset import Dataset
from trimgate.models.directory import ModelInfo, TensorSpec
from trimgate.techniques import Context
from trimgate.techniques.quantize import TECHNIQUE, QuantizeConfig
from trimgate.techniques.quantize._calibrate import Calibration
from trimgate.techniques.quantize._graph import prepare
from trimgate.techniques.quantize._smooth import smooth, strength_of

_WIDTH = 24


def _graph(path: Path, generator: np.random.Generator, transposed: bool) -> Path:
    """Two products of one input and a Gemm behind them."""

    def random(*shape: int) -> np.ndarray:
        return generator.normal(size=shape).astype(np.float32)

    last = random(8, _WIDTH) if transposed else random(_WIDTH, 8)
    values = {"a": random(_WIDTH, _WIDTH), "b": random(_WIDTH, _WIDTH), "c": last, "d": random(8)}
    values["a"][2] = 0
    nodes = [
        helper.make_node("MatMul", ["rows", "a"], ["left"], name="left"),
        helper.make_node("MatMul", ["rows", "b"], ["right"], name="right"),
        helper.make_node("Add", ["left", "right"], ["sum"], name="sum"),
        helper.make_node("Tanh", ["sum"], ["hidden"], name="tanh"),
        helper.make_node(
            "Gemm", ["hidden", "c", "d"], ["scores"], name="last", transB=int(transposed)
        ),
    ]
    kinds = [("rows", _WIDTH), ("scores", 8)]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width])]
        for name, width in kinds
    )
    initializers = [numpy_helper.from_array(v, name) for name, v in values.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.save(model, path)
    return path


def _calibration(values: np.ndarray) -> Calibration:
    names = tuple(f"c{i}" for i in range(values.shape[1]))
    tensor = TensorSpec(name="rows", dtype="float32", shape=(-1, len(names)), features=names)
    info = ModelInfo(
        name="m", task="multiclass", family="transformer", framework="onnx", inputs=(tensor,)
    )
    rows = Dataset(dict(zip(names, values.T, strict=True)), np.zeros(len(values), np.int64))
    return Calibration(info, rows, "minmax", 100)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32 - 1),
    strength=st.floats(0.05, 1),
    transposed=st.booleans(),
)
def test_nothing_changes_in_floats(
    tmp_path_factory: pytest.TempPathFactory, seed: int, strength: float, transposed: bool
) -> None:
    folder = tmp_path_factory.mktemp("smooth")
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(20, _WIDTH)).astype(np.float32)
    values[:, 3] *= 300
    values[:, 5] = 0
    source = _graph(folder / "plain.onnx", generator, transposed)
    prepared = prepare(source, folder, ("Conv", "MatMul", "Gemm"))
    smoothed = smooth(prepared, folder, _calibration(values), strength)
    graph = onnx.load(smoothed.path).graph
    multiplied = [node for node in graph.node if node.op_type == "Mul"]
    assert len(multiplied) == 2, "one for the input of two products, one for the last"
    wanted, found = (
        ort.InferenceSession(str(p), providers=["CPUExecutionProvider"]).run(None, {"rows": values})
        for p in (source, smoothed.path)
    )
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-3, atol=1e-3)


def test_an_outlier_no_longer_spoils_the_other_columns(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(64, _WIDTH)).astype(np.float32)
    values[:, 3] *= 3000
    source = _graph(tmp_path / "plain.onnx", generator, False)
    prepared = prepare(source, tmp_path, ("Conv", "MatMul", "Gemm"))
    smoothed = smooth(prepared, tmp_path, _calibration(values), 0.7)
    graph = onnx.load(smoothed.path).graph
    made = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    even = values * made["rows.factors"]
    spread = [np.abs(v).max(0) for v in (values, even)]
    assert spread[1].max() / spread[1].min() < spread[0].max() / spread[0].min() / 20


def test_is_usual_for_transformers_only() -> None:
    assert strength_of(None, "cnn") == strength_of(None, "mlp") == 0
    assert strength_of(None, "transformer") > 0
    assert strength_of(0.0, "transformer") == 0
    assert strength_of(0.3, "cnn") == 0.3


def test_the_note_says_how_much(text_onnx: Path, text_context: Context, tmp_path: Path) -> None:
    def multiplications(name: str, **parameters: Any) -> int:
        config = QuantizeConfig(**parameters)
        info = TECHNIQUE.apply(text_onnx, tmp_path / name, config, text_context)
        expected = strength_of(config.smooth_quant, "transformer")
        assert info.notes["quantize"]["smooth_quant"] == expected
        graph = onnx.load(tmp_path / name / "model.onnx").graph
        return sum(node.op_type == "Mul" for node in graph.node)

    assert multiplications("usual") == multiplications("none", smooth_quant=0.0) + 4 * 3 + 2
