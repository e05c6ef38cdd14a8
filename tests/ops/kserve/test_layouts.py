import numpy as np
import onnxruntime
import pytest
from ops.kserve.samples import linear_model

from trimgate.errors import InvalidInput
from trimgate.models.directory import Tokenizer, read
from trimgate.ops.kserve import openvino_arguments, write_layout
from trimgate.ops.kserve._layouts import _check

ROWS = np.array([[1, 2, 3, 4]], dtype=np.float32)
SCORES = [[(2 * 2 + 4 * 3 + 6 * 4) / 8, (1 + 3 * 2 + 5 * 3 + 7 * 4) / 8]]


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("external", [False, True])
def test_triton(tmp_path, external):
    model = linear_model(tmp_path / "model", external=external)
    out = write_layout(model, tmp_path / "out", "triton", threads=2)
    weights = ["fraud/1/model.onnx.data"] if external else []
    assert files(out) == ["fraud/1/model.onnx", *weights, "fraud/config.pbtxt"]
    session = onnxruntime.InferenceSession(out / "fraud/1/model.onnx")
    assert session.run(None, {"X": ROWS})[0].tolist() == SCORES
    assert (out / "fraud/config.pbtxt").read_text() == (
        'name: "fraud"\n'
        'backend: "onnxruntime"\n'
        "max_batch_size: 0\n"
        "input [\n"
        '  { name: "X" data_type: TYPE_FP32 dims: [ -1, 4 ] }\n'
        "]\n"
        "output [\n"
        '  { name: "scores" data_type: TYPE_FP32 dims: [ -1, 2 ] }\n'
        "]\n"
        "instance_group [\n"
        "  { count: 1 kind: KIND_CPU }\n"
        "]\n"
        "parameters {\n"
        '  key: "intra_op_thread_count"\n'
        '  value: { string_value: "2" }\n'
        "}\n"
        "parameters {\n"
        '  key: "inter_op_thread_count"\n'
        '  value: { string_value: "1" }\n'
        "}\n"
    )


def test_openvino(tmp_path):
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    model = linear_model(tmp_path / "model", engine="openvino", external=True)
    out = write_layout(model, tmp_path / "out", "openvino")
    assert files(out) == ["1/model.onnx", "1/model.onnx.data"]
    compiled = openvino.Core().compile_model(str(out / "1/model.onnx"), "CPU")
    assert np.allclose(compiled([ROWS])[0], SCORES, atol=1e-3)
    assert openvino_arguments(model, threads=2) == (
        '--plugin_config={"INFERENCE_PRECISION_HINT":"f32","INFERENCE_NUM_THREADS":2}',
    )


def test_what_the_other_servers_would_serve_otherwise_is_refused(tmp_path):
    model = linear_model(tmp_path / "model")
    with pytest.raises(InvalidInput, match="judged on onnxruntime, and openvino would"):
        write_layout(model, tmp_path / "out", "openvino")
    assert not (tmp_path / "out").exists()
    info = read(model)
    text = info.model_copy(update={"tokenizer": Tokenizer(feature="a", max_length=8)})
    with pytest.raises(InvalidInput, match="takes text"):
        _check(text, model, "triton")
    with pytest.raises(InvalidInput, match="no ONNX form"):
        _check(info.model_copy(update={"files": {}}), model, "triton")


def test_a_layout_is_not_written_over_another(tmp_path):
    model = linear_model(tmp_path / "model")
    out = write_layout(model, tmp_path / "out", "triton")
    with pytest.raises(InvalidInput, match="already exists"):
        write_layout(model, out, "triton")
