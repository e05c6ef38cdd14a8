"""Per-row predictions, kept as Parquet beside an evaluation."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from trimgate.data._arrow import to_arrow, to_numpy
from trimgate.data.dataset import BATCH
from trimgate.data.stream import columns
from trimgate.errors import InvalidInput

Array = NDArray[Any]

_META = b"trimgate"


@dataclass(frozen=True)
class Predictions:
    """What one model said of each row.

    Attributes:
        rows: `(rows,)` int64: position in the split.
        labels: `(rows,)`.
        scores: `(rows, classes)`, or `(rows,)` for regression.
        predicted: `(rows,)`: class labels; the scores themselves for regression.
        classes: In the order of the scores' columns; empty for regression.
    """

    rows: Array
    labels: Array
    scores: Array
    predicted: Array
    classes: tuple[Any, ...]

    def take(self, rows: Array) -> "Predictions":
        """Those of some rows, by position."""
        return Predictions(
            self.rows[rows],
            self.labels[rows],
            self.scores[rows],
            self.predicted[rows],
            self.classes,
        )

    def followed_by(self, other: "Predictions") -> "Predictions":
        """These, and those of further rows."""
        return Predictions(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.scores, other.scores]),
            np.concatenate([self.predicted, other.predicted]),
            self.classes,
        )


def save_predictions(
    path: str | Path,
    labels: Sequence[Any] | Array,
    scores: Array,
    classes: Sequence[Any],
    *,
    rows: Sequence[int] | Array | None = None,
) -> None:
    """Writes labels, scores and predicted labels, one row each, as Parquet.

    Args:
        path: The file to write.
        labels: `(rows,)`.
        scores: As `Session.predict` returns them.
        classes: `ModelInfo.labels`; empty for regression.
        rows: Positions of the rows; counted from 0 by default.
    """
    labels = np.asarray(labels)
    with PredictionsWriter(path, classes) as writer:
        writer.add(labels, scores, rows)


class PredictionsWriter:
    """Writes predictions batch by batch; the file is there when the last one is written.

    Args:
        path: The file to write.
        classes: `ModelInfo.labels`; empty for regression.
    """

    def __init__(self, path: str | Path, classes: Sequence[Any]) -> None:
        self._path, self._classes = Path(path), list(classes)
        self._partial = self._path.with_name(self._path.name + ".partial")
        self._writer: Any = None
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)

    def add(self, labels: Array, scores: Array, rows: Sequence[int] | Array | None = None) -> None:
        """Writes the next rows; see `save_predictions`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        first = self._rows
        positions = np.arange(first, first + len(labels)) if rows is None else np.asarray(rows)
        parts = {"row": to_arrow(positions.astype(np.int64)), "label": to_arrow(labels)}
        if self._classes:
            parts["predicted"] = to_arrow(np.asarray(self._classes)[scores.argmax(axis=1)])
            parts |= {f"score_{c}": to_arrow(scores[:, c]) for c in range(len(self._classes))}
        else:
            parts |= {"predicted": to_arrow(scores), "score_0": to_arrow(scores)}
        table = pa.table(parts)
        if self._writer is None:
            meta = json.dumps({"classes": self._classes}).encode()
            schema = table.schema.with_metadata({_META: meta})
            self._writer = pq.ParquetWriter(self._partial, schema, compression="zstd")
        self._writer.write_table(table.cast(self._writer.schema))
        self._rows += len(labels)


def load_predictions(path: str | Path) -> Predictions:
    """Reads what `save_predictions` wrote.

    Raises:
        InvalidInput: The file is missing or was not written by it.
    """
    import pyarrow.parquet as pq

    _, classes = describe_predictions(path)
    table = pq.ParquetFile(path).read()
    return _predictions({name: to_numpy(table[name]) for name in table.column_names}, classes)


def stream_predictions(path: str | Path, size: int = BATCH) -> Iterator[Predictions]:
    """What `load_predictions` reads, in batches of `size` rows.

    Raises:
        InvalidInput: As there.
    """
    _, classes = describe_predictions(path)
    for found in columns(Path(path), size):
        yield _predictions(found, classes)


def describe_predictions(path: str | Path) -> tuple[int, tuple[Any, ...]]:
    """How many rows the predictions are of, and their classes; no row is read.

    Raises:
        InvalidInput: As for `load_predictions`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise InvalidInput("the file is missing", file=path)
    try:
        with pq.ParquetFile(path) as file:
            meta = (file.schema_arrow.metadata or {}).get(_META)
            rows = int(file.metadata.num_rows)
    except pa.ArrowInvalid as error:
        raise InvalidInput("is not a Parquet file", file=path) from error
    if meta is None:
        raise InvalidInput("does not hold predictions of trimgate", file=path)
    return rows, tuple(json.loads(meta)["classes"])


def _predictions(found: Mapping[str, Array], classes: tuple[Any, ...]) -> Predictions:
    scores = [found[f"score_{c}"] for c in range(max(1, len(classes)))]
    return Predictions(
        rows=found["row"],
        labels=found["label"],
        scores=np.stack(scores, axis=1) if classes else scores[0],
        predicted=found["predicted"],
        classes=classes,
    )
