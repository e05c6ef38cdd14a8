"""Evaluation: metrics with intervals, and paired differences from the baseline."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trimgate.errors import InvalidInput
from trimgate.judge import _describe
from trimgate.judge._intervals import (
    CONFIDENCES,
    SAME_VALUE,
    leveled,
    paired,
    prepare,
    single,
)
from trimgate.judge._points import Costs, Threshold, choose_threshold
from trimgate.judge._view import View
from trimgate.judge.metrics import Task, check, default_metric, default_metrics, spec
from trimgate.judge.predictions import Predictions, load_predictions, save_predictions
from trimgate.judge.records import Evaluation, Interval, Metric, Parity
from trimgate.judge.slices import SliceRows, judge_slices

__all__ = [
    "CONFIDENCES",
    "Predictions",
    "Threshold",
    "choose_threshold",
    "evaluate",
    "load_predictions",
    "parity",
    "save_predictions",
]

Array = NDArray[Any]


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
    threshold: Threshold | None = None,
    baseline_threshold: Threshold | None = None,
    costs: Costs | None = None,
    slices: Sequence[SliceRows] = (),
    min_rows: int = 100,
    min_class_rows: int = 10,
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
        threshold: Where a binary model decides, for the metrics at the operating point. It must
            have been chosen on other rows (`choose_threshold`).
        baseline_threshold: The baseline's own.
        costs: By true class and predicted class, for the metric `cost`.
        slices: Rows to judge apart (`trimgate.judge.slices.slice_rows`).
        min_rows: A slice with fewer rows is not judged.
        min_class_rows: Nor one with fewer rows of a class, where the metric needs every class.
        seed: Of the bootstrap; equal seeds give equal records.
        confidence: Two-sided level of the intervals shown. The record also holds 80, 90, 95, 98
            and 99 %, for one-sided gates.
        resamples: Of the bootstrap; by default 2000, fewer from 200,000 rows on.

    Raises:
        InvalidInput: See `trimgate.judge.metrics.compute`; or there is one class only.

    Notes:
        - `accuracy`: Wilson's interval; its paired difference has Tango's score interval.
        - Other metrics: paired bootstrap of the rows, each class apart where one is rare (fewer
          than 100 rows or 5 %). A model alone has the BCa interval (Efron 1987), as resamples
          shift skewed metrics; a difference has the expanded percentile interval (Hesterberg
          2015), as the shift is the same for both models.
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
    view = View(
        labels,
        np.asarray(scores),
        classes,
        threshold=threshold.value if threshold else None,
        costs=costs,
    )
    if classes and (view.class_counts > 0).sum() < 2:
        raise InvalidInput(
            f"all {view.rows} rows of the {split} split have one class",
            key="labels",
            value=labels[0],
            mend="use a split that holds every class",
        )
    base = None
    if baseline_scores is not None:
        base = View(
            labels,
            np.asarray(baseline_scores),
            classes,
            threshold=baseline_threshold.value if baseline_threshold else None,
            costs=costs,
        )
    primary = primary or default_metric(task, labels)
    usual = metrics or default_metrics(task, point=threshold is not None, costs=costs is not None)
    wanted = list(dict.fromkeys([primary, *usual]))
    shown = [*wanted, *(m for m in ("ece", "brier") if classes and m not in wanted)]
    specs = [spec(metric) for metric in shown]
    for known in specs:
        for side in (view, base):
            if side is not None:
                check(known, side)
    judged = prepare(view, base, specs, seed=seed, resamples=resamples)
    singles = {name: leveled(single, each, confidence) for name, each in judged.items()}
    differences: dict[str, Interval] = {}
    if base is not None:
        differences = {name: leveled(paired, judged[name], confidence) for name in wanted}
    return Evaluation(
        model=model,
        name=name,
        split=split,
        data=data,
        rows=view.rows,
        task=task,
        primary=primary,
        metrics={
            name: Metric(
                name=name, interval=singles[name], higher_is_better=spec(name).higher_is_better
            )
            for name in wanted
        },
        differences=differences,
        flips=judged[primary].flips,
        parity=None if base is None else parity(view.scores, base.scores),
        baseline_model=baseline_model,
        slices=judge_slices(
            slices,
            view,
            base,
            spec(primary),
            min_rows=min_rows,
            min_class_rows=min_class_rows,
            confidence=confidence,
            seed=seed,
            resamples=resamples,
        ),
        calibration=_describe.calibration(view, singles["ece"], singles["brier"])
        if classes
        else None,
        confusion=_describe.confusion(view),
        curves=_describe.curves(view),
        operating_point=_describe.operating_point(view, threshold),
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
