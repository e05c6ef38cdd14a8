import numpy as np
import onnxruntime
import pytest
from ops.kserve.samples import linear_model

from trimgate import runtimes
from trimgate.errors import InvalidInput
from trimgate.models.directory import Tokenizer, read
from trimgate.ops.kserve import add_layout, openvino_arguments
from trimgate.ops.kserve._layouts import _check

ROWS = np.array([[1, 2, 3, 4]], dtype=np.float32)
SCORES = [[(2 * 2 + 4 * 3 + 6 * 4) / 8, (1 + 3 * 2 + 5 * 3 + 7 * 4) / 8]]


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("external", [False, True])
def test_triton(tmp_path, external):
    model = linear_model(tmp_path / "model", external=external)
    before, digest = files(model), read(model).digest
    added = add_layout(model, "triton", threads=2)
    weights = ["fraud/1/model.onnx.data"] if external else []
    assert added == ["fraud/1/model.onnx", *weights, "fraud/config.pbtxt"]
    assert files(model) == sorted([*before, *added])
    assert read(model, verify=True).digest == digest
    session = onnxruntime.InferenceSession(model / "fraud/1/model.onnx")
    assert session.run(None, {"X": ROWS})[0].tolist() == SCORES
    assert (model / "fraud/config.pbtxt").read_text() == (
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
    assert add_layout(model, "openvino") == ["1/model.onnx", "1/model.onnx.data"]
    compiled = openvino.Core().compile_model(str(model / "1/model.onnx"), "CPU")
    assert np.allclose(compiled([ROWS])[0], SCORES, atol=1e-3)
    assert openvino_arguments(read(model), threads=2) == (
        '--plugin_config={"INFERENCE_PRECISION_HINT":"f32","INFERENCE_NUM_THREADS":2}',
    )


def test_what_the_other_servers_would_serve_otherwise_is_refused(tmp_path):
    model = linear_model(tmp_path / "model")
    with pytest.raises(InvalidInput, match="judged on onnxruntime, and openvino would"):
        add_layout(model, "openvino")
    assert not (model / "1").exists()
    info = read(model)
    text = info.model_copy(update={"tokenizer": Tokenizer(feature="a", max_length=8)})
    with pytest.raises(InvalidInput, match="takes text"):
        _check(text, model, "triton")
    with pytest.raises(InvalidInput, match="no ONNX form"):
        _check(info.model_copy(update={"files": {}}), model, "triton")


def test_trimgates_own_server_goes_on_serving_it(tmp_path):
    model = linear_model(tmp_path / "model")
    add_layout(model, "triton")
    session = runtimes.load(model)
    assert session.predict({"X": ROWS}).tolist() == SCORES
    session.close()
