"""Scores of many rows, in bounded memory."""

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.models._inputs import build_inputs
from trimgate.runtimes._base import Session

_CHUNK = 4096


def predict(session: Session, data: Dataset) -> Array:
    """Scores of all rows (see `Session.predict`), computed in chunks of 4,096."""
    parts = []
    for begin in range(0, len(data), _CHUNK):
        chunk = data.take(slice(begin, begin + _CHUNK))
        parts.append(session.predict(build_inputs(session.info, chunk.features)))
    return np.concatenate(parts)
