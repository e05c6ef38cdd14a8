"""Evaluation of rows that come in batches, in memory that does not grow with their number.

Rows are put into 200 blocks by a hash of their position. For each block sums are kept (confusion,
losses, a histogram of the scores by class), and the bootstrap draws blocks in place of rows: with
the rows in random blocks, the spread between blocks tells that of all rows (a bucketed bootstrap;
N. Chamandy et al., "Estimating uncertainty for massive data streams", Google, 2012). Metrics that
rank are read off the histogram, whose bins are 1 % of the odds wide; what the order within a bin
could change is added to the interval.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trimgate.errors import InvalidInput
from trimgate.judge import _describe, _stats
from trimgate.judge._bootstrap import ends
from trimgate.judge._intervals import CONFIDENCES, SAME_VALUE, count_flips, count_moved
from trimgate.judge._metrics import METRICS, Spec
from trimgate.judge._points import Costs, Threshold
from trimgate.judge._tally import Tally
from trimgate.judge._view import ECE_BINS, View
from trimgate.judge.metrics import Task, check_metric, default_metrics, spec
from trimgate.judge.records import (
    Calibration,
    CalibrationBin,
    Evaluation,
    Flips,
    Interval,
    Level,
    Metric,
    Parity,
    Slice,
)
from trimgate.judge.slices import SlicePlan, adjusted

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ends = tuple[float, float, float]

BLOCKS = 200
RESAMPLES = 1000
_DETAIL, _SLICE_DETAIL = 6, 4
_MIX = np.uint64(0x9E3779B97F4A7C15)


class StreamJudge:
    """Takes batches of rows with scores, and judges them at the end.

    What is kept: for the whole and for each slice 200 blocks of sums, with a metric that ranks
    5 MB for each model and 1 MB for each slice; with more than two classes 1.2 MB and 0.6 MB for
    each class, in bins of 4 and 9 %. Of the rows nothing is kept.

    Args:
        classes: `ModelInfo.labels`; empty for regression.
        task: What the model does.
        primary: The metric that counts.
        metrics: The metrics to compute; by default those usual for the task.
        paired: Whether the baseline's scores come too.
        threshold, baseline_threshold, costs: As `trimgate.judge.evaluate`.
        slices: How slices are told (`trimgate.judge.slices.plan_slices`).
        min_rows: A slice with fewer rows is not judged.
        min_class_rows: Nor one with fewer rows of a class, where the metric needs every class.
        seed: Of blocks and bootstrap.

    Raises:
        InvalidInput: There are more than 50 classes.
    """

    def __init__(
        self,
        classes: Sequence[Any],
        *,
        task: Task,
        primary: str,
        metrics: Sequence[str] | None = None,
        paired: bool = False,
        threshold: Threshold | None = None,
        baseline_threshold: Threshold | None = None,
        costs: Costs | None = None,
        slices: Sequence[SlicePlan] = (),
        min_rows: int = 100,
        min_class_rows: int = 10,
        seed: int = 0,
    ) -> None:
        self._classes, self._task, self._primary = tuple(classes), task, primary
        usual = metrics or default_metrics(task, point=bool(threshold), costs=bool(costs))
        self._metrics = list(dict.fromkeys([primary, *usual]))
        for name in self._metrics:
            check_metric(name, task)
            lacking = threshold is None or (paired and baseline_threshold is None)
            if (spec(name).needs == "point" and lacking) or (
                spec(name).needs == "costs" and costs is None
            ):
                raise InvalidInput(
                    f"the metric {name} needs an operating point, or costs", key="evaluation"
                )
        self._thresholds = threshold, baseline_threshold
        self._costs, self._seed, self._plans = costs, seed, list(slices)
        self._limits = min_rows, min_class_rows
        ranks = any(spec(name).kind == "rank" for name in self._metrics)
        sides = (0, 1) if paired else (0,)
        many = 2 if len(self._classes) > 2 else 0  # each class has bins of its own
        self._whole = [self._tally(side, _DETAIL - many if ranks else None) for side in sides]
        ranks = spec(primary).kind == "rank"
        self._parts = [
            [self._tally(side, _SLICE_DETAIL - many // 2 if ranks else None) for side in sides]
            for _ in self._plans
        ]
        self._changes = [_Changes() for _ in range(1 + len(self._plans))]
        self._shown = np.zeros((3, ECE_BINS))
        self.rows = 0

    def _tally(self, side: int, detail: int | None) -> Tally:
        threshold = self._thresholds[side]
        value = threshold.value if threshold else None
        return Tally(self._classes, BLOCKS, threshold=value, costs=self._costs, detail=detail)

    def add(
        self,
        labels: Array,
        scores: Array,
        baseline_scores: Array | None = None,
        columns: Mapping[str, Array] | None = None,
    ) -> None:
        """Takes the next rows.

        Args:
            labels: `(rows,)`.
            scores: As `Session.predict` returns them.
            baseline_scores: The baseline's on the same rows.
            columns: What slices are told by.

        Raises:
            InvalidInput: See `trimgate.judge.metrics.compute`.
        """
        views = [
            View(labels, given, self._classes, threshold=tally.threshold, costs=self._costs)
            for given, tally in zip((scores, baseline_scores), self._whole, strict=False)
            if given is not None
        ]
        position = np.arange(self.rows, self.rows + len(labels), dtype=np.uint64)
        with np.errstate(over="ignore"):
            mixed = (position + np.uint64(self._seed + 1)) * _MIX
            mixed ^= mixed >> np.uint64(29)
            mixed *= np.uint64(0xBF58476D1CE4E5B9)
        block = ((mixed >> np.uint64(33)) % np.uint64(BLOCKS)).astype(np.int64)
        for view, tally in zip(views, self._whole, strict=True):
            tally.add(view, block)
        self._changes[0].add(views)
        if self._classes:
            self._reliability(views[0])
        told = scores if baseline_scores is None else baseline_scores
        for plan, tallies, changes in zip(self._plans, self._parts, self._changes[1:], strict=True):
            rows = np.flatnonzero(plan.mask(columns or {}, np.asarray(told)))
            if not len(rows):
                continue
            parts = [view.subset(rows) for view in views]
            for view, tally in zip(parts, tallies, strict=True):
                tally.add(view, block[rows])
            changes.add(parts)
        self.rows += len(labels)

    def _reliability(self, view: View) -> None:
        if len(self._classes) == 2:
            scores, right = view.scores[:, 1], view.codes == 1
        else:
            scores, right = view.scores.max(axis=1), view.predicted == view.codes
        size = ECE_BINS
        bins = np.clip((scores * size).astype(np.int64), 0, size - 1)
        for row, weights in enumerate((None, scores, right)):
            self._shown[row] += np.bincount(bins, weights, size)

    def finish(
        self,
        *,
        name: str,
        model: str,
        split: Literal["validation", "test"],
        data: str,
        baseline_model: str | None = None,
        confidence: float = 0.95,
    ) -> Evaluation:
        """The record of all rows that were added; see `trimgate.judge.evaluate`.

        Raises:
            InvalidInput: There were no rows, or they have one class only.
        """
        if not self.rows:
            raise InvalidInput(f"the {split} split has no rows", key="data")
        tally = self._whole[0]
        if self._classes and (tally.confusion().sum(axis=1) > 0).sum() < 2:
            raise InvalidInput(
                f"all {self.rows} rows of the {split} split have one class",
                key="labels",
                mend="use a split that holds every class",
            )
        extra = [m for m in ("ece", "brier") if self._classes and m not in self._metrics]
        judged = _Judged(self._whole, self._changes[0], [*self._metrics, *extra], self._seed)
        singles = {m: judged.interval(m, confidence) for m in (*self._metrics, *extra)}
        paired = len(self._whole) == 2
        changes = self._changes[0]
        return Evaluation(
            model=model,
            name=name,
            split=split,
            data=data,
            rows=self.rows,
            task=self._task,
            primary=self._primary,
            metrics={
                m: Metric(name=m, interval=singles[m], higher_is_better=spec(m).higher_is_better)
                for m in self._metrics
            },
            differences={
                m: judged.interval(m, confidence, paired=True) for m in self._metrics if paired
            },
            flips=changes.flips(bool(self._classes)) if paired else None,
            parity=changes.parity() if paired else None,
            baseline_model=baseline_model,
            slices=self._judge_slices(confidence),
            calibration=self._calibration(singles) if self._classes else None,
            confusion=_describe.confusion(tally),
            curves=self._curves(tally),
            operating_point=_describe.operating_point(tally, self._thresholds[0]),
        )

    def _calibration(self, singles: Mapping[str, Interval]) -> Calibration:
        size = ECE_BINS
        counts, scores, right = self._shown
        return Calibration(
            ece=singles["ece"],
            brier=singles["brier"],
            bins=tuple(
                CalibrationBin(
                    low=b / size,
                    high=(b + 1) / size,
                    mean_score=scores[b] / counts[b],
                    observed=right[b] / counts[b],
                    rows=int(counts[b]),
                )
                for b in np.flatnonzero(counts)
            ),
        )

    def _curves(self, tally: Tally) -> Any:
        if not tally.histogram.size:  # no metric ranks
            return ()
        return _describe.curves_from(
            [
                (positives.cumsum(), (negatives + positives).cumsum())
                for negatives, positives in tally.histogram.sum(axis=0, dtype=np.float64)
            ]
        )

    def _judge_slices(self, confidence: float) -> tuple[Slice, ...]:
        known, (min_rows, min_class_rows) = spec(self._primary), self._limits
        reasons = []
        for tallies in self._parts:
            tally = tallies[0]
            reason = (
                "" if tally.rows >= min_rows else f"{tally.rows} rows, and {min_rows} are asked for"
            )
            if not reason and known.kind != "score" and known.name != "accuracy":
                least = int(tally.confusion().sum(axis=1).min())
                if least < min_class_rows:
                    reason = f"{least} rows of a class, and {min_class_rows} are asked for"
            reasons.append(reason)
        many = sum(not reason for reason in reasons)
        found = []
        for plan, tallies, changes, reason in zip(
            self._plans, self._parts, self._changes[1:], reasons, strict=True
        ):
            common: dict[str, Any] = {
                "name": plan.name, "kind": plan.kind, "column": plan.column,
                "rows": tallies[0].rows,
            }  # fmt: skip
            if reason:
                found.append(Slice(**common, reason=reason))
                continue
            judged = _Judged(tallies, changes, [self._primary], self._seed)
            single = judged.interval(self._primary, confidence)
            if len(tallies) == 1:
                found.append(Slice(**common, metric=single))
                continue
            found.append(
                Slice(
                    **common,
                    metric=single,
                    difference=judged.interval(self._primary, confidence, paired=True),
                    simultaneous=judged.interval(
                        self._primary, confidence, paired=True, among=many
                    ),
                    flips=changes.flips(bool(self._classes)),
                    p_value=judged.p_value(self._primary),
                )
            )
        return adjusted(found)


class _Changes:
    """How the answers differ from the baseline's."""

    def __init__(self) -> None:
        self.won = self.lost = self.changed = self.rows = self.moved = self.same = 0
        self.widest = self.summed = 0.0
        self.values = 0

    def add(self, views: Sequence[View]) -> None:
        if len(views) < 2:
            return
        view, base = views
        flips = count_flips(view, base)
        self.won, self.lost = self.won + flips.won, self.lost + flips.lost
        self.changed, self.rows = self.changed + flips.changed, self.rows + flips.rows
        self.moved += count_moved(view, base)
        gap = np.abs(view.scores - base.scores)
        self.widest = max(self.widest, float(gap.max()))
        self.summed, self.values = self.summed + float(gap.sum()), self.values + gap.size
        if view.classes:
            self.same += int((view.predicted == base.predicted).sum())
        else:
            self.same += int((gap <= SAME_VALUE * np.abs(base.scores)).sum())

    def flips(self, classes: bool) -> Flips:
        p_value = _stats.mcnemar(self.won, self.lost) if classes else None
        return Flips(
            won=self.won, lost=self.lost, changed=self.changed, rows=self.rows, p_value=p_value
        )

    def parity(self) -> Parity:
        return Parity(
            max_difference=self.widest,
            mean_difference=self.summed / max(1, self.values),
            agreement=self.same / max(1, self.rows),
            rows=self.rows,
        )


class _Judged:
    """Intervals from the blocks of one or two models."""

    def __init__(
        self, tallies: Sequence[Tally], changes: _Changes, metrics: Sequence[str], seed: int
    ) -> None:
        self._tallies, self._changes = tallies, changes
        self._wanted = [m for m in metrics if m != "accuracy"]
        rng = np.random.default_rng(seed)
        # of the resamples the blocks' counts, not the rows'
        drawn = rng.multinomial(BLOCKS, np.full(BLOCKS, 1 / BLOCKS), size=RESAMPLES)
        self._draws = np.empty((RESAMPLES, len(tallies), len(self._wanted)))
        if self._wanted:
            for sample, counts in enumerate(drawn.astype(np.float64)):
                for side, tally in enumerate(tallies):
                    tally.weigh(counts)
                    self._draws[sample, side] = [tally.value(m) for m in self._wanted]
        for tally in tallies:
            tally.weigh(None)

    def interval(
        self, metric: str, confidence: float, *, paired: bool = False, among: int = 1
    ) -> Interval:
        """See `trimgate.judge._intervals.leveled`."""

        def at(level: float) -> Ends:
            level = 1 - (1 - level) / among
            return self._paired(metric, level) if paired else self._single(metric, level)

        value, low, high = at(confidence)
        levels = tuple(
            Level(confidence=level, low=at(level)[1], high=at(level)[2]) for level in CONFIDENCES
        )
        closed = (
            ("Tango score, paired" if paired else "Wilson score") if metric == "accuracy" else ""
        )
        blocks = f"bootstrap of {BLOCKS} random blocks of rows, {RESAMPLES} resamples"
        method = closed or ("paired " if paired else "") + blocks + ", expanded percentile"
        if among > 1:
            method += f", simultaneous for {among} slices (Bonferroni)"
        return Interval(
            value=value, low=low, high=high, confidence=confidence, method=method, others=levels
        )

    def _single(self, metric: str, level: float) -> Ends:
        known, tally = METRICS[metric], self._tallies[0]
        value = tally.value(metric)
        if metric == "accuracy":
            return value, *_stats.wilson(value * tally.rows, tally.rows, level)
        draws = self._draws[:, 0, self._wanted.index(metric)]
        return self._widened(known, value, draws, level, (tally,), 1.0)

    def _paired(self, metric: str, level: float) -> Ends:
        known, changes = METRICS[metric], self._changes
        if metric == "accuracy":
            value = (changes.won - changes.lost) / changes.rows
            return value, *_stats.tango(changes.won, changes.lost, changes.rows, level)
        tally, base = self._tallies
        value = tally.value(metric) - base.value(metric)
        column = self._wanted.index(metric)
        draws = self._draws[:, 0, column] - self._draws[:, 1, column]
        few = changes.moved < _stats.two_sided_z(level) ** 2
        return self._widened(known, value, draws, level, (tally, base), 1.0 if few else 0.0)

    def _widened(
        self,
        known: Spec,
        value: float,
        draws: Floats,
        level: float,
        tallies: Sequence[Tally],
        unseen: float,
    ) -> Ends:
        """By what the bins hide, and by what rare rows may do that were not seen."""
        rows = tallies[0].rows
        size = BLOCKS
        if len(tallies[0].classes) == 2 and known.kind != "score":
            rows = int(tallies[0].confusion().sum(axis=1).min())
            size = min(size, max(2, rows))
        low, high = ends(draws, level, size)
        if known.kind == "rank":
            hidden = sum(np.diff(tally.bounds(known.name))[0] / 2 for tally in tallies)
            low, high = low - hidden, high + hidden
        if unseen and (low == high or len(tallies) == 2):
            share = _stats.rule_of_three(rows, level)
            reach = max(_reach(known, tally, share) for tally in tallies)
            low, high = min(low, value - reach), max(high, value + reach)
        if known.bounded:
            low, high = max(low, -1.0 if len(tallies) == 2 else 0.0), min(high, 1.0)
        return value, min(low, value), max(high, value)

    def p_value(self, metric: str) -> float:
        """Two-sided, of no difference."""
        changes = self._changes
        if metric == "accuracy":
            return _stats.mcnemar(changes.won, changes.lost)
        column = self._wanted.index(metric)
        gaps = self._draws[:, 0, column] - self._draws[:, 1, column]
        below, above = (gaps <= 0).sum() + 1, (gaps >= 0).sum() + 1
        return min(1.0, 2 * float(min(below, above)) / (len(gaps) + 1))


def _reach(known: Spec, tally: Tally, share: float) -> float:
    """How far a metric may move when so many rows are as wrong as the worst one seen."""
    if known.name == "rmse":
        mse = tally.mean_of("mse")
        return float(np.sqrt(mse + share * tally.worst["rmse"]) - np.sqrt(mse))
    if known.name == "r2":
        variance = tally.mean_of("yy") - tally.mean_of("y") ** 2
        return share * tally.worst["rmse"] / max(variance, 1e-300)
    if known.name == "cost" and tally.costs is not None:
        return share * float(np.ptp(tally.costs, axis=1).max())
    return share * tally.worst.get(known.name, 1.0)
