"""The rows of a data set in batches, for those that are more than memory holds."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from trimgate.data._arrow import parquet_tables, to_numpy
from trimgate.data._rows import row_hashes
from trimgate.data.dataset import (
    BATCH,
    BESIDE,
    LABELS,
    ROWS,
    Array,
    Dataset,
    concatenate,
    read_schema,
)
from trimgate.data.splits import half_rows


def row_count(directory: str | Path) -> int:
    """How many rows a data set has, without reading them."""
    return int(read_schema(Path(directory))["rows"])


def stream(directory: str | Path, size: int = BATCH) -> Iterator[Dataset]:
    """The rows in order, `size` at a time; only one batch is held.

    Args:
        directory: Written by `Dataset.save`.
        size: Rows of a batch; the last may have fewer.
    """
    directory = Path(directory)
    schema = read_schema(directory)
    beside = columns(directory / BESIDE, size) if (directory / BESIDE).is_file() else None
    if schema["kind"] == "table":
        for found in columns(directory / ROWS, size):
            labels = found.pop(LABELS)
            yield Dataset(found, labels, next(beside) if beside else {})
        return
    whole = Dataset.load(directory)  # memory-mapped
    for begin in range(0, len(whole), size):
        yield whole.take(slice(begin, begin + size))


def columns(
    file: Path, size: int = BATCH, names: Sequence[str] | None = None
) -> Iterator[dict[str, Array]]:
    """Columns of a Parquet file in batches of exactly `size` rows, the last one excepted."""
    for table in parquet_tables(file, size, names):
        yield {name: to_numpy(table[name]) for name in table.column_names}


def head(directory: str | Path, rows: int) -> Dataset:
    """The first rows; no others are read."""
    return next(stream(directory, rows))


def take(directory: str | Path, rows: Array) -> Dataset:
    """Some of the rows; besides them one batch is held.

    Args:
        directory: Written by `Dataset.save`.
        rows: Their positions, ascending.
    """
    if not (Path(directory) / ROWS).is_file():
        return Dataset.load(directory).take(rows)  # memory-mapped
    begin, parts = 0, []
    for batch in stream(directory):
        first, last = np.searchsorted(rows, (begin, begin + len(batch)))
        if last > first or not begin:
            parts.append(batch.take(rows[first:last] - begin))
        begin += len(batch)
    return concatenate(parts)


def spread(directory: str | Path, most: int = BATCH) -> Dataset:
    """At most so many rows, evenly spread over all."""
    return take(directory, spread_rows(row_count(directory), most))


def spread_rows(total: int, most: int) -> Array:
    """Positions of at most so many rows, evenly spread over all."""
    return np.linspace(0, total - 1, min(total, most)).astype(np.int64)


def half(directory: str | Path, *, ranking: bool) -> Iterator[Dataset]:
    """One of the `halves` of a validation split, in batches. The labels tell which rows it has."""
    rows = half_rows(labels_of(directory), ranking=ranking)
    begin = 0
    for batch in stream(directory):
        first, last = np.searchsorted(rows, (begin, begin + len(batch)))
        if last > first:
            yield batch.take(rows[first:last] - begin)
        begin += len(batch)


def labels_of(directory: str | Path) -> Array:
    """The label of every row."""
    return sample_columns(directory, (LABELS,), most=row_count(directory))[LABELS]


def sample_columns(
    directory: str | Path, names: Sequence[str], most: int = 200_000
) -> dict[str, Array]:
    """At most so many values of some columns, evenly spread over the rows; no others are read.

    Args:
        directory: Written by `Dataset.save`.
        names: Columns, kept ones included; `LABELS` for the labels.
        most: How many.
    """
    directory = Path(directory)
    step = max(1, -(-row_count(directory) // most))
    if not (directory / ROWS).is_file():
        whole = Dataset.load(directory)  # memory-mapped
        known = {**whole.features, **whole.beside, LABELS: whole.labels}
        return {name: np.array(known[name][::step]) for name in names if name in known}
    parts: dict[str, list[Array]] = {name: [] for name in names}
    for file in (directory / ROWS, directory / BESIDE):
        present = _present(file, names)
        begin = 0
        for batch in columns(file, names=present) if present else ():
            for name, values in batch.items():
                parts[name].append(np.array(values[-begin % step :: step]))
            begin += len(next(iter(batch.values())))
    return {name: np.concatenate(found) for name, found in parts.items() if found}


def _present(file: Path, names: Sequence[str]) -> list[str]:
    """Those of the names that a Parquet file has; none where there is no file."""
    import pyarrow.parquet as pq

    if not file.is_file():
        return []
    with pq.ParquetFile(file) as source:
        return [name for name in names if name in source.schema_arrow.names]


class Digester:
    """`trimgate.data.digest` of rows that come in batches."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._begun = False

    def add(self, batch: Dataset) -> None:
        """Takes the next rows."""
        if not self._begun:
            self._hash.update("\0".join(batch.features).encode())
            self._begun = True
        self._hash.update(row_hashes(batch).tobytes())

    def value(self) -> str:
        """`sha256:...` of all rows so far."""
        return "sha256:" + self._hash.hexdigest()
