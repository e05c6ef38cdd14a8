"""Small real models, brought in as a user would."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import train_test_split

from trimgate.data.dataset import Dataset
from trimgate.models import ModelSource, import_model
from trimgate.targets import Target
from trimgate.techniques import Context

os.environ.setdefault("OMP_NUM_THREADS", "1")

Bring = Callable[..., Path]


def _context(features: dict[str, Any], labels: Any, metric: str) -> Context:
    train, validation = train_test_split(
        np.arange(len(labels)), test_size=0.4, random_state=0,
        stratify=labels if labels.dtype.kind == "i" else None,
    )  # fmt: skip
    rows = Dataset(features, labels)
    target = Target(name="test", threads=1)
    return Context(rows.take(train), rows.take(validation), metric, target, seed=0)


def _columns(data: Any) -> dict[str, Any]:
    return {str(name): data.data[:, i] for i, name in enumerate(data.feature_names)}


@pytest.fixture(scope="session")
def cancer() -> Context:
    data = load_breast_cancer()
    return _context(_columns(data), data.target.astype(np.int64), "roc_auc")


@pytest.fixture(scope="session")
def diabetes() -> Context:
    data = load_diabetes()
    return _context(_columns(data), data.target.astype(np.float64), "rmse")


@pytest.fixture(scope="session")
def digit_columns() -> Context:
    data = load_digits()
    return _context(_columns(data), data.target.astype(np.int64), "accuracy")


@pytest.fixture(scope="session")
def digit_images() -> Context:
    data = load_digits()
    images = (data.images[:, None] / 16).astype(np.float32)
    return _context({"image": images}, data.target.astype(np.int64), "accuracy")


@pytest.fixture
def bring(tmp_path: Path) -> Bring:
    """Saves a model as its own framework does, and imports it."""

    def imported(model: Any, rows: Dataset, **said: Any) -> Path:
        package = type(model).__module__.partition(".")[0]
        if package == "sklearn":
            file = tmp_path / "model.skops"
            skops.io.dump(model, file)
        else:
            booster = model.get_booster() if package == "xgboost" else model.booster_
            file = tmp_path / ("model.ubj" if package == "xgboost" else "model.txt")
            booster.save_model(str(file))
        out = tmp_path / "source"
        import_model(ModelSource(path=file, **said), rows, out)
        return out

    return imported


@pytest.fixture
def matrix() -> Callable[[Dataset], Any]:
    return lambda rows: np.column_stack(list(rows.features.values()))
