"""Rows with labels, in memory and on disk."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trimgate.data._arrow import to_arrow, to_numpy
from trimgate.directories import writing
from trimgate.errors import InvalidInput

if TYPE_CHECKING:
    import pandas
    import pyarrow

Array = NDArray[Any]

SCHEMA = "dataset.json"
LABELS = "__label__"
ROWS = "rows.parquet"
BESIDE = "beside.parquet"
# Rows that are read and written at once, and those of a row group of the files.
BATCH = 65_536


@dataclass(frozen=True)
class Dataset:
    """Rows with labels.

    Attributes:
        features: By name. A column of a table is `(rows,)`: `float64`, `int64`, `bool`, or
            `object` holding `str` with `None` for missing. An array feature (images) is
            `(rows, ...)`, `float32` or `uint8`.
        labels: `(rows,)`: `float64` for regression, else `int64`, `bool` or `object` of `str`.
        beside: Columns that the model does not take and slices are made of, by name.
    """

    features: Mapping[str, Array]
    labels: Array
    beside: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in (*self.features.items(), *self.beside.items()):
            if len(values) != len(self.labels):
                raise ValueError(f"{name}: {len(values)} rows, but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_table(self) -> bool:
        """Whether every feature is a column `(rows,)`."""
        return all(values.ndim == 1 for values in self.features.values())

    def take(self, rows: Sequence[int] | Array | slice) -> "Dataset":
        """The given rows (positions, a mask or a slice), in that order."""
        index = rows if isinstance(rows, slice) else np.asarray(rows)
        if not isinstance(index, slice) and index.size == 0:
            index = index.astype(np.intp)
        return Dataset(
            {n: v[index] for n, v in self.features.items()},
            self.labels[index],
            {n: v[index] for n, v in self.beside.items()},
        )

    def frame(self) -> "pandas.DataFrame":
        """The features of a table as a DataFrame (missing strings are NaN)."""
        import pandas

        columns = {
            name: pandas.Series(values, dtype=object).where(lambda s: s.notna(), np.nan)
            if values.dtype == object
            else values
            for name, values in self.features.items()
        }
        return pandas.DataFrame(columns)

    def save(self, directory: str | Path) -> None:
        """Writes a new directory: Parquet for a table, `.npy` files for arrays."""
        with saving(directory) as written:
            written.add(self)

    @classmethod
    def load(cls, directory: str | Path) -> "Dataset":
        """Reads what `save` wrote; arrays are memory-mapped.

        Raises:
            InvalidInput: The directory was not written by `save`.
        """
        directory = Path(directory)
        schema = read_schema(directory)
        beside: dict[str, Array] = {}
        if (directory / BESIDE).is_file():
            import pyarrow.parquet as pq

            kept = pq.ParquetFile(directory / BESIDE).read()
            beside = {name: to_numpy(kept[name]) for name in kept.column_names}
        if schema["kind"] == "table":
            import pyarrow.parquet as pq

            # read_table imports all of pyarrow.dataset
            table = pq.ParquetFile(directory / ROWS).read()
            columns = {name: to_numpy(table[name]) for name in table.column_names}
            labels = columns.pop(LABELS)
            return cls(columns, labels, beside)
        features: dict[str, Array] = {
            name: np.load(directory / f"feature-{position}.npy", mmap_mode="r")
            for position, name in enumerate(schema["features"])
        }
        labels = np.load(directory / "labels.npy")
        texts = labels.dtype.kind == "U"
        return cls(features, labels.astype(object) if texts else labels, beside)


def read_schema(directory: Path) -> dict[str, Any]:
    """What `Dataset.save` wrote of the rows: `kind`, `features` and `rows`.

    Raises:
        InvalidInput: It did not write the directory.
    """
    if not (directory / SCHEMA).is_file():
        raise InvalidInput("is not a data set of trimgate (no dataset.json)", file=directory)
    schema: dict[str, Any] = json.loads((directory / SCHEMA).read_text())
    return schema


def concatenate(parts: Sequence[Dataset]) -> Dataset:
    """The rows of data sets with the same columns, one below the other."""
    if len(parts) == 1:
        return parts[0]
    return Dataset(
        {n: np.concatenate([part.features[n] for part in parts]) for n in parts[0].features},
        np.concatenate([part.labels for part in parts]),
        {n: np.concatenate([part.beside[n] for part in parts]) for n in parts[0].beside},
    )


@contextlib.contextmanager
def saving(directory: str | Path) -> Iterator["Written"]:
    """Writes a data set in parts, as `Dataset.save` writes the whole.

    Args:
        directory: It is there when the block succeeds.
    """
    with writing(directory) as partial:
        written = Written(partial)
        yield written
        written.finish()


class Written:
    """Takes the rows of a data set as they come; see `saving`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rows = 0
        self._schema: dict[str, Any] = {}
        self._files: dict[str, _RowGroups] = {}

    def add(self, rows: Dataset) -> None:
        """Takes the next rows of a table, or all rows of arrays.

        Raises:
            ValueError: These are arrays, and not the first.
        """
        if not rows.is_table:
            if self._rows:
                raise ValueError("arrays are written at once")
            for position, values in enumerate(rows.features.values()):
                file = self._directory / f"feature-{position}.npy"
                np.save(file, values, allow_pickle=False)
            labels = rows.labels.astype(str) if rows.labels.dtype == object else rows.labels
            np.save(self._directory / "labels.npy", labels, allow_pickle=False)
        else:
            self._table(ROWS, {**rows.features, LABELS: rows.labels})
        if rows.beside:
            self._table(BESIDE, rows.beside)
        self._schema = {
            "kind": "table" if rows.is_table else "arrays",
            "features": list(rows.features),
        }
        self._rows += len(rows)

    def _table(self, file: str, columns: Mapping[str, Array]) -> None:
        import pyarrow as pa

        if file not in self._files:
            self._files[file] = _RowGroups(self._directory / file)
        self._files[file].add(pa.table({n: to_arrow(values) for n, values in columns.items()}))

    def finish(self) -> None:
        """Writes what is held, and what tells a reader about the rows; twice does no harm."""
        while self._files:
            self._files.popitem()[1].close()
        (self._directory / SCHEMA).write_text(
            json.dumps({**self._schema, "rows": self._rows}, indent=2) + "\n"
        )


class _RowGroups:
    """A Parquet file whose row groups are full, however the rows come; one group is held."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._writer: Any = None
        self._held: list[pyarrow.Table] = []

    def add(self, table: "pyarrow.Table") -> None:
        self._held.append(table)
        if sum(part.num_rows for part in self._held) >= BATCH:
            self._write(full=True)

    def close(self) -> None:
        if self._held:
            self._write(full=False)
        self._writer.close()

    def _write(self, *, full: bool) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.concat_tables(self._held)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema, compression="zstd")
        rows = table.num_rows - table.num_rows % BATCH if full else table.num_rows
        self._writer.write_table(table.slice(0, rows), row_group_size=BATCH)
        # an empty slice would keep the rows that it was cut from
        self._held = [table.slice(rows)] if rows < table.num_rows else []
