"""torch.compile, and two engines that share the calls by their number of rows."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import GradientBoostingClassifier

from trimgate import environment, runtimes
from trimgate.errors import NotApplicable
from trimgate.models import save_trainable
from trimgate.models.directory import (
    LargeBatches,
    ModelInfo,
    RuntimeChoice,
    TensorSpec,
    read,
    seal,
    writing,
)

Repeat = Callable[[np.ndarray], np.ndarray]

COMPILER = runtimes.get("torch").missing()


def build_tiny_net(width: int) -> Any:
    """The builder that the torch case names."""
    import torch

    return torch.nn.Sequential(
        torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10)
    )


@pytest.fixture
def net(thousand: Repeat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A small torch network on the digits, to be compiled."""
    import torch

    monkeypatch.setitem(sys.modules, "tiny_nets", sys.modules[__name__])
    torch.manual_seed(0)
    model = build_tiny_net(16).eval()
    rows = thousand(load_digits().data.astype(np.float32))
    names = tuple(f"x{i}" for i in range(64))
    info = ModelInfo(
        name="case",
        task="multiclass",
        family="mlp",
        framework="torch",
        inputs=(TensorSpec(name="input", dtype="float32", shape=(-1, 64), features=names),),
        score_kind="logit",
        labels=tuple(range(10)),
        builder="tiny_nets:build_tiny_net",
        builder_arguments={"width": 16},
        features=names,
        runtime=RuntimeChoice(name="torch"),
    )
    with writing(tmp_path / "net") as partial:
        save_trainable(model, partial, info)
        info = seal(partial, info)

    class Case:
        pass

    case: Any = Case()
    case.directory, case.info, case.inputs = tmp_path / "net", info, {"input": rows}
    with torch.inference_mode():
        case.expected = torch.softmax(model(torch.from_numpy(rows)), 1).numpy()
    return case


@pytest.mark.skipif(COMPILER is not None, reason=str(COMPILER))
def test_torch_compile(net: Any, conformance: ModuleType) -> None:
    conformance.check(net, tolerance=1e-5)


def test_torch_compile_refusals(
    net: Any, conformance: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    conformance.check_options(net)
    runtime = runtimes.get("torch")
    other = net.info.model_copy(update={"framework": "sklearn"})
    assert "needs a torch module" in str(runtime.refusal(other))
    half = RuntimeChoice(name="torch", precision="bf16")
    monkeypatch.setattr(environment, "cpu_flags", lambda: frozenset({"avx2"}))
    assert "emulated" in str(runtime.refusal(net.info.model_copy(update={"runtime": half})))
    conformance.check_missing(net, "torch", "torch", monkeypatch)


def test_torch_compile_says_that_there_is_no_compiler(
    net: Any, conformance: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    assert "C++ compiler" in str(runtimes.available()["torch"])
    assert "C++ compiler" in conformance.check_refusal(net)


def test_torch_compile_says_that_it_failed(
    net: Any, conformance: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def fail(*_: Any, **__: Any) -> Any:
        def call(*_: Any) -> Any:
            raise RuntimeError("CppCompileError: cannot\nmany lines")

        return call

    monkeypatch.setattr(type(runtimes.get("torch")), "missing", lambda self: None)
    monkeypatch.setattr(torch, "compile", fail)
    assert "CppCompileError: cannot" in conformance.check_refusal(net)


@pytest.fixture
def trees(make_case: Any, thousand: Repeat, tmp_path: Path) -> Any:
    """Boosted trees with both forms."""
    pytest.importorskip("daal4py")
    rows, labels = load_breast_cancer(return_X_y=True)
    rows = rows.astype(np.float32)
    model = GradientBoostingClassifier(n_estimators=12, random_state=0).fit(rows, labels)
    return make_case(tmp_path / "trees", model, thousand(rows), family="trees", framework="sklearn")


@pytest.mark.parametrize("rows", [2, 8, 5000])
def test_two_engines(rows: int, trees: Any, conformance: ModuleType, tmp_path: Path) -> None:
    large = LargeBatches(rows=rows, runtime=RuntimeChoice(name="daal4py"))
    case = trees.served_by(tmp_path / "m", "onnxruntime", large=large)
    conformance.check(case, tolerance=1e-5)
    assert read(case.directory).size == sum(f.size for f in case.info.files.values())


def test_the_number_of_rows_decides(trees: Any, tmp_path: Path) -> None:
    large = LargeBatches(rows=8, runtime=RuntimeChoice(name="daal4py"))
    case = trees.served_by(tmp_path / "m", "onnxruntime", large=large)
    session: Any = runtimes.load(case.directory)
    calls: list[str] = []
    for name in ("_small", "_large"):
        engine = getattr(session, name)
        given = engine.predict
        engine.predict = lambda i, n=name, g=given: calls.append(n) or g(i)
    for count in (1, 7, 8, 1000):
        session.predict({"input": case.inputs["input"][:count]})
    assert calls == ["_small", "_small", "_large", "_large"]


def test_either_engine_can_refuse(trees: Any, conformance: ModuleType, tmp_path: Path) -> None:
    for few, many in (("onnxruntime", "openvino"), ("openvino", "onnxruntime")):
        large = LargeBatches(rows=8, runtime=RuntimeChoice(name=many))
        case = trees.served_by(tmp_path / few, few, large=large)
        assert "no tree ensembles" in conformance.check_refusal(case)


def test_flags_of_the_engine_for_many_rows_count(trees: Any, tmp_path: Path) -> None:
    flagged = RuntimeChoice(name="onnxruntime", cpu_flags=("no_such_flag",))
    large = LargeBatches(rows=8, runtime=flagged)
    case = trees.served_by(tmp_path / "m", "daal4py", large=large)
    with pytest.raises(NotApplicable, match="no_such_flag"):
        runtimes.load(case.directory)


def test_the_first_is_closed_when_the_second_cannot_be_loaded(
    trees: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trimgate.runtimes._onnxruntime import OnnxRuntimeSession

    closed: list[bool] = []
    monkeypatch.setattr(OnnxRuntimeSession, "close", lambda self: closed.append(True))
    large = LargeBatches(rows=8, runtime=RuntimeChoice(name="daal4py"))
    case = trees.served_by(tmp_path / "m", "onnxruntime", large=large)
    (case.directory / "model.skops").write_bytes(b"damaged")
    with pytest.raises(Exception, match="read"):
        runtimes.load(case.directory)
    assert closed == [True]
