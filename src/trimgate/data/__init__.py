"""Rows: reading, splitting, checking, keeping."""

from trimgate.data._files import as_dataset, read_columns
from trimgate.data._rows import digest, row_hashes
from trimgate.data.dataset import Dataset
from trimgate.data.splits import Splits, load_splits

__all__ = [
    "Dataset",
    "Splits",
    "as_dataset",
    "digest",
    "load_splits",
    "read_columns",
    "row_hashes",
]
