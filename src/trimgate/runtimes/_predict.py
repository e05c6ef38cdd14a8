"""Scores of many rows, in bounded memory."""

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.models._inputs import build_inputs
from trimgate.models._tokenizer import MASK, batches
from trimgate.runtimes._base import Session

_CHUNK = 4096
_CHUNK_BYTES = 2**25


def predict(session: Session, data: Dataset) -> Array:
    """Scores of all rows (see `Session.predict`), computed in chunks.

    A chunk has at most 4,096 rows and 32 MiB: a network's layers take many times as much as the
    images they are given.

    Texts go in calls of 32 of like length, because all rows of a call are as long as its longest.
    """
    parts = []
    size = chunk_rows(data)
    for begin in range(0, len(data), size):
        chunk = data.take(slice(begin, begin + size))
        inputs = build_inputs(session.info, chunk.features)
        if session.info.tokenizer is None:
            parts.append(session.predict(inputs))
            continue
        order = np.argsort(inputs[MASK].sum(axis=1), kind="stable")
        alike = {name: values[order] for name, values in inputs.items()}
        scores = [session.predict(part) for part in batches(session.info, alike)]
        parts.append(np.concatenate(scores)[np.argsort(order)])
    return np.concatenate(parts)


def chunk_rows(data: Dataset) -> int:
    """How many rows make a chunk."""
    row = sum(values.nbytes for values in data.features.values()) / max(1, len(data))
    return max(1, min(_CHUNK, int(_CHUNK_BYTES / max(1.0, row))))
