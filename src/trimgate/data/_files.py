"""Reads the files that users bring: Parquet, CSV and `.npz`."""

import contextlib
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimgate.data._arrow import parquet_tables
from trimgate.data._csv import csv_tables, csv_types, read_csv
from trimgate.data.dataset import BATCH, Array, Dataset
from trimgate.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".csv", ".npz")

# A batch of a CSV file is so many bytes for each row that is asked for.
_ROW_BYTES = 128
# A CSV file of so many batches is read at once.
_SMALL = 4


class Source:
    """The rows of a file in batches; a file of one batch is read once and kept.

    Args:
        path: Parquet, CSV or `.npz` (which is one batch, however long).
        size: Rows of a batch.

    Raises:
        InvalidInput: The file is missing, of an unknown kind, damaged or empty, or a column has
            a type that no model takes.
    """

    def __init__(self, path: Path, size: int = BATCH) -> None:
        self.path, self._size = path, size
        self._kept: dict[str, Array] | None = None
        self._dtypes: dict[str, np.dtype[Any]] = {}
        self._csv_types: dict[str, Any] | None = None
        if path.is_dir():
            raise InvalidInput("is a folder", file=path, mend="name a file in it")
        if not path.is_file():
            raise InvalidInput("the file is missing", file=path)
        if path.suffix not in SUFFIXES:
            raise InvalidInput(
                f"the file's kind {path.suffix!r} is not known", file=path, mend=f"bring {SUFFIXES}"
            )
        if path.suffix == ".npz":
            self._kept = _read_npz(path)
        elif self._is_small():
            with self._readable():
                self._kept = self._columns(self._whole())
        if self._kept is None:
            return
        lengths = {len(values) for values in self._kept.values()}
        if len(lengths) > 1:
            raise InvalidInput("its arrays have different numbers of rows", file=path)
        if not self._kept or lengths == {0}:
            raise InvalidInput("has no rows", file=path)

    def batches(self) -> Iterator[dict[str, Array]]:
        """Every column (or array), some rows at a time.

        Timestamps come as `int64` nanoseconds, integers with gaps as `float64` with NaN, strings
        and categories as `object` with None for missing. Where the first gap comes late, the
        batches before it have integers; once all were read, each has the type of the whole.
        """
        if self._kept is not None:
            yield self._kept
            return
        with self._readable():
            for table in self._tables():
                columns = self._columns(table)
                for name, values in columns.items():
                    known = self._dtypes.get(name, values.dtype)
                    self._dtypes[name] = np.result_type(known, values.dtype)
                yield {n: v.astype(self._dtypes[n], copy=False) for n, v in columns.items()}

    def _is_small(self) -> bool:
        import pyarrow.parquet as pq

        if self.path.suffix == ".csv":
            return self.path.stat().st_size <= self._size * _ROW_BYTES * _SMALL
        with self._readable(), pq.ParquetFile(self.path) as file:
            return int(file.metadata.num_rows) <= self._size

    def _whole(self) -> "pa.Table":
        import pyarrow.parquet as pq

        if self.path.suffix == ".csv":
            return read_csv(self.path)
        with pq.ParquetFile(self.path) as file:  # read_table imports all of pyarrow.dataset
            return file.read()

    def _tables(self) -> Iterator["pa.Table"]:
        if self.path.suffix == ".parquet":
            yield from parquet_tables(self.path, self._size)
            return
        block = self._size * _ROW_BYTES
        if self._csv_types is None:
            types = csv_types(self.path, block)
            self._check_names([name for name, _ in types])
            self._csv_types = dict(types)
        yield from csv_tables(self.path, block, self._csv_types)

    def _columns(self, table: "pa.Table") -> dict[str, Array]:
        self._check_names(table.column_names)
        return {name: _from_arrow(table[name], name, self.path) for name in table.column_names}

    def _check_names(self, names: Sequence[str]) -> None:
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise InvalidInput("two columns have this name", file=self.path, key=doubled[0])

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError) as error:
            first = str(error).splitlines()[0]
            raise InvalidInput(
                f"cannot be read as {self.path.suffix[1:]} ({first})", file=self.path
            ) from error


def read_columns(path: Path) -> dict[str, Array]:
    """Every column (or array) of a file, of all rows; see `Source`.

    Raises:
        InvalidInput: As for `Source`.
    """
    return next(Source(path, size=sys.maxsize).batches())


def read_head(path: Path) -> dict[str, Array]:
    """Every column (or array) of a file, of the first rows if it has more than a batch.

    Raises:
        InvalidInput: As for `Source`.
    """
    return next(Source(path).batches())


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
    check_columns(columns, label, drop, keep, file)
    check_labels(int(missing(columns[label]).sum()), len(columns[label]), label, file)
    return part(columns, label, drop, keep)


def part(
    columns: Mapping[str, Array], label: str, drop: tuple[str, ...], keep: tuple[str, ...]
) -> Dataset:
    """`as_dataset` of columns that were checked."""
    features = {n: v for n, v in columns.items() if n != label and n not in drop}
    beside = {n: columns[n] for n in keep if n not in features and columns[n].ndim == 1}
    return Dataset(features, columns[label], beside)


def check_columns(
    columns: Mapping[str, Array],
    label: str,
    drop: tuple[str, ...],
    keep: tuple[str, ...],
    file: Path,
) -> None:
    """Refuses names that are no columns, labels that are arrays, and rows without a feature."""
    named = [("data.label", label), *(("data.drop", name) for name in drop)]
    for key, name in (*named, *(("evaluation.slices", name) for name in keep)):
        if name not in columns:
            raise InvalidInput(
                f"there is no such column; the columns are {_some(columns)}",
                file=file,
                key=key,
                value=name,
            )
    if columns[label].ndim > 1:
        raise InvalidInput(
            "labels must be one value per row", file=file, key="data.label", value=label
        )
    if not set(columns) - {label, *drop}:
        raise InvalidInput("no feature is left", file=file, key="data.drop")


def check_labels(missing: int, rows: int, label: str, file: Path) -> None:
    """Refuses rows without a label."""
    if missing:
        raise InvalidInput(
            f"{missing} of {rows} labels are missing or infinite",
            file=file,
            key="data.label",
            value=label,
            mend="remove those rows",
        )


def missing(values: Array) -> Array:
    """Which values (or arrays) are missing or infinite: `(rows,)` mask."""
    if values.dtype == object:
        return np.array([value is None for value in values], dtype=bool)
    if values.dtype.kind == "f":
        return np.asarray(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
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
        return values.astype(np.int64, copy=False)
    return values.astype(np.float64, copy=False) if values.dtype.kind == "f" else values


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
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        times: Array = column.cast(pa.timestamp("ns")).to_numpy()
        return times.astype(np.int64)
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise InvalidInput(f"a column of type {kind} is not taken", file=path, key=name)
    return _plain(column.to_numpy())


def _some(columns: Mapping[str, Array]) -> str:
    names = list(columns)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
