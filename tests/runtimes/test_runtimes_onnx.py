"""ONNX Runtime and OpenVINO, on the same graphs."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trimgate import environment, runtimes
from trimgate.models.directory import ModelInfo, RuntimeChoice, TensorSpec, seal, writing

Repeat = Callable[[np.ndarray], np.ndarray]

ENGINES = ["onnxruntime", "openvino"]


@pytest.fixture(scope="module")
def digits(make_case: Any, thousand: Repeat, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A two-layer network on the digits, without a scaler (OpenVINO knows no ai.onnx.ml)."""
    rows, labels = load_digits(return_X_y=True)
    rows = (rows / 16).astype(np.float32)
    model = MLPClassifier((32,), max_iter=15, random_state=0).fit(rows, labels)
    out = tmp_path_factory.mktemp("digits") / "m"
    case = make_case(out, model, thousand(rows), family="mlp", framework="sklearn")
    return _without_classic(case)


@pytest.fixture(scope="module")
def diabetes(make_case: Any, thousand: Repeat, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A regression network."""
    rows, values = load_diabetes(return_X_y=True)
    rows = rows.astype(np.float32)
    model = MLPRegressor(hidden_layer_sizes=(16,), max_iter=40, random_state=0).fit(rows, values)
    return make_case(
        tmp_path_factory.mktemp("diabetes") / "m",
        model,
        thousand(rows),
        family="mlp",
        framework="sklearn",
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_classifier(engine: str, digits: Any, conformance: ModuleType, tmp_path: Path) -> None:
    case = digits.served_by(tmp_path / "m", engine)
    conformance.check(case, tolerance=1e-5)
    conformance.check_options(case)


@pytest.mark.parametrize("engine", ENGINES)
def test_regression(engine: str, diabetes: Any, conformance: ModuleType, tmp_path: Path) -> None:
    conformance.check(diabetes.served_by(tmp_path / "m", engine), tolerance=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_threads(engine: str, digits: Any, conformance: ModuleType, tmp_path: Path) -> None:
    conformance.check(digits.served_by(tmp_path / "m", engine), tolerance=1e-5, threads=2)


@pytest.mark.parametrize("engine", ENGINES)
def test_several_inputs_in_any_order(engine: str, conformance: ModuleType, tmp_path: Path) -> None:
    case = _two_inputs(tmp_path / "m", engine)
    conformance.check(case, tolerance=1e-5)
    swapped = dict(reversed(case.inputs.items()))
    session = runtimes.load(case.directory)
    np.testing.assert_array_equal(session.predict(swapped), session.predict(case.inputs))


def test_tree_ensemble_on_onnxruntime(
    make_case: Any, thousand: Repeat, conformance: ModuleType, tmp_path: Path
) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    rows = rows.astype(np.float32)
    model = GradientBoostingClassifier(n_estimators=20, random_state=0).fit(rows, labels)
    case = make_case(tmp_path / "m", model, thousand(rows), family="trees", framework="sklearn")
    conformance.check(case.served_by(tmp_path / "ort", "onnxruntime"), tolerance=1e-5)
    ov = case.served_by(tmp_path / "ov", "openvino")
    assert "tree ensembles" in conformance.check_refusal(ov)


@pytest.mark.parametrize(
    "options",
    [
        {"allow_spinning": True},
        {"arena": False, "memory_pattern": False},
        {"optimization": "basic"},
        {"device": "cpu"},
        {"parallel": True, "threads": 1},
    ],
)
def test_onnxruntime_options(
    options: dict[str, Any], digits: Any, conformance: ModuleType, tmp_path: Path
) -> None:
    conformance.check(
        digits.served_by(tmp_path / "m", "onnxruntime", options=options), tolerance=1e-5, threads=2
    )


def test_openvino_options(digits: Any, conformance: ModuleType, tmp_path: Path) -> None:
    options = {"hint": "throughput", "streams": 0, "threads": 1, "pinning": True}
    case = digits.served_by(tmp_path / "m", "openvino", options=options)
    conformance.check(case, tolerance=1e-5, threads=2)


@pytest.mark.parametrize(
    ("granted", "wanted", "taken"), [(4, 0, 4), (4, 2, 2), (2, 8, 2), (1, 1, 1)]
)
def test_threads_are_never_more_than_the_target_grants(
    granted: int, wanted: int, taken: int, digits: Any
) -> None:
    from trimgate.runtimes._onnxruntime import DEFAULTS, session_options
    from trimgate.runtimes._openvino import settings

    options = session_options({**DEFAULTS, "threads": wanted}, granted)
    assert options.intra_op_num_threads == taken
    runtime = RuntimeChoice(name="openvino", options={"threads": wanted})
    told = settings(digits.info.model_copy(update={"runtime": runtime}), granted)
    assert told["INFERENCE_NUM_THREADS"] == taken


@pytest.mark.parametrize(
    ("options", "words"),
    [({"hint": "speed"}, "hint must be one of"), ({"streams": -1}, "must not be negative")],
)
def test_openvino_refuses_options(
    options: dict[str, Any], words: str, digits: Any, conformance: ModuleType, tmp_path: Path
) -> None:
    case = digits.served_by(tmp_path / "m", "openvino", options=options)
    assert words in conformance.check_refusal(case)


def test_openvino_as_execution_provider(
    digits: Any, conformance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes Intel's CPUs only; elsewhere it says so and leaves it at that."""
    pytest.importorskip("onnxruntime_ep_openvino")
    case = digits.served_by(tmp_path / "m", "openvino-ep")
    conformance.check_options(case)
    if runtimes.available()["openvino-ep"] is None:
        conformance.check(case, tolerance=1e-4)
    else:
        assert "offers no CPU" in conformance.check_refusal(case)
    conformance.check_missing(case, "onnxruntime_ep_openvino", "openvino-ep", monkeypatch)


def test_openvino_as_execution_provider_refuses_a_fallback(
    digits: Any, conformance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a device that is not the plug-in's, the session's own providers tell."""
    import onnxruntime

    from trimgate.runtimes import _openvino_ep

    class Device:
        ep_name = "OpenVINOExecutionProvider"

    case = digits.served_by(tmp_path / "m", "openvino-ep")
    monkeypatch.setattr(_openvino_ep, "_devices", lambda: (Device(),))
    monkeypatch.setattr(
        onnxruntime.SessionOptions, "add_provider_for_devices", lambda *_: None, raising=True
    )
    assert "fell back" in conformance.check_refusal(case)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"precision": "bf16"}, "runtime openvino with precision bf16"),
        ({"precision": "f16"}, "scheme fp16"),
        ({"options": {"optimization": "most"}}, "must be one of"),
        ({"options": {"arena": 1}}, "must be of type bool"),
        ({"options": {"device": "tpu"}}, "cpu or gpu"),
        ({"options": {"threads": -1}}, "must not be negative"),
    ],
)
def test_onnxruntime_refuses(
    choice: dict[str, Any], words: str, digits: Any, conformance: ModuleType, tmp_path: Path
) -> None:
    case = digits.served_by(tmp_path / "m", "onnxruntime", **choice)
    assert words in conformance.check_refusal(case)


def test_onnxruntime_refuses_a_gpu_that_is_not_there(
    digits: Any, conformance: ModuleType, tmp_path: Path
) -> None:
    import onnxruntime

    case = digits.served_by(tmp_path / "m", "onnxruntime", options={"device": "gpu"})
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        conformance.check(case, tolerance=1e-3)
    else:
        assert "onnxruntime-gpu" in conformance.check_refusal(case)


def test_onnxruntime_refuses_a_fallback(
    digits: Any, conformance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the check for a GPU build passed, the session itself must not fall back silently."""
    from trimgate.runtimes import _onnxruntime

    monkeypatch.setattr(_onnxruntime, "missing_gpu", lambda: None)
    case = digits.served_by(tmp_path / "m", "onnxruntime", options={"device": "gpu"})
    assert "CUDAExecutionProvider" in conformance.check_refusal(case)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_onnx_form(engine: str, digits: Any, conformance: ModuleType, tmp_path: Path) -> None:
    case = digits.served_by(tmp_path / "m", engine)
    (tmp_path / "n").mkdir()
    shutil.copyfile(case.directory / "model.skops", tmp_path / "n" / "model.skops")
    info = seal(tmp_path / "n", case.info.model_copy(update={"score_output": None}))
    bare = type(case)(tmp_path / "n", info, case.inputs, case.expected)
    assert "optimize_graph" in conformance.check_refusal(bare)


@pytest.mark.parametrize("engine", ENGINES)
def test_damaged_file(engine: str, digits: Any, conformance: ModuleType, tmp_path: Path) -> None:
    case = digits.served_by(tmp_path / "m", engine)
    (case.directory / "model.onnx").write_bytes(b"not a graph")
    assert "cannot load" in conformance.check_refusal(case)


def test_zipmap_output_is_refused(
    thousand: Repeat, conformance: ModuleType, digits: Any, tmp_path: Path
) -> None:
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    rows, labels = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
    graph = skl2onnx.convert_sklearn(
        model, initial_types=[("input", FloatTensorType([None, 30]))], target_opset=17
    )
    case = digits.served_by(tmp_path / "m", "onnxruntime")
    (case.directory / "model.onnx").write_bytes(graph.SerializeToString())
    name = graph.graph.output[-1].name
    seal(case.directory, case.info.model_copy(update={"score_output": name}))
    assert "zipmap" in conformance.check_refusal(case)


@pytest.mark.skipif(not environment.has_bfloat16(), reason="the CPU has no bfloat16")
def test_openvino_bf16_is_close(digits: Any, conformance: ModuleType, tmp_path: Path) -> None:
    case = digits.served_by(tmp_path / "m", "openvino", precision="bf16")
    scores = runtimes.load(case.directory).predict(case.inputs)
    exact = runtimes.load(digits.served_by(tmp_path / "f", "openvino").directory)
    assert np.abs(scores - exact.predict(case.inputs)).max() < 0.05
    assert np.mean(scores.argmax(1) == case.expected.argmax(1)) > 0.99


def test_openvino_refuses_bf16_that_would_be_emulated(
    digits: Any, conformance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "cpu_flags", lambda: frozenset({"avx2"}))
    case = digits.served_by(tmp_path / "m", "openvino", precision="bf16")
    assert "emulated" in conformance.check_refusal(case)


def test_openvino_refuses_classic_operators_and_text(
    make_case: Any, thousand: Repeat, conformance: ModuleType, tmp_path: Path
) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    rows = rows.astype(np.float32)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
    case = make_case(tmp_path / "m", model, thousand(rows), family="linear", framework="sklearn")
    message = conformance.check_refusal(case.served_by(tmp_path / "ov", "openvino"))
    assert "ai.onnx.ml" in message
    text = TensorSpec(name="t", dtype="string", shape=(-1, 1), features=("t",))
    info = case.info.model_copy(update={"inputs": (text,)})
    assert "string" in str(runtimes.get("openvino").refusal(info))


def test_openvino_is_imported_without_telemetry(digits: Any, tmp_path: Path) -> None:
    """In a fresh process and an empty home: nothing is looked up and nothing is written."""
    case = digits.served_by(tmp_path / "m", "openvino")
    home = tmp_path / "home"
    home.mkdir()
    script = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise SystemExit('network')\n"
        "socket.getaddrinfo = socket.socket.connect = refuse\n"
        "from trimgate import runtimes\n"
        f"runtimes.load({str(case.directory)!r}).close()\n"
        "assert 'openvino' in sys.modules and 'openvino_telemetry' not in sys.modules\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={"HOME": str(home), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert list(home.rglob("*")) == []


def test_says_which_package_is_missing(
    digits: Any, conformance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = digits.served_by(tmp_path / "m", "openvino")
    conformance.check_missing(case, "openvino", "openvino", monkeypatch)


def _without_classic(case: Any) -> Any:
    """Cuts the graph behind the probabilities: what finds labels there is of ai.onnx.ml."""
    path = case.directory / "model.onnx"
    model = onnx.load(path)
    name = case.info.score_output
    extracted = onnx.utils.Extractor(model).extract_model(["input"], [name])
    onnx.save(extracted, path)
    info = seal(case.directory, case.info)
    return type(case)(case.directory, info, case.inputs, case.expected)


def _two_inputs(out: Path, engine: str) -> Any:
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(5, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Concat", ["a", "b"], ["both"], axis=1),
            helper.make_node("MatMul", ["both", "w"], ["logits"]),
        ],
        "two",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 2]),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", 3]),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    info = ModelInfo(
        name="two",
        task="multiclass",
        family="other",
        framework="onnx",
        inputs=(
            TensorSpec(name="a", dtype="float32", shape=(-1, 2), features=("p", "q")),
            TensorSpec(name="b", dtype="float32", shape=(-1, 3), features=("r", "s", "t")),
        ),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=(-1, 3)),),
        score_output="logits",
        score_kind="logit",
        labels=("x", "y", "z"),
        runtime=RuntimeChoice(name=engine),
    )
    inputs = {
        "a": generator.normal(size=(1000, 2)).astype(np.float32),
        "b": generator.normal(size=(1000, 3)).astype(np.float32),
    }
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with writing(out) as partial:
        onnx.save(model, partial / "model.onnx")
        info = seal(partial, info)
    exact = np.concatenate([inputs["a"], inputs["b"]], axis=1) @ weight
    expected = np.exp(exact) / np.exp(exact).sum(axis=1, keepdims=True)

    class Case:
        pass

    case: Any = Case()
    case.directory, case.info, case.inputs, case.expected = out, info, inputs, expected
    return case


def test_chunks_are_bounded_in_rows_and_bytes() -> None:
    from trimgate.data.dataset import Dataset
    from trimgate.runtimes._predict import chunk_rows

    table = Dataset({"x": np.zeros(10)}, np.zeros(10))
    image = np.broadcast_to(np.zeros(1, dtype=np.float32), (100, 3, 224, 224))
    assert chunk_rows(table) == 4096
    assert chunk_rows(Dataset({"x": image}, np.zeros(100))) == 2**25 // (3 * 224 * 224 * 4)
    assert chunk_rows(Dataset({"x": np.zeros((0, 3))}, np.zeros(0))) == 4096
