"""Teachers that were trained for a moment, and rows with and without labels."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from threadpoolctl import threadpool_limits

from trimgate.data.dataset import Dataset
from trimgate.models import ModelSource, import_model
from trimgate.targets import Target
from trimgate.techniques import Context

TARGET = Target(name="test", threads=1)
TOWNS = ("Bonn", "Kiel", "Ulm")

Bring = Callable[..., Path]


def numbers(rows: int, seed: int, *, noise: float = 0.0, task: str = "binary") -> Dataset:
    """Ten columns, of which four decide; `noise` is the share of labels that are wrong."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 10))
    score = x[:, 0] * x[:, 1] + x[:, 2] - 0.5 * x[:, 3] ** 2 + 0.4
    features = {f"x{i}": x[:, i] for i in range(10)}
    if task == "regression":
        return Dataset(features, score + noise * rng.normal(size=rows))
    labels = (score > 0).astype(np.int64)
    wrong = rng.random(rows) < noise
    return Dataset(features, np.where(wrong, 1 - labels, labels))


def mixed(rows: int, seed: int) -> Dataset:
    """Numbers with gaps, a whole number, and text with gaps; three classes."""
    rng = np.random.default_rng(seed)
    town = rng.choice(TOWNS, rows)
    income = rng.normal(50, 10, rows)
    age = rng.integers(18, 80, rows)
    score = (town == "Kiel") * 8 + income - 0.2 * age + rng.normal(0, 2, rows)
    labels = np.array(["high", "low", "mid"], dtype=object)[
        np.where(score > 47, 0, np.where(score < 38, 1, 2))
    ]
    text = np.array(town, dtype=object)
    text[rng.random(rows) < 0.1] = None
    income[rng.random(rows) < 0.1] = np.nan
    return Dataset({"town": text, "income": income, "age": age.astype(np.int64)}, labels)


def images(rows: int, seed: int) -> Dataset:
    """8 by 8 pixels with a bright spot in one quarter, which is the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, rows)
    pixels = rng.normal(0, 1, (rows, 1, 8, 8)).astype(np.float32)
    for row, label in enumerate(labels):
        y, x = rng.integers(0, 3, 2) + np.array([4 * (label // 2), 4 * (label % 2)])
        pixels[row, 0, y : y + 2, x : x + 2] += 2.0
    return Dataset({"image": pixels}, labels.astype(np.int64))


def context(train: Dataset, validation: Dataset, metric: str, **more: Any) -> Context:
    return Context(train, validation, metric, TARGET, seed=0, **more)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


@pytest.fixture
def bring(tmp_path: Path) -> Bring:
    """Saves a model of a table as its own framework does, and imports it."""

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


@pytest.fixture(scope="session")
def teach(tmp_path_factory: pytest.TempPathFactory) -> Bring:
    """Trains a builder of `distill_nets` on rows, and imports it."""
    made: dict[Any, Path] = {}

    def trained(net: str, rows: Dataset, epochs: int = 8, **arguments: Any) -> Path:
        key = (net, epochs, len(rows), tuple(arguments.items()))
        if key not in made:
            made[key] = _train(net, rows, epochs, arguments, tmp_path_factory.mktemp(net))
        return made[key]

    return trained


def _train(net: str, rows: Dataset, epochs: int, arguments: dict[str, Any], folder: Path) -> Path:
    import torch
    from safetensors.torch import save_file
    from techniques.distill import distill_nets

    from trimgate.training import FinetuneConfig, finetune, training_labels

    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = getattr(distill_nets, net)(**arguments)
    source = ModelSource(
        path=folder / "weights.safetensors",
        builder=f"techniques.distill.distill_nets:{net}",
        builder_arguments=arguments,
        task="regression" if rows.labels.dtype.kind == "f" else None,
    )
    save_file(module.state_dict(), source.path)
    info = import_model(source, rows, folder / "untrained")
    inputs = (
        np.column_stack(list(rows.features.values())).astype(np.float32)
        if rows.is_table
        else next(iter(rows.features.values()))
    )
    finetune(
        module, [inputs], training_labels(info, rows.labels),
        FinetuneConfig(epochs=epochs, learning_rate=3e-3, patience=epochs),
        kind="value" if info.task == "regression" else info.score_kind,
        validate=_later(),
    )  # fmt: skip
    save_file(module.state_dict(), source.path)
    import_model(source, rows, folder / "source")
    return folder / "source"


def _later() -> Callable[[Any], float]:
    """Scores that rise, so that the last epoch counts."""
    calls: list[int] = []

    def score(_: Any) -> float:
        calls.append(0)
        return float(len(calls))

    return score
