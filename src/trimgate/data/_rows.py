"""One 64-bit hash per row: finds rows that two splits share, and names a split's content."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from trimgate.data.dataset import Array, Dataset

_ODD = np.uint64(0x9E3779B97F4A7C15)


def row_hashes(data: Dataset) -> NDArray[np.uint64]:
    """Hashes of features and label of each row, equal for equal rows of any two data sets.

    Numbers are compared as `float64`, so 1, 1.0 and True are equal; NaN equals NaN. The mixing
    step is the finalizer of SplitMix64 (Steele, Lea and Flood, 2014); with a million rows a
    chance collision has a probability of about 3e-8.

    Returns:
        `(rows,)` uint64.
    """
    mixed = np.full(len(data), np.uint64(len(data.features)))
    for values in (*data.features.values(), data.labels):
        with np.errstate(over="ignore"):
            mixed = _mix(mixed * _ODD + _values(values))
    return mixed


def digest(data: Dataset) -> str:
    """`sha256:...` over the feature names and every row, in order."""
    return digest_of(data.features, row_hashes(data))


def digest_of(features: Iterable[str], hashes: NDArray[np.uint64]) -> str:
    """`digest` of rows whose hashes are known."""
    known = hashlib.sha256("\0".join(features).encode())
    known.update(np.ascontiguousarray(hashes).data)
    return "sha256:" + known.hexdigest()


def _values(values: Array) -> NDArray[np.uint64]:
    if values.ndim > 1:
        raw = (_bytes(row.tobytes()) for row in np.ascontiguousarray(values))
        return np.fromiter(raw, dtype=np.uint64, count=len(values))
    if values.dtype == object:
        known = {text: _bytes(repr(text).encode()) for text in set(values.tolist())}
        return np.fromiter((known[text] for text in values), dtype=np.uint64, count=len(values))
    numbers = values.astype(np.float64) + 0.0  # -0.0 becomes 0.0
    numbers[np.isnan(numbers)] = np.nan  # one bit pattern for every NaN
    return _mix(numbers.view(np.uint64))


def _bytes(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
