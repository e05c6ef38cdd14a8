"""The models of the benchmarks, by name: real data, trained once and kept in the work folder."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _bench import SEED, Model, log

from trimgate.config import load_config
from trimgate.data import Dataset, load_splits
from trimgate.models import ModelSource, import_model
from trimgate.plan import sample

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
# Builders of torch modules: examples/vision/nets.py and benchmarks/_nets.py.
sys.path += [str(EXAMPLES / "vision"), str(Path(__file__).parent)]

Files = Path | tuple[Path, Path, Path]
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        name: The folder of the work folder that it is kept in.
        rows: At most so many rows in each of train, validation and test; None for all.
        trees: Trees of an ensemble.
        width: Of convolutional networks.
        epochs: Passes over the training rows.
        layers: Of the random encoder.
    """

    name: str
    rows: int | None
    trees: int
    width: float
    epochs: int
    layers: int


SCALES = {
    "tiny": Scale("tiny", 300, 20, 0.125, 1, 2),
    "full": Scale("full", None, 300, 1.0, 4, 12),
}


@dataclass(frozen=True)
class Brought:
    """What a user would bring.

    Attributes:
        source: The model.
        files: One file to divide at random, or three.
        label: The column to predict.
        metric: The primary metric.
        batch_sizes: Rows per call.
    """

    source: ModelSource
    files: Files
    label: str
    metric: str
    batch_sizes: tuple[int, ...]

    @property
    def three(self) -> tuple[Path, Path, Path]:
        """The train, validation and test files.

        Raises:
            ValueError: There is one file only.
        """
        if isinstance(self.files, Path):
            raise ValueError(f"{self.files} is not divided")
        return self.files


Maker = Callable[[Path, Scale], Brought]
MODELS: dict[str, Maker] = {}


def maker(name: str) -> Callable[[Maker], Maker]:
    """Registers a function under the model's name."""

    def register(function: Maker) -> Maker:
        MODELS[name] = function
        return function

    return register


def brought_folder(work: Path, scale: Scale) -> Path:
    """Where the models and rows lie as users bring them."""
    return work / scale.name / "brought"


def make(name: str, work: Path, scale: Scale) -> Model:
    """The model of that name: trained, imported, its rows divided; done once for each scale."""
    folder = work / scale.name / name
    record = folder / "native" / "model.json"
    brought = MODELS[name](brought_folder(work, scale), scale)
    model = Model(name, folder, brought.metric, brought.batch_sizes)
    if record.is_file():
        return model
    log.info("%s: importing", name)
    shutil.rmtree(folder, ignore_errors=True)
    splits = load_splits(brought.files, label=brought.label, overlap="drop", seed=SEED)
    for split, rows in splits.named().items():
        _few(rows, scale.rows).save(model.rows(split))
    import_model(brought.source, sample(splits.train), model.native)
    return model


def _few(rows: Dataset, limit: int | None) -> Dataset:
    if limit is None or len(rows) <= limit:
        return rows
    order = np.random.default_rng(SEED).permutation(len(rows))
    classes, position = np.unique(rows.labels[order], return_inverse=True)
    # some of every class: a rehearsal on a rare class needs them
    some = [order[position == c][: limit // (2 * len(classes))] for c in range(len(classes))]
    first = np.concatenate(some)
    others = order[~np.isin(order, first)][: limit - len(first)]
    return rows.take(np.sort(np.concatenate([first, others])))


def run_example(script: str, *arguments: str | Path) -> None:
    """Runs a script of the examples with this Python.

    Raises:
        CalledProcessError: It failed; its message is on the console.
    """
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    subprocess.run(command, check=True, stdout=sys.stderr)


# Tables ------------------------------------------------------------------------------------------


@maker("credit-forest")
def _credit_forest(folder: Path, scale: Scale) -> Brought:
    return _credit(folder / "credit", "forest")


@maker("credit-boosting")
def _credit_boosting(folder: Path, scale: Scale) -> Brought:
    return _credit(folder / "credit", "boosting")


def _credit(folder: Path, kind: str) -> Brought:
    if not (folder / f"{kind}.skops").is_file():
        run_example("credit/fetch.py", folder)
        run_example("credit/train.py", folder, kind)
    source = ModelSource(path=folder / f"{kind}.skops", name=f"credit-{kind}")
    return Brought(source, _three(folder, ".parquet"), "default", "roc_auc", (1, 1000))


@maker("fraud-gradient")
def _fraud_gradient(folder: Path, scale: Scale) -> Brought:
    from sklearn.ensemble import GradientBoostingClassifier

    estimator = GradientBoostingClassifier(
        n_estimators=scale.trees, max_depth=3, min_samples_leaf=50, random_state=SEED
    )
    return _fraud_sklearn(folder, "gradient", estimator)


@maker("fraud-histogram")
def _fraud_histogram(folder: Path, scale: Scale) -> Brought:
    from sklearn.ensemble import HistGradientBoostingClassifier

    estimator = HistGradientBoostingClassifier(
        max_iter=scale.trees, learning_rate=0.06, max_leaf_nodes=15, min_samples_leaf=200,
        l2_regularization=10, early_stopping=False, random_state=SEED,
    )  # fmt: skip
    return _fraud_sklearn(folder, "histogram", estimator)


@maker("fraud-forest")
def _fraud_forest(folder: Path, scale: Scale) -> Brought:
    from sklearn.ensemble import RandomForestClassifier

    estimator = RandomForestClassifier(scale.trees, min_samples_leaf=5, random_state=SEED, n_jobs=1)
    return _fraud_sklearn(folder, "forest", estimator)


@maker("fraud-xgboost")
def _fraud_xgboost(folder: Path, scale: Scale) -> Brought:
    import xgboost

    file = folder / f"fraud/xgboost-{scale.trees}.ubj"
    if not file.is_file():
        features, labels = _payments_train(folder)
        rows = xgboost.DMatrix(features, labels)
        settings = {
            "objective": "binary:logistic", "max_depth": 6, "eta": 0.1, "nthread": 1, "seed": SEED,
        }  # fmt: skip
        _write(xgboost.train(settings, rows, scale.trees).save_model, file)
    return _fraud(folder, ModelSource(path=file, name="fraud-xgboost"))


@maker("fraud-lightgbm")
def _fraud_lightgbm(folder: Path, scale: Scale) -> Brought:
    import lightgbm

    file = folder / f"fraud/lightgbm-{scale.trees}.txt"
    if not file.is_file():
        features, labels = _payments_train(folder)
        settings = {
            "objective": "binary", "num_leaves": 31, "learning_rate": 0.05, "num_threads": 1,
            "deterministic": True, "seed": SEED, "verbosity": -1, "min_data_in_leaf": 50,
        }  # fmt: skip
        booster = lightgbm.train(settings, lightgbm.Dataset(features, labels), scale.trees)
        _write(booster.save_model, file)
    return _fraud(folder, ModelSource(path=file, name="fraud-lightgbm"))


@maker("fraud-mlp")
def _fraud_mlp(folder: Path, scale: Scale) -> Brought:
    import torch
    from _nets import mlp
    from safetensors.torch import save_file

    arguments = {"features": 30, "hidden": [512, 256]}
    file = folder / "fraud/mlp.safetensors"
    if not file.is_file():
        features, labels = _payments_train(folder)
        torch.manual_seed(SEED)
        module = mlp(**arguments).train()
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-3)
        x = torch.from_numpy(features.to_numpy(np.float32))
        y = torch.from_numpy(labels.to_numpy(np.int64))
        for _ in range(scale.epochs):
            for index in torch.randperm(len(x)).split(256):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(module(x[index]), y[index]).backward()
                optimizer.step()
        _write(lambda path: save_file(module.state_dict(), path), file)
    source = ModelSource(
        path=file, name="fraud-mlp", builder="_nets:mlp", builder_arguments=arguments
    )
    return _fraud(folder, source)


def _fraud_sklearn(folder: Path, name: str, estimator: Any) -> Brought:
    from skops import io

    trees = estimator.get_params().get("n_estimators") or estimator.get_params().get("max_iter")
    file = folder / f"fraud/{name}-{trees}.skops"
    if not file.is_file():
        features, labels = _payments_train(folder)
        estimator.fit(features, labels)
        _write(lambda path: io.dump(estimator, path), file)
    return _fraud(folder, ModelSource(path=file, name=f"fraud-{name}"))


def _fraud(folder: Path, source: ModelSource) -> Brought:
    files = _payments(folder / "fraud")
    return Brought(source, files, "Class", "roc_auc", (1, 1000))


def _payments_train(folder: Path) -> tuple[pd.DataFrame, pd.Series]:
    rows = pd.read_parquet(_payments(folder / "fraud")[0])
    return rows.drop(columns="Class"), rows["Class"]


def _payments(folder: Path) -> tuple[Path, Path, Path]:
    """Every fraud and every seventh other payment, 30 features, divided at random 60:20:20."""
    files = _three(folder, ".parquet")
    if not all(file.is_file() for file in files):
        run_example("fraud/fetch.py", folder)
        rows = pd.read_parquet(folder / "creditcard.parquet")
        rows = rows[(rows["Class"] == 1) | (np.arange(len(rows)) % 7 == 0)]
        order = np.random.default_rng(SEED).permutation(len(rows))
        parts = np.split(order, [int(len(rows) * 0.6), int(len(rows) * 0.8)])
        for file, part in zip(files, parts, strict=True):
            rows.iloc[np.sort(part)].to_parquet(file, index=False)
    return files


# Images ------------------------------------------------------------------------------------------


@maker("fashion-resnet18")
def _fashion_resnet18(folder: Path, scale: Scale) -> Brought:
    return _fashion(folder, "resnet18", {"width": scale.width / 2}, scale)


@maker("fashion-resnet50")
def _fashion_resnet50(folder: Path, scale: Scale) -> Brought:
    return _fashion(folder, "resnet50", {"width": scale.width, "stride": 2, "pool": True}, scale)


@maker("fashion-lite0")
def _fashion_lite0(folder: Path, scale: Scale) -> Brought:
    return _fashion(folder, "efficientnet_lite0", {"size": 96}, scale)


def _fashion(folder: Path, net: str, arguments: dict[str, Any], scale: Scale) -> Brought:
    folder = folder / "fashion"
    file = folder / f"{net}.safetensors"
    if not file.is_file():
        run_example("vision/fetch.py", folder)
        settings = [
            part
            for name, value in arguments.items()
            for part in ((f"--{name}",) if value is True else (f"--{name}", str(value)))
        ]
        few = ["--rows", str(scale.rows)] if scale.rows else []
        run_example(
            "vision/train.py", folder, "--net", net, *settings, *few,
            "--epochs", str(scale.epochs),
        )  # fmt: skip
    source = ModelSource(
        path=file, name=f"fashion-{net}", builder=f"nets:{net}", builder_arguments=arguments
    )
    return Brought(source, _three(folder, ".npz"), "label", "accuracy", (1, 32))


# Text --------------------------------------------------------------------------------------------


@maker("text-minilm")
def _text_minilm(folder: Path, scale: Scale) -> Brought:
    brought = _example("text", folder / "text", (1, 8))
    few = folder / "text" / "unlabeled-few.parquet"
    if scale.rows and not few.is_file():
        rows = pd.read_parquet(folder / "text" / "unlabeled.parquet")
        _write(rows.iloc[: scale.rows].to_parquet, few)
    return brought


def unlabeled_sentences(work: Path, scale: Scale) -> Path:
    """Where `text-minilm` has sentences that only its teacher answers: all, or some."""
    name = "unlabeled-few.parquet" if scale.rows else "unlabeled.parquet"
    return brought_folder(work, scale) / "text" / name


def _example(name: str, folder: Path, batch_sizes: tuple[int, ...]) -> Brought:
    """What an example's own optimize.yaml says, after its scripts have run."""
    from trimgate.plan import model_source

    if not (folder / "optimize.yaml").is_file():
        run_example(f"{name}/fetch.py", folder)
        run_example(f"{name}/train.py", folder)
        shutil.copy(EXAMPLES / name / "optimize.yaml", folder)
    config = load_config(folder / "optimize.yaml")
    data = config.data
    if data.path is not None:
        files: Files = Path(data.path)
    else:
        files = (Path(data.train or ""), Path(data.validation or ""), Path(data.test or ""))
    metric = config.metric or "accuracy"
    return Brought(model_source(config), files, data.label, metric, batch_sizes)


def _three(folder: Path, suffix: str) -> tuple[Path, Path, Path]:
    train, validation, test = (folder / f"{split}{suffix}" for split in _SPLITS)
    return train, validation, test


def _write(save: Callable[[Path], Any], file: Path) -> None:
    """A file that is there whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"partial-{file.name}")
    save(partial)
    partial.replace(file)
