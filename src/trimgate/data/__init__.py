"""Rows: reading, splitting, checking, keeping."""

from trimgate.data._files import as_dataset, read_columns
from trimgate.data._rows import digest, row_hashes
from trimgate.data.dataset import Dataset
from trimgate.data.splits import Splits, halves, load_splits

__all__ = [
    "Dataset",
    "Splits",
    "as_dataset",
    "digest",
    "halves",
    "load_splits",
    "read_columns",
    "row_hashes",
]
