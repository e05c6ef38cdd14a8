"""Loads the model file that a user brings."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

from trimgate.errors import InvalidInput, MissingExtra
from trimgate.models import _skops, _text
from trimgate.models._trainable import (
    build_module,
    load_lightgbm,
    load_weights,
    load_xgboost,
    unreadable,
)
from trimgate.models.source import ModelSource

PICKLES = (".joblib", ".pkl", ".pickle")
WEIGHTS = (".safetensors", ".pt", ".pth")
SUFFIXES = (".skops", *PICKLES, ".json", ".ubj", ".txt", *WEIGHTS, ".onnx")


def load_user_model(source: ModelSource) -> Any:
    """Loads a user's model file.

    Args:
        source: The file and what the user says about it.

    Returns:
        A scikit-learn estimator, an `xgboost.Booster`, a `lightgbm.Booster`, a
        `torch.nn.Module` in eval mode (of a folder: a text classifier), or a checked
        `onnx.ModelProto`.

    Raises:
        InvalidInput: The file is missing, damaged or of another kind, is a pickle without
            permission, holds types that are not loaded, or its builder fails.
        MissingExtra: The library that the model needs is not installed.
    """
    path = source.path
    if path.is_dir():
        return _text.load_folder(path, builder=source.builder)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInput(
            "is not a model file that trimgate reads",
            key="model.path",
            value=str(path),
            mend=f"give one of {', '.join(SUFFIXES)}, or a Hugging Face folder",
        )
    if not path.is_file():
        raise InvalidInput("the file is missing", file=path, key="model.path")
    if path.stat().st_size == 0:
        raise InvalidInput("the file is empty", file=path, key="model.path")
    if suffix == ".skops":
        return _skops.load(path)
    if suffix in PICKLES:
        return _load_pickle(path, source.allow_pickle)
    if suffix in (".json", ".ubj"):
        _try_elsewhere(path, "xgboost")
        return load_xgboost(path)
    if suffix == ".txt":
        _try_elsewhere(path, "lightgbm")
        return load_lightgbm(path)
    if suffix == ".onnx":
        return load_onnx(path)
    if source.builder is None:
        raise InvalidInput(
            "torch weights need a builder",
            file=path,
            key="model.builder",
            mend="name the function that makes the module, as package.module:function",
        )
    module = build_module(source.builder, source.builder_arguments)
    load_weights(module, path)
    return module


_TRIALS = {
    "xgboost": "b = xgboost.Booster(model_file=file); b.save_config(); "
    "b.inplace_predict(numpy.zeros((1, max(1, b.num_features())), 'float32'))",
    "lightgbm": "b = lightgbm.Booster(model_file=file); b.model_to_string(); "
    "b.predict(numpy.zeros((1, b.num_feature())))",
}


def _try_elsewhere(path: Path, package: str) -> None:
    """Loads a booster in another process first: a damaged file can end the process.

    Raises:
        InvalidInput: That process died of it.
    """
    try:
        library = importlib.import_module(package)
    except ImportError as error:
        raise MissingExtra(package, package) from error
    # the parent's packages: they may not be where the child looks
    place = str(Path(str(library.__file__)).parents[1])
    code = (
        "import sys; sys.path.append(sys.argv[2]); "
        # not needed here, and they take six times as long to import as the library itself
        "sys.modules.update(dict.fromkeys(('sklearn', 'pandas', 'pyarrow'))); "
        f"import numpy, {package}; "
        f"file = sys.argv[1]; {_TRIALS[package]}"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, str(path), place], capture_output=True, check=False
    )
    # an error that Python tells of is told better by this process
    if child.returncode < 0 or b"UnicodeDecodeError" in child.stderr:
        raise unreadable(path, f"a {package} model", None, "Booster.save_model")


def _load_pickle(path: Path, allowed: bool) -> Any:
    if not allowed:
        raise InvalidInput(
            "a pickle runs code when it is loaded, so it is not loaded without permission",
            file=path,
            key="model.allow_pickle",
            value=False,
            mend="save it with skops.io.dump, or set allow_pickle: true if you trust the file",
        )
    import joblib

    try:
        return joblib.load(path)
    # whatever the pickle runs may fail in any way
    except Exception as error:
        raise unreadable(path, "a pickle", error, "joblib.dump, with the versions here") from error


def load_onnx(path: Path) -> Any:
    """An `onnx.ModelProto` that the checker accepts.

    Raises:
        InvalidInput: It is damaged, is no ONNX, or its external data is missing.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path)
        if not model.graph.node:
            raise ValueError("it has no graph")
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, ValueError, OSError) as error:
        raise unreadable(path, "a valid ONNX model", error, "the exporter that made it") from error
    return model
