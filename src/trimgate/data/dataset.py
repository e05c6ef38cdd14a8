"""Rows with labels, in memory and on disk."""

import json
from collections.abc import Mapping, Sequence
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

Array = NDArray[Any]

SCHEMA = "dataset.json"
LABELS = "__label__"
BESIDE = "beside.parquet"
# Rows that a reader of batches has to hold at least.
ROW_GROUP = 65_536


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
        with writing(directory) as partial:
            if self.is_table:
                import pyarrow as pa
                import pyarrow.parquet as pq

                columns = {name: to_arrow(values) for name, values in self.features.items()}
                columns[LABELS] = to_arrow(self.labels)
                table = pa.table(columns)
                pq.write_table(
                    table, partial / "rows.parquet", compression="zstd", row_group_size=ROW_GROUP
                )
            else:
                for position, values in enumerate(self.features.values()):
                    np.save(partial / f"feature-{position}.npy", values, allow_pickle=False)
                labels = self.labels
                if labels.dtype == object:
                    labels = labels.astype(str)
                np.save(partial / "labels.npy", labels, allow_pickle=False)
            if self.beside:
                import pyarrow as pa
                import pyarrow.parquet as pq

                kept = pa.table({name: to_arrow(values) for name, values in self.beside.items()})
                pq.write_table(kept, partial / BESIDE, compression="zstd", row_group_size=ROW_GROUP)
            schema = {
                "kind": "table" if self.is_table else "arrays",
                "features": list(self.features),
                "rows": len(self),
            }
            (partial / SCHEMA).write_text(json.dumps(schema, indent=2) + "\n")

    @classmethod
    def load(cls, directory: str | Path) -> "Dataset":
        """Reads what `save` wrote; arrays are memory-mapped.

        Raises:
            InvalidInput: The directory was not written by `save`.
        """
        directory = Path(directory)
        if not (directory / SCHEMA).is_file():
            raise InvalidInput("is not a data set of trimgate (no dataset.json)", file=directory)
        schema = json.loads((directory / SCHEMA).read_text())
        beside: dict[str, Array] = {}
        if (directory / BESIDE).is_file():
            import pyarrow.parquet as pq

            kept = pq.ParquetFile(directory / BESIDE).read()
            beside = {name: to_numpy(kept[name]) for name in kept.column_names}
        if schema["kind"] == "table":
            import pyarrow.parquet as pq

            # read_table imports all of pyarrow.dataset
            table = pq.ParquetFile(directory / "rows.parquet").read()
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
