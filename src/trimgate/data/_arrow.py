"""NumPy to Arrow and back, by their buffers.

`pyarrow.array` and `to_numpy` look whether they were given something of pandas, and import it for
that: 0.3 s of every task. Buffers need no such look, and numbers are not copied.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow

Array = NDArray[Any]

_MOST_BYTES = 2**31 - 1
_FLOATS = {"double": "float64", "float": "float32", "halffloat": "float16"}


def to_arrow(values: Array) -> "pyarrow.Array":
    """An Arrow array of a column.

    Args:
        values: `(rows,)` of numbers, booleans or text, or `object` holding `str` with `None` for
            missing. Other objects are left to Arrow.

    Returns:
        Of the same numbers (NaN stays NaN), or of text with nulls.
    """
    import pyarrow as pa

    if values.dtype.kind in "OU":
        known = values.dtype.kind == "U" or all(v is None or type(v) is str for v in values)
        return _text(values) if known else pa.array(values, from_pandas=False)
    if values.dtype == np.bool_:
        bits = np.packbits(values, bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits)])
    kind = pa.from_numpy_dtype(values.dtype)
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, len(values), [None, buffer])


def _text(values: Array) -> "pyarrow.Array":
    import pyarrow as pa

    present = np.array([value is not None for value in values], dtype=bool)
    encoded = [b"" if value is None else str(value).encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    small = ends[-1] <= _MOST_BYTES
    kind = pa.string() if small else pa.large_string()
    bits = None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))
    buffers = [
        bits,
        pa.py_buffer(ends.astype(np.int32 if small else np.int64)),
        pa.py_buffer(b"".join(encoded)),
    ]
    return pa.Array.from_buffers(kind, len(values), buffers)


def to_numpy(column: Any) -> Array:
    """A column of a table that was written with `to_arrow`, as NumPy.

    Args:
        column: A `pyarrow.ChunkedArray`.

    Returns:
        `object` of `str` and None for text, else numbers or booleans.
    """
    import pyarrow as pa

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array(column.to_pylist(), dtype=object)
    if column.null_count:
        values: Array = column.to_numpy()
        return values
    parts = [_numbers(chunk) for chunk in column.chunks]
    if not parts:
        return np.zeros(0, dtype=_dtype(column.type))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _numbers(chunk: Any) -> Array:
    import pyarrow as pa

    buffer, start, stop = chunk.buffers()[1], chunk.offset, chunk.offset + len(chunk)
    if pa.types.is_boolean(chunk.type):
        bits = np.frombuffer(buffer, dtype=np.uint8)
        return np.unpackbits(bits, bitorder="little")[start:stop].astype(bool)
    return np.frombuffer(buffer, dtype=_dtype(chunk.type))[start:stop]


def _dtype(kind: Any) -> np.dtype[Any]:
    """The NumPy type of an Arrow type of numbers or booleans."""
    name = str(kind)
    return np.dtype(_FLOATS.get(name, name))


def parquet_tables(
    file: Path, size: int, names: Sequence[str] | None = None
) -> Iterator["pyarrow.Table"]:
    """A Parquet file in tables of exactly `size` rows, the last one excepted; one is held."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    held: pa.Table | None = None
    # pre-buffered, the whole file would be held as it is read
    with pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as source:
        chosen = None if names is None else list(names)
        # threads would read ahead, and hold as many batches as there are cores
        for batch in source.iter_batches(batch_size=size, columns=chosen, use_threads=False):
            part = pa.Table.from_batches([batch])
            held = part if held is None else pa.concat_tables([held, part])
            while held.num_rows >= size:
                yield held.slice(0, size)
                held = held.slice(size)
            if not held.num_rows:
                held = None  # an empty slice would keep the rows that it was cut from
    if held is not None and held.num_rows:
        yield held
