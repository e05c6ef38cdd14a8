"""Records as the artifacts that the Kubeflow UI draws."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.tasks._common import EVALUATION, PREDICTIONS, read_evaluation

Array = NDArray[Any]

MOST_POINTS = 100
_MOST_SCORES = 20_000_000


def log_classification(artifact: Any, evaluation: str) -> None:
    """Logs confusion matrix and ROC curve to a KFP `ClassificationMetrics` artifact.

    With more than two classes the curve is the micro-average: every class of every row is one
    decision. A regression, or a recipe that was refused, logs nothing. The artifact's file is
    written in any case, without which a task with such an output is never found in the cache.

    Args:
        artifact: The output artifact.
        evaluation: What `evaluate` wrote.
    """
    logged: dict[str, Any] = {}
    if (Path(evaluation) / EVALUATION).is_file():
        record = read_evaluation(evaluation)
        if record.confusion is not None:
            matrix = [list(row) for row in record.confusion.matrix]
            artifact.log_confusion_matrix(list(record.confusion.labels), matrix)
            logged["labels"], logged["matrix"] = record.confusion.labels, matrix
        curve = _roc(Path(evaluation) / PREDICTIONS)
        if curve is not None:
            artifact.log_roc_curve(*curve)
            logged["fpr"], logged["tpr"], logged["threshold"] = curve
    Path(artifact.path).write_text(json.dumps(logged) + "\n")


def _roc(file: Path) -> tuple[list[float], list[float], list[float]] | None:
    """The curve of kept predictions; None for values, and for more than can be held."""
    from trimgate.judge.predictions import describe_predictions, load_predictions

    rows, classes = describe_predictions(file)
    if not classes or rows * len(classes) > _MOST_SCORES:
        return None
    found = load_predictions(file)
    if len(found.classes) == 2:
        return roc(found.labels == found.classes[1], found.scores[:, 1])
    truth = np.stack([found.labels == label for label in found.classes], axis=1)
    return roc(truth.ravel(), found.scores.ravel())


def roc(truth: Array, scores: Array) -> tuple[list[float], list[float], list[float]] | None:
    """The ROC curve: rates of false and true positives, and the thresholds; all finite.

    Args:
        truth: `(n,)` bool.
        scores: `(n,)`: a row counts as positive from the threshold on.

    Returns:
        At most 100 points from (0, 0) to (1, 1), those at evenly spread thresholds of the rows
        and of the positives; None when there is one class only.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, positive = scores[order], truth[order]
    last = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))  # of each distinct score
    hits = np.cumsum(positive)[last]
    misses = last + 1 - hits
    if hits[-1] == 0 or misses[-1] == 0:
        return None
    tpr = np.concatenate([[0.0], hits / hits[-1]])
    fpr = np.concatenate([[0.0], misses / misses[-1]])
    # Kubeflow takes no infinity: nothing is positive from just above the largest score on.
    thresholds = np.concatenate([[np.nextafter(float(ranked[0]), np.inf)], ranked[last]])
    half = MOST_POINTS // 2 - 1
    spread = [np.searchsorted(rate, np.linspace(0, 1, half)) for rate in (fpr, tpr)]
    kept = np.unique(np.clip(np.concatenate([[0, len(tpr) - 1], *spread]), 0, len(tpr) - 1))
    return fpr[kept].tolist(), tpr[kept].tolist(), thresholds[kept].astype(float).tolist()
