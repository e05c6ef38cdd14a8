"""Real small models, trained in a second, each as a model directory with its reference scores."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from trimgate.models import save_trainable
from trimgate.models.directory import (
    ModelInfo,
    RuntimeChoice,
    TensorSpec,
    seal,
    writing,
)

pytest.register_assert_rewrite("trimgate_runtime_conformance")


@dataclass(frozen=True)
class Case:
    """A model directory, 1,000 rows for it and the scores that its framework gives them."""

    directory: Path
    info: ModelInfo
    inputs: dict[str, np.ndarray]
    expected: np.ndarray

    def served_by(self, out: Path, name: str, **choice: Any) -> "Case":
        """The same model with another runtime in its record."""
        import shutil

        runtime = RuntimeChoice(name=name, **choice)
        with writing(out) as partial:
            for file in self.info.files:
                shutil.copyfile(self.directory / file, partial / file)
            info = seal(partial, self.info.model_copy(update={"runtime": runtime}))
        return Case(out, info, self.inputs, self.expected)


@pytest.fixture(scope="session")
def conformance() -> ModuleType:
    """The module conformance.py beside this file."""
    file = Path(__file__).with_name("conformance.py")
    spec = importlib.util.spec_from_file_location("trimgate_runtime_conformance", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def matrix_case(
    out: Path, model: Any, rows: np.ndarray, *, family: str, framework: str, **changes: Any
) -> Case:
    """A directory for a fitted estimator that takes one matrix, with its ONNX form if possible."""
    scores = model.predict_proba(rows) if hasattr(model, "predict_proba") else model.predict(rows)
    labels = tuple(np.asarray(model.classes_).tolist()) if hasattr(model, "classes_") else ()
    task = ("binary" if len(labels) == 2 else "multiclass") if labels else "regression"
    names = tuple(f"x{i}" for i in range(rows.shape[1]))
    info = ModelInfo(
        name="case",
        task=task,
        family=family,
        framework=framework,
        inputs=(
            TensorSpec(
                name="input", dtype=str(rows.dtype), shape=(-1, rows.shape[1]), features=names
            ),
        ),
        score_kind="probability" if labels else "value",
        labels=labels,
        features=names,
    )
    info = info.model_copy(update=changes)
    with writing(out) as partial:
        saved = model
        if framework == "xgboost":
            saved = model.get_booster()
        if framework == "lightgbm":
            saved = model.booster_
        save_trainable(saved, partial, info)
        if framework == "sklearn" and str(rows.dtype) == "float32" and _has_converter(model):
            info = info.model_copy(update={"score_output": _to_onnx(model, partial, rows, labels)})
        info = seal(partial, info)
    return Case(out, info, {"input": rows}, scores)


def _has_converter(model: Any) -> bool:
    # skl2onnx 1.20 fails on histogram gradient boosting with this onnx.
    name = f"{type(model).__module__}.{type(model).__name__}"
    return name.startswith("sklearn.") and "HistGradient" not in name


def _to_onnx(model: Any, directory: Path, rows: np.ndarray, labels: tuple[Any, ...]) -> str:
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    options = {id(model): {"zipmap": False}} if labels else None
    graph = skl2onnx.convert_sklearn(
        model,
        initial_types=[("input", FloatTensorType([None, rows.shape[1]]))],
        options=options,
        target_opset=17,
    )
    (directory / "model.onnx").write_bytes(graph.SerializeToString())
    return graph.graph.output[-1].name


@pytest.fixture(scope="session")
def thousand() -> Callable[[np.ndarray], np.ndarray]:
    """Repeats rows until there are 1,000 of them."""
    return lambda rows: np.tile(rows, (-(-1000 // len(rows)), *[1] * (rows.ndim - 1)))[:1000].copy()


@pytest.fixture(scope="session")
def make_case() -> Callable[..., Case]:
    """The function `matrix_case`."""
    return matrix_case
