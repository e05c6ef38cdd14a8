"""The models and tables of select_features, and one with words."""

import numpy as np
import pytest
from techniques.select_features.conftest import (
    bring,
    bring_module,
    cancer,
    diabetes,
    matrix,
    mixed,
    planted,
    wine,
)

from trimgate.data.dataset import Dataset
from trimgate.targets import Target
from trimgate.techniques import Context

__all__ = ["bring", "bring_module", "cancer", "diabetes", "matrix", "mixed", "planted", "wine"]


@pytest.fixture(scope="session")
def cities() -> Context:
    """Two columns of strings with many values; a third of them tell of the label."""
    generator = np.random.default_rng(0)
    names = np.array([f"city {i:02d}" for i in range(30)], dtype=object)
    city, shop = generator.integers(0, 30, 800), generator.integers(0, 30, 800)
    odds = 3.0 * (city % 3 == 0) + 1.5 * (shop % 2) - 1.5
    labels = np.where(odds + generator.logistic(size=800) > 0, "yes", "no").astype(object)
    rows = Dataset({"city": names[city], "shop": names[shop]}, labels)
    target = Target(name="test", threads=1)
    return Context(rows.take(slice(0, 500)), rows.take(slice(500, 800)), "roc_auc", target)
