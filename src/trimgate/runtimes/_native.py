"""The framework that trained the model: what the user serves today, and so the baseline.

It is called the way a careful user would call it: the predictor is looked up once, arrays go in
without copies, gradients are off, and a DataFrame is built only for an estimator that was
trained on one. Precision is `f32` and there are no options.

Notes:
    `threads` is set for the whole process where the framework has one pool (torch, OpenMP and
    BLAS under scikit-learn); `close` gives scikit-learn's pools back.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.models.directory import ModelInfo, TensorSpec
from trimgate.models.scores import to_scores
from trimgate.runtimes._base import Array, Runtime, Session
from trimgate.runtimes._support import absent, bad_option, column_order, require, writable

_PACKAGES = {"sklearn": "sklearn", "xgboost": "xgboost", "lightgbm": "lightgbm", "torch": "torch"}

Predictor = Callable[[Mapping[str, Array]], Array]


class NativeSession(Session):
    """A model loaded by the framework that trained it."""

    def __init__(
        self, predictor: Predictor, info: ModelInfo, release: Callable[[], None] | None = None
    ) -> None:
        self.info = info
        self._predictor: Predictor | None = predictor
        self._release = release

    def predict(self, inputs: Mapping[str, Array]) -> Array:
        """See `Session.predict`."""
        return to_scores(self._predictor(inputs), self.info)  # type: ignore[misc]

    def close(self) -> None:
        """Frees the model; the session cannot be used afterwards."""
        self._predictor = None
        if self._release is not None:
            self._release()
            self._release = None


class Native(Runtime):
    """scikit-learn, XGBoost, LightGBM or torch."""

    name = "native"

    def missing(self) -> str | None:
        """None if at least one framework is installed: which one is needed, the model says."""
        reasons = [absent(package, package) for package in _PACKAGES]
        return None if None in reasons else reasons[0]

    def refusal(self, info: ModelInfo) -> str | None:
        """See `Runtime.refusal`."""
        if info.framework not in _PACKAGES:
            return "the model has an ONNX form only; serve it with onnxruntime or openvino"
        if info.runtime.precision != "f32":
            return f"{info.framework} computes in f32 here; choose another runtime"
        if problem := bad_option(info.runtime.options, {}):
            return f"native {problem}"
        return None

    def load(self, directory: Path, info: ModelInfo, *, threads: int) -> Session:
        """See `Runtime.load`."""
        package = _PACKAGES[info.framework]
        require(package, package)
        from trimgate.models import load_trainable

        model = load_trainable(directory, info)
        if info.framework == "torch":
            return NativeSession(_torch(model, info, threads), info)
        if info.framework == "xgboost":
            return NativeSession(_xgboost(model, info, threads), info)
        if info.framework == "lightgbm":
            return NativeSession(_lightgbm(model, info, threads), info)
        from threadpoolctl import threadpool_limits

        limits = threadpool_limits(threads)
        return NativeSession(_sklearn(model, info, threads), info, limits.restore_original_limits)


def _torch(model: Any, info: ModelInfo, threads: int) -> Predictor:
    import torch

    torch.set_num_threads(threads)
    names = [tensor.name for tensor in info.inputs]

    def predict(inputs: Mapping[str, Array]) -> Array:
        with torch.inference_mode():
            output = model(*[torch.from_numpy(writable(inputs[name])) for name in names])
        if not isinstance(output, torch.Tensor):
            output = output[0]
        scores: Array = output.numpy()
        return scores

    return predict


def _xgboost(booster: Any, info: ModelInfo, threads: int) -> Predictor:
    booster.set_param({"nthread": threads})
    name = info.inputs[0].name
    kind = "margin" if info.score_kind == "logit" else "value"

    def predict(inputs: Mapping[str, Array]) -> Array:
        scores: Array = booster.inplace_predict(
            inputs[name], predict_type=kind, validate_features=False
        )
        return scores

    return predict


def _lightgbm(booster: Any, info: ModelInfo, threads: int) -> Predictor:
    name = info.inputs[0].name
    raw = info.score_kind == "logit"

    def predict(inputs: Mapping[str, Array]) -> Array:
        scores: Array = booster.predict(inputs[name], raw_score=raw, num_threads=threads)
        return scores

    return predict


def _sklearn(model: Any, info: ModelInfo, threads: int) -> Predictor:
    if hasattr(model, "get_params"):
        jobs = [p for p in model.get_params() if p == "n_jobs" or p.endswith("__n_jobs")]
        model.set_params(**dict.fromkeys(jobs, threads))
    kind = "value" if info.task == "regression" else info.score_kind
    method = {"probability": "predict_proba", "logit": "decision_function"}.get(kind, "predict")
    call = getattr(model, method)
    columns = getattr(model, "feature_names_in_", None)
    rows = _matrix(info) if columns is None else _frame(info, [str(c) for c in columns])
    order = None
    if info.task != "regression" and kind == "probability" and hasattr(model, "classes_"):
        order = column_order(model.classes_.tolist(), info)

    def predict(inputs: Mapping[str, Array]) -> Array:
        scores: Array = call(rows(inputs))
        return scores if order is None else scores[:, order]

    return predict


def _matrix(info: ModelInfo) -> Callable[[Mapping[str, Array]], Array]:
    """For an estimator that was trained on an array."""
    names = [tensor.name for tensor in info.inputs]
    if len(names) > 1:
        return lambda inputs: np.concatenate([inputs[name] for name in names], axis=1, dtype=object)
    if len(info.inputs[0].shape) == 2:
        return lambda inputs: inputs[names[0]]
    return lambda inputs: inputs[names[0]].reshape(len(inputs[names[0]]), -1)


def _frame(info: ModelInfo, columns: list[str]) -> Callable[[Mapping[str, Array]], Any]:
    """For an estimator that was trained on a DataFrame, which looks at the columns' names."""
    import pandas

    if len(info.inputs) == 1 and list(info.inputs[0].features) == columns:
        only = info.inputs[0]
        if only.dtype != "string":
            index = pandas.Index(columns)
            return lambda inputs: pandas.DataFrame(inputs[only.name], columns=index, copy=False)

    def rows(inputs: Mapping[str, Array]) -> Any:
        found: dict[str, Array] = {}
        for tensor in info.inputs:
            values = inputs[tensor.name]
            for position, feature in enumerate(tensor.features):
                found[feature] = _column(values[:, position], tensor)
        return pandas.DataFrame({name: found[name] for name in columns}, copy=False)

    return rows


def _column(values: Array, tensor: TensorSpec) -> Array:
    if tensor.dtype != "string":
        return values
    missing = values == tensor.missing
    return np.where(missing, np.nan, values) if missing.any() else values


RUNTIME = Native()
