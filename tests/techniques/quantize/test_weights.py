"""Rounding of weights: how far it may be off, and odd graphs."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from trimgate import runtimes
from trimgate.data.dataset import Dataset
from trimgate.models import build_inputs
from trimgate.models.directory import ModelInfo, RuntimeChoice, TensorSpec, read, seal, writing
from trimgate.techniques.quantize import TECHNIQUE, QuantizeConfig
from trimgate.techniques.quantize._graph import Prepared
from trimgate.techniques.quantize._weights import WeightQuantizer, quantize_rows

Data = tuple[Dataset, Dataset]


def _tables() -> st.SearchStrategy[np.ndarray]:
    def make(seed: int, rows: int, columns: int, scale: float) -> np.ndarray:
        found = np.random.default_rng(seed).normal(0, scale, (rows, columns))
        found[0] = 0
        return found.astype(np.float32)

    return st.builds(
        make,
        st.integers(0, 2**32 - 1),
        st.integers(1, 20),
        st.integers(1, 20),
        st.sampled_from([1e-6, 1e-2, 1.0, 1e4]),
    )


@settings(max_examples=60)
@given(_tables())
def test_rows_are_off_by_half_a_step_at_most(table: np.ndarray) -> None:
    rounded, scales = quantize_rows(table)
    assert rounded.dtype == np.int8
    assert scales.shape == (len(table), 1)
    assert (np.abs(rounded * scales - table) <= scales / 2 * (1 + 1e-4)).all()


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    bits=st.sampled_from([4, 8]),
    block=st.sampled_from([16, 32, 64]),
    symmetric=st.booleans(),
)
def test_blocks_are_off_by_half_a_step_at_most(
    tmp_path_factory: pytest.TempPathFactory, seed: int, bits: int, block: int, symmetric: bool
) -> None:
    """Unit rows through `MatMulNBits` give its weights back, as ONNX Runtime reads them."""
    folder = tmp_path_factory.mktemp("blocks")
    weight = np.random.default_rng(seed).normal(0, 1, (64, 8)).astype(np.float32)
    path = _product(folder / "plain.onnx", weight)
    prepared = Prepared(path, ("product",), ())
    WeightQuantizer(prepared, bits, block, symmetric).write([], folder / "q.onnx")
    graph = onnx.load(folder / "q.onnx")
    node = graph.graph.node[0]
    # 8-bit activations would add their own rounding
    kept = [a for a in node.attribute if a.name != "accuracy_level"]
    del node.attribute[:]
    node.attribute.extend(kept)
    import onnxruntime as ort

    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"rows": np.eye(64, dtype=np.float32)})[0]
    blocks = weight.reshape(64 // block, block, 8)
    low, high = np.minimum(blocks.min(1), 0), np.maximum(blocks.max(1), 0)
    off = np.abs(found - weight).reshape(blocks.shape)
    if symmetric:
        # the largest value is the lowest integer, which has no opposite
        extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
        step = np.abs(extreme) / 2 ** (bits - 1)
        beyond = blocks / (-np.sign(extreme) * step) - (2 ** (bits - 1) - 1)
        allowed = step * np.maximum(beyond, 0.5)
    else:
        # the zero point is rounded too
        allowed = ((high - low) / (2**bits - 1))[:, None]
    assert (off <= allowed + 1e-4).all()


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), per_channel=st.booleans(), reduced=st.booleans())
def test_static_weights_are_off_by_half_a_step_at_most(
    tmp_path_factory: pytest.TempPathFactory, context: Any, seed: int, per_channel: bool,
    reduced: bool,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("static")
    generator = np.random.default_rng(seed)
    weight = (generator.normal(size=(64, 8)) * generator.uniform(0.01, 10, 8)).astype(np.float32)
    source = _directory(folder / "source", weight)
    config = QuantizeConfig(per_channel=per_channel, reduce_range=reduced)
    data = _rows(generator.normal(size=(40, 64)).astype(np.float32))
    TECHNIQUE.apply(source, folder / "q", config, context(data))
    values = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load(folder / "q" / "model.onnx").graph.initializer
    }
    rounded, scale = values["weight_quantized"], values["weight_scale"]
    assert scale.shape == ((8,) if per_channel else ())
    assert np.abs(rounded.astype(int)).max() <= (64 if reduced else 127)
    assert (np.abs(rounded * scale - weight) <= scale * 0.5001).all()


def _product(path: Path, weight: np.ndarray, bias: bool = False, **changes: Any) -> Path:
    """`scores = rows @ weight`, optionally through Gemm."""
    node = helper.make_node(
        "Gemm" if bias else "MatMul",
        ["rows", "weight", *(["bias"] if bias else [])],
        ["scores"],
        name="product",
    )
    values = [numpy_helper.from_array(weight, "weight")]
    if bias:
        values.append(numpy_helper.from_array(np.zeros(weight.shape[1], np.float32), "bias"))
    batch = changes.get("batch")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [batch, weight.shape[0]])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, weight.shape[1]])],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.save(model, path, **changes.get("saved", {}))
    return path


_NAMES = tuple(f"c{i}" for i in range(64))


def _directory(out: Path, weight: np.ndarray, **changes: Any) -> Path:
    info = ModelInfo(
        name="product",
        task="multiclass",
        family="mlp",
        framework="onnx",
        inputs=(TensorSpec(name="rows", dtype="float32", shape=(-1, 64), features=_NAMES),),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=(-1, 8)),),
        score_output="scores",
        score_kind="logit",
        labels=tuple(range(8)),
        features=_NAMES,
        runtime=RuntimeChoice(name="onnxruntime"),
    )
    with writing(out) as partial:
        _product(partial / "model.onnx", weight, **changes)
        seal(partial, info)
    return out


def _rows(values: np.ndarray) -> Data:
    rows = Dataset(dict(zip(_NAMES, values.T, strict=True)), np.arange(len(values)) % 8)
    return rows, rows


@pytest.fixture
def weight() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(80, 64)).astype(np.float32)


_INT8 = ("static-int8", "dynamic-int8", "weight-only")


@pytest.mark.parametrize("scheme", [*_INT8, "fp16"])
def test_weights_outside_the_file(
    scheme: str, weight: np.ndarray, values: np.ndarray, context: Any, conformance: ModuleType,
    tmp_path: Path,
) -> None:  # fmt: skip
    saved = {"save_as_external_data": True, "location": "model.onnx.data", "size_threshold": 0}
    source = _directory(tmp_path / "source", weight, saved=saved)
    assert "model.onnx.data" in read(source).files
    config = QuantizeConfig(scheme=scheme)
    info = conformance.check(TECHNIQUE, config, source, context(_rows(values)), tmp_path)
    assert list(info.files) == ["model.onnx"]


@pytest.mark.parametrize("scheme", _INT8)
def test_constant_features(
    scheme: str, weight: np.ndarray, values: np.ndarray, context: Any, tmp_path: Path
) -> None:
    for number, constant in enumerate((0.0, 3.0, -1e-30)):
        source = _directory(tmp_path / f"s{number}", weight)
        given = np.full_like(values, constant)
        data = _rows(given)
        for method in ("minmax", "entropy", "percentile"):
            out = tmp_path / f"{number}-{method}"
            config = QuantizeConfig(scheme=scheme, method=method)
            TECHNIQUE.apply(source, out, config, context(data))
            session = runtimes.load(out)
            scores = session.predict(build_inputs(session.info, data[1].features))
            expected = runtimes.load(source).predict(build_inputs(read(source), data[1].features))
            np.testing.assert_allclose(scores, expected, atol=0.12)


@pytest.mark.parametrize("scheme", [*_INT8, "fp16"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_weights_that_are_not_finite(
    scheme: str, wrong: float, weight: np.ndarray, values: np.ndarray, context: Any,
    conformance: ModuleType, tmp_path: Path,
) -> None:  # fmt: skip
    weight[3, 3] = wrong
    source = _directory(tmp_path / "source", weight)
    config = QuantizeConfig(scheme=scheme)
    words = conformance.check_refusal(TECHNIQUE, config, source, context(_rows(values)), tmp_path)
    assert "weight" in words


def test_activations_that_are_not_finite(
    weight: np.ndarray, values: np.ndarray, context: Any, conformance: ModuleType, tmp_path: Path
) -> None:
    values[:] = np.inf
    source = _directory(tmp_path / "source", weight)
    data = _rows(values)
    words = conformance.check_refusal(TECHNIQUE, QuantizeConfig(), source, context(data), tmp_path)
    assert "is not finite on the training rows" in words


@pytest.mark.parametrize("scheme", _INT8)
def test_gemm_can_be_excluded_by_name_and_type(
    scheme: str, weight: np.ndarray, values: np.ndarray, context: Any, conformance: ModuleType,
    tmp_path: Path,
) -> None:  # fmt: skip
    source = _directory(tmp_path / "source", weight, bias=True)
    data = context(_rows(values))
    info = TECHNIQUE.apply(source, tmp_path / "q", QuantizeConfig(scheme=scheme), data)
    assert sum(info.notes["quantize"]["nodes"].values()) == 1
    for exclude in ("product", "Gemm"):
        config = QuantizeConfig(scheme=scheme, exclude=(exclude,))
        words = conformance.check_refusal(TECHNIQUE, config, source, data, tmp_path)
        assert "nothing to quantize" in words


def test_a_graph_that_is_quantized_already(
    weight: np.ndarray, values: np.ndarray, context: Any, conformance: ModuleType, tmp_path: Path
) -> None:
    """A foreign file has no recipe that says so."""
    source = _directory(tmp_path / "source", weight)
    data = context(_rows(values))
    TECHNIQUE.apply(source, tmp_path / "q", QuantizeConfig(), data)
    foreign = tmp_path / "foreign"
    with writing(foreign) as partial:
        (partial / "model.onnx").write_bytes((tmp_path / "q" / "model.onnx").read_bytes())
        seal(partial, read(source))
    words = conformance.check_refusal(TECHNIQUE, QuantizeConfig(), foreign, data, tmp_path)
    assert "quantized already" in words


def test_a_file_with_a_fixed_number_of_rows(
    weight: np.ndarray, values: np.ndarray, context: Any, tmp_path: Path
) -> None:
    """Brought in as a user's own ONNX file: its batch is freed there, and any number calibrates."""
    from trimgate.models import ModelSource, import_model

    file = _product(tmp_path / "fixed.onnx", weight, batch=1)
    data = _rows(values)
    import_model(ModelSource(path=file, scores="logit"), data[0], tmp_path / "source")
    for scheme in _INT8:
        config = QuantizeConfig(scheme=scheme)
        info = TECHNIQUE.apply(tmp_path / "source", tmp_path / scheme, config, context(data))
        assert sum(info.notes["quantize"]["nodes"].values()) == 1
