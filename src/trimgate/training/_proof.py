"""Whether a model is no worse than another one, and not only by chance."""

from dataclasses import dataclass
from typing import NamedTuple

from trimgate.data.dataset import Array, Dataset
from trimgate.models.directory import ModelInfo
from trimgate.training._measure import Measure

_RESAMPLES = 300


class Judged(NamedTuple):
    """What `Proof` says of a model.

    Attributes:
        value: The metric.
        worst: The worst that it may be beside the reference, at the wanted confidence.
        good: Whether that is within the tolerance.
    """

    value: float
    worst: float
    good: bool


@dataclass(frozen=True)
class Proof:
    """Judges models by the primary metric beside a reference model on the same rows.

    Where few rows decide (the frauds of a month), the plain difference of two models is mostly
    chance, and the best of several is the luckiest one. So what must be within the tolerance is
    the end of the paired difference's interval.

    Attributes:
        info: The reference model's record.
        rows: The validation rows.
        reference: The reference model's scores on them.
        metric: The primary metric.
        tolerance: By how much it may get worse; see `Measure.acceptable`.
        confidence: One-sided, above 0.5; None looks at the plain difference.
        seed: Of the bootstrap.
    """

    info: ModelInfo
    rows: Dataset
    reference: Array
    metric: str
    tolerance: float
    confidence: float | None
    seed: int

    @property
    def measure(self) -> Measure:
        """The metric on these rows."""
        return Measure.of(self.metric, self.info, self.rows)

    @property
    def reference_value(self) -> float:
        """The reference model's metric."""
        return self.measure(self.reference)

    def __call__(self, scores: Array) -> Judged:
        """Judges the scores of a model on the rows."""
        measure, reference = self.measure, self.reference_value
        value = worst = measure(scores)
        if self.confidence is not None:
            worst = reference + self._end(scores, self.confidence)
        return Judged(value, worst, measure.acceptable(worst, reference, self.tolerance))

    def _end(self, scores: Array, confidence: float) -> float:
        """The worse end of the interval of the difference."""
        from trimgate.judge.evaluation import evaluate

        judged = evaluate(
            self.rows.labels,
            scores,
            self.info.labels,
            name="candidate",
            model="",
            split="validation",
            data="",
            task=self.info.task,
            primary=self.metric,
            metrics=[self.metric],
            baseline_scores=self.reference,
            seed=self.seed,
            confidence=2 * confidence - 1,
            resamples=_RESAMPLES,
        )
        difference = judged.differences[self.metric]
        return difference.low if self.measure.higher_is_better else difference.high

    def failure(self, what: str) -> str:
        """Why nothing was found, in words.

        Args:
            what: What would have been done, such as "with fewer of its 30 features".
        """
        sure = "" if self.confidence is None else f" ({self.confidence:.0%} one-sided confidence)"
        worse = "gets worse" if self.confidence is None else "may get worse"
        return (
            f"{what} the model {worse} by more than {self.measure.describe(self.tolerance)} on "
            f"the {len(self.rows)} validation rows{sure}"
        )


def grid(count: int) -> list[int]:
    """Ascending numbers from 1 to below `count`, each about 1.4 times the one before."""
    sizes, current = set[int](), float(count)
    while current > 1:
        current /= 1.4
        sizes.add(max(1, round(current)))
    return sorted(size for size in sizes if size < count)
