"""The rows of a data set in batches, for those that are more than memory holds."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trimgate.data._arrow import to_numpy
from trimgate.data._rows import row_hashes
from trimgate.data.dataset import BESIDE, LABELS, SCHEMA, Array, Dataset

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 65_536


def row_count(directory: str | Path) -> int:
    """How many rows a data set has, without reading them."""
    return int(json.loads((Path(directory) / SCHEMA).read_text())["rows"])


def stream(directory: str | Path, size: int = BATCH) -> Iterator[Dataset]:
    """The rows in order, `size` at a time; only one batch is held.

    Args:
        directory: Written by `Dataset.save`.
        size: Rows of a batch; the last may have fewer.
    """
    directory = Path(directory)
    schema = json.loads((directory / SCHEMA).read_text())
    beside = columns(directory / BESIDE, size) if (directory / BESIDE).is_file() else None
    if schema["kind"] == "table":
        for found in columns(directory / "rows.parquet", size):
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
                yield _numpy(held.slice(0, size))
                held = held.slice(size)
            if not held.num_rows:
                held = None  # an empty slice would keep the rows that it was cut from
    if held is not None and held.num_rows:
        yield _numpy(held)


def _numpy(table: "pa.Table") -> dict[str, Array]:
    return {name: to_numpy(table[name]) for name in table.column_names}


def sample_columns(
    directory: str | Path, names: Sequence[str], most: int = 200_000
) -> dict[str, Array]:
    """At most so many values of some columns, evenly spread over the rows.

    Args:
        directory: Written by `Dataset.save`.
        names: Columns, kept ones included; `LABELS` for the labels.
        most: How many.
    """
    directory = Path(directory)
    step = max(1, -(-row_count(directory) // most))
    parts: dict[str, list[Array]] = {name: [] for name in names}
    begin = 0
    for batch in stream(directory):
        offset = -begin % step
        for name in names:
            source = {**batch.features, **batch.beside, LABELS: batch.labels}
            if name in source:
                parts[name].append(np.array(source[name][offset::step]))
        begin += len(batch)
    return {name: np.concatenate(found) for name, found in parts.items() if found}


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
