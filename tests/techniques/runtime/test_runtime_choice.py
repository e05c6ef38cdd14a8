"""`engine: auto`, tuned options, orders and suggestions of the step `runtime`."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.neural_network import MLPClassifier

from trimgate import runtimes
from trimgate.data.dataset import Dataset
from trimgate.judge.records import Parity
from trimgate.models import ModelSource, import_model
from trimgate.models.directory import ModelInfo, RuntimeChoice, read
from trimgate.targets import PROFILES, Target
from trimgate.techniques import Context, StepConfig, get
from trimgate.techniques.runtime import TECHNIQUE, RuntimeConfig, _choose, _tune
from trimgate.techniques.runtime._choose import Plan, decide
from trimgate.techniques.runtime._measure import Bench, is_gain
from trimgate.techniques.runtime._technique import _unlike

ENGINES = ("onnxruntime", "daal4py", "native")


@pytest.fixture(scope="module")
def context() -> Context:
    x, y = load_breast_cancer(return_X_y=True)
    rows = Dataset({f"x{i}": column for i, column in enumerate(x.T)}, y)
    target = Target(name="test", runtimes=ENGINES, batch_sizes=(1, 1000))
    return Context(rows.take(slice(0, 300)), rows.take(slice(300, None)), "accuracy", target)


def _graph(model: Any, context: Context, folder: Path) -> Path:
    """A model directory with both forms."""
    x = np.stack(list(context.train.features.values()), axis=1)
    skops.io.dump(model.fit(x, context.train.labels), folder / "m.skops")
    import_model(ModelSource(path=folder / "m.skops"), context.train, folder / "source")
    export = get("optimize_graph")
    export.apply(folder / "source", folder / "onnx", export.config(), context)
    return folder / "onnx"


@pytest.fixture(scope="module")
def trees(context: Context, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("daal4py")
    model = GradientBoostingClassifier(n_estimators=15, random_state=0)
    return _graph(model, context, tmp_path_factory.mktemp("trees"))


@pytest.fixture(scope="module")
def network(context: Context, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = MLPClassifier((16,), max_iter=20, random_state=0)
    return _graph(model, context, tmp_path_factory.mktemp("network"))


def _stub(monkeypatch: pytest.MonkeyPatch, table: dict[str, dict[int, float]]) -> None:
    """Measurements that come out as they are written here; engines are really loaded."""

    def speeds(bench: Bench, sessions: Any, size: int, *, share: float = 1.0) -> Any:
        nearest = [1, 1000][size > 30]
        first = table[next(iter(sessions))][nearest]
        return {name: np.full(30, table[name][nearest] / first) for name in sessions}

    monkeypatch.setattr(_choose, "speeds", speeds)


def test_conformance_two_engines(
    trees: Path,
    context: Context,
    conformance: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _stub(
        monkeypatch,
        {
            "onnxruntime": {1: 1.0, 1000: 1.0},
            "daal4py": {1: 0.8, 1000: 5.0},
            "native": {1: 0.1, 1000: 0.9},
        },
    )
    info = conformance.check(TECHNIQUE, RuntimeConfig(engine="auto"), trees, context, tmp_path)
    assert [choice.name for choice in info.runtime.engines()] == ["onnxruntime", "daal4py"]
    assert info.runtime.large is not None
    assert info.runtime.large.rows == 64, "the first of 1, 4, 16, 64, 256 where it is faster"
    assert {"model.onnx", "model.skops"} <= set(info.files)
    assert info.size == sum(file.size for file in info.files.values())
    note = info.notes["runtime"]
    assert note["times_as_fast"]["daal4py"] == {"1": 0.8, "1000": 5.0}
    assert note["parity"]["agreement"] == 1.0
    session = runtimes.load(tmp_path / "first")
    assert len(runtimes.predict(session, context.validation)) == len(context.validation)
    session.close()


@pytest.mark.parametrize(
    ("table", "engines"),
    [
        ({"onnxruntime": {1: 1.0, 1000: 1.0}, "daal4py": {1: 1.05, 1000: 1.09},
          "native": {1: 1.0, 1000: 1.0}}, ["onnxruntime"]),
        ({"onnxruntime": {1: 1.0, 1000: 1.0}, "daal4py": {1: 0.95, 1000: 9.0},
          "native": {1: 0.1, 1000: 1.0}}, ["daal4py"]),
        ({"onnxruntime": {1: 1.0, 1000: 1.0}, "daal4py": {1: 0.5, 1000: 1.05},
          "native": {1: 0.5, 1000: 1.0}}, ["onnxruntime"]),
    ],
)  # fmt: skip
def test_a_second_engine_must_gain(
    table: dict[str, dict[int, float]],
    engines: list[str],
    trees: Path,
    context: Context,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _stub(monkeypatch, table)
    info = TECHNIQUE.apply(trees, tmp_path / "m", RuntimeConfig(engine="auto"), context)
    assert [choice.name for choice in info.runtime.engines()] == engines


def test_really_measured(trees: Path, context: Context, tmp_path: Path) -> None:
    """One row of a few trees: ONNX Runtime is many times as fast as scikit-learn."""
    target = context.target.model_copy(update={"batch_sizes": (1,)})
    context = Context(context.train, context.validation, "accuracy", target)
    config = RuntimeConfig(engine="auto", engines=("native", "onnxruntime"), seconds=0.3)
    info = TECHNIQUE.apply(trees, tmp_path / "m", config, context)
    assert info.runtime == RuntimeChoice(name="onnxruntime")
    assert info.notes["runtime"]["times_as_fast"]["native"]["1"] < 0.5


def test_an_engine_that_says_something_else_is_left_out(
    trees: Path, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trimgate.runtimes._daal4py import Daal4pySession

    real = Daal4pySession.predict
    monkeypatch.setattr(Daal4pySession, "predict", lambda self, i: real(self, i)[:, ::-1])
    table = {name: {1: 1.0, 1000: 1.0} for name in ENGINES} | {"daal4py": {1: 9.0, 1000: 9.0}}
    _stub(monkeypatch, table)
    info = TECHNIQUE.apply(trees, tmp_path / "m", RuntimeConfig(engine="auto"), context)
    assert info.runtime.name == "onnxruntime"
    assert "agrees" in info.notes["runtime"]["left_out"]["daal4py"]


def test_scores_of_another_precision_are_refused(
    network: Path, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As bfloat16 under f32 gives them: the labels are the same, the scores are not."""
    from trimgate.errors import NotApplicable
    from trimgate.runtimes._openvino import OpenVinoSession

    real = OpenVinoSession.predict

    def rounded(self: Any, inputs: Any) -> Any:
        scores = real(self, inputs).astype(np.float32)
        lower = scores[:, :1] * np.float32(0.99)
        return np.concatenate([lower, 1 - lower], axis=1)

    monkeypatch.setattr(OpenVinoSession, "predict", rounded)
    allowed = context.target.model_copy(update={"runtimes": ("onnxruntime", "openvino")})
    context = Context(context.train, context.validation, "accuracy", allowed)
    with pytest.raises(NotApplicable, match="agrees with its parent"):
        TECHNIQUE.apply(network, tmp_path / "m", RuntimeConfig(engine="openvino"), context)


@pytest.mark.parametrize(
    ("steps", "agreement", "alike"),
    [((), 0.98, False), (("quantize",), 0.98, True), (("quantize",), 0.94, False)],
)
def test_engines_may_tip_more_labels_of_a_quantized_graph(
    network: Path, steps: Any, agreement: float, alike: bool
) -> None:
    recipe = tuple({"technique": step} for step in steps)
    parent = read(network).model_copy(update={"recipe": recipe})
    parity = Parity(max_difference=0.1, mean_difference=0.01, agreement=agreement, rows=500)
    assert (_unlike(parity, "openvino", parent) is None) == alike


@pytest.mark.parametrize(
    ("config", "runtime_names", "words"),
    [
        (RuntimeConfig(engine="auto"), ("onnxruntime",), "nothing to choose"),
        (RuntimeConfig(engine="auto", options={"arena": False}), ENGINES, "tune_options"),
        (RuntimeConfig(engine="auto", engines=("openvino",)), ENGINES, "does not allow"),
    ],
)
def test_refusals(
    config: RuntimeConfig,
    runtime_names: Any,
    words: str,
    trees: Path,
    context: Context,
    conformance: ModuleType,
    tmp_path: Path,
) -> None:
    target = context.target.model_copy(update={"runtimes": runtime_names})
    context = Context(context.train, context.validation, "accuracy", target)
    assert words in conformance.check_refusal(TECHNIQUE, config, trees, context, tmp_path)


def test_decide_on_three_sizes() -> None:
    table = {
        "a": {1: 1.0, 32: 1.0, 1000: 1.0},
        "b": {1: 0.5, 32: 1.5, 1000: 3.0},
        "c": {1: 0.9, 32: 1.0, 1000: 3.1},
    }
    assert decide(table, (1, 32, 1000)) == Plan(("a", "b", "b"))
    assert Plan(("a", "b", "b")).change() == 1
    assert Plan(("a", "a")).change() is None


@pytest.mark.parametrize(
    ("ratios", "gain"),
    [([1.05] * 30, True), ([1.02] * 30, False), ([0.9] * 14 + [1.3] * 16, False)],
)
def test_gain(ratios: list[float], gain: bool) -> None:
    assert is_gain(np.array(ratios), 1.03) is gain


def test_conformance_tuned_options(
    network: Path,
    context: Context,
    conformance: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only what is at least 3 % faster than the default is stored."""
    faster = {"arena false": 1.05, "memory_pattern false": 1.02, "optimization extended": 0.5}

    def speeds(bench: Bench, sessions: Any, size: int, *, share: float = 1.0) -> Any:
        return {name: np.full(30, faster.get(name, 1.0)) for name in sessions}

    monkeypatch.setattr(_tune, "speeds", speeds)
    config = RuntimeConfig(engine="onnxruntime", tune_options=True)
    info = conformance.check(TECHNIQUE, config, network, context, tmp_path)
    assert info.runtime.options == {"arena": False}
    assert info.notes["runtime"]["options"][0]["times_as_fast"] == faster


def test_grid_of_options() -> None:
    ort = RuntimeChoice(name="onnxruntime")
    assert {"threads": 2} not in _tune.grid(ort, 2, {})
    assert {"threads": 1} in _tune.grid(ort, 2, {})
    assert {"allow_spinning": True} in _tune.grid(ort, 2, {})
    assert {"allow_spinning": True} not in _tune.grid(ort, 1, {})
    assert {"arena": False} not in _tune.grid(ort, 1, {"arena": True})
    offline = RuntimeChoice(name="onnxruntime", options={"optimization": "disabled"})
    assert not any("optimization" in options for options in _tune.grid(offline, 1, {}))
    assert {"hint": "throughput", "streams": 0} in _tune.grid(RuntimeChoice(name="openvino"), 2, {})
    assert _tune.grid(RuntimeChoice(name="daal4py"), 4, {}) == []


def test_tuning_really_measures(network: Path, context: Context, tmp_path: Path) -> None:
    config = RuntimeConfig(engine="onnxruntime", tune_options=True, seconds=0.2)
    info = TECHNIQUE.apply(network, tmp_path / "m", config, context)
    found = info.notes["runtime"]["options"][0]["times_as_fast"]
    assert {"arena false", "memory_pattern false", "optimization extended"} <= set(found)


def test_options_and_flags_of_an_offline_graph_stay(
    network: Path, context: Context, tmp_path: Path
) -> None:
    export = get("optimize_graph")
    export.apply(network, tmp_path / "a", export.config(offline=True), context)
    config = RuntimeConfig(engine="onnxruntime", options={"arena": False})
    info = TECHNIQUE.apply(tmp_path / "a", tmp_path / "b", config, context)
    assert info.runtime.options == {"arena": False, "optimization": "disabled"}
    assert info.runtime.cpu_flags == read(tmp_path / "a").runtime.cpu_flags


def _step(name: str, **parameters: Any) -> StepConfig:
    return get(name).config.model_validate({"technique": name, **parameters})


@pytest.mark.parametrize(
    ("before", "engine", "words"),
    [
        ([_step("runtime", engine="openvino")], "onnxruntime", "chosen before"),
        ([_step("optimize_graph", level="transformer")], "openvino", "only ONNX Runtime has"),
        ([_step("optimize_graph", level="transformer")], "openvino-ep", None),
        ([_step("optimize_graph", offline=True)], "openvino-ep", "offline"),
        ([_step("optimize_graph", offline=True)], "onnxruntime", None),
        ([_step("optimize_graph")], "openvino", None),
    ],
)
def test_orders(before: list[StepConfig], engine: Any, words: str | None) -> None:
    problem = TECHNIQUE.order_problem(RuntimeConfig(engine=engine), before)
    assert problem is None if words is None else words in str(problem)


def _info(family: Any, framework: Any) -> ModelInfo:
    return ModelInfo(name="m", task="binary", family=family, framework=framework, inputs=())


@pytest.mark.parametrize(
    ("family", "framework", "flags", "usual"),
    [
        ("trees", "sklearn", set(), ["auto"]),
        ("linear", "sklearn", set(), []),
        ("mlp", "sklearn", set(), ["openvino f32"]),
        ("cnn", "torch", {"amx_bf16"}, ["openvino f32", "openvino bf16"]),
        ("transformer", "torch", {"avx512_bf16"}, ["openvino f32", "openvino bf16"]),
    ],
)
def test_suggestions(family: str, framework: str, flags: set[str], usual: list[str]) -> None:
    target = PROFILES["cloud-cpu"]
    found = TECHNIQUE.suggest(_info(family, framework), target, frozenset(flags))
    said = [
        s.step["engine"] if s.step["engine"] == "auto" else
        f"{s.step['engine']} {s.step.get('precision', 'f32')}"
        for s in found if s.usual
    ]  # fmt: skip
    assert said == usual
    for suggestion in found:
        TECHNIQUE.config.model_validate(suggestion.step)
    assert not TECHNIQUE.suggest(_info(family, framework), PROFILES["gpu"], frozenset(flags))


def test_titles() -> None:
    assert RuntimeConfig(engine="auto").title() == "fastest engine"
    assert RuntimeConfig(engine="auto", tune_options=True).title() == "fastest engine, tuned"
    assert RuntimeConfig(engine="torch", precision="bf16").title() == "torch.compile BF16"
