"""The step `quantize` with the quantizer `nncf`."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from trimgate import runtimes
from trimgate.data.dataset import Dataset
from trimgate.models import build_inputs
from trimgate.models.directory import RuntimeChoice, read, seal, writing
from trimgate.techniques import Context
from trimgate.techniques.quantize import TECHNIQUE, QuantizeConfig, _technique

pytest.importorskip("nncf", reason="the extra nncf is not installed")

Data = tuple[Dataset, Dataset]


def _accuracy(directory: Path, rows: Dataset) -> float:
    session = runtimes.load(directory)
    scores = session.predict(build_inputs(session.info, rows.features))
    return float(np.mean(np.array(session.info.labels)[scores.argmax(axis=1)] == rows.labels))


def _on_openvino(directory: Path, out: Path) -> Path:
    info = read(directory)
    with writing(out) as partial:
        for name in info.files:
            (partial / name).write_bytes((directory / name).read_bytes())
        seal(partial, info.model_copy(update={"runtime": RuntimeChoice(name="openvino")}))
    return out


def test_a_convolutional_network_in_both_engines(
    cnn: Path, digits_data: Data, context: Any, conformance: ModuleType, tmp_path: Path
) -> None:
    config = QuantizeConfig(quantizer="nncf", rows=64)
    info = conformance.check(TECHNIQUE, config, cnn, context(digits_data), tmp_path)
    note = info.notes["quantize"]
    assert note["quantizer"] == "nncf"
    assert note["nodes"] == {"Conv": 2, "Gemm": 1}
    assert note["integer_operators"]["QLinearConv"] == 2
    assert info.size < read(cnn).size
    rows = digits_data[1]
    for made in (tmp_path / "first", _on_openvino(tmp_path / "first", tmp_path / "openvino")):
        assert _accuracy(made, rows) > _accuracy(cnn, rows) - 0.02


@pytest.mark.parametrize("smooth", [None, 0.5])
def test_a_transformer_in_both_engines(
    smooth: float | None, text_onnx: Path, text_context: Context, conformance: ModuleType,
    tmp_path: Path,
) -> None:  # fmt: skip
    config = QuantizeConfig(quantizer="nncf", rows=64, smooth_quant=smooth)
    info = conformance.check(TECHNIQUE, config, text_onnx, text_context, tmp_path)
    note = info.notes["quantize"]
    assert sum(note["nodes"].values()) == 20
    # the head's tiny products stay in float on ONNX Runtime
    assert sum(note["integer_operators"].values()) >= 18
    rows = text_context.validation
    for made in (tmp_path / "first", _on_openvino(tmp_path / "first", tmp_path / "openvino")):
        assert _accuracy(made, rows) > _accuracy(text_onnx, rows) - 0.03


def test_weights_are_stored_as_integers(
    cnn: Path, digits_data: Data, context: Any, tmp_path: Path
) -> None:
    config = QuantizeConfig(quantizer="nncf", rows=16, exclude=("Gemm",))
    info = TECHNIQUE.apply(cnn, tmp_path / "q", config, context(digits_data))
    assert info.notes["quantize"]["nodes"] == {"Conv": 2}
    graph = onnx.load(tmp_path / "q" / "model.onnx").graph
    kinds = [t.data_type for t in graph.initializer if len(t.dims) == 4]
    assert kinds == [onnx.TensorProto.INT8] * 2


def test_nothing_is_reported_to_anyone(
    cnn: Path, digits_data: Data, context: Any, tmp_path: Path
) -> None:
    """With its telemetry hidden nncf takes a stub; the module is as it was afterwards."""
    before = sys.modules.get("openvino_telemetry")
    config = QuantizeConfig(quantizer="nncf", rows=8)
    TECHNIQUE.apply(cnn, tmp_path / "q", config, context(digits_data))
    assert sys.modules.get("openvino_telemetry") is before
    from nncf.telemetry.wrapper import NNCFTelemetryStub, telemetry

    assert isinstance(telemetry, NNCFTelemetryStub)


def test_is_refused_where_it_is_not_installed(
    cnn: Path, digits_data: Data, context: Any, conformance: ModuleType, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(_technique, "_has_nncf", lambda: False)
    config = QuantizeConfig(quantizer="nncf")
    words = conformance.check_refusal(TECHNIQUE, config, cnn, context(digits_data), tmp_path)
    assert "extra: nncf" in words
