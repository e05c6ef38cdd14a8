"""From what a model puts out to scores."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.models.directory import ModelInfo

Array = NDArray[Any]


def to_scores(raw: Array, info: ModelInfo) -> Array:
    """Turns the raw score tensor of a model into probabilities or values.

    Logits become probabilities (softmax; sigmoid for one column), a single probability
    column becomes two, labels become one-hot rows, and values are flattened.

    Args:
        raw: `(rows,)` or `(rows, columns)`, as `info.score_kind` says.
        info: The model's record.

    Returns:
        `(rows, classes)` probabilities for a classifier, `(rows,)` values for a regressor.
    """
    if info.task == "regression":
        return raw.reshape(len(raw), -1)[:, 0]
    if info.score_kind == "label":
        flat = raw.reshape(-1)
        return np.stack([flat == label for label in info.labels], axis=1).astype(np.float32)
    scores = raw.reshape(len(raw), -1)
    if scores.shape[1] == 1:
        column = scores[:, 0]
        if info.score_kind == "logit":
            # tanh does not overflow for large logits, exp does
            column = 0.5 * (1.0 + np.tanh(0.5 * column))
        return np.stack([1.0 - column, column], axis=1)
    if info.score_kind == "logit":
        shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities: Array = shifted / shifted.sum(axis=1, keepdims=True)
        return probabilities
    return scores
