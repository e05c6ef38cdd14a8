"""Sums by block of rows, from which metrics and their resamples are computed without the rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.errors import InvalidInput
from trimgate.judge._metrics import METRICS
from trimgate.judge._view import ECE_BINS, View

Array = NDArray[Any]
Floats = NDArray[np.float64]

MOST_CLASSES = 50
_TINY = float(np.finfo(np.float64).tiny)
_OCTAVES = 24  # a score in float32 comes no nearer to 1


class Tally(View):
    """Sums of one model by block; reads like a `View` of the blocks' rows with their weights.

    Args:
        classes: Empty for regression.
        blocks: Number of blocks.
        threshold: As `View`.
        costs: As `View`.
        detail: 2 ** detail score bins an octave of odds; None when no metric ranks.
    """

    def __init__(
        self,
        classes: tuple[Any, ...],
        blocks: int,
        *,
        threshold: float | None,
        costs: tuple[tuple[float, ...], ...] | None,
        detail: int | None,
    ) -> None:
        size = len(classes)
        if size > MOST_CLASSES:
            raise InvalidInput(
                f"{size} classes are too many to be judged in batches",
                key="evaluation.stream_rows",
                mend="set it above the number of rows",
            )
        self.classes, self.threshold = classes, threshold
        self.costs = None if costs is None else np.asarray(costs, dtype=np.float64)
        # each class is ranked against the rest; of two it is enough to rank one
        self._ranked = range(1, 2) if size == 2 else range(size)
        self.blocks, self._detail = blocks, detail
        self.rows = 0
        self.worst = dict.fromkeys(("log_loss", "brier", "rmse", "mae"), 0.0)
        self._shift: float | None = None
        self._weights = None
        self.counts = np.zeros(blocks)
        self._bins = 0 if detail is None else 2 * (_OCTAVES << detail)
        shape = (blocks, len(self._ranked), 2, self._bins)
        self.histogram = np.zeros(shape, dtype=np.float32)
        self._sums: dict[str, Floats] = {}
        if classes:
            self._sums = {
                "confusion": np.zeros((blocks, size * size)),
                "log_loss": np.zeros((blocks, 1)),
                "brier": np.zeros((blocks, 1)),
                "gaps": np.zeros((blocks, ECE_BINS)),
            }
            if threshold is not None:
                self._sums["point"] = np.zeros((blocks, 4))
        else:
            self._sums = {name: np.zeros((blocks, 1)) for name in ("mse", "mae", "y", "yy")}
        self._now: dict[str, Floats] = {}
        self.weigh(None)

    def add(self, view: View, block: Array) -> None:
        """Takes rows, each in its block.

        Args:
            view: The rows.
            block: `(rows,)` below `blocks`.
        """
        self.rows += view.rows
        self.counts += np.bincount(block, minlength=self.blocks)
        if not self.classes:
            if self._shift is None:
                self._shift = float(view.values.mean())
            centred = view.values - self._shift
            squares = view.errors**2
            for name, values in (
                ("mse", squares), ("mae", np.abs(view.errors)), ("y", centred), ("yy", centred**2),
            ):  # fmt: skip
                self._count(name, block, np.zeros_like(block), values)
            self._seen("rmse", squares)
            self._seen("mae", np.abs(view.errors))
            self.weigh(None)
            return
        size = len(self.classes)
        self._count("confusion", block, view.codes * size + view.predicted, None)
        for name, values in (("log_loss", view.row_losses()), ("brier", view.row_briers())):
            self._count(name, block, np.zeros_like(block), values)
            self._seen(name, values)
        confidence = view.scores.max(axis=1)
        bins = np.clip((confidence * ECE_BINS).astype(np.int64), 0, ECE_BINS - 1)
        self._count("gaps", block, bins, (view.predicted == view.codes) - confidence)
        if self.threshold is not None:
            self._count("point", block, view.codes * 2 + view.decided, None)
        if self._bins:
            for position, column in enumerate(self._ranked):
                own = (view.codes == column).astype(np.int64)
                place = (block * 2 + own) * self._bins + self._place(view.scores[:, column])
                flat = np.bincount(place, minlength=self.blocks * 2 * self._bins)
                self.histogram[:, position] += flat.reshape(self.blocks, 2, self._bins)
        self.weigh(None)

    def _count(self, name: str, block: Array, cell: Array, weights: Floats | None) -> None:
        sums = self._sums[name]
        flat = np.bincount(block * sums.shape[1] + cell, weights, sums.size)
        sums += flat.reshape(sums.shape)

    def _seen(self, name: str, values: Floats) -> None:
        self.worst[name] = max(self.worst[name], float(values.max(initial=0.0)))

    def _place(self, scores: Floats) -> Array:
        """Bins by the odds: as fine near 0 and near 1 as in the middle, highest score first."""
        detail = self._detail or 0
        nearer = np.minimum(scores, 1 - scores)
        octave = np.clip(-np.log2(np.maximum(2 * nearer, 2.0**-_OCTAVES)), 0, _OCTAVES - 1e-9)
        away = (octave * (1 << detail)).astype(np.int64)
        half = self._bins // 2
        place: Array = np.where(scores >= 0.5, half - 1 - away, half + away)
        return place

    def weigh(self, weights: Floats | None) -> None:
        """Sets how often each block counts; None for once."""
        self._weights = np.ones(self.blocks) if weights is None else weights
        self._now = {}

    @property
    def total(self) -> float:
        """How many rows count."""
        weights = self._weights if self._weights is not None else np.ones(self.blocks)
        return float(weights @ self.counts)

    def _sum(self, name: str) -> Floats:
        if name not in self._now:
            weights = self._weights if self._weights is not None else np.ones(self.blocks)
            table: Array = self.histogram if name == "histogram" else self._sums[name]
            flat = weights.astype(table.dtype) @ table.reshape(self.blocks, -1)
            self._now[name] = flat.reshape(table.shape[1:]).astype(np.float64)
        return self._now[name]

    def confusion(self, *, decided: bool = False) -> Floats:
        """See `View.confusion`."""
        name = "point" if decided and self.threshold is not None else "confusion"
        size = len(self.classes)
        return self._sum(name).reshape(size, size)

    def calibration_gaps(self) -> Floats:
        """See `View.calibration_gaps`."""
        return self._sum("gaps")

    def value(self, metric: str) -> float:
        """A metric of the rows that count."""
        if metric in ("roc_auc", "average_precision"):
            low, high = self.bounds(metric)
            return (low + high) / 2
        if metric in _FORMULAS:
            return _FORMULAS[metric](self)
        return METRICS[metric].function(self)

    def bounds(self, metric: str) -> tuple[float, float]:
        """What it can be at least and at most, as the order of rows within a bin is not known."""
        found = [
            _bounds(metric, negatives, hits)
            for negatives, hits in self._sum("histogram")
            if hits.any() and (negatives.any() or metric == "average_precision")
        ]
        if not found:
            return float("nan"), float("nan")
        low, high = np.mean(found, axis=0)
        return float(low), float(high)

    def mean_of(self, name: str) -> float:
        """Mean of one of the sums over the rows that count."""
        return float(self._sum(name)[0]) / self.total

    def r2(self) -> float:
        """See `trimgate.judge.metrics`."""
        spread = self.mean_of("yy") - self.mean_of("y") ** 2
        error = self.mean_of("mse")
        if spread <= 0:
            return 1.0 if error == 0 else 0.0
        return 1 - error / spread


def _bounds(metric: str, negatives: Floats, hits: Floats) -> tuple[float, float]:
    """Of one class, from its rows and the others in each bin, the highest scores first."""
    found, below = hits.cumsum(), negatives.cumsum()
    above = below - negatives
    if metric == "roc_auc":
        pairs = found[-1] * below[-1]
        worst, best = hits @ (below[-1] - below), hits @ (below[-1] - above)
        return float(worst / pairs), float(best / pairs)
    taken = found - hits
    worst = hits @ ((taken + 1) / (taken + 1 + below))
    best = hits @ (found / np.maximum(found + above, _TINY))
    return float(worst / found[-1]), float(best / found[-1])


_FORMULAS: dict[str, Callable[[Tally], float]] = {
    "log_loss": lambda tally: tally.mean_of("log_loss"),
    "brier": lambda tally: tally.mean_of("brier"),
    "rmse": lambda tally: float(np.sqrt(tally.mean_of("mse"))),
    "mae": lambda tally: tally.mean_of("mae"),
    "r2": Tally.r2,
}
