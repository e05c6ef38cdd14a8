"""Predictions of the framework that trained the model."""

import warnings
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.models._tokenizer import batches
from trimgate.models.directory import ModelInfo

Array = NDArray[Any]


def predict_native(model: Any, info: ModelInfo, inputs: Mapping[str, Array]) -> Array:
    """Raw scores of a trainable model.

    Args:
        model: What `load_trainable` gave.
        info: Its record.
        inputs: The tensors that `info.inputs` name, as `build_inputs` makes them.

    Returns:
        `(rows,)` or `(rows, columns)`: what `info.score_kind` says (`to_scores` goes on from
        there); labels come as `object` or numeric `(rows,)`.
    """
    if info.framework == "torch":
        return _torch(model, info, inputs)
    if info.framework == "xgboost":
        return _xgboost(model, info, inputs)
    if info.framework == "lightgbm":
        return _lightgbm(model, info, inputs)
    return _sklearn(model, info, inputs)


def _sklearn(model: Any, info: ModelInfo, inputs: Mapping[str, Array]) -> Array:
    rows = table(model, info, inputs)
    method = {"probability": "predict_proba", "logit": "decision_function"}.get(
        info.score_kind if info.task != "regression" else "value", "predict"
    )
    with warnings.catch_warnings():
        # the columns are in the order of training; a DataFrame only to say so would cost time
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        # unknown categories that the user's encoder was told to ignore
        warnings.filterwarnings("ignore", message="Found unknown categories")
        return np.asarray(getattr(model, method)(rows))


def _xgboost(model: Any, info: ModelInfo, inputs: Mapping[str, Array]) -> Array:
    matrix = next(iter(inputs.values()))
    kind = "margin" if info.score_kind == "logit" else "value"
    scores = model.inplace_predict(matrix, predict_type=kind, validate_features=False)
    return np.asarray(scores)


def _lightgbm(model: Any, info: ModelInfo, inputs: Mapping[str, Array]) -> Array:
    matrix = next(iter(inputs.values()))
    return np.asarray(model.predict(matrix, raw_score=info.score_kind == "logit"))


def _torch(model: Any, info: ModelInfo, inputs: Mapping[str, Array]) -> Array:
    import torch

    parts = []
    for part in batches(info, inputs):
        with torch.inference_mode():
            tensors = [torch.as_tensor(np.ascontiguousarray(part[i.name])) for i in info.inputs]
            parts.append(model(*tensors).numpy())
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def table(model: Any, info: ModelInfo, inputs: Mapping[str, Array]) -> Any:
    """The tensors as what a scikit-learn estimator takes.

    Returns:
        A matrix `(rows, features)` if there is one numeric input and the model does not pick
        columns by name; else a DataFrame with the columns of training, strings with NaN where
        they are missing.
    """
    if len(info.inputs) == 1 and info.inputs[0].dtype != "string" and not picks_by_name(model):
        matrix = inputs[info.inputs[0].name]
        return matrix.reshape(len(matrix), -1)
    import pandas

    columns: dict[str, Any] = {}
    for spec in info.inputs:
        values = inputs[spec.name]
        for position, feature in enumerate(spec.features):
            column = values[:, position]
            if spec.dtype == "string":
                column = np.where(column == spec.missing, np.nan, column)
            columns[feature] = column
    return pandas.DataFrame(columns)


_BY_NAME: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


def picks_by_name(model: Any) -> bool:
    """Whether a scikit-learn estimator has a step that picks columns by their name."""
    if not hasattr(model, "get_params"):
        return False
    if model not in _BY_NAME:
        from sklearn.compose import ColumnTransformer

        steps = [model, *model.get_params(deep=True).values()]
        _BY_NAME[model] = any(
            isinstance(step, ColumnTransformer)
            and any(
                isinstance(c, str) for _, _, columns in step.transformers_ for c in _list(columns)
            )
            for step in steps
        )
    return _BY_NAME[model]


def _list(columns: Any) -> list[Any]:
    return [columns] if isinstance(columns, str) else list(columns)
