"""Model directories and data for the tests of optimize_graph."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimgate.data.dataset import Dataset
from trimgate.models import ModelSource, import_model
from trimgate.targets import PROFILES
from trimgate.techniques import Context

Make = Callable[..., tuple[Path, Context]]


@pytest.fixture(scope="session")
def cancer() -> Dataset:
    """Breast cancer, 569 rows, 30 numbers."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    return Dataset({f"x{i}": x[:, i] for i in range(x.shape[1])}, y)


@pytest.fixture(scope="session")
def mixed() -> Dataset:
    """Text, numbers, booleans and integers with missing values, and text labels."""
    rng = np.random.default_rng(0)
    rows = 400
    city = rng.choice(np.array(["Rome", "Oslo", "Lima", None], dtype=object), rows)
    age = rng.normal(40, 10, rows)
    age[rng.random(rows) < 0.1] = np.nan
    member = rng.random(rows) < 0.5
    visits = rng.integers(0, 5, rows)
    score = np.nan_to_num(age, nan=40) / 10 + 2 * member + (city == "Rome") + visits
    labels = np.array(["high" if s > 7 else "low" for s in score], dtype=object)
    return Dataset({"city": city, "age": age, "member": member, "visits": visits}, labels)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Fits an estimator, imports it, and gives the directory and a context."""

    def build(estimator: Any, data: Dataset, *, frame: bool = False) -> tuple[Path, Context]:
        import skops.io

        x = data.frame() if frame else np.stack(list(data.features.values()), axis=1)
        estimator.fit(x, data.labels)
        skops.io.dump(estimator, tmp_path / "user.skops")
        source = tmp_path / "source"
        import_model(ModelSource(path=tmp_path / "user.skops"), data, source)
        half = len(data) // 2
        context = Context(
            train=data.take(slice(0, half)),
            validation=data.take(slice(half, None)),
            metric="accuracy",
            target=PROFILES["cloud-cpu"],
        )
        return source, context

    return build
