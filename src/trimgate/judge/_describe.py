"""What a card draws of one model: reliability, confusion, curves, the operating point."""

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
    """ROC and precision-recall of a binary model, each at most 200 points."""
    if len(view.classes) != 2:
        return ()
    order = np.argsort(-view.scores[:, 1], kind="stable")
    ranked, positive = view.scores[order, 1], view.codes[order] == 1
    last = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))
    hits, taken = np.cumsum(positive)[last], last + 1
    total = int(positive.sum())
    return curves_from(hits, taken, total, view.rows)


def curves_from(hits: Array, taken: Array, total: int, rows: int) -> tuple[Curve, ...]:
    """The same from counts at each threshold, from the highest.

    Args:
        hits: `(thresholds,)` positive rows at or above it.
        taken: `(thresholds,)` rows at or above it.
        total: All positive rows.
        rows: All rows.
    """
    if not 0 < total < rows:
        return ()
    recall, fall_out = hits / total, (taken - hits) / (rows - total)
    # evenly spread along the curve, which has its steps where the rarer class is
    along = np.abs(np.diff(recall, prepend=0.0)) + np.abs(np.diff(fall_out, prepend=0.0))
    kept = _thin(np.cumsum(along))
    roc = [np.concatenate([[0.0], part[kept]]) for part in (fall_out, recall)]
    precision = hits / np.maximum(taken, 1)
    chosen = _thin(np.cumsum(np.abs(np.diff(recall, prepend=0.0))))
    return (
        Curve(kind="roc", x=tuple(roc[0].tolist()), y=tuple(roc[1].tolist())),
        Curve(
            kind="precision_recall",
            x=tuple(recall[chosen].tolist()),
            y=tuple(precision[chosen].tolist()),
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
