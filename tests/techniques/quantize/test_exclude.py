"""The step `quantize` with `exclude: auto`."""

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput
from trimgate.models.directory import read, seal, writing
from trimgate.techniques import Context, parse_step
from trimgate.techniques.quantize import TECHNIQUE, QuantizeConfig
from trimgate.techniques.quantize._exclude import signal_to_noise

Data = tuple[Dataset, Dataset]


def _with_outlier(source: Path, out: Path) -> tuple[Path, str]:
    """The same function, but one product reads values of which one column is enormous.

    Between the first two products of a network, one column times a million and its weights by as
    much smaller: with one scale for the tensor, all other columns round to nothing.
    """
    model = onnx.load(source / "model.onnx")
    graph = model.graph
    values = {t.name: t for t in graph.initializer}
    products = [n for n in graph.node if n.op_type == "MatMul" and n.input[1] in values]
    second = products[1]
    weight = onnx.numpy_helper.to_array(values[second.input[1]]).copy()
    factors = np.ones(weight.shape[0], dtype=np.float32)
    factors[0] = 1e5
    weight[0] /= 1e5
    values[second.input[1]].CopyFrom(onnx.numpy_helper.from_array(weight, second.input[1]))
    graph.initializer.append(onnx.numpy_helper.from_array(factors, "factors"))
    scaled = onnx.helper.make_node("Mul", [second.input[0], "factors"], ["scaled"], name="scaling")
    second.input[0] = "scaled"
    graph.node.insert(list(graph.node).index(second), scaled)
    with writing(out) as partial:
        onnx.save(model, partial / "model.onnx")
        seal(partial, read(source).model_copy(update={"framework": "onnx"}))
    return out, second.name


@pytest.fixture(scope="module")
def spoilt(mlp: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return _with_outlier(mlp, tmp_path_factory.mktemp("spoilt") / "model")


def test_the_layer_that_hurts_is_left_out(
    spoilt: tuple[Path, str], table_data: Data, context: Any, conformance: ModuleType,
    tmp_path: Path,
) -> None:  # fmt: skip
    source, layer = spoilt
    config = QuantizeConfig(exclude="auto", tolerance=0.01)
    info = conformance.check(TECHNIQUE, config, source, context(table_data), tmp_path)
    note = info.notes["quantize"]
    found = note["exclusion"]
    assert found["excluded"] == [layer]
    assert next(iter(found["sensitivity_db"])) == layer
    assert len(found["sensitivity_db"]) == 3
    assert found["within_tolerance"]
    assert found["metric_by_excluded"]["0"] < found["metric_float"] - 0.01
    assert note["nodes"] == {"MatMul": 2}


def test_nothing_is_left_out_where_nothing_hurts(
    mlp: Path, table_data: Data, context: Any, tmp_path: Path
) -> None:
    config = QuantizeConfig(exclude="auto", tolerance=0.02)
    info = TECHNIQUE.apply(mlp, tmp_path / "q", config, context(table_data))
    found = info.notes["quantize"]["exclusion"]
    assert found["excluded"] == []
    assert set(found["metric_by_excluded"]) == {"0"}
    plain = TECHNIQUE.apply(mlp, tmp_path / "p", QuantizeConfig(), context(table_data))
    assert plain.files["model.onnx"] == info.files["model.onnx"]


def test_no_more_than_allowed_are_left_out(
    spoilt: tuple[Path, str], table_data: Data, context: Any, tmp_path: Path
) -> None:
    config = QuantizeConfig(exclude="auto", tolerance=0.0, max_excluded=0.1)
    info = TECHNIQUE.apply(spoilt[0], tmp_path / "q", config, context(table_data))
    found = info.notes["quantize"]["exclusion"]
    assert found["excluded"] == []
    assert not found["within_tolerance"]


@pytest.mark.parametrize("scheme", ["dynamic-int8", "weight-only", "static-int8"])
def test_on_a_transformer(
    scheme: str, text_onnx: Path, text_context: Context, conformance: ModuleType, tmp_path: Path
) -> None:
    config = QuantizeConfig(scheme=scheme, exclude="auto")
    info = conformance.check(TECHNIQUE, config, text_onnx, text_context, tmp_path)
    found = info.notes["quantize"]["exclusion"]
    assert len(found["sensitivity_db"]) == 20
    ranks = list(found["sensitivity_db"].values())
    assert ranks == sorted(ranks)
    assert sum(info.notes["quantize"]["nodes"].values()) == 20 - len(found["excluded"])


def test_auto_is_for_some_schemes() -> None:
    for step in (
        {"scheme": "fp16", "exclude": "auto"},
        {"scheme": "qat-int8", "exclude": "auto"},
        {"quantizer": "nncf", "exclude": "auto"},
        {"quantizer": "nncf", "scheme": "dynamic-int8"},
        {"quantizer": "nncf", "method": "entropy"},
        {"exclude": "Conv"},
    ):
        with pytest.raises(InvalidInput, match="quantize"):
            parse_step({"technique": "quantize", **step})


@settings(max_examples=50)
@given(
    values=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20),
    noise=st.floats(1e-6, 1e3),
)
def test_signal_to_noise(values: list[float], noise: float) -> None:
    wanted = np.array(values)
    assert signal_to_noise(wanted, wanted) == 200
    found = signal_to_noise(wanted, wanted + noise)
    expected = np.linalg.norm(wanted) / (noise * math.sqrt(len(values)))
    if 1e-9 < expected < 1e9:
        assert found == pytest.approx(20 * math.log10(expected), abs=1e-3)
    assert signal_to_noise(wanted, wanted * np.nan) == -200
