"""The formulas of the metrics, each on a `View`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trimgate.judge._view import Floats, View, dot

_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Spec:
    """One metric.

    Attributes:
        kind: What it looks at: predicted labels, the order of the rows, or score values.
        bounded: Lies between 0 and 1.
        function: Computes it with the view's current weights.
        needs: What has to be set: an operating point (binary models alone) or costs.
        reach: How far it may move when the given share of rows is as wrong as the worst row
            seen.
    """

    name: str
    kind: Literal["label", "rank", "score"]
    higher_is_better: bool
    function: Callable[[View], float]
    regression: bool = False
    bounded: bool = True
    needs: Literal["point", "costs"] | None = None
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


def _precision(view: View, *, decided: bool = False) -> float:
    """Of no row that is called positive (or of the class), 0."""
    matrix = view.confusion(decided=decided)
    called = matrix.sum(axis=0)
    shares = matrix.diagonal() / np.maximum(called, _TINY)
    if len(view.classes) == 2:
        return float(shares[1])
    return float(shares[called + matrix.sum(axis=1) > 0].mean())


def _recall(view: View, *, decided: bool = False) -> float:
    matrix = view.confusion(decided=decided)
    support = matrix.sum(axis=1)
    if len(view.classes) == 2:
        return float(matrix[1, 1] / support[1]) if support[1] else float("nan")
    there = support > 0
    return float((matrix.diagonal()[there] / support[there]).mean())


def _f1_at_point(view: View) -> float:
    matrix = view.confusion(decided=True)
    either = matrix[1].sum() + matrix[:, 1].sum()
    return float(2 * matrix[1, 1] / either) if either else 0.0


def _cost(view: View) -> float:
    """Mean cost per row of the decisions, at the operating point where there is one."""
    return float((view.confusion(decided=True) * _costs(view)).sum()) / view.total


def _costs(view: View) -> Floats:
    if view.costs is None:
        raise TypeError("a cost needs costs")
    return view.costs


def _cost_reach(view: View, share: float) -> float:
    return share * float(np.ptp(_costs(view), axis=1).max())


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
        Spec("precision", "label", True, _precision),
        Spec("recall", "label", True, _recall),
        Spec("f1_at_point", "label", True, _f1_at_point, needs="point"),
        Spec(
            "precision_at_point",
            "label",
            True,
            lambda view: _precision(view, decided=True),
            needs="point",
        ),
        Spec(
            "recall_at_point",
            "label",
            True,
            lambda view: _recall(view, decided=True),
            needs="point",
        ),
        Spec("cost", "label", False, _cost, bounded=False, needs="costs", reach=_cost_reach),
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
