"""Per-row predictions, kept as Parquet beside an evaluation."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.data._arrow import to_arrow, to_numpy
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
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, labels = Path(path), np.asarray(labels)
    positions = np.arange(len(labels)) if rows is None else np.asarray(rows)
    columns = {"row": to_arrow(positions.astype(np.int64)), "label": to_arrow(labels)}
    if classes:
        columns["predicted"] = to_arrow(np.asarray(classes)[scores.argmax(axis=1)])
        columns |= {f"score_{c}": to_arrow(scores[:, c]) for c in range(len(classes))}
    else:
        columns |= {"predicted": to_arrow(scores), "score_0": to_arrow(scores)}
    meta = json.dumps({"classes": list(classes)}).encode()
    table = pa.table(columns).replace_schema_metadata({_META: meta})
    partial = path.with_name(path.name + ".partial")
    pq.write_table(table, partial, compression="zstd")
    partial.replace(path)


def load_predictions(path: str | Path) -> Predictions:
    """Reads what `save_predictions` wrote.

    Raises:
        InvalidInput: The file is missing or was not written by it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise InvalidInput("the file is missing", file=path)
    try:
        table = pq.ParquetFile(path).read()
    except pa.ArrowInvalid as error:
        raise InvalidInput("is not a Parquet file", file=path) from error
    meta = (table.schema.metadata or {}).get(_META)
    if meta is None:
        raise InvalidInput("does not hold predictions of trimgate", file=path)
    classes = tuple(json.loads(meta)["classes"])
    scores = [to_numpy(table[f"score_{c}"]) for c in range(max(1, len(classes)))]
    return Predictions(
        rows=to_numpy(table["row"]),
        labels=to_numpy(table["label"]),
        scores=np.stack(scores, axis=1) if classes else scores[0],
        predicted=to_numpy(table["predicted"]),
        classes=classes,
    )
