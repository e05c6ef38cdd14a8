"""scikit-learn's FunctionTransformer in ONNX, for the NumPy functions that people use in it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from trimgate.models.export._nodes import Writer, numeric_type, width

_SIMPLE = {
    "log": "Log",
    "exp": "Exp",
    "sqrt": "Sqrt",
    "absolute": "Abs",
    "abs": "Abs",
    "sign": "Sign",
    "tanh": "Tanh",
    "sin": "Sin",
    "cos": "Cos",
    "reciprocal": "Reciprocal",
    "negative": "Neg",
}


def _log1p(writer: Writer, x: str) -> str:
    return writer.node("Log", [writer.node("Add", [x, _one(writer)])])


def _expm1(writer: Writer, x: str) -> str:
    return writer.node("Sub", [writer.node("Exp", [x]), _one(writer)])


def _square(writer: Writer, x: str) -> str:
    return writer.node("Mul", [x, x])


_COMPOSED: dict[str, Callable[[Writer, str], str]] = {
    "log1p": _log1p,
    "expm1": _expm1,
    "square": _square,
}


def _one(writer: Writer) -> str:
    return writer.constant(np.array(1, dtype=writer.dtype))


def function_converter(dtype: Any) -> Any:
    """skl2onnx converter of FunctionTransformer."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        writer = Writer(scope, container, dtype)
        function = operator.raw_operator.func
        matrix = writer.matrix(operator.inputs)
        name = getattr(function, "__name__", str(function))
        if function is None:
            result = matrix
        elif not isinstance(function, np.ufunc) or operator.raw_operator.kw_args:
            raise NotImplementedError(f"FunctionTransformer({name})")
        elif name in _COMPOSED:
            result = _COMPOSED[name](writer, matrix)
        elif name in _SIMPLE:
            result = writer.node(_SIMPLE[name], [matrix])
        else:
            raise NotImplementedError(f"FunctionTransformer({name})")
        writer.node("Identity", [result], operator.outputs[0].full_name)

    return convert


def function_shape(dtype: Any) -> Any:
    """skl2onnx shape calculator of FunctionTransformer."""

    def shape(operator: Any) -> None:
        operator.outputs[0].type = numeric_type(dtype, sum(width(v) for v in operator.inputs))

    return shape
