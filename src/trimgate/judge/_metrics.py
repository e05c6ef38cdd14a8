"""The formulas of the metrics, each on a `View`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trimgate.judge._view import View, dot

_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Spec:
    """One metric.

    Attributes:
        kind: What it looks at: predicted labels, the order of the rows, or score values.
        bounded: Lies between 0 and 1.
        function: Computes it with the view's current weights.
        reach: How far it may move when the given share of rows is as wrong as the worst row
            seen.
    """

    name: str
    kind: Literal["label", "rank", "score"]
    higher_is_better: bool
    function: Callable[[View], float]
    regression: bool = False
    bounded: bool = True
    reach: Callable[[View, float], float] = lambda view, share: share


def _accuracy(view: View) -> float:
    return float(np.trace(view.confusion())) / view.total


def _balanced_accuracy(view: View) -> float:
    matrix = view.confusion()
    support = matrix.sum(axis=1)
    there = support > 0
    return float((matrix.diagonal()[there] / support[there]).mean())


def _f1(view: View) -> float:
    matrix = view.confusion()
    hits = matrix.diagonal()
    either = matrix.sum(axis=0) + matrix.sum(axis=1)
    if len(view.classes) == 2:
        return float(2 * hits[1] / either[1]) if either[1] else 0.0
    there = either > 0  # a class that neither occurs nor is predicted does not count
    return float((2 * hits[there] / either[there]).mean())


def _log_loss(view: View) -> float:
    return view.mean(view.row_losses())


def _brier(view: View) -> float:
    return view.mean(view.row_briers())


def _ece(view: View) -> float:
    """Guo et al., "On calibration of modern neural networks" (2017), 15 equal-width bins."""
    return float(np.abs(view.calibration_gaps()).sum()) / view.total


def _columns(view: View) -> range:
    return range(1, 2) if len(view.classes) == 2 else range(len(view.classes))


def _roc_auc(view: View) -> float:
    """Mann-Whitney: the share of pairs in the right order, ties counted half."""
    areas = []
    for column in _columns(view):
        hits, found, above, upto = view.ranking(column)
        positives, negatives = found[-1], view.total - found[-1]
        if positives == 0 or negatives == 0:  # a resample without the class
            continue
        before = above - (found - hits)
        tied = upto - above - hits
        areas.append(dot(hits, negatives - before - tied / 2) / (positives * negatives))
    return float(np.mean(areas)) if areas else float("nan")


def _average_precision(view: View) -> float:
    """Sum of precision times the gain of recall, at each distinct score; no interpolation."""
    averages = []
    for column in _columns(view):
        hits, found, _, upto = view.ranking(column)
        if found[-1] > 0:
            averages.append(dot(hits, found / np.maximum(upto, _TINY)) / found[-1])
    return float(np.mean(averages)) if averages else float("nan")


def _mse(view: View) -> float:
    return view.mean(view.errors**2)


def _r2(view: View) -> float:
    centre = view.mean(view.values)
    spread = view.mean((view.values - centre) ** 2)
    error = _mse(view)
    if spread == 0:
        return 1.0 if error == 0 else 0.0
    return 1 - error / spread


def _log_loss_reach(view: View, share: float) -> float:
    return share * float(view.row_losses().max())


def _rmse_reach(view: View, share: float) -> float:
    mse = _mse(view)
    return float(np.sqrt(mse + share * (view.errors**2).max()) - np.sqrt(mse))


def _mae_reach(view: View, share: float) -> float:
    return share * float(np.abs(view.errors).max())


def _r2_reach(view: View, share: float) -> float:
    return share * float((view.errors**2).max() / max(view.values.var(), _TINY))


METRICS: dict[str, Spec] = {
    known.name: known
    for known in (
        Spec("accuracy", "label", True, _accuracy),
        Spec("balanced_accuracy", "label", True, _balanced_accuracy),
        Spec("f1", "label", True, _f1),
        Spec("roc_auc", "rank", True, _roc_auc),
        Spec("average_precision", "rank", True, _average_precision),
        Spec("log_loss", "score", False, _log_loss, bounded=False, reach=_log_loss_reach),
        Spec("brier", "score", False, _brier, bounded=False),
        Spec("ece", "score", False, _ece),
        Spec(
            "rmse",
            "score",
            False,
            lambda view: float(np.sqrt(_mse(view))),
            regression=True,
            bounded=False,
            reach=_rmse_reach,
        ),
        Spec(
            "mae",
            "score",
            False,
            lambda view: view.mean(np.abs(view.errors)),
            regression=True,
            bounded=False,
            reach=_mae_reach,
        ),
        Spec("r2", "score", True, _r2, regression=True, bounded=False, reach=_r2_reach),
    )
}
