"""Labels and scores of one model, prepared once so that a metric can be re-weighted quickly."""

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.errors import InvalidInput

Array = NDArray[Any]
Floats = NDArray[np.float64]

ECE_BINS = 15
# The clipping of log_loss; one floor for all models that are compared, so that a float32 and a
# float64 model are charged alike for the same mistake.
COMMON_FLOOR = float(np.finfo(np.float32).eps)


class View:
    """Labels and scores of one model on one set of rows, with a weight for each row.

    Everything that does not depend on the weights (sorting above all) is done once.

    Args:
        labels: `(rows,)`.
        scores: `(rows, classes)`, or `(rows,)` for regression.
        classes: The labels in the order of the columns; empty for regression.
        floor: Least probability that `log_loss` reckons with.
        threshold: Score of the second of two classes from which a row counts as such; None for
            the class with the highest score.
        costs: By true class and predicted class; None where nobody asks for a cost.

    Raises:
        InvalidInput: See `trimgate.judge.metrics.compute`.
    """

    def __init__(
        self,
        labels: Array,
        scores: Array,
        classes: tuple[Any, ...],
        *,
        floor: float = COMMON_FLOOR,
        threshold: float | None = None,
        costs: tuple[tuple[float, ...], ...] | None = None,
    ) -> None:
        self.classes = classes
        self.threshold = threshold
        self.scores = _checked_scores(labels, scores, classes)
        self.rows = len(labels)
        self._weights: Floats | None = None
        self._static: dict[Any, Any] = {}
        self._weighted: dict[Any, Any] = {}
        if not classes:
            self.values = _checked_values(labels)
            self.errors = self.values - self.scores
            return
        self.codes = _codes(labels, classes)
        self.predicted: Array = self.scores.argmax(axis=1)
        self.class_counts = np.bincount(self.codes, minlength=len(classes))
        self._floor = floor
        self.costs = None if costs is None else np.asarray(costs, dtype=np.float64)
        if self.costs is not None and self.costs.shape != (len(classes), len(classes)):
            raise InvalidInput(
                f"the costs are for {len(self.costs)} classes, and the model has {len(classes)}",
                key="evaluation.costs",
            )

    @property
    def decided(self) -> Array:
        """Predicted class codes: at the threshold where there is one."""
        if self.threshold is None:
            return self.predicted
        return (self.scores[:, 1] >= self.threshold).astype(np.int64)

    def subset(self, rows: Array) -> "View":
        """The same for some of the rows."""
        part = copy.copy(self)
        part.scores = self.scores[rows]
        part.rows = len(part.scores)
        part._weights, part._static, part._weighted = None, {}, {}
        if self.classes:
            part.codes, part.predicted = self.codes[rows], self.predicted[rows]
            part.class_counts = np.bincount(part.codes, minlength=len(self.classes))
        else:
            part.values, part.errors = self.values[rows], self.errors[rows]
        return part

    def weigh(self, weights: Floats | None) -> None:
        """Sets the weight of each row; None for one each."""
        self._weights = weights
        self._weighted.clear()

    @property
    def total(self) -> float:
        """Sum of the weights."""
        return float(self.rows if self._weights is None else self._weights.sum())

    def mean(self, values: Floats) -> float:
        """Weighted mean over the rows."""
        if self._weights is None:
            return float(values.mean())
        return dot(self._weights, values) / self.total

    def confusion(self, *, decided: bool = False) -> Floats:
        """`(classes, classes)` weights by true class (row) and predicted class (column).

        Args:
            decided: At the threshold, where there is one.
        """
        key = "confusion", decided and self.threshold is not None
        if key not in self._weighted:
            size = len(self.classes)
            if key not in self._static:
                predicted = self.decided if decided else self.predicted
                self._static[key] = _Groups(self.codes * size + predicted, size * size)
            cells: _Groups = self._static[key]
            self._weighted[key] = cells.sums(self._weights).reshape(size, size)
        matrix: Floats = self._weighted[key]
        return matrix

    def row_losses(self) -> Floats:
        """Negative log of the true class's probability, by row."""
        if "losses" not in self._static:
            true = self.scores[np.arange(self.rows), self.codes]
            self._static["losses"] = -np.log(np.clip(true, self._floor, 1 - self._floor))
        losses: Floats = self._static["losses"]
        return losses

    def row_briers(self) -> Floats:
        """Squared distance of the probabilities from the truth, by row; halved when binary."""
        if "briers" not in self._static:
            truth = np.zeros_like(self.scores)
            truth[np.arange(self.rows), self.codes] = 1
            squares = ((self.scores - truth) ** 2).sum(axis=1)
            self._static["briers"] = squares / 2 if len(self.classes) == 2 else squares
        briers: Floats = self._static["briers"]
        return briers

    def calibration_gaps(self) -> Floats:
        """Weighted sum of (hit - confidence) in each of the equal-width confidence bins."""
        if "bins" not in self._static:
            confidence = self.scores.max(axis=1)
            bins = np.clip((confidence * ECE_BINS).astype(np.int64), 0, ECE_BINS - 1)
            gaps = (self.predicted == self.codes) - confidence
            self._static["bins"] = _Groups(bins, ECE_BINS), gaps
        groups, gaps = self._static["bins"]
        sums: Floats = groups.sums(gaps if self._weights is None else gaps * self._weights)
        return sums

    def ranking(self, column: int) -> tuple[Floats, Floats, Floats, Floats]:
        """The rows of one class among all, by the score for that class.

        Returns:
            For each distinct score that a row of the class has, from the highest: the weight
            of the class's rows with it, the same with all above it, and that of all rows above
            it, and above it or with it.
        """
        key = "ranking", column
        if key not in self._weighted:
            if key not in self._static:
                self._static[key] = _rank(self.scores[:, column], self.codes == column)
            segments, positives, groups = self._static[key]
            size = int(groups[-1]) + 1
            sums = np.bincount(segments, weights=self._weights, minlength=2 * size + 1).cumsum()
            own = None if self._weights is None else self._weights[positives]
            hits = np.bincount(groups, weights=own, minlength=size).astype(np.float64)
            self._weighted[key] = hits, hits.cumsum(), sums[0:-1:2], sums[1::2]
        result: tuple[Floats, Floats, Floats, Floats] = self._weighted[key]
        return result


class _Groups:
    """Sums of weights by group; for few groups faster than `np.bincount`.

    Args:
        group: `(rows,)` whole numbers below `size`.
        size: Number of groups.
    """

    def __init__(self, group: Array, size: int) -> None:
        self._size = size
        self._counts = np.bincount(group, minlength=size).astype(np.float64)
        self._order = np.argsort(group, kind="stable")
        self._there, self._starts = np.unique(group[self._order], return_index=True)

    def sums(self, weights: Floats | None) -> Floats:
        """Sum of the weights in each group; how many rows it has when there are none."""
        if weights is None:
            return self._counts.copy()
        sums = np.zeros(self._size)
        sums[self._there] = np.add.reduceat(weights[self._order], self._starts)
        return sums


def dot(left: Floats, right: Floats) -> float:
    """Inner product on this thread alone.

    BLAS starts threads for long vectors, which costs far more than it saves here when other
    processes want the cores.
    """
    return float(np.einsum("i,i->", left, right))


def _rank(scores: Floats, positive: Array) -> tuple[Array, Array, Array]:
    """Where the rows stand among the distinct scores of the positive ones.

    Returns:
        For each row its segment (2g + 1: tied with the g-th score from the top; 2g: above it
        and below the one before), the positive rows, and their g.
    """
    cuts = np.unique(scores[positive])
    below = np.searchsorted(cuts, scores, side="left")
    upto = np.searchsorted(cuts, scores, side="right")
    segments = 2 * len(cuts) - below - upto
    positives = np.flatnonzero(positive)
    return segments, positives, (segments[positives] - 1) // 2


def _checked_scores(labels: Array, scores: Array, classes: tuple[Any, ...]) -> Floats:
    if labels.ndim != 1 or len(labels) == 0:
        raise InvalidInput(f"labels must be one column with rows, not of shape {labels.shape}")
    expected = (len(labels), len(classes)) if classes else (len(labels),)
    if scores.shape != expected:
        raise InvalidInput(
            f"scores of shape {scores.shape} do not fit the labels and classes: "
            f"{expected} is expected"
        )
    try:
        checked = scores.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"scores must be numbers, not {scores.dtype}") from error
    bad = ~np.isfinite(checked)
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        raise InvalidInput(
            f"{int(bad.sum())} scores are NaN or infinite, the first in row {row}",
            mend="see what the model gives for that row",
        )
    return checked


def _checked_values(labels: Array) -> Floats:
    try:
        values = labels.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput("labels of a regression must be numbers", key="labels") from error
    if not np.isfinite(values).all():
        raise InvalidInput("labels hold NaN or infinite values", key="labels")
    return values


def _codes(labels: Array, classes: tuple[Any, ...]) -> Array:
    if len(classes) < 2:
        raise InvalidInput(f"a classifier has at least two classes, not {len(classes)}")
    known = {label: code for code, label in enumerate(classes)}
    try:
        distinct, inverse = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise InvalidInput("labels mix types or hold missing values", key="labels") from error
    codes = []
    for label in distinct.tolist():
        if label not in known:
            raise InvalidInput(
                f"is none of the model's classes {list(classes)[:10]}", key="label", value=label
            )
        codes.append(known[label])
    return np.array(codes, dtype=np.int64)[inverse]
