"""Rows: reading, splitting, checking, keeping."""

from trimgate.data._files import as_dataset, missing, read_columns, read_head
from trimgate.data._rows import digest, row_hashes
from trimgate.data.dataset import Dataset
from trimgate.data.splits import Division, Splits, divide, halves, load_splits

__all__ = [
    "Dataset",
    "Division",
    "Splits",
    "as_dataset",
    "digest",
    "divide",
    "halves",
    "load_splits",
    "missing",
    "read_columns",
    "read_head",
    "row_hashes",
]
