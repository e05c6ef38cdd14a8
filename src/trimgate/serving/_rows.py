"""The rows of the V1 protocol as features."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from trimgate.errors import InvalidInput
from trimgate.models.directory import ModelInfo, TensorSpec
from trimgate.serving._tensors import Array, check_rows, numbers, request_specs


def from_instances(info: ModelInfo, instances: object, max_rows: int) -> dict[str, Array]:
    """The features of the rows of a V1 request.

    Args:
        info: The model.
        instances: A list of rows. A row is a list of values in the order of `info.features`, a
            mapping from feature to value, or, for a model with one array feature (an image),
            the nested list itself, and for a text model the text. `null` is a missing value.
        max_rows: The most rows that are taken.

    Returns:
        Each feature that the model looks at: `(rows,)` or, for an array feature, `(rows, ...)`.

    Raises:
        InvalidInput: A row has a feature too few or too many, or a value of the wrong type.
    """
    if not isinstance(instances, list):
        raise InvalidInput('the request must be {"instances": [...]} with a list of rows')
    if not instances:
        raise InvalidInput("holds no rows", key="instances", value=instances)
    check_rows(len(instances), max_rows)
    unused = set(info.unused_features)
    # what the model no longer looks at may be left out of a mapping, and may hold anything
    specs = {n: spec for spec in request_specs(info) for n in spec.features if n not in unused}
    names = list(info.features) or list(specs)
    plain_text = info.tokenizer is not None and isinstance(instances[0], str)
    array_only = len(names) == 1 and is_array(specs.get(names[0]))
    if isinstance(instances[0], dict):
        _check_keys(instances, names, specs)
        columns = {name: [row[name] for row in instances] for name in specs}
    elif array_only or plain_text:
        columns = {names[0]: instances}
    else:
        _check_lengths(instances, names)
        if all(s.dtype != "string" and not is_array(s) for s in specs.values()):
            matrix = _matrix(instances, len(names))
            if matrix is not None:
                return {
                    name: _cast(matrix[:, names.index(name)], spec, f"feature {name!r}")
                    for name, spec in specs.items()
                }
        columns = {name: [row[names.index(name)] for row in instances] for name in specs}
    return {name: _column(values, specs[name], name) for name, values in columns.items()}


def is_array(spec: TensorSpec | None) -> bool:
    """Whether the input is one feature that is itself an array, such as an image."""
    return spec is not None and len(spec.features) == 1 and spec.shape[1:] not in ((), (1,))


def _check_keys(rows: list[Any], names: list[str], needed: Mapping[str, Any]) -> None:
    known = set(names)
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InvalidInput("must be a mapping like the first", key=f"instances[{position}]")
        if row.keys() == known:
            continue
        unknown = sorted(row.keys() - known)
        if unknown:
            raise InvalidInput(
                "the model has no such feature", key=f"instances[{position}]", value=unknown[0]
            )
        missing = [name for name in needed if name not in row]
        if missing:
            raise InvalidInput(
                f"the feature {missing[0]!r} is missing",
                key=f"instances[{position}]",
                mend="give null where the value is not known",
            )


def _check_lengths(rows: list[Any], names: list[str]) -> None:
    for position, row in enumerate(rows):
        if not isinstance(row, list):
            raise InvalidInput(
                "must be a list of values or a mapping from feature to value",
                key=f"instances[{position}]",
                value=row,
            )
        if len(row) != len(names):
            raise InvalidInput(
                f"has {len(row)} values, the model takes {len(names)} features",
                key=f"instances[{position}]",
            )


def _matrix(rows: list[Any], width: int) -> Array | None:
    """All rows at once, or None where a value is not a plain number."""
    try:
        matrix = np.array(rows)
    except (ValueError, OverflowError):
        return None
    return matrix if matrix.dtype.kind in "biuf" and matrix.shape[1:] == (width,) else None


def _column(values: list[Any], spec: TensorSpec, name: str) -> Array:
    key = f"feature {name!r}"
    if spec.dtype == "string":
        for value in values:
            if value is not None and not isinstance(value, str):
                raise InvalidInput("must be a string or null", key=key, value=value)
        column = np.empty(len(values), dtype=object)
        column[:] = values
        return column
    if is_array(spec):
        return numbers(values, np.dtype(spec.dtype), key)
    column = numbers(values, None, key)
    if column.ndim != 1:
        raise InvalidInput("must be one number", key=key, value=values[0])
    return _cast(column, spec, key)


def _cast(column: Array, spec: TensorSpec, key: str) -> Array:
    """Checks that a numeric column may stand in an integer tensor; leaves others as they are."""
    if np.dtype(spec.dtype).kind not in "iu" or column.dtype.kind in "biu":
        return column
    if np.isnan(column).any():
        raise InvalidInput("may not be null", key=key)
    if (column != np.floor(column)).any():
        raise InvalidInput("must be a whole number", key=key)
    return column.astype(np.int64)
