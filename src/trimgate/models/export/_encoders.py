"""scikit-learn's encoders and imputer in ONNX.

skl2onnx reads the settings of an encoder and rebuilds what it does; missing values, drop,
infrequent categories and numeric categories go wrong there. Here the fitted encoder itself is
asked what it gives for every category, for a missing value and for an unknown one; ONNX only
looks the answer up.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.models.export._nodes import ML, Writer, is_text, numeric_type, width

Array = NDArray[Any]

_UNKNOWN_TEXT = "\x00unknown category\x00"
_EXACT = 2**24


def answers(encoder: Any, position: int) -> tuple[list[Any], int | None, Array]:
    """What a fitted encoder gives for one of its columns.

    Args:
        encoder: OneHotEncoder, OrdinalEncoder or TargetEncoder.
        position: The column.

    Returns:
        The categories that are not missing; the index of the row that stands for a missing
        value (None: as unknown); the answers, one row per category, then the unknown one last.
    """
    categories = list(encoder.categories_[position])
    gone = [i for i, c in enumerate(categories) if c is None or c != c]
    known = [c for i, c in enumerate(categories) if i not in gone]
    asked = [*known, *(categories[i] for i in gone[:1])]
    table = _transform(encoder, position, asked)
    try:
        unknown = _transform(encoder, position, [*asked[:1], _unknown(known)])[-1:]
    except ValueError:
        # handle_unknown="error": there is no right answer, so it shall be visibly wrong
        unknown = np.full((1, table.shape[1]), np.nan)
    return known, len(known) if gone else None, np.concatenate([table, unknown])


def _unknown(known: list[Any]) -> Any:
    if any(isinstance(c, str) for c in known) or not known:
        return _UNKNOWN_TEXT
    return float(max(float(c) for c in known)) + 1.5


def _transform(encoder: Any, position: int, values: list[Any]) -> Array:
    import pandas

    columns = {}
    for j, categories in enumerate(encoder.categories_):
        text = categories.dtype == object
        asked = values if j == position else [categories[0]] * len(values)
        name = encoder.feature_names_in_[j] if hasattr(encoder, "feature_names_in_") else str(j)
        columns[name] = pandas.Series(asked, dtype=object if text else np.float64)
    frame: Any = pandas.DataFrame(columns)
    if not hasattr(encoder, "feature_names_in_"):
        frame = frame.to_numpy()
    result = encoder.transform(frame)
    dense = result.toarray() if hasattr(result, "toarray") else np.asarray(result)
    start, count = _place(encoder, position)
    return np.asarray(dense[:, start : start + count], dtype=np.float64)


def _place(encoder: Any, position: int) -> tuple[int, int]:
    """First output column of an encoder's input column, and how many there are."""
    kind = type(encoder).__name__
    if kind == "OneHotEncoder":
        counts = list(encoder._n_features_outs)
        return int(sum(counts[:position])), int(counts[position])
    if kind == "TargetEncoder" and encoder.target_type_ == "multiclass":
        classes = len(encoder.classes_)
        return position * classes, classes
    return position, 1


def look_up(
    writer: Writer, column: str, text: bool, encoder: Any, position: int, missing: str
) -> str:
    """Writes the look-up of one column.

    Args:
        writer: Where the nodes go.
        column: Name of the tensor `(rows, 1)`.
        text: Whether it holds strings.
        encoder: The fitted encoder.
        position: Which of its columns it is.
        missing: The text that stands for a missing value.

    Returns:
        Name of a tensor `(rows, outputs)` in the writer's type.
    """
    known, gone, table = answers(encoder, position)
    index = _index(writer, column, text, known, gone, len(table) - 1, missing)
    flat = writer.node("Reshape", [index, writer.constant(np.array([-1]))])
    wide = table.shape[1] > 1 and len(table) * table.shape[1] > 4096
    if wide and set(np.unique(table[np.isfinite(table)])) <= {0.0, 1.0}:
        return _one_hot(writer, flat, table)
    rows = writer.constant(table.astype(writer.dtype))
    return writer.node("Gather", [rows, flat], axis=0)


def _one_hot(writer: Writer, flat: str, table: Array) -> str:
    """A one-hot table too big to be stored: position of the one, then OneHot."""
    depth = table.shape[1]
    places = np.where(
        np.nansum(table, axis=1) > 0, np.nanargmax(np.nan_to_num(table), axis=1), depth
    )
    place = writer.node("Gather", [writer.constant(places.astype(np.int64)), flat], axis=0)
    values = writer.constant(np.array([0, 1], dtype=np.float32))
    hot = writer.node("OneHot", [place, writer.constant(np.array([depth])), values], axis=-1)
    return writer.cast(hot)


def _index(
    writer: Writer,
    column: str,
    text: bool,
    known: list[Any],
    gone: int | None,
    unknown: int,
    missing: str,
) -> str:
    """Index `(rows, 1)` of a column's values in the table of answers."""
    numbers = list(range(len(known)))
    if text:
        keys = [str(c) for c in known]
        if gone is not None:
            keys, numbers = [*keys, missing], [*numbers, gone]
        if not keys:
            keys, numbers = [_UNKNOWN_TEXT], [unknown]
        return writer.node(
            "LabelEncoder",
            [column],
            op_domain=ML,
            op_version=2,
            keys_strings=keys,
            values_int64s=numbers,
            default_int64=unknown,
        )
    values = [float(c) for c in known]
    if any(abs(v) > _EXACT or v != float(np.float32(v)) for v in values):
        raise NotImplementedError("numeric categories that float32 cannot tell apart")
    column = writer.cast(column, np.float32)
    index = writer.node(
        "LabelEncoder",
        [column],
        op_domain=ML,
        op_version=2,
        keys_floats=values or [0.0],
        values_int64s=numbers or [unknown],
        default_int64=unknown,
    )
    if gone is None:
        return index
    absent = writer.node("IsNaN", [column])
    return writer.node("Where", [absent, writer.constant(np.array(gone)), index])


def encoder_converter(dtype: Any, missing: str) -> Any:
    """skl2onnx converter of OneHotEncoder, OrdinalEncoder and TargetEncoder."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        writer = Writer(scope, container, dtype)
        encoder = operator.raw_operator
        parts = [
            look_up(writer, column, is_text(variable), encoder, position, missing)
            for position, (column, variable) in enumerate(writer.columns(operator.inputs))
            if _place(encoder, position)[1] > 0
        ]
        writer.node("Concat", parts, operator.outputs[0].full_name, axis=1)

    return convert


def encoder_shape(dtype: Any) -> Any:
    """skl2onnx shape calculator for `encoder_converter`."""

    def shape(operator: Any) -> None:
        encoder = operator.raw_operator
        columns = sum(_place(encoder, j)[1] for j in range(len(encoder.categories_)))
        operator.outputs[0].type = numeric_type(dtype, columns)

    return shape


def _kept(imputer: Any) -> list[int]:
    if imputer.keep_empty_features or imputer.strategy == "constant":
        return list(range(len(imputer.statistics_)))
    return [i for i, v in enumerate(imputer.statistics_) if isinstance(v, str) or v == v]


def imputer_converter(dtype: Any, missing: str) -> Any:
    """skl2onnx converter of SimpleImputer."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        writer = Writer(scope, container, dtype)
        imputer = operator.raw_operator
        output = operator.outputs[0].full_name
        if is_text(operator.inputs[0]):
            _impute_text(writer, operator, output, missing)
            return
        matrix = writer.matrix(operator.inputs)
        if imputer.missing_values is None or imputer.missing_values != imputer.missing_values:
            absent = writer.node("IsNaN", [matrix])
        else:
            value = writer.constant(np.array(imputer.missing_values, dtype=dtype))
            absent = writer.node("Equal", [matrix, value])
        fill = np.nan_to_num(np.asarray(imputer.statistics_, dtype=np.float64))[None, :]
        filled = writer.node("Where", [absent, writer.constant(fill.astype(dtype)), matrix])
        kept = _kept(imputer)
        if len(kept) < len(imputer.statistics_):
            filled = writer.node("Gather", [filled, writer.constant(np.array(kept))], axis=1)
        parts = [filled]
        if imputer.add_indicator:
            seen = writer.constant(np.asarray(imputer.indicator_.features_, dtype=np.int64))
            parts.append(writer.cast(writer.node("Gather", [absent, seen], axis=1)))
        writer.node("Concat", parts, output, axis=1)

    return convert


def _impute_text(writer: Writer, operator: Any, output: str, missing: str) -> None:
    imputer = operator.raw_operator
    if imputer.add_indicator:
        raise NotImplementedError("SimpleImputer(add_indicator=True) on text")
    marker = imputer.missing_values if isinstance(imputer.missing_values, str) else missing
    columns = [name for name, _ in writer.columns(operator.inputs)]
    parts = []
    for position in _kept(imputer):
        absent = writer.node(
            "Equal", [columns[position], writer.constant(np.array([marker], dtype=object))]
        )
        fill = writer.constant(np.array([str(imputer.statistics_[position])], dtype=object))
        parts.append(writer.node("Where", [absent, fill, columns[position]]))
    writer.node("Concat", parts, output, axis=1)


def imputer_shape(dtype: Any) -> Any:
    """skl2onnx shape calculator for `imputer_converter`."""

    def shape(operator: Any) -> None:
        imputer = operator.raw_operator
        columns = len(_kept(imputer))
        if is_text(operator.inputs[0]):
            from skl2onnx.common.data_types import StringTensorType

            operator.outputs[0].type = StringTensorType([None, columns])
            return
        if sum(width(v) for v in operator.inputs) != len(imputer.statistics_):
            raise NotImplementedError("SimpleImputer on columns of several types")
        if imputer.add_indicator:
            columns += len(imputer.indicator_.features_)
        operator.outputs[0].type = numeric_type(dtype, columns)

    return shape
