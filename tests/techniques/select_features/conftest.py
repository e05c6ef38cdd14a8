"""Small real models and tables, brought in as a user would."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.model_selection import train_test_split

from trimgate.data.dataset import Dataset
from trimgate.models import ModelSource, import_model
from trimgate.targets import Target
from trimgate.techniques import Context

os.environ.setdefault("OMP_NUM_THREADS", "1")


def _context(features: dict[str, Any], labels: Any, metric: str) -> Context:
    train, validation = train_test_split(np.arange(len(labels)), test_size=0.4, random_state=0)
    rows = Dataset(features, labels)
    return Context(rows.take(train), rows.take(validation), metric, Target(name="test"), seed=0)


@pytest.fixture(scope="session")
def cancer() -> Context:
    data = load_breast_cancer()
    columns = {str(name): data.data[:, i] for i, name in enumerate(data.feature_names)}
    return _context(columns, data.target.astype(np.int64), "roc_auc")


@pytest.fixture(scope="session")
def diabetes() -> Context:
    data = load_diabetes()
    columns = {str(name): data.data[:, i] for i, name in enumerate(data.feature_names)}
    return _context(columns, data.target.astype(np.float64), "rmse")


@pytest.fixture(scope="session")
def mixed() -> Context:
    """Strings and missing values; only `signal`, `city` and `age` tell anything of the label."""
    generator = np.random.default_rng(0)
    rows = 600
    city = np.array(["Oslo", "Rome", "Paris"], dtype=object)[generator.integers(0, 3, rows)]
    noise_text = np.array(["a", "b"], dtype=object)[generator.integers(0, 2, rows)]
    signal, age = generator.normal(size=rows), generator.uniform(18, 90, rows)
    odds = 2.5 * signal + 2.0 * (city == "Rome") + (age > 50) - 1
    labels = np.where(odds + generator.logistic(size=rows) > 0, "yes", "no").astype(object)
    city = city.copy()
    city[generator.random(rows) < 0.05] = None
    age[generator.random(rows) < 0.1] = np.nan
    features = {
        "noise_1": generator.normal(size=rows),
        "city": city,
        "age": age,
        "noise_text": noise_text,
        "signal": signal,
        "noise_2": generator.normal(size=rows),
    }
    return _context(features, labels, "roc_auc")


@pytest.fixture
def bring(tmp_path: Path) -> Callable[[Any, Dataset], Path]:
    """Imports a model that the user trusts as a pickle."""

    def imported(model: Any, rows: Dataset) -> Path:
        joblib.dump(model, tmp_path / "model.joblib")
        source = ModelSource(path=tmp_path / "model.joblib", allow_pickle=True)
        import_model(source, rows, tmp_path / "source")
        return tmp_path / "source"

    return imported


@pytest.fixture
def matrix() -> Callable[[Dataset], Any]:
    return lambda rows: np.column_stack(list(rows.features.values()))
