"""Offline and external-data forms, operator sets, classic operators."""

import platform
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimgate import environment, runtimes
from trimgate.data.dataset import Dataset
from trimgate.errors import NotApplicable
from trimgate.models import ModelSource, import_model
from trimgate.models.directory import ONNX_FILE, read
from trimgate.targets import PROFILES, Target
from trimgate.techniques import Context, StepConfig, get
from trimgate.techniques.optimize_graph import TECHNIQUE, OptimizeGraphConfig
from trimgate.techniques.optimize_graph._classic import rewrite

DATA = ONNX_FILE + ".data"


def served(directory: Path, data: Dataset) -> np.ndarray:
    session = runtimes.load(directory)
    scores = runtimes.predict(session, data)
    session.close()
    return scores


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, cancer: Dataset) -> tuple[Path, Context]:
    """A network behind a scaler; its first matrix is large enough to be stored apart."""
    import skops.io
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.stack(list(cancer.features.values()), axis=1)
    model = make_pipeline(StandardScaler(), MLPClassifier((32,), max_iter=30, random_state=0))
    folder = tmp_path_factory.mktemp("network")
    skops.io.dump(model.fit(x, cancer.labels), folder / "m.skops")
    import_model(ModelSource(path=folder / "m.skops"), cancer, folder / "source")
    context = Context(
        cancer.take(slice(0, 300)), cancer.take(slice(300, None)), "accuracy",
        PROFILES["cloud-cpu"],
    )  # fmt: skip
    return folder / "source", context


def test_offline_graph_is_served_as_it_is(
    network: Any, tmp_path: Path, conformance: ModuleType
) -> None:
    source, context = network
    info = conformance.check(
        TECHNIQUE, OptimizeGraphConfig(offline=True), source, context, tmp_path
    )
    assert info.runtime.options["optimization"] == "disabled"
    assert set(info.runtime.cpu_flags) <= environment.cpu_flags()
    note = info.notes["optimize_graph"]["offline"]
    assert note["nodes"][1] <= note["nodes"][0]
    rows = context.validation
    np.testing.assert_allclose(served(tmp_path / "first", rows), served(source, rows), atol=1e-5)


def test_offline_with_weights_apart(network: Any, tmp_path: Path, conformance: ModuleType) -> None:
    source, context = network
    config = OptimizeGraphConfig(offline=True, external_data=True)
    info = conformance.check(TECHNIQUE, config, source, context, tmp_path)
    assert DATA in info.files
    assert info.size == info.files[ONNX_FILE].size + info.files[DATA].size
    rows = context.validation
    np.testing.assert_allclose(served(tmp_path / "first", rows), served(source, rows), atol=1e-5)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_weights_apart_are_read_by_every_engine(
    engine: str, network: Any, tmp_path: Path, conformance: ModuleType
) -> None:
    source, context = network
    target = Target(name="one", runtimes=(engine,))  # type: ignore[arg-type]
    context = Context(context.train, context.validation, "accuracy", target)
    config = OptimizeGraphConfig(external_data=True)
    info = conformance.check(TECHNIQUE, config, source, context, tmp_path)
    assert info.runtime.name == engine
    assert info.files[DATA].size >= 30 * 32 * 4
    rows = context.validation
    np.testing.assert_allclose(served(tmp_path / "first", rows), served(source, rows), atol=1e-5)


def test_weights_apart_travel_on(network: Any, tmp_path: Path) -> None:
    """The steps after it find the weights, and one of them brings them back into the graph."""
    source, context = network
    TECHNIQUE.apply(source, tmp_path / "a", OptimizeGraphConfig(external_data=True), context)
    config = OptimizeGraphConfig(level="extended")
    info = TECHNIQUE.apply(tmp_path / "a", tmp_path / "b", config, context)
    assert DATA not in info.files
    rows = context.validation
    np.testing.assert_allclose(
        served(tmp_path / "b", rows), served(tmp_path / "a", rows), atol=1e-6
    )


def test_a_missing_weights_file_is_told(network: Any, tmp_path: Path) -> None:
    from trimgate.errors import InvalidInput

    source, context = network
    TECHNIQUE.apply(source, tmp_path / "a", OptimizeGraphConfig(external_data=True), context)
    (tmp_path / "a" / DATA).unlink()
    with pytest.raises(InvalidInput, match="missing"):
        runtimes.load(tmp_path / "a")


def test_offline_graph_is_refused_on_another_cpu(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, context = network
    TECHNIQUE.apply(source, tmp_path / "m", OptimizeGraphConfig(offline=True), context)
    flags = read(tmp_path / "m").runtime.cpu_flags
    if not flags:
        assert platform.machine() not in ("x86_64", "AMD64")
        return
    monkeypatch.setattr(environment, "cpu_flags", lambda: frozenset(flags[:-1]))
    with pytest.raises(NotApplicable, match=rf"{flags[-1]}, which this one"):
        runtimes.load(tmp_path / "m")


def test_nothing_follows_an_offline_graph(
    network: Any, tmp_path: Path, conformance: ModuleType
) -> None:
    source, context = network
    TECHNIQUE.apply(source, tmp_path / "m", OptimizeGraphConfig(offline=True), context)
    words = conformance.check_refusal(
        TECHNIQUE, OptimizeGraphConfig(level="extended"), tmp_path / "m", context, tmp_path
    )
    assert "final" in words


def _step(name: str, **parameters: Any) -> StepConfig:
    return get(name).config.model_validate({"technique": name, **parameters})


@pytest.mark.parametrize(
    ("before", "config", "words"),
    [
        ([_step("optimize_graph")], {}, "optimized already"),
        ([_step("optimize_graph", offline=True)], {"external_data": True}, "final"),
        ([_step("quantize")], {"level": "transformer"}, "before quantize"),
        ([_step("quantize")], {}, "nothing left"),
        ([_step("runtime", engine="openvino")], {"level": "extended"}, "openvino"),
        ([_step("quantize")], {"offline": True}, None),
        ([_step("optimize_graph")], {"level": "transformer"}, None),
        ([_step("runtime", engine="openvino")], {}, None),
    ],
)
def test_orders(before: list[StepConfig], config: dict[str, Any], words: str | None) -> None:
    problem = TECHNIQUE.order_problem(OptimizeGraphConfig(**config), before)
    assert problem is None if words is None else words in str(problem)


@pytest.mark.parametrize(
    ("config", "target", "words"),
    [
        ({"offline": True}, {"runtimes": ("openvino",)}, "offline is for ONNX Runtime"),
        ({"offline": True}, {"device": "gpu"}, "for this kind of CPU"),
        ({"level": "transformer"}, {}, "transformer encoders"),
    ],
)
def test_refusals(config: dict[str, Any], target: dict[str, Any], words: str, network: Any) -> None:
    told = TECHNIQUE.refusal(
        read(network[0]), OptimizeGraphConfig(**config), Target(name="t", **target)
    )
    assert words in str(told)


def test_scalers_become_standard_operators(network: Any, tmp_path: Path) -> None:
    """So that OpenVINO, which has no scaler, takes the network."""
    source, context = network
    info = TECHNIQUE.apply(source, tmp_path / "m", OptimizeGraphConfig(), context)
    assert info.notes["optimize_graph"]["rewritten"] == {"Scaler": 1}
    graph = onnx.load(tmp_path / "m" / ONNX_FILE).graph
    assert {node.domain for node in graph.node} == {""}
    openvino = get("runtime").config(engine="openvino")
    made = get("runtime").apply(tmp_path / "m", tmp_path / "ov", openvino, context)
    assert made.notes["runtime"]["parity"]["max_difference"] < 1e-5


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [
        ("Scaler", {"offset": [0.5, -2.0, 0.0], "scale": [2.0, 0.25, 3.0]}),
        ("Scaler", {"offset": [0.0], "scale": [2.0]}),
        ("Normalizer", {"norm": "L2"}),
        ("Normalizer", {"norm": "L1"}),
        ("Imputer", {"imputed_value_floats": [9.0, 8.0, 7.0], "replaced_value_float": 0.0}),
        ("Imputer", {"imputed_value_floats": [9.0], "replaced_value_float": float("nan")}),
        ("Binarizer", {"threshold": 0.5}),
    ],
)
def test_classic_operators_say_the_same(operator: str, attributes: dict[str, Any]) -> None:
    node = helper.make_node(operator, ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    model = helper.make_model(
        helper.make_graph(
            [node],
            "classic",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=8,
    )
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    x[3] = 0
    if operator == "Imputer":
        x[4] = np.nan
    expected = _run(model, x)
    assert rewrite(model) == {operator: 1}
    assert {n.domain for n in model.graph.node} == {""}
    np.testing.assert_allclose(_run(model, x), expected, rtol=1e-6)
    assert rewrite(model) == {}


def _run(model: Any, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


@pytest.fixture
def foreign(cancer: Dataset, tmp_path: Path) -> tuple[Path, Context]:
    """A softmax regression that came as ONNX in operator set 15."""
    weight = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32) / 1000
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Softmax", ["product"], ["p"], axis=1),
        ],
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 30])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    import_model(ModelSource(path=tmp_path / "m.onnx"), cancer, tmp_path / "source")
    return tmp_path / "source", Context(cancer, cancer, "accuracy", PROFILES["cloud-cpu"])


def test_conformance_other_operator_set(
    foreign: tuple[Path, Context], tmp_path: Path, conformance: ModuleType
) -> None:
    source, context = foreign
    info = conformance.check(TECHNIQUE, OptimizeGraphConfig(opset=20), source, context, tmp_path)
    assert info.notes["optimize_graph"]["opset"] == 20
    model = onnx.load(tmp_path / "first" / ONNX_FILE)
    assert {o.domain: o.version for o in model.opset_import}[""] == 20


def test_an_operator_without_the_other_form_is_told(
    foreign: tuple[Path, Context], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnx import version_converter

    def fail(*_: Any) -> None:
        raise RuntimeError("no adapter for Softmax")

    monkeypatch.setattr(version_converter, "convert_version", fail)
    source, context = foreign
    with pytest.raises(NotApplicable, match="operator set 20: no adapter"):
        TECHNIQUE.apply(source, tmp_path / "out", OptimizeGraphConfig(opset=20), context)


def test_nothing_to_fuse_is_refused(
    foreign: tuple[Path, Context], tmp_path: Path, conformance: ModuleType
) -> None:
    source, context = foreign
    words = conformance.check_refusal(
        TECHNIQUE, OptimizeGraphConfig(level="transformer"), source, context, tmp_path
    )
    assert "fused" in words or "transformer encoders" in words


def test_biases_of_one_row_become_flat(network: Any, tmp_path: Path) -> None:
    """So that INT8 by channel works on a scikit-learn network, behind a scaler too."""
    source, context = network
    TECHNIQUE.apply(source, tmp_path / "m", OptimizeGraphConfig(), context)
    graph = onnx.load(tmp_path / "m" / ONNX_FILE).graph
    biases = {node.input[2] for node in graph.node if node.op_type == "Gemm"}
    assert {len(t.dims) for t in graph.initializer if t.name in biases} == {1}
    quantize = get("quantize")
    info = quantize.apply(tmp_path / "m", tmp_path / "q", quantize.config(rows=64), context)
    assert info.size < read(tmp_path / "m").size
    agreement = served(tmp_path / "q", context.validation).argmax(1) == served(
        source, context.validation
    ).argmax(1)
    assert agreement.mean() > 0.97
