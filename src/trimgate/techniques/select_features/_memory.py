"""What a killed step had computed."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from trimgate.data.dataset import Array


class Memory:
    """Keeps arrays that take a training each.

    Args:
        folder: Of this very step on this very model and data; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def file(self, what: str, names: Sequence[str], suffix: str) -> Path | None:
        """Where something about some features is kept; None if nothing is."""
        if self.folder is None:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        key = hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()[:16]
        return self.folder / f"{what}-{key}{suffix}"

    def recall(self, what: str, names: Sequence[str], compute: Callable[[], Array]) -> Array:
        """The array that was kept, or what `compute` gives.

        Args:
            what: It is: a word.
            names: The features that it is about; their order counts.
            compute: Gives it anew.
        """
        file = self.file(what, names, ".npy")
        if file is not None and file.is_file():
            return np.asarray(np.load(file, allow_pickle=False))
        made = np.asarray(compute())
        if file is not None:
            partial = file.with_suffix(f".{os.getpid()}.partial.npy")
            np.save(partial, made, allow_pickle=False)
            partial.replace(file)
        return made
