"""The form of a model that can still be trained, on disk and in memory."""

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.errors import InvalidInput, MissingExtra, TrimgateError
from trimgate.models import _skops, directory
from trimgate.models.directory import ModelInfo

FILES = {
    "sklearn": "model.skops",
    "xgboost": "model.ubj",
    "lightgbm": "model.txt",
    "torch": "weights.safetensors",
}


def load_trainable(directory_: str | Path, info: ModelInfo | None = None) -> Any:
    """Loads the trainable form of a model directory. No pickle is ever read.

    Args:
        directory_: The model directory.
        info: Its record, if it was read already.

    Returns:
        A scikit-learn estimator, an `xgboost.Booster`, a `lightgbm.Booster`, or a
        `torch.nn.Module` in eval mode.

    Raises:
        InvalidInput: The model has no trainable form, or it cannot be read.
    """
    path = Path(directory_)
    info = directory.read(path) if info is None else info
    if info.framework == "onnx":
        raise InvalidInput(
            "the model has no trainable form, only ONNX", file=path, mend="give the original model"
        )
    file = path / FILES[info.framework]
    if not file.is_file():
        raise InvalidInput("the file is missing", file=file)
    if info.framework == "sklearn":
        return _skops.load(file)
    if info.framework == "xgboost":
        return load_xgboost(file)
    if info.framework == "lightgbm":
        return load_lightgbm(file)
    if info.builder is None:
        raise InvalidInput("a torch model needs a builder", file=path, key="builder")
    module = build_module(info.builder, info.builder_arguments)
    load_weights(module, file)
    return module


def save_trainable(model: Any, directory_: Path, info: ModelInfo) -> None:
    """Writes the trainable form into a directory; equal models give equal bytes.

    Args:
        model: As `load_trainable` gives it.
        directory_: An existing directory.
        info: The model's record; `framework` decides the file.

    Raises:
        InvalidInput: A part of the model cannot be saved without pickle.
    """
    file = directory_ / FILES[info.framework]
    if info.framework == "sklearn":
        _skops.dump(model, file)
    elif info.framework in ("xgboost", "lightgbm"):
        model.save_model(str(file))
    else:
        from safetensors.torch import save_file

        # shared tensors (tied weights) may not be saved twice, and must be contiguous
        state = {n: t.detach().clone().contiguous() for n, t in model.state_dict().items()}
        save_file(state, str(file))


def load_xgboost(file: Path) -> Any:
    """An `xgboost.Booster` from `.json` or `.ubj`."""
    try:
        import xgboost
    except ImportError as error:
        raise MissingExtra("xgboost", "xgboost") from error
    try:
        booster = xgboost.Booster(model_file=str(file))
    except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
        raise unreadable(file, "an XGBoost model", error, "Booster.save_model") from error
    booster.set_param({"nthread": 1})
    return booster


def load_lightgbm(file: Path) -> Any:
    """A `lightgbm.Booster` from `.txt`."""
    try:
        import lightgbm
    except ImportError as error:
        raise MissingExtra("lightgbm", "lightgbm") from error
    _check_lightgbm(file)
    try:
        return lightgbm.Booster(model_file=str(file))
    except (lightgbm.basic.LightGBMError, ValueError) as error:
        raise unreadable(file, "a LightGBM model", error, "Booster.save_model") from error


def _check_lightgbm(file: Path) -> None:
    """LightGBM ends the process on a text that is cut off or not its own."""
    text = file.read_bytes()
    sizes = re.search(rb"^tree_sizes=([\d ]+)$", text, re.MULTILINE)
    start = text.find(b"\nTree=0\n") + 1
    end = text.find(b"\nend of trees") + 1
    whole = text[:5] == b"tree\n" and sizes and 0 < start < end
    if whole and sizes:
        places = np.cumsum([0, *map(int, sizes.group(1).split())]) + start
        heads = [text[p : p + 5] for p in places[:-1].tolist()]
        whole = places[-1] == end and set(heads) <= {b"Tree="}
    if not whole:
        raise unreadable(file, "a LightGBM model", None, "Booster.save_model")


def unreadable(file: Path, what: str, error: Exception | None, writer: str) -> InvalidInput:
    """The one line that says that a model file is damaged or of another kind."""
    lines = str(error).strip().splitlines() if error is not None else []
    return InvalidInput(
        f"is not {what} that can be read" + (f" ({lines[0][:160]})" if lines else ""),
        file=file,
        mend=f"write it again with {writer}",
    )


def build_module(builder: str, arguments: dict[str, Any]) -> Any:
    """Calls a builder `package.module:function`.

    Returns:
        The `torch.nn.Module` it makes, in eval mode.

    Raises:
        InvalidInput: It cannot be imported or called, or makes something else.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("torch", "torch") from error
    function = _resolve(builder)
    try:
        module = function(**arguments)
    except TrimgateError:
        raise
    # whatever a user's code raises
    except (Exception, SystemExit) as error:
        raise InvalidInput(
            f"the builder failed ({type(error).__name__}: {error})",
            key="builder",
            value=builder,
            mend="check builder_arguments",
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise InvalidInput("does not make a torch.nn.Module", key="builder", value=builder)
    return module.eval()


def _resolve(builder: str) -> Callable[..., Any]:
    module_name, _, attribute = builder.partition(":")
    if str(Path.cwd()) not in sys.path:
        # a script started by its entry point does not see the working directory
        sys.path.append(str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    # the module is a user's, and may fail in any way when it is imported
    except (Exception, SystemExit) as error:
        plain = isinstance(error, ImportError | AttributeError)
        raise InvalidInput(
            f"cannot be imported ({error if plain else f'{type(error).__name__}: {error}'})",
            key="builder",
            value=builder,
            mend="install its package, or run where it can be imported (PYTHONPATH)",
        ) from error
    if not callable(found):
        raise InvalidInput("is not a function", key="builder", value=builder)
    function: Callable[..., Any] = found
    return function


def load_weights(module: Any, file: Path) -> None:
    """Loads `.safetensors`, `.pt` or `.pth` weights into a module, without running their code.

    Raises:
        InvalidInput: The file is damaged, holds more than tensors, or does not fit the module.
    """
    import pickle

    import torch

    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(str(file))
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidInput(
            "holds more than weights, and only weights are loaded",
            file=file,
            mend="save model.state_dict(), best as safetensors",
        ) from error
    except Exception as error:
        raise unreadable(file, "a torch weights file", error, "safetensors") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        detail = " ".join(str(error).split())[:300]
        raise InvalidInput(
            f"the weights do not fit what the builder makes ({detail})",
            file=file,
            mend="check builder and builder_arguments",
        ) from error
