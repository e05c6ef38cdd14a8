"""Evaluation: metrics with intervals, and paired differences from the baseline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trimgate.errors import InvalidInput
from trimgate.judge import _stats
from trimgate.judge._bootstrap import default_resamples, draw, ends, is_stratified
from trimgate.judge._metrics import Spec
from trimgate.judge._view import View
from trimgate.judge.metrics import Task, check, default_metric, default_metrics, spec
from trimgate.judge.predictions import Predictions, load_predictions, save_predictions
from trimgate.judge.records import Evaluation, Flips, Interval, Level, Metric, Parity

__all__ = ["Predictions", "evaluate", "load_predictions", "parity", "save_predictions"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
_Maker = Callable[["_Judged", float], tuple[float, float, float, str]]

# One-sided 90, 95, 97.5, 99 and 99.5 %: what a gate may ask for.
CONFIDENCES = (0.8, 0.9, 0.95, 0.98, 0.99)
# Scores that are nearer than this count as the same answer: rounding between two engines in
# float32 stays below it. In units of the labels' standard deviation for regression.
SAME_SCORE = 1e-5
SAME_VALUE = 1e-4


@dataclass(frozen=True)
class _Judged:
    """What the intervals of one metric are made from."""

    known: Spec
    view: View
    base: View | None
    flips: Flips | None
    moved: int
    draws: Floats
    method: str


def evaluate(
    labels: Sequence[Any] | Array,
    scores: Array,
    classes: Sequence[Any],
    *,
    name: str,
    model: str,
    split: Literal["validation", "test"],
    data: str,
    task: Task,
    primary: str | None = None,
    metrics: Sequence[str] | None = None,
    baseline_scores: Array | None = None,
    baseline_model: str | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int | None = None,
) -> Evaluation:
    """Judges one model on one split; beside the baseline when its scores are given.

    Args:
        labels: `(rows,)`.
        scores: As `Session.predict` returns them.
        classes: `ModelInfo.labels`; empty for regression.
        name: Recipe, or `baseline`.
        model: The model's digest.
        split: Which rows.
        data: Digest of the rows.
        task: What the model does.
        primary: The metric that counts; by default `default_metric`.
        metrics: The metrics to compute; by default those usual for the task. The primary one is
            always among them.
        baseline_scores: The baseline's scores on the same rows in the same order.
        baseline_model: The baseline's digest.
        seed: Of the bootstrap; equal seeds give equal records.
        confidence: Two-sided level of the intervals shown. The record also holds 80, 90, 95, 98
            and 99 %, for one-sided gates.
        resamples: Of the bootstrap; by default 2000, fewer from 200,000 rows on.

    Raises:
        InvalidInput: See `trimgate.judge.metrics.compute`; or there is one class only.

    Notes:
        - `accuracy`: Wilson's interval; its paired difference has Tango's score interval.
        - Other metrics: paired bootstrap of the rows, each class apart where one is rare (fewer
          than 100 rows or 5 %), expanded percentile interval (Hesterberg 2015).
        - A bootstrap cannot see what rare rows do when it was shown (almost) none of them. So
          when fewer than z² rows differ from the baseline, the interval of a difference is at
          least as wide as the rule of three asks, z²/(n + z²): for metrics of labels by class,
          as a lost row of a rare class counts more; when no score moved at all, each row is
          taken to count the same. An identical answer on all rows is therefore a very narrow
          interval on many rows and a wide one on few, never a point.
    """
    classes = tuple(classes)
    if (task == "regression") == bool(classes):
        raise InvalidInput(
            f"the task {task} does not fit {len(classes)} classes", key="classes", value=classes
        )
    labels = np.asarray(labels)
    view = View(labels, np.asarray(scores), classes)
    if classes and (view.class_counts > 0).sum() < 2:
        raise InvalidInput(
            f"all {view.rows} rows of the {split} split have one class",
            key="labels",
            value=labels[0],
            mend="use a split that holds every class",
        )
    base = None if baseline_scores is None else View(labels, np.asarray(baseline_scores), classes)
    primary = primary or default_metric(task, labels)
    wanted = list(dict.fromkeys([primary, *(metrics or default_metrics(task))]))
    specs = [spec(metric) for metric in wanted]
    for known in specs:
        check(known, view)

    resampled = [known for known in specs if known.name != "accuracy"]
    count = resamples or default_resamples(view.rows)
    views = [view] if base is None else [view, base]
    draws = draw(views, resampled, count, seed) if resampled else np.empty((0, len(views), 0))
    stratified = "stratified " if is_stratified(view) else ""
    flips = _flips(view, base) if base is not None else None
    moved = _moved(view, base) if base is not None else 0

    found: dict[str, Metric] = {}
    differences: dict[str, Interval] = {}
    for known in specs:
        column = None if known.name == "accuracy" else resampled.index(known)
        judged = _Judged(
            known,
            view,
            base,
            flips,
            moved,
            draws=np.empty((0, len(views))) if column is None else draws[:, :, column],
            method=f"{stratified}bootstrap of the rows, {count} resamples, expanded percentile",
        )
        interval = _leveled(_single, judged, confidence)
        found[known.name] = Metric(
            name=known.name, interval=interval, higher_is_better=known.higher_is_better
        )
        if base is not None:
            differences[known.name] = _leveled(_paired, judged, confidence)
    return Evaluation(
        model=model,
        name=name,
        split=split,
        data=data,
        rows=view.rows,
        task=task,
        primary=primary,
        metrics=found,
        differences=differences,
        flips=flips,
        parity=None if base is None else parity(view.scores, base.scores),
        baseline_model=baseline_model,
    )


def parity(scores: Array, reference: Array) -> Parity:
    """How closely scores reproduce those of another model on the same rows.

    Args:
        scores: `(rows, classes)` or `(rows,)`.
        reference: The parent's, of the same shape.

    Raises:
        InvalidInput: The shapes differ.
    """
    if scores.shape != reference.shape:
        raise InvalidInput(f"scores of shapes {scores.shape} and {reference.shape} differ")
    gap = np.abs(scores.astype(np.float64) - reference)
    if scores.ndim == 2:
        same = scores.argmax(axis=1) == reference.argmax(axis=1)
    else:
        same = gap <= SAME_VALUE * np.maximum(np.abs(reference), np.finfo(np.float64).tiny)
    return Parity(
        max_difference=float(gap.max()),
        mean_difference=float(gap.mean()),
        agreement=float(same.mean()),
        rows=len(scores),
    )


def _flips(view: View, base: View) -> Flips:
    if not view.classes:
        gap = np.abs(view.scores - base.scores)
        closer = np.abs(view.errors) - np.abs(base.errors)
        real = gap > SAME_VALUE * np.abs(base.scores)
        return Flips(
            won=int((real & (closer < 0)).sum()),
            lost=int((real & (closer > 0)).sum()),
            changed=int(real.sum()),
            rows=view.rows,
        )
    right, was_right = view.predicted == view.codes, base.predicted == base.codes
    won, lost = int((right & ~was_right).sum()), int((was_right & ~right).sum())
    return Flips(
        won=won,
        lost=lost,
        changed=int((view.predicted != base.predicted).sum()),
        rows=view.rows,
        p_value=_stats.mcnemar(won, lost),
    )


def _moved(view: View, base: View) -> int:
    """Rows whose scores differ by more than the rounding of an engine."""
    gap = np.abs(view.scores - base.scores)
    if view.classes:
        return int((gap.max(axis=1) > SAME_SCORE).sum())
    return int((gap > SAME_SCORE * float(view.values.std())).sum())


def _leveled(make: _Maker, judged: _Judged, confidence: float) -> Interval:
    """The interval at the wanted confidence, with those at all `CONFIDENCES` beside it."""
    value, low, high, method = make(judged, confidence)
    others = []
    for level in CONFIDENCES:
        _, at_low, at_high, _ = make(judged, level)
        others.append(Level(confidence=level, low=at_low, high=at_high))
    return Interval(
        value=value,
        low=low,
        high=high,
        confidence=confidence,
        method=method,
        others=tuple(others),
    )


def _single(judged: _Judged, confidence: float) -> tuple[float, float, float, str]:
    known, view = judged.known, judged.view
    value = known.function(view)
    if known.name == "accuracy":
        low, high = _stats.wilson(value * view.rows, view.rows, confidence)
        return value, low, high, "Wilson score"
    size = _size(judged)
    low, high = ends(judged.draws[:, 0], confidence, size)
    method = judged.method
    if low == high and known.bounded:  # no resample shows an error: there may still be some
        share = _stats.rule_of_three(size, confidence)
        low, high = value - share, value + share
        method += ", rule of three"
    if known.bounded:
        low, high = max(low, 0.0), min(high, 1.0)
    return value, min(low, value), max(high, value), method


def _paired(judged: _Judged, confidence: float) -> tuple[float, float, float, str]:
    known, view, base, flips = judged.known, judged.view, judged.base, judged.flips
    if base is None or flips is None:
        raise TypeError("a difference needs the baseline")
    if known.name == "accuracy":
        low, high = _stats.tango(flips.won, flips.lost, flips.rows, confidence)
        return (flips.won - flips.lost) / flips.rows, low, high, "Tango score, paired"
    value = known.function(view) - known.function(base)
    low, high = ends(judged.draws[:, 0] - judged.draws[:, 1], confidence, _size(judged))
    method = "paired " + judged.method
    floor = _floor(judged, base, flips, confidence)
    if value - low < floor or high - value < floor:
        low, high = min(low, value - floor), max(high, value + floor)
        method += ", rule of three"
    if known.bounded:
        low, high = max(low, -1.0), min(high, 1.0)
    return value, min(low, value), max(high, value), method


def _floor(judged: _Judged, base: View, flips: Flips, confidence: float) -> float:
    """Least half-width of a difference when hardly any row differs; else 0."""
    known, view = judged.known, judged.view
    few = _stats.two_sided_z(confidence) ** 2
    if judged.moved < few:
        share = _stats.rule_of_three(view.rows, confidence)
        return max(known.reach(view, share), known.reach(base, share))
    if known.kind == "label" and flips.changed < few:
        counts = view.class_counts[view.class_counts > 0]
        if known.name == "f1" and len(view.classes) == 2:
            counts, classes = view.class_counts[1:], 1
        else:
            classes = len(counts)
        return max(_stats.rule_of_three(int(c), confidence) for c in counts) / classes
    return 0.0


def _size(judged: _Judged) -> int:
    """Rows that carry a metric: the rarer class where one ranks or hits it."""
    view = judged.view
    if len(view.classes) == 2 and judged.known.kind != "score":
        return int(view.class_counts.min())
    return view.rows
