"""Small real models and tables, brought in as a user would."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.model_selection import train_test_split
from techniques.select_features import feature_nets

from trimgate.data.dataset import Dataset
from trimgate.models import ModelSource, import_model
from trimgate.targets import Target
from trimgate.techniques import Context
from trimgate.training import FinetuneConfig, finetune

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


@pytest.fixture(scope="session")
def wine() -> Context:
    data = load_wine()
    columns = {str(name): data.data[:, i] for i, name in enumerate(data.feature_names)}
    return _context(columns, data.target.astype(np.int64), "log_loss")


@pytest.fixture(scope="session")
def planted() -> Context:
    """Four features tell of the label; one of them twice, and six are noise."""
    generator = np.random.default_rng(1)
    rows = 900
    told = {name: generator.normal(size=rows) for name in ("a", "b", "c", "d")}
    odds = 3 * told["a"] - 2.5 * told["b"] + 2 * told["c"] + 1.5 * told["d"]
    noise = {f"noise_{i}": generator.normal(size=rows) for i in range(6)}
    columns = {**noise, **told, "a_again": 2 * told["a"] + 1e-3 * generator.normal(size=rows)}
    labels = (odds + generator.logistic(size=rows) > 0).astype(np.int64)
    return _context(columns, labels, "roc_auc")


@pytest.fixture
def bring_module(tmp_path: Path) -> Callable[..., Path]:
    """Trains a net of `feature_nets` for some epochs, saves its weights and imports them."""

    def imported(net: str, context: Context, epochs: int = 8, **arguments: Any) -> Path:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        module = getattr(feature_nets, net)(**arguments)
        rows = np.stack(list(context.train.features.values()), axis=1).astype(np.float32)
        regression = context.train.labels.dtype.kind == "f"
        targets = context.train.labels.astype(np.float32 if regression else np.int64)
        if epochs:
            settings = FinetuneConfig(epochs=epochs, learning_rate=1e-2, patience=epochs)
            kind = "value" if regression else "logit"
            later = itertools.count()  # the last epoch is the best
            finetune(
                module, [rows], targets, settings, kind=kind, validate=lambda _: float(next(later))
            )
        file = tmp_path / f"{net}.safetensors"
        save_file(module.state_dict(), str(file))
        source = ModelSource(
            path=file,
            builder=f"techniques.select_features.feature_nets:{net}",
            builder_arguments=arguments,
        )
        import_model(source, context.train, tmp_path / f"{net}-source")
        return tmp_path / f"{net}-source"

    return imported
