"""What a card draws of one model: reliability, confusion, curves, the operating point."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.judge._metrics import METRICS
from trimgate.judge._points import Threshold
from trimgate.judge._view import ECE_BINS, View
from trimgate.judge.records import (
    Calibration,
    CalibrationBin,
    Confusion,
    Curve,
    Interval,
    OperatingPoint,
)

MOST_POINTS = 200
MOST_CLASSES = 50

Array = NDArray[Any]


def calibration(view: View, ece: Interval, brier: Interval) -> Calibration:
    """The reliability diagram: 15 bins of equal width."""
    if len(view.classes) == 2:
        scores, right = view.scores[:, 1], view.codes == 1
    else:
        scores, right = view.scores.max(axis=1), view.predicted == view.codes
    bins = np.clip((scores * ECE_BINS).astype(np.int64), 0, ECE_BINS - 1)
    counts = np.bincount(bins, minlength=ECE_BINS)
    means = np.bincount(bins, scores, ECE_BINS) / np.maximum(counts, 1)
    shares = np.bincount(bins, right, ECE_BINS) / np.maximum(counts, 1)
    return Calibration(
        ece=ece,
        brier=brier,
        bins=tuple(
            CalibrationBin(
                low=b / ECE_BINS,
                high=(b + 1) / ECE_BINS,
                mean_score=float(means[b]),
                observed=float(shares[b]),
                rows=int(counts[b]),
            )
            for b in np.flatnonzero(counts)
        ),
    )


def confusion(view: View) -> Confusion | None:
    """Rows by true and predicted class, at the operating point where there is one."""
    if not view.classes or len(view.classes) > MOST_CLASSES:
        return None
    matrix = view.confusion(decided=True).astype(int)
    return Confusion(
        labels=tuple(map(str, view.classes)),
        matrix=tuple(map(tuple, matrix.tolist())),
        threshold=view.threshold,
    )


def curves(view: View) -> tuple[Curve, ...]:
    """ROC and precision-recall, each at most 200 points.

    With more than two classes they are the means over the classes, each against the rest, as the
    metrics are.
    """
    if not 2 <= len(view.classes) <= MOST_CLASSES:
        return ()
    found = []
    for column in range(1, 2) if len(view.classes) == 2 else range(len(view.classes)):
        order = np.argsort(-view.scores[:, column], kind="stable")
        ranked, positive = view.scores[order, column], view.codes[order] == column
        last = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))
        found.append((np.cumsum(positive)[last], last + 1))
    return curves_from(found)


def curves_from(counted: Sequence[tuple[Array, Array]]) -> tuple[Curve, ...]:
    """The same from counts.

    Args:
        counted: For the positive class, or for each class against the rest: `(thresholds,)` rows
            of the class that score a threshold or more, from the highest threshold, and so many
            rows of any class.
    """
    drawn = [(hits, taken) for hits, taken in counted if 0 < hits[-1] < taken[-1]]
    if not drawn:
        return ()
    if len(counted) > 1:
        return _mean_curves(drawn)
    hits, taken = drawn[0]
    recall, fall_out, precision = _rates(hits, taken)
    # evenly spread along the curve, which has its steps where the rarer class is
    along = np.abs(np.diff(recall, prepend=0.0)) + np.abs(np.diff(fall_out, prepend=0.0))
    kept = _thin(np.cumsum(along))
    roc = [np.concatenate([[0.0], part[kept]]) for part in (fall_out, recall)]
    chosen = _thin(np.cumsum(np.abs(np.diff(recall, prepend=0.0))))
    return (
        Curve(kind="roc", x=tuple(roc[0].tolist()), y=tuple(roc[1].tolist())),
        Curve(
            kind="precision_recall",
            x=tuple(recall[chosen].tolist()),
            y=tuple(precision[chosen].tolist()),
        ),
    )


def _rates(hits: Array, taken: Array) -> tuple[Array, Array, Array]:
    """Recall, false-positive rate and precision at each threshold."""
    recall = hits / hits[-1]
    fall_out = (taken - hits) / (taken[-1] - hits[-1])
    return recall, fall_out, hits / np.maximum(taken, 1)


def _mean_curves(drawn: Sequence[tuple[Array, Array]]) -> tuple[Curve, ...]:
    """The mean height of the classes' curves."""
    # the steps of a good model lie at the left end of ROC: half of the points are there
    half = MOST_POINTS // 2
    across = np.union1d(np.geomspace(1e-4, 1, half), np.linspace(0, 1, half))
    wanted = np.linspace(0, 1, MOST_POINTS)
    heights, precisions = np.zeros(len(across)), np.zeros(len(wanted))
    for hits, taken in drawn:
        recall, fall_out, precision = _rates(hits, taken)
        x, y = (np.concatenate([[0.0], part]) for part in (fall_out, recall))
        at = np.searchsorted(x, across, side="right") - 1
        # np.interp takes the first of several points above each other; the curve is at the last
        heights += np.where(x[at] == across, y[at], np.interp(across, x, y))
        reached = np.searchsorted(recall, wanted - 1e-12, side="left").clip(0, len(recall) - 1)
        precisions += precision[reached]
    count = len(drawn)
    return (
        Curve(
            kind="roc",
            x=(0.0, *across.tolist()),
            y=(0.0, *(heights / count).tolist()),
            classes=count,
        ),
        Curve(
            kind="precision_recall",
            x=tuple(wanted.tolist()),
            y=tuple((precisions / count).tolist()),
            classes=count,
        ),
    )


def _thin(along: Array) -> Array:
    """Positions of at most 199 points, the first and the last among them."""
    wanted = np.linspace(along[0], along[-1], MOST_POINTS - 1)
    return np.unique(np.searchsorted(along, wanted, side="left").clip(0, len(along) - 1))


def operating_point(view: View, threshold: Threshold | None) -> OperatingPoint | None:
    """What the model gives at its threshold."""
    if threshold is None:
        return None

    def at(name: str) -> float:
        return METRICS[name].function(view)

    return OperatingPoint(
        threshold=threshold.value,
        rule=threshold.rule,
        chosen_on=threshold.rows,
        precision=at("precision_at_point"),
        recall=at("recall_at_point"),
        f1=at("f1_at_point"),
        cost=None if view.costs is None else at("cost"),
    )
