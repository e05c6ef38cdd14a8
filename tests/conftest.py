"""Settings of all tests, and real small models with rows for those that run whole pipelines."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, settings
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from skops import io

from trimgate.runtimes import preload_tbb

# no test depends on how fast the machine is
settings.register_profile(
    "trimgate", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# as trimgate does before it imports OpenVINO, which some tests import by themselves
preload_tbb()
settings.load_profile("trimgate")


@pytest.fixture(scope="session")
def cancer(tmp_path_factory) -> Path:
    """A folder with a gradient boosting model, its rows, and an optimize.yaml that passes.

    The rows are drawn again with a little noise, so that there are enough for the gate.
    """
    folder = tmp_path_factory.mktemp("cancer")
    frame = load_breast_cancer(as_frame=True).frame.rename(columns=lambda c: c.replace(" ", "_"))
    generator = np.random.default_rng(0)
    rows = frame.sample(6000, replace=True, random_state=0).reset_index(drop=True)
    features = rows.columns[:-1]
    rows[features] *= 1 + 0.02 * generator.normal(size=(len(rows), len(features)))
    rows.to_parquet(folder / "rows.parquet", index=False)
    known = rows[:3600]
    model = GradientBoostingClassifier(n_estimators=60, max_depth=3, random_state=0)
    io.dump(model.fit(known[features], known["target"]), folder / "model.skops")
    write_config(folder / "optimize.yaml")
    return folder


def write_config(file: Path, **changes: object) -> Path:
    """A quick config for the files of `cancer`, with some keys changed."""
    config = {
        "name": "cancer",
        "model": {"path": str(file.parent / "model.skops")},
        "data": {
            "path": str(file.parent / "rows.parquet"),
            "label": "target",
            "split": {"method": "random"},
        },
        "recipes": [{"steps": [{"technique": "optimize_graph"}]}],
        "benchmark": {"seconds": 1.5, "processes": 1, "min_rounds": 20, "control_tolerance": 0.5},
        "gate": {"max_drop": {"accuracy": 0.02}},
        **changes,
    }
    file.write_text(yaml.safe_dump(config))
    return file


def released(config: Path):
    """What staging releases of a config's model, and its directory; None where nothing is."""
    from urllib.parse import unquote, urlsplit

    from trimgate.config import load_config
    from trimgate.ops.promotion import released
    from trimgate.tasks import releases_of

    loaded = load_config(config)
    release = released(releases_of(loaded.promote), "staging").get(loaded.name)
    if release is None:
        return None
    return release.stable, Path(unquote(urlsplit(release.stable.storage_uri).path))


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """A folder with two pairs of EC keys: a.pem and a.pub, b.pem and b.pub."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("keys")
    for name in "ab":
        private = ec.generate_private_key(ec.SECP256R1())
        (folder / f"{name}.pem").write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        (folder / f"{name}.pub").write_bytes(
            private.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
    return folder
