"""The step `runtime`."""

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sklearn.neural_network import MLPClassifier

from trimgate import environment, runtimes
from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models import build_inputs, save_trainable
from trimgate.models.directory import ModelInfo, RuntimeChoice, TensorSpec, read, seal, writing
from trimgate.targets import PROFILES
from trimgate.techniques import Context, parse_step
from trimgate.techniques.runtime import TECHNIQUE, RuntimeConfig


def _rows(kind: str) -> Dataset:
    load = load_diabetes if kind == "regression" else load_breast_cancer
    rows, labels = load(return_X_y=True)
    rows = (rows - rows.mean(0)) / rows.std(0)
    if kind == "regression":
        labels = labels.astype(np.float64)
    return Dataset({f"x{i}": column for i, column in enumerate(rows.T)}, labels)


def _context(kind: str = "binary", target: str = "cloud-cpu") -> Context:
    rows = _rows(kind)
    return Context(
        rows.take(slice(0, 300)), rows.take(slice(300, None)), "accuracy", PROFILES[target]
    )


def _directory(out: Path, model: Any, family: str, kind: str) -> Path:
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    train = _context(kind).train
    names = tuple(train.features)
    matrix = np.stack([*train.features.values()], axis=1).astype(np.float32)
    model.fit(matrix, train.labels)
    options = {id(model): {"zipmap": False}} if kind == "binary" else None
    graph = skl2onnx.convert_sklearn(
        model,
        initial_types=[("input", FloatTensorType([None, len(names)]))],
        options=options,
        target_opset=17,
    )
    output = graph.graph.output[-1].name
    if family == "mlp":
        graph = onnx.utils.Extractor(graph).extract_model(["input"], [output])
    shape = (-1, 2) if kind == "binary" else (-1, 1)
    info = ModelInfo(
        name="case",
        task=kind,  # type: ignore[arg-type]
        family=family,  # type: ignore[arg-type]
        framework="sklearn",
        inputs=(TensorSpec(name="input", dtype="float32", shape=(-1, len(names)), features=names),),
        outputs=(TensorSpec(name=output, dtype="float32", shape=shape),),
        score_output=output,
        score_kind="probability" if kind == "binary" else "value",
        labels=(0, 1) if kind == "binary" else (),
        features=names,
        runtime=RuntimeChoice(name="native"),
    )
    with writing(out) as partial:
        save_trainable(model, partial, info)
        (partial / "model.onnx").write_bytes(graph.SerializeToString())
        seal(partial, info)
    return out


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = MLPClassifier((16,), max_iter=40, random_state=0, tol=1e-2)
    return _directory(tmp_path_factory.mktemp("network") / "m", model, "mlp", "binary")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = GradientBoostingClassifier(n_estimators=20, random_state=0)
    return _directory(tmp_path_factory.mktemp("trees") / "m", model, "trees", "binary")


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = GradientBoostingRegressor(n_estimators=20, random_state=0)
    return _directory(tmp_path_factory.mktemp("values") / "m", model, "trees", "regression")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_engines_of_the_onnx_form(
    engine: Any, network: Path, conformance: ModuleType, tmp_path: Path
) -> None:
    config = RuntimeConfig(engine=engine)
    assert TECHNIQUE.form_needed(config) == TECHNIQUE.form_given(config) == "onnx"
    info = conformance.check(TECHNIQUE, config, network, _context(), tmp_path)
    assert info.runtime == RuntimeChoice(name=engine)
    parity = info.notes["runtime"]["parity"]
    assert parity["agreement"] == 1.0
    assert 0 <= parity["mean_difference"] <= parity["max_difference"] < 1e-5
    assert parity["rows"] == len(_context().validation)
    assert set(info.files) == set(read(network).files)


@pytest.mark.parametrize("engine", ["daal4py", "native"])
def test_engines_of_the_trained_form(
    engine: Any, trees: Path, conformance: ModuleType, tmp_path: Path
) -> None:
    config = RuntimeConfig(engine=engine)
    assert TECHNIQUE.form_needed(config) == TECHNIQUE.form_given(config) == "trainable"
    info = conformance.check(TECHNIQUE, config, trees, _context(), tmp_path)
    assert info.runtime.name == engine
    assert list(info.files) == ["model.skops"]
    assert not info.outputs
    assert info.notes["runtime"]["parity"]["max_difference"] < 1e-6


@pytest.mark.parametrize("engine", ["daal4py", "onnxruntime"])
def test_regression_values_agree(engine: Any, regression: Path, tmp_path: Path) -> None:
    config = RuntimeConfig(engine=engine)
    info = TECHNIQUE.apply(regression, tmp_path / "m", config, _context("regression"))
    assert info.notes["runtime"]["parity"]["agreement"] == 1.0


@pytest.mark.skipif(not environment.has_bfloat16(), reason="the CPU has no bfloat16")
def test_bf16_differs_and_still_agrees(network: Path, tmp_path: Path) -> None:
    config = RuntimeConfig(engine="openvino", precision="bf16")
    info = TECHNIQUE.apply(network, tmp_path / "m", config, _context())
    assert info.runtime.precision == "bf16"
    assert info.notes["runtime"]["parity"]["max_difference"] > 1e-6
    assert info.notes["runtime"]["parity"]["agreement"] >= 0.99
    assert config.title() == "OpenVINO BF16"


def test_options_reach_the_session(network: Path, tmp_path: Path) -> None:
    config = RuntimeConfig(engine="onnxruntime", options={"arena": False})
    info = TECHNIQUE.apply(network, tmp_path / "m", config, _context())
    assert info.runtime.options == {"arena": False}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (RuntimeConfig(engine="onnxruntime", precision="bf16"), "openvino with precision bf16"),
        (RuntimeConfig(engine="onnxruntime", options={"spin": True}), "no option 'spin'"),
        (RuntimeConfig(engine="daal4py"), "tree ensembles only"),
    ],
)
def test_refusals(
    config: RuntimeConfig, words: str, network: Path, conformance: ModuleType, tmp_path: Path
) -> None:
    assert words in conformance.check_refusal(TECHNIQUE, config, network, _context(), tmp_path)


def test_openvino_is_refused_for_trees(
    trees: Path, conformance: ModuleType, tmp_path: Path
) -> None:
    config = RuntimeConfig(engine="openvino")
    words = conformance.check_refusal(TECHNIQUE, config, trees, _context(), tmp_path)
    assert "tree ensembles" in words


def test_emulated_bf16_is_refused(
    network: Path, conformance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "cpu_flags", lambda: frozenset({"avx2", "avx512f"}))
    config = RuntimeConfig(engine="openvino", precision="bf16")
    words = conformance.check_refusal(TECHNIQUE, config, network, _context(), tmp_path)
    assert "emulated" in words


def test_what_the_target_does_not_allow(
    trees: Path, network: Path, conformance: ModuleType, tmp_path: Path
) -> None:
    edge = _context(target="edge-cpu")
    words = conformance.check_refusal(
        TECHNIQUE, RuntimeConfig(engine="daal4py"), trees, edge, tmp_path
    )
    assert "edge-cpu" in words
    gpu = PROFILES["gpu"].model_copy(update={"runtimes": ("onnxruntime", "openvino")})
    words = str(TECHNIQUE.refusal(read(network), RuntimeConfig(engine="openvino"), gpu))
    assert "CPU only" in words


def test_a_gpu_target_asks_the_session_for_the_gpu(network: Path) -> None:
    import onnxruntime

    words = TECHNIQUE.refusal(read(network), RuntimeConfig(engine="onnxruntime"), PROFILES["gpu"])
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        assert words is None
    else:
        assert "no CUDA provider" in str(words)


def test_may_be_asked_before_the_export(trees: Path, tmp_path: Path) -> None:
    """A plan is checked before any work starts; the work itself then needs the form."""
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copyfile(trees / "model.skops", bare / "model.skops")
    info = seal(bare, read(trees).model_copy(update={"score_output": None, "outputs": ()}))
    config = RuntimeConfig(engine="onnxruntime")
    assert TECHNIQUE.refusal(info, config, PROFILES["cloud-cpu"]) is None
    with pytest.raises(NotApplicable, match="optimize_graph"):
        TECHNIQUE.apply(bare, tmp_path / "m", config, _context())


def test_another_answer_than_the_parents_is_refused(network: Path, tmp_path: Path) -> None:
    """An ONNX form that is not this model is found out, and nothing is left behind."""
    source = tmp_path / "source"
    with writing(source) as partial:
        shutil.copyfile(network / "model.skops", partial / "model.skops")
        model = onnx.load(network / "model.onnx")
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.ndim == 2:
                tensor.CopyFrom(onnx.numpy_helper.from_array(-values, tensor.name))
        onnx.save(model, partial / "model.onnx")
        seal(partial, read(network))
    with pytest.raises(NotApplicable, match=r"agrees with its parent on \d"):
        TECHNIQUE.apply(source, tmp_path / "m", RuntimeConfig(engine="onnxruntime"), _context())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_scores_that_are_not_finite_are_refused(network: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with writing(source) as partial:
        shutil.copyfile(network / "model.skops", partial / "model.skops")
        model = onnx.load(network / "model.onnx")
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.ndim == 2:
                tensor.CopyFrom(onnx.numpy_helper.from_array(values * np.nan, tensor.name))
        onnx.save(model, partial / "model.onnx")
        seal(partial, read(network))
    with pytest.raises(NotApplicable, match="not finite"):
        TECHNIQUE.apply(source, tmp_path / "m", RuntimeConfig(engine="onnxruntime"), _context())


def test_the_result_is_what_the_parent_says(trees: Path, tmp_path: Path) -> None:
    rows = _context().validation
    expected = runtimes.load(trees).predict(build_inputs(read(trees), rows.features))
    for engine in ("onnxruntime", "daal4py"):
        TECHNIQUE.apply(trees, tmp_path / engine, RuntimeConfig(engine=engine), _context())
        session = runtimes.load(tmp_path / engine)
        given = session.predict(build_inputs(session.info, rows.features))
        np.testing.assert_allclose(given, expected, atol=1e-6)


def test_a_configuration_that_is_wrong() -> None:
    for step in (
        {"technique": "runtime"},
        {"technique": "runtime", "engine": "tensorflow"},
        {"technique": "runtime", "engine": "openvino", "precision": "int8"},
    ):
        with pytest.raises(InvalidInput, match="runtime"):
            parse_step(step)
