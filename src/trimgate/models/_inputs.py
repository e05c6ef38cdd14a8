"""From rows to the tensors of a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput
from trimgate.models import _tokenizer
from trimgate.models.directory import ModelInfo, TensorSpec

Array = NDArray[Any]

MATRIX = "input"
SCORES = "scores"
MISSING_TEXT = "__missing__"


def build_inputs(info: ModelInfo, features: Mapping[str, Array]) -> dict[str, Array]:
    """Makes the input tensors of a model from rows.

    Args:
        info: The model's record.
        features: By name, `(rows,)` columns (`object` for strings, with None where missing) or
            `(rows, ...)` arrays. More than the model uses may be given, and those that it no
            longer looks at (`info.unused_features`) may be left out or hold anything.

    Returns:
        By input name, in the order of `info.inputs`: numeric features stacked to
        `(rows, features)`, strings as `object` `(rows, 1)`, arrays as they are; each in the
        dtype that the input declares. The text of a model with a tokenizer gives tokens,
        `(rows, length)` with the length of the longest row.

    Raises:
        InvalidInput: A feature is missing, has another type or shape, or holds NaN or infinity
            where the model cannot take it.
    """
    if info.tokenizer is not None:
        _check_given((info.tokenizer.feature,), features)
        return _tokenizer.encode(info, features[info.tokenizer.feature])
    if info.unused_features:
        features = _neutral(info, features)
    return {spec.name: _tensor(spec, features) for spec in info.inputs}


def _neutral(info: ModelInfo, features: Mapping[str, Array]) -> Mapping[str, Array]:
    """The features, with a constant in place of each that the model no longer looks at."""
    unused = set(info.unused_features)
    rows = next((len(values) for name, values in features.items() if name not in unused), 0)
    constants: dict[str, Array] = {}
    for spec in info.inputs:
        text = spec.dtype == "string"
        value = (spec.missing or "") if text else 0.0
        column = np.full(rows, value, dtype=object if text else np.float64)
        constants |= dict.fromkeys(unused.intersection(spec.features), column)
    return {**features, **constants}


def _check_given(names: Sequence[str], features: Mapping[str, Array]) -> None:
    missing = [name for name in names if name not in features]
    if missing:
        raise InvalidInput(
            "the model needs this feature and it was not given",
            key=", ".join(missing[:10]),
            mend=f"give all of {', '.join(names[:10])}",
        )


def _tensor(spec: TensorSpec, features: Mapping[str, Array]) -> Array:
    _check_given(spec.features, features)
    if spec.dtype == "string":
        return np.stack([_strings(n, features[n], spec.missing) for n in spec.features], axis=1)
    if len(spec.features) == 1 and features[spec.features[0]].ndim > 1:
        return _array(spec, features[spec.features[0]])
    rows = len(features[spec.features[0]]) if spec.features else 0
    stacked = np.empty((rows, len(spec.features)), dtype=spec.dtype)
    for position, name in enumerate(spec.features):
        column = features[name]
        if column.dtype == object:
            column = _numbers(name, column)
        elif column.dtype.kind not in "fiub":
            raise InvalidInput("the model needs numbers here, and this is text", key=name)
        stacked[:, position] = column
    _check_finite(spec, stacked)
    return stacked


def _array(spec: TensorSpec, values: Array) -> Array:
    name = spec.features[0]
    declared = spec.shape[1:]
    given = values.shape[1:]
    if len(given) != len(declared) and np.prod(given) == np.prod(declared):
        values = values.reshape(len(values), *declared)
    elif len(given) != len(declared) or any(
        d not in (-1, g) for d, g in zip(declared, given, strict=True)
    ):
        raise InvalidInput(f"rows have the shape {given}, and the model takes {declared}", key=name)
    tensor = np.ascontiguousarray(values, dtype=spec.dtype)
    _check_finite(spec, tensor)
    return tensor


def _check_finite(spec: TensorSpec, tensor: Array) -> None:
    if tensor.dtype.kind != "f" or not (spec.no_nan or spec.no_inf) or np.isfinite(tensor).all():
        return
    for what, names, test in (("NaN", spec.no_nan, np.isnan), ("infinite", spec.no_inf, np.isinf)):
        for position, name in enumerate(spec.features):
            column = tensor if len(spec.features) == 1 else tensor[:, position]
            if name in names and test(column).any():
                raise InvalidInput(
                    f"holds {what} values, and the model cannot take them",
                    key=name,
                    mend="drop such rows, or put an imputer into the model's pipeline",
                )


def _strings(name: str, column: Array, missing: str | None) -> Array:
    if column.ndim != 1:
        raise InvalidInput("the model needs one text per row here", key=name)
    result = np.array(column, dtype=object)
    absent = np.array([v is None or v != v for v in result], dtype=bool)
    if absent.any():
        if missing is None:
            raise InvalidInput("has missing values, and the model cannot take them", key=name)
        result[absent] = missing
    for value in result:
        if not isinstance(value, str):
            raise InvalidInput("the model needs text here", key=name, value=value)
    return result


def _numbers(name: str, column: Array) -> Array:
    for value in column:
        if value is not None and not isinstance(value, (int, float, np.number, np.bool_)):
            raise InvalidInput("the model needs numbers here", key=name, value=value)
    return np.array([np.nan if v is None else v for v in column], dtype=np.float64)


def table_inputs(sample: Dataset, names: Sequence[str], dtype: str) -> tuple[TensorSpec, ...]:
    """Input tensors for the given columns of a table.

    Args:
        sample: Rows that show the types.
        names: The columns, in the model's order.
        dtype: Of the numeric inputs.

    Returns:
        One matrix if all columns are numbers, else one input per column.
    """
    if all(sample.features[name].dtype != object for name in names):
        return (
            TensorSpec(name=MATRIX, dtype=dtype, shape=(-1, len(names)), features=tuple(names)),
        )
    return tuple(
        TensorSpec(
            name=_free(n), dtype="string", shape=(-1, 1), features=(n,), missing=MISSING_TEXT
        )
        if sample.features[n].dtype == object
        else TensorSpec(name=_free(n), dtype=dtype, shape=(-1, 1), features=(n,))
        for n in names
    )


def _free(name: str) -> str:
    """The name of a column's input: the column's own, unless the output has it."""
    return f"{name}_input" if name == SCORES else name


def sample_rows(sample: Dataset, limit: int) -> Dataset:
    """At most `limit` rows, spread evenly over the sample."""
    if len(sample) <= limit:
        return sample
    return sample.take(np.linspace(0, len(sample) - 1, limit).astype(np.int64))
