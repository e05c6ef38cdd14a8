"""The tensors of the V2 protocol as NumPy arrays, and scores as answers."""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.errors import InvalidInput
from trimgate.models import build_inputs
from trimgate.models.directory import ModelInfo, TensorSpec

Array = NDArray[Any]

DATATYPES: Mapping[str, str] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
    "object": "BYTES",
}
"""Names of the Open Inference Protocol, by NumPy name."""


def datatype_of(array: Array) -> str:
    """The protocol's name for an array's dtype."""
    return DATATYPES["string" if array.dtype.kind in "OU" else array.dtype.name]


def request_specs(info: ModelInfo) -> tuple[TensorSpec, ...]:
    """The tensors that a V2 request holds: the model's own, or the text of a text model."""
    if info.tokenizer is None:
        return info.inputs
    text = info.tokenizer.feature
    return (TensorSpec(name=text, dtype="string", shape=(-1, 1), features=(text,)),)


def request_tensors(info: ModelInfo, features: Mapping[str, Array]) -> dict[str, Array]:
    """The tensors of a V2 request that is made of rows."""
    if info.tokenizer is None:
        return build_inputs(info, features)
    text = info.tokenizer.feature
    return {text: features[text].reshape(-1, 1)}


def model_inputs(info: ModelInfo, tensors: dict[str, Array]) -> dict[str, Array]:
    """The model's inputs from the tensors of a V2 request: texts become tokens here."""
    if info.tokenizer is None:
        return tensors
    return build_inputs(info, {name: values[:, 0] for name, values in tensors.items()})


def check_shape(spec: TensorSpec, datatype: object, shape: object) -> tuple[int, ...]:
    """Compares what a request says of an input with what the model takes.

    Raises:
        InvalidInput: Datatype or shape is not the model's, or there are no rows.
    """
    expected = DATATYPES[spec.dtype]
    if datatype != expected:
        raise InvalidInput(
            f"must be {expected}", key=f"datatype of input {spec.name!r}", value=datatype
        )
    key = f"shape of input {spec.name!r}"
    if not isinstance(shape, Sequence) or not all(type(n) is int and n >= 0 for n in shape):
        raise InvalidInput("must be a list of whole numbers", key=key, value=shape)
    fits = len(shape) == len(spec.shape) and all(
        want in (-1, got) for want, got in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        raise InvalidInput(
            f"must be {list(spec.shape)} (-1: any number)", key=key, value=list(shape)
        )
    if 0 in shape:
        raise InvalidInput("holds no rows", key=key, value=list(shape))
    return tuple(shape)


def from_bytes(spec: TensorSpec, shape: tuple[int, ...], raw: bytes | memoryview) -> Array:
    """An input tensor from its binary form (little-endian; BYTES: 4-byte lengths).

    Args:
        spec: The input.
        shape: Its shape, checked already.
        raw: Its bytes in row-major order.

    Returns:
        The tensor, writable, of dtype `spec.dtype` (`object` holding `str` for strings).

    Raises:
        InvalidInput: The number of bytes does not fit the shape, or a string is not UTF-8.
    """
    key = f"input {spec.name!r}"
    if spec.dtype == "string":
        return _strings(spec, _split(raw, math.prod(shape), key), key).reshape(shape)
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    wanted = math.prod(shape) * dtype.itemsize
    if len(raw) != wanted:
        raise InvalidInput(
            f"has {len(raw)} bytes, but shape {list(shape)} of {DATATYPES[spec.dtype]} takes "
            f"{wanted}",
            key=key,
        )
    if dtype == np.bool_:
        array: Array = np.frombuffer(raw, np.uint8) != 0
    else:
        array = np.frombuffer(bytearray(raw), dtype)
    return array.reshape(shape)


def from_list(spec: TensorSpec, shape: tuple[int, ...], data: object) -> Array:
    """An input tensor from JSON `data` or gRPC contents, flat or nested.

    `null` stands for a missing value: NaN in a float tensor, `spec.missing` in a string tensor.

    Raises:
        InvalidInput: The values do not fit the datatype or the shape.
    """
    key = f"data of input {spec.name!r}"
    if not isinstance(data, list):
        raise InvalidInput("must be a list", key=key, value=data)
    if spec.dtype == "string":
        flat = _strings(spec, _flatten(data), key)
    else:
        flat = numbers(data, np.dtype(spec.dtype), key).reshape(-1)
    if flat.size != math.prod(shape):
        raise InvalidInput(f"has {flat.size} values, but the shape is {list(shape)}", key=key)
    return flat.reshape(shape)


def check_rows(rows: int, most: int) -> None:
    """Refuses a batch of more than `most` rows."""
    if rows > most:
        raise InvalidInput(f"the batch has {rows} rows, at most {most} are taken at once")


def check_finite(info: ModelInfo, inputs: Mapping[str, Array]) -> bool:
    """Refuses NaN and infinite values in the features that cannot take them.

    Returns:
        Whether a value that is let through is NaN or infinite.
    """
    odd = False
    for spec in info.inputs:
        values = inputs[spec.name]
        if values.dtype.kind != "f" or np.isfinite(values).all():
            continue
        odd = True
        for what, names, test in (
            ("NaN", spec.no_nan, np.isnan),
            ("infinite values", spec.no_inf, np.isinf),
        ):
            columns = test(values).reshape(len(values), -1)
            for position, name in enumerate(spec.features):
                column = columns if len(spec.features) == 1 else columns[:, position]
                if name in names and column.any():
                    raise InvalidInput(
                        f"feature {name!r} holds {what}, which the model cannot take",
                        key=f"input {spec.name!r}",
                    )
    return odd


def outputs(info: ModelInfo, scores: Array) -> dict[str, Array]:
    """The V2 output tensors of a batch.

    Returns:
        `probabilities` `(rows, classes)` and `label` `(rows,)` of a classifier (integers as
        `int64`, truth values as `bool`, else `object` of `str`); `value` `(rows,)` of a
        regressor.
    """
    if info.task == "regression":
        return {"value": scores}
    return {"probabilities": scores, "label": _labels(info)[scores.argmax(axis=1)]}


def output_specs(info: ModelInfo) -> tuple[TensorSpec, ...]:
    """What `outputs` gives, as tensors (the dtype of the scores is taken to be float32)."""
    if info.task == "regression":
        return (TensorSpec(name="value", dtype="float32", shape=(-1,)),)
    labels = _labels(info)
    dtype = "string" if labels.dtype == object else labels.dtype.name
    return (
        TensorSpec(name="probabilities", dtype="float32", shape=(-1, len(labels))),
        TensorSpec(name="label", dtype=dtype, shape=(-1,)),
    )


def predictions(info: ModelInfo, scores: Array) -> list[Any]:
    """The V1 answer to each row, ready for a JSON writer that knows NumPy scalars.

    Returns:
        `{"label": ..., "probabilities": {label: probability}}` of a classifier, the value of a
        regressor.
    """
    if info.task == "regression":
        return list(scores)
    names = [label if isinstance(label, str) else str(label).lower() for label in info.labels]
    return [
        {"label": info.labels[best], "probabilities": dict(zip(names, row, strict=True))}
        for best, row in zip(scores.argmax(axis=1), scores, strict=True)
    ]


def to_bytes(array: Array) -> bytes:
    """The binary form of an output tensor."""
    if array.dtype != object:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    texts = [str(item).encode() for item in array.reshape(-1)]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _labels(info: ModelInfo) -> Array:
    kinds = {type(label) for label in info.labels}
    if kinds in ({int}, {bool}, {float}):
        return np.array(info.labels)
    return np.array([str(label) for label in info.labels], dtype=object)


def numbers(data: list[Any], dtype: np.dtype[Any] | None, key: str) -> Array:
    """JSON numbers as an array of `dtype`, or of their own dtype; null is NaN.

    Raises:
        InvalidInput: A value is no number, or does not fit `dtype`.
    """
    try:
        array: Array = np.array(data)
    except (ValueError, OverflowError) as error:
        raise InvalidInput("the lists do not form a regular array of numbers", key=key) from error
    if array.dtype == object:
        for item in array.reshape(-1):
            if item is not None and type(item) not in (int, float, bool):
                raise InvalidInput("must hold numbers", key=key, value=item)
        if dtype is not None and dtype.kind != "f":
            raise InvalidInput("may not hold null", key=key)
        return array.astype(dtype or np.float64)
    if array.dtype.kind not in "biuf":
        first = next((item for item in _flatten(data) if isinstance(item, str)), data)
        raise InvalidInput("must hold numbers", key=key, value=first)
    if dtype is None:
        return array
    allowed = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}[dtype.kind]
    if array.dtype.kind not in allowed:
        raise InvalidInput(f"must hold values of {DATATYPES[dtype.name]}", key=key)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise InvalidInput(f"must lie within {limits.min} and {limits.max}", key=key)
    return array.astype(dtype)


def _strings(spec: TensorSpec, items: list[Any], key: str) -> Array:
    array = np.empty(len(items), dtype=object)
    for position, item in enumerate(items):
        if isinstance(item, bytes):
            try:
                item = item.decode()
            except UnicodeDecodeError as error:
                raise InvalidInput("is not UTF-8", key=key, value=item) from error
        elif item is None:
            if spec.missing is None:
                raise InvalidInput("may not hold null", key=key)
            item = spec.missing
        elif not isinstance(item, str):
            raise InvalidInput("must hold strings", key=key, value=item)
        array[position] = item
    return array


def _flatten(data: list[Any]) -> list[Any]:
    if not any(isinstance(item, list) for item in data):
        return data
    return [
        leaf for item in data for leaf in (_flatten(item) if isinstance(item, list) else [item])
    ]


def _split(raw: bytes | memoryview, count: int, key: str) -> list[bytes]:
    """The elements of a binary BYTES tensor."""
    items: list[bytes] = []
    offset = 0
    while offset + 4 <= len(raw) and len(items) < count:
        (length,) = struct.unpack_from("<I", raw, offset)
        offset += 4
        if offset + length > len(raw):
            break
        items.append(bytes(raw[offset : offset + length]))
        offset += length
    if len(items) != count or offset != len(raw):
        raise InvalidInput(f"does not hold {count} strings with 4-byte lengths", key=key)
    return items
