"""Training rows in parts: what is learnt from, and what is held out to choose by."""

import numpy as np

from trimgate.data.dataset import Array, Dataset


def folds(rows: Dataset, number: int, seed: int) -> list[tuple[Dataset, Dataset]]:
    """Pairs of rows to learn from and rows held out; each row is held out once.

    All parts have the same mix of labels. Where a class has too few rows for that, there is one
    pair, with all rows on both sides.

    Args:
        rows: Training rows.
        number: How many pairs, at least 2.
        seed: Of the shuffling.

    Returns:
        `number` pairs `(rest, held)`, or one.
    """
    part = parts(rows.labels, number, seed)
    if part is None:
        return [(rows, rows)]
    return [(rows.take(part != fold), rows.take(part == fold)) for fold in range(number)]


def parts(labels: Array, number: int, seed: int) -> Array | None:
    """The part, 0 to `number` - 1, that each row falls in; None where there are too few rows."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    keys = labels.astype(str) if labels.dtype == object else labels
    order = shuffled[np.argsort(keys[shuffled], kind="stable")]
    least = len(labels)
    if labels.dtype.kind != "f":
        least = int(np.unique(keys, return_counts=True)[1].min())
    if least < 2 * number:
        return None
    part = np.empty(len(labels), dtype=np.int64)
    part[order] = np.arange(len(labels)) % number
    return part
