"""Reads the files that users bring: Parquet, CSV and `.npz`."""

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".csv", ".npz")


def read_columns(path: Path) -> dict[str, Array]:
    """Reads every column (or array) of a file.

    Timestamps come as `int64` nanoseconds, integers with gaps as `float64` with NaN, strings
    and categories as `object` with None for missing.

    Raises:
        InvalidInput: The file is missing, of an unknown kind, damaged or empty, or a column has
            a type that no model takes.
    """
    if path.is_dir():
        raise InvalidInput("is a folder", file=path, mend="name a file in it")
    if not path.is_file():
        raise InvalidInput("the file is missing", file=path)
    if path.suffix == ".npz":
        columns = _read_npz(path)
    elif path.suffix in (".parquet", ".csv"):
        columns = _read_table(path)
    else:
        raise InvalidInput(
            f"the file's kind {path.suffix!r} is not known", file=path, mend=f"bring {SUFFIXES}"
        )
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise InvalidInput("its arrays have different numbers of rows", file=path)
    if not columns or lengths == {0}:
        raise InvalidInput("has no rows", file=path)
    return columns


def as_dataset(
    columns: dict[str, Array],
    label: str,
    drop: tuple[str, ...],
    file: Path,
    keep: tuple[str, ...] = (),
) -> Dataset:
    """Parts columns into features and labels; those of `keep` that are no features stay beside.

    Raises:
        InvalidInput: `label` or one of `drop` or `keep` is absent, labels are missing or
            infinite, or no feature is left.
    """
    named = [("data.label", label), *(("data.drop", name) for name in drop)]
    for key, name in (*named, *(("evaluation.slices", name) for name in keep)):
        if name not in columns:
            raise InvalidInput(
                f"there is no such column; the columns are {_some(columns)}",
                file=file,
                key=key,
                value=name,
            )
    labels = columns[label]
    if labels.ndim > 1:
        raise InvalidInput(
            "labels must be one value per row", file=file, key="data.label", value=label
        )
    missing = int(_missing(labels).sum())
    if missing:
        raise InvalidInput(
            f"{missing} of {len(labels)} labels are missing or infinite",
            file=file,
            key="data.label",
            value=label,
            mend="remove those rows",
        )
    features = {n: v for n, v in columns.items() if n != label and n not in drop}
    if not features:
        raise InvalidInput("no feature is left", file=file, key="data.drop")
    beside = {n: columns[n] for n in keep if n not in features and columns[n].ndim == 1}
    return Dataset(features, labels, beside)


def _missing(values: Array) -> Array:
    if values.dtype == object:
        return np.array([value is None for value in values])
    if values.dtype.kind == "f":
        return ~np.isfinite(values)
    return np.zeros(len(values), dtype=bool)


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            columns = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInput(
            f"cannot be read as .npz ({error})", file=path, mend="write it with numpy.savez"
        ) from error
    for name, values in columns.items():
        if values.ndim == 0 or values.dtype.kind not in "fiubU":
            raise InvalidInput(
                f"an array of {values.dtype} with {values.ndim} dimensions is not taken",
                file=path,
                key=name,
            )
        columns[name] = _plain(values)
    return columns


def _plain(values: Array) -> Array:
    """The few dtypes that `Dataset` names."""
    if values.dtype.kind == "U":
        return values.astype(object)
    if values.ndim > 1:
        return values if values.dtype in (np.uint8, np.float32) else values.astype(np.float32)
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    return values.astype(np.float64) if values.dtype.kind == "f" else values


def _read_table(path: Path) -> dict[str, Array]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if path.suffix == ".parquet":
            table = pyarrow.parquet.read_table(path)
        else:
            options = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
            table = pyarrow.csv.read_csv(path, convert_options=options)
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0]
        raise InvalidInput(f"cannot be read as {path.suffix[1:]} ({first})", file=path) from error
    doubled = {name for name in table.column_names if table.column_names.count(name) > 1}
    if doubled:
        raise InvalidInput("two columns have this name", file=path, key=sorted(doubled)[0])
    return {name: _from_arrow(table[name], name, path) for name in table.column_names}


def _from_arrow(column: "pa.ChunkedArray", name: str, path: Path) -> Array:
    import pyarrow as pa

    kind: Any = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(column.to_pylist(), dtype=object)
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_boolean(kind):
        if column.null_count:
            column = column.cast(pa.int8()).cast(pa.float64())
        values: Array = column.to_numpy()
        return values
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
        times: Array = column.cast(pa.timestamp("ns")).to_numpy()
        return times.astype(np.int64)
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise InvalidInput(f"a column of type {kind} is not taken", file=path, key=name)
    return _plain(column.to_numpy())


def _some(columns: dict[str, Array]) -> str:
    names = list(columns)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
