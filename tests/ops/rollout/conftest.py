"""Real models, a real config repository, and the planted regressions of examples/rollout."""

import numpy as np
import pytest
from rollouts import EXAMPLE, classifier, load_example

from trimgate.data.dataset import Dataset


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Model directories by what they are: stable, same, wrong, slow, failing."""
    folder = tmp_path_factory.mktemp("models")
    found = {"stable": classifier(folder / "stable")}
    plant = load_example(EXAMPLE).plant
    for kind in ("same", "wrong", "slow", "failing"):
        plant(found["stable"], folder / kind, kind, slow=400)
        found[kind] = folder / kind
    return found


@pytest.fixture(scope="session")
def rows():
    values = np.random.default_rng(3).normal(size=(400, 4)).astype(np.float32)
    features = {name: values[:, i] for i, name in enumerate("abcd")}
    return Dataset(features, np.zeros(len(values), np.int64))
