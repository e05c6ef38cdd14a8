"""Data and helpers for the tests of models."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimgate.data.dataset import Dataset
from trimgate.models import (
    ModelSource,
    build_inputs,
    export_onnx,
    import_model,
    load_trainable,
    predict_native,
    to_scores,
)
from trimgate.models.directory import ModelInfo
from trimgate.models.export import run_onnx, scores_of


def columns(x: Any, y: Any) -> Dataset:
    """A matrix as a table with columns x0, x1, ..."""
    return Dataset({f"x{i}": x[:, i] for i in range(x.shape[1])}, y)


@pytest.fixture(scope="session")
def cancer() -> Dataset:
    """Breast cancer: 30 numbers, two classes."""
    from sklearn.datasets import load_breast_cancer

    return columns(*load_breast_cancer(return_X_y=True))


@pytest.fixture(scope="session")
def iris() -> Dataset:
    """Iris with its classes as text."""
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    return columns(x, np.array(["setosa", "versicolor", "virginica"], dtype=object)[y])


@pytest.fixture(scope="session")
def diabetes() -> Dataset:
    """Diabetes: a regression."""
    from sklearn.datasets import load_diabetes

    return columns(*load_diabetes(return_X_y=True))


@pytest.fixture(scope="session")
def gappy(cancer: Dataset) -> Dataset:
    """Breast cancer with a tenth of its values missing."""
    rng = np.random.default_rng(0)
    features = {
        n: np.where(rng.random(len(v)) < 0.1, np.nan, v) for n, v in cancer.features.items()
    }
    return Dataset(features, cancer.labels)


@pytest.fixture(scope="session")
def mixed() -> Dataset:
    """Text with None, numbers with NaN, booleans, integers; a name with a space, one in use."""
    rng = np.random.default_rng(0)
    rows = 600
    city = rng.choice(np.array(["Rome", "Oslo", "Lima", "", None], dtype=object), rows)
    job = rng.choice(
        np.array(["a", "b", "c", "rare", None], dtype=object), rows, p=[0.4, 0.3, 0.2, 0.05, 0.05]
    )
    age = rng.normal(40, 10, rows)
    age[rng.random(rows) < 0.1] = np.nan
    member = rng.random(rows) < 0.5
    visits = rng.integers(0, 7, rows)
    total = np.nan_to_num(age, nan=40) / 10 + 2 * member + (city == "Rome") + visits + (job == "a")
    labels = np.array(["high" if v > 8.5 else "low" for v in total], dtype=object)
    features = {"city of": city, "age": age, "member": member, "scores": visits, "job": job}
    return Dataset(features, labels)


Round = Callable[..., tuple[ModelInfo, ModelInfo, float]]


@pytest.fixture
def round_trip(tmp_path: Path) -> Round:
    """Import, load and export of a fitted model."""

    def run(save: Callable[[Path], Any], suffix: str, data: Dataset, **source: Any) -> Any:
        """Returns the record, that of the ONNX form, and the largest difference of a score."""
        file = tmp_path / f"user{suffix}"
        save(file)
        info = import_model(ModelSource(path=file, **source), data, tmp_path / "model")
        model = load_trainable(tmp_path / "model")
        raw = predict_native(model, info, build_inputs(info, data.features))
        changes = export_onnx(model, info, data, tmp_path / "model.onnx")
        changes.pop("notes")
        final = info.model_copy(update=changes)
        tensors = build_inputs(final, data.features)
        found = scores_of(run_onnx(tmp_path / "model.onnx", final, tensors), final)
        expected = to_scores(raw, info)
        return info, final, float(np.abs(expected - found).max())

    return run


@pytest.fixture
def skops_trip(round_trip: Round) -> Round:
    """`round_trip` of an estimator that is fitted here."""

    def run(estimator: Any, data: Dataset, *, frame: bool = False, **source: Any) -> Any:
        import skops.io

        x = data.frame() if frame else np.stack(list(data.features.values()), axis=1)
        estimator.fit(x, data.labels)
        return round_trip(lambda file: skops.io.dump(estimator, file), ".skops", data, **source)

    return run


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of a module with builders of torch modules."""
    name = "trimgate_test_nets"
    (tmp_path / f"{name}.py").write_text(
        "from torch import nn\n"
        "def mlp(inputs=30, outputs=1, sigmoid=False):\n"
        "    tail = [nn.Sigmoid()] if sigmoid else []\n"
        "    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, outputs), *tail)\n"
        "def cnn(classes=10):\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),\n"
        "        nn.Flatten(), nn.Linear(4 * 36, classes))\n"
        "def number():\n"
        "    return 3\n"
        "def fails():\n"
        "    raise ValueError('no such width')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)
