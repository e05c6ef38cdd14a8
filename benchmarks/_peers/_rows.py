"""Rows as `peers.py` writes them for the other toolkits: an array for each input of the model."""

from pathlib import Path
from typing import Any

import numpy as np

Batch = dict[str, np.ndarray]


class Rows:
    """The rows of a split, by position.

    Args:
        job: What `peers.py` gives.
        split: `train`, `validation` or `test`.
    """

    def __init__(self, job: dict[str, Any], split: str) -> None:
        folder = Path(job["rows"])
        self.mask = job["mask"]
        self.tensors = {
            name: np.load(folder / f"{split}-{name}.npy", mmap_mode="r") for name in job["inputs"]
        }
        self.labels = np.load(folder / f"{split}-labels.npy")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: slice) -> Batch:
        """Some rows; of texts no more tokens than the longest of them has."""
        batch = {name: np.array(tensor[chosen]) for name, tensor in self.tensors.items()}
        if self.mask:
            longest = int(batch[self.mask].sum(axis=1).max())
            batch = {name: tensor[:, :longest] for name, tensor in batch.items()}
        return {name: np.ascontiguousarray(tensor) for name, tensor in batch.items()}

    def row(self, index: int) -> Batch:
        """A batch of one."""
        return self[index : index + 1]
