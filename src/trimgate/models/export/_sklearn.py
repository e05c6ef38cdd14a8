"""scikit-learn estimators to ONNX."""

import copy
import warnings
from typing import Any

import numpy as np

from trimgate.errors import MissingExtra, NotApplicable
from trimgate.models._inputs import MISSING_TEXT
from trimgate.models.directory import ModelInfo
from trimgate.models.export._graph import finish, rename_inputs, widen_mixed

ML_OPSET = 3


def convert(model: Any, info: ModelInfo, opset: int) -> Any:
    """Converts an estimator or pipeline.

    Args:
        model: The fitted estimator.
        info: Its record; the dtype of its numeric inputs is what the graph computes in.
        opset: Version of the default operator set.

    Returns:
        An `onnx.ModelProto` with the inputs of `info` and one output, `scores`.

    Raises:
        NotApplicable: A step has no ONNX form; the message names it.
    """
    try:
        import skl2onnx
        from skl2onnx.common.data_types import StringTensorType
        from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
    except ImportError as error:
        raise MissingExtra("skl2onnx", "sklearn") from error
    from trimgate.models.export._nodes import numeric_type

    numeric = next((i.dtype for i in info.inputs if i.dtype != "string"), "float32")
    # skl2onnx rewrites names with other signs than letters and digits
    names = {f"trimgate_input_{i}": spec.name for i, spec in enumerate(info.inputs)}
    initial = [
        (safe, StringTensorType([None, 1]))
        if spec.dtype == "string"
        else (safe, numeric_type(spec.dtype, int(np.prod(spec.shape[1:]))))
        for safe, spec in zip(names, info.inputs, strict=True)
    ]
    if len(info.inputs) == 1 and len(info.inputs[0].shape) != 2:
        raise NotApplicable("a scikit-learn model on arrays of more than one dimension")
    model = _prepared(model, [f for spec in info.inputs for f in spec.features])
    converters, shapes, parsers = _own(model, np.dtype(numeric).type)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            proto = skl2onnx.convert_sklearn(
                model,
                name=info.name,  # its default is a random one
                initial_types=initial,
                target_opset={"": opset, "ai.onnx.ml": ML_OPSET},
                options=_options(model, info, parsers),
                custom_conversion_functions=converters,
                custom_shape_calculators=shapes,
                custom_parsers=parsers,
            )
    except (MissingConverter, MissingShapeCalculator) as error:
        raise NotApplicable(f"no ONNX form for {_culprit(error)}") from error
    # the converters fail in many ways on settings that they do not know
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise NotApplicable(f"the conversion to ONNX fails: {lines[0][:300]}") from error
    if numeric == "float64":
        widen_mixed(proto)
    wanted = "label" if info.score_kind == "label" else None
    output = wanted or [o.name for o in proto.graph.output][-1]
    last = info.task == "binary" and info.score_kind == "logit"
    return rename_inputs(finish(proto, output, last_column=last), names)


def _own(model: Any, dtype: Any) -> tuple[dict[type, Any], dict[type, Any], dict[type, Any]]:
    """Converters, shape calculators and parsers that replace those of skl2onnx."""
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import (
        FunctionTransformer,
        OneHotEncoder,
        OrdinalEncoder,
        TargetEncoder,
    )

    from trimgate.models.export import _encoders, _functions, _trees

    converters: dict[type, Any] = {
        SimpleImputer: _encoders.imputer_converter(dtype, MISSING_TEXT),
        FunctionTransformer: _functions.function_converter(dtype),
    }
    shapes: dict[type, Any] = {
        SimpleImputer: _encoders.imputer_shape(dtype),
        FunctionTransformer: _functions.function_shape(dtype),
    }
    for encoder in (OneHotEncoder, OrdinalEncoder, TargetEncoder):
        converters[encoder] = _encoders.encoder_converter(dtype, MISSING_TEXT)
        shapes[encoder] = _encoders.encoder_shape(dtype)
    trees, unknown = _trees.tree_types(_steps(model))
    for tree in trees:
        converters[tree] = _trees.tree_converter(dtype, MISSING_TEXT)
        shapes[tree] = _trees.tree_shape(dtype)
    return converters, shapes, dict.fromkeys(unknown, _trees.booster_parser)


def _prepared(model: Any, features: list[str]) -> Any:
    """A copy that skl2onnx understands and that predicts the same.

    Column transformers at the front pick columns by position instead of by name, and the shape
    of a voting classifier's `transform`, which is not used, is the one that can be converted.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import VotingClassifier

    model = copy.deepcopy(model)
    first = model.steps[0][1] if hasattr(model, "steps") else model
    if isinstance(first, ColumnTransformer):
        first.transformers_ = [
            (name, step, _positions(columns, features))
            for name, step, columns in first.transformers_
        ]
    for step in _steps(model):
        if isinstance(step, VotingClassifier):
            step.flatten_transform = False
    if hasattr(model, "steps"):
        name, last = model.steps[-1]
        model.steps[-1] = (name, _as_logistic(last))
        return model
    return _as_logistic(model)


def _as_logistic(model: Any) -> Any:
    """Linear discriminant analysis as the logistic regression that it predicts with.

    skl2onnx takes the softmax of its two classes where scikit-learn takes the sigmoid.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression

    if not isinstance(model, LinearDiscriminantAnalysis):
        return model
    logistic = LogisticRegression()
    for name in ("coef_", "intercept_", "classes_", "n_features_in_"):
        setattr(logistic, name, getattr(model, name))
    return logistic


def _positions(columns: Any, features: list[str]) -> list[int]:
    if isinstance(columns, str):
        columns = [columns]
    if isinstance(columns, slice):
        if isinstance(columns.start, str) or isinstance(columns.stop, str):
            start = features.index(columns.start) if columns.start is not None else 0
            stop = features.index(columns.stop) + 1 if columns.stop is not None else len(features)
            return list(range(start, stop, columns.step or 1))
        return list(range(len(features)))[columns]
    listed = list(np.atleast_1d(np.asarray(columns, dtype=object)))
    if listed and all(isinstance(c, (bool, np.bool_)) for c in listed):
        return [i for i, picked in enumerate(listed) if picked]
    return [features.index(c) if isinstance(c, str) else int(c) % len(features) for c in listed]


def _options(model: Any, info: ModelInfo, parsers: dict[type, Any]) -> dict[int, dict[str, Any]]:
    """No ZipMap, and raw scores where the model has no probabilities."""
    if info.task == "regression":
        return {}
    from skl2onnx._supported_operators import _get_sklearn_operator_name
    from skl2onnx.common._registration import _converter_pool

    last = model.steps[-1][1] if hasattr(model, "steps") else model
    # an empty entry keeps skl2onnx from asking for a ZipMap
    none: dict[int, dict[str, Any]] = {id(s): {} for s in _steps(model) if type(s) in parsers}
    if type(last) in parsers:
        return none
    try:
        known = _converter_pool[_get_sklearn_operator_name(type(last))].get_allowed_options() or {}
    except (KeyError, RuntimeError):
        return none
    options: dict[str, Any] = {}
    if "zipmap" in known:
        options["zipmap"] = False
    if info.score_kind == "logit" and "raw_scores" in known:
        options["raw_scores"] = True
    return {**none, **({id(model): options, id(last): options} if options else {})}


def _steps(model: Any) -> list[Any]:
    return [model, *model.get_params(deep=True).values()]


def _culprit(error: Exception) -> str:
    import re

    found = re.search(r"type '?<class '([\w.]+)'>", str(error)) or re.search(
        r"'([\w.]+)'", str(error)
    )
    return found.group(1).rsplit(".", 1)[-1] if found else str(error).splitlines()[0][:200]
