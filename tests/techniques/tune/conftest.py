"""Small models that are badly tuned, brought in as a user would."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

from trimgate.data.dataset import Dataset
from trimgate.models import ModelSource, import_model
from trimgate.targets import Target
from trimgate.techniques import Context

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start

Bring = Callable[..., Path]


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other in tiny trainings take longer than the trainings."""
    with threadpool_limits(1):
        yield


def _context(data: Any, labels: Any, metric: str) -> Context:
    names = getattr(data, "feature_names", None)
    features = {str(name): data.data[:, i] for i, name in enumerate(names)}
    train, validation = train_test_split(
        np.arange(len(labels)), test_size=0.4, random_state=0,
        stratify=labels if labels.dtype.kind == "i" else None,
    )  # fmt: skip
    rows = Dataset(features, labels)
    target = Target(name="test", threads=1)
    return Context(rows.take(train), rows.take(validation), metric, target, seed=0)


@pytest.fixture(scope="session")
def cancer() -> Context:
    data = load_breast_cancer()
    return _context(data, data.target.astype(np.int64), "log_loss")


@pytest.fixture(scope="session")
def diabetes() -> Context:
    data = load_diabetes()
    return _context(data, data.target.astype(np.float64), "rmse")


@pytest.fixture(scope="session")
def digits() -> Context:
    data = load_digits()
    data.data = (data.data / 16).astype(np.float64)
    return _context(data, data.target.astype(np.int64), "log_loss")


@pytest.fixture
def matrix() -> Callable[[Dataset], Any]:
    return lambda rows: np.column_stack(list(rows.features.values()))


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
        import_model(ModelSource(path=file, **said), rows, tmp_path / "source")
        return tmp_path / "source"

    return imported
