"""Evaluation of a split that is scored and judged in batches."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from trimgate.data.dataset import LABELS
from trimgate.errors import InvalidInput
from trimgate.judge import records
from trimgate.judge.evaluation import Threshold
from trimgate.judge.settings import EvaluationSettings
from trimgate.tasks._common import PREDICTIONS


def evaluate_stream(
    session: Any,
    rows: str,
    out: Path,
    *,
    split: Literal["validation", "test"],
    name: str,
    primary: str,
    metrics: tuple[str, ...],
    first: records.Evaluation | None,
    baseline: str | None,
    threshold: Threshold | None,
    baseline_threshold: Threshold | None,
    settings: EvaluationSettings,
    confidence: float,
    seed: int,
) -> records.Evaluation:
    """Scores and judges the rows batch by batch; writes the predictions as they come.

    Args:
        session: The loaded model.
        rows: Directory of the split.
        out: Where the predictions go.
        split: Of validation the ranking half is judged.
        name: Recipe, or `baseline`.
        primary: The metric that counts.
        metrics: The metrics to compute.
        first: The baseline's evaluation; None for the baseline itself.
        baseline: Directory of the baseline's evaluation, when the model is another one.
        threshold: Where a binary model decides.
        baseline_threshold: The baseline's own.
        settings: Costs and slices.
        confidence: Two-sided level of the intervals shown.
        seed: Of the bootstrap.

    Raises:
        InvalidInput: The baseline was evaluated on other rows.
    """
    from trimgate import runtimes
    from trimgate.data.stream import Digester, half, sample_columns, stream
    from trimgate.judge.predictions import PredictionsWriter
    from trimgate.judge.slices import plan_slices
    from trimgate.judge.stream import StreamJudge

    info, classes = session.info, session.info.labels
    plans = []
    if settings.slices:
        told = sample_columns(rows, (*settings.columns, LABELS))
        values = told[LABELS].astype(float) if not classes else np.zeros((1, len(classes)))
        plans = plan_slices(settings.slices, told, values)
    judge = StreamJudge(
        classes,
        task=info.task,
        primary=primary,
        metrics=metrics,
        paired=baseline is not None,
        threshold=threshold,
        baseline_threshold=baseline_threshold,
        costs=settings.matrix(),
        slices=plans,
        min_rows=settings.min_rows,
        min_class_rows=settings.min_class_rows,
        seed=seed,
    )
    digester = Digester()
    before = None if baseline is None else _Scores(Path(baseline) / PREDICTIONS, len(classes))
    with PredictionsWriter(out / PREDICTIONS, classes) as writer:
        for batch in half(rows, ranking=True) if split == "validation" else stream(rows):
            digester.add(batch)
            scores = runtimes.predict(session, batch)
            beside = None if before is None else before.take(len(batch))
            judge.add(batch.labels, scores, beside, {**batch.features, **batch.beside})
            writer.add(batch.labels, scores)
    digest = digester.value()
    if first is not None and first.data != digest:
        raise InvalidInput("was made on other rows than the candidate's", file=baseline)
    return judge.finish(
        name=name,
        model=info.digest,
        split=split,
        data=digest,
        baseline_model=first.model if first is not None and baseline is not None else None,
        confidence=confidence,
    )


class _Scores:
    """The baseline's scores, read as they are asked for."""

    def __init__(self, file: Path, classes: int) -> None:
        from trimgate.data.stream import columns

        self._names = [f"score_{c}" for c in range(max(1, classes))]
        self._batches = columns(file, names=self._names)
        self._held = np.empty((0, len(self._names)))
        self._flat = not classes

    def take(self, rows: int) -> np.ndarray[Any, Any]:
        """The next scores.

        Raises:
            InvalidInput: There are not so many.
        """
        while len(self._held) < rows:
            batch = next(self._batches, None)
            if batch is None:
                raise InvalidInput("the baseline has fewer predictions than there are rows")
            part = np.stack([batch[name] for name in self._names], axis=1)
            self._held = np.concatenate([self._held, part]) if len(self._held) else part
        taken, self._held = self._held[:rows], self._held[rows:]
        return taken[:, 0] if self._flat else taken
