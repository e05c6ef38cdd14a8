"""The primary metric on fixed rows, and what counts as "no worse"."""

from dataclasses import dataclass

from trimgate.data.dataset import Array, Dataset
from trimgate.models.directory import ModelInfo


@dataclass(frozen=True)
class Measure:
    """The primary metric on the labels of one split.

    Attributes:
        metric: Its name (see `trimgate.judge.metrics`).
        labels: `(rows,)`, as in the data set.
        classes: Class labels in the order of the scores' columns; empty for regression.
    """

    metric: str
    labels: Array
    classes: tuple[str | int | float | bool, ...] = ()

    @classmethod
    def of(cls, metric: str, info: ModelInfo, rows: Dataset) -> "Measure":
        """The measure of a model's scores on the rows of a data set."""
        return cls(metric, rows.labels, tuple(info.labels))

    def __call__(self, scores: Array) -> float:
        """The metric of scores: `(rows, classes)` probabilities or `(rows,)` values."""
        from trimgate.judge import metrics

        return float(metrics.compute(self.metric, self.labels, scores, self.classes))

    @property
    def higher_is_better(self) -> bool:
        """Whether more of the metric is better."""
        from trimgate.judge import metrics

        return bool(metrics.higher_is_better(self.metric))

    def gain(self, value: float, reference: float) -> float:
        """How much better `value` is than `reference`, in the metric's unit."""
        return value - reference if self.higher_is_better else reference - value

    def acceptable(self, value: float, reference: float, tolerance: float) -> bool:
        """Whether `value` is at most `tolerance` worse than `reference`.

        The tolerance is absolute, but a share of the reference for the errors of a regression
        (RMSE, MAE, ...), which have the unit of the label.
        """
        allowed = tolerance * abs(reference) if self._relative else tolerance
        return self.gain(value, reference) >= -allowed - 1e-12

    def describe(self, tolerance: float) -> str:
        """A tolerance in words: `0.005 roc_auc`, or `0.5 % of its rmse`."""
        if self._relative:
            return f"{100 * tolerance:g} % of its {self.metric}"
        return f"{tolerance:g} {self.metric}"

    @property
    def _relative(self) -> bool:
        return not self.classes and not self.higher_is_better
