"""Intervals of one metric: of a model alone, and of its difference from the baseline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trimgate.judge import _stats
from trimgate.judge._bootstrap import (
    accelerated_ends,
    cautious_ends,
    contributions,
    default_resamples,
    draw,
    ends,
    is_stratified,
    strata_rows,
    studentized,
    studentized_ends,
)
from trimgate.judge._metrics import Spec
from trimgate.judge._view import View
from trimgate.judge.records import Flips, Interval, Level

Floats = NDArray[np.float64]
Ends = tuple[float, float, float, str]
Maker = Callable[["Judged", float], Ends]

# One-sided 90, 95, 97.5, 99 and 99.5 %: what a gate may ask for.
CONFIDENCES = (0.8, 0.9, 0.95, 0.98, 0.99)
# Scores that are nearer than this count as the same answer: rounding between two engines in
# float32 stays below it. In units of the labels' standard deviation for regression.
SAME_SCORE = 1e-5
SAME_VALUE = 1e-4


@dataclass(frozen=True)
class Judged:
    """What the intervals of one metric are made from.

    Attributes:
        draws: `(resamples, 1 or 2)`: of the model, and of the baseline.
        parts: `(blocks,)` by class: what each block of rows adds to the model's metric.
        parts_base: The same of the baseline's.
        seed: Of the bootstrap.
    """

    known: Spec
    view: View
    base: View | None
    flips: Flips | None
    moved: int
    draws: Floats
    parts: list[Floats]
    parts_base: list[Floats]
    seed: int
    method: str

    @cached_property
    def ratios(self) -> Floats:
        """Of the model alone; see `studentized`."""
        return studentized(self.parts, self.seed)

    @cached_property
    def gaps(self) -> list[Floats]:
        """What each block adds to the difference from the baseline."""
        return [a - b for a, b in zip(self.parts, self.parts_base, strict=True)]

    @cached_property
    def gap_ratios(self) -> Floats:
        """Of the difference; see `studentized`."""
        return studentized(self.gaps, self.seed)


def prepare(
    view: View, base: View | None, specs: Sequence[Spec], *, seed: int, resamples: int | None
) -> dict[str, Judged]:
    """Draws the resamples that all metrics share, and counts what differs from the baseline."""
    resampled = [known for known in specs if known.name != "accuracy"]
    count = resamples or default_resamples(view.rows)
    views = [view] if base is None else [view, base]
    draws = draw(views, resampled, count, seed) if resampled else np.empty((0, len(views), 0))
    parts = contributions(view, resampled, seed) if resampled else []
    parts_base = contributions(base, resampled, seed) if resampled and base else []
    stratified = "stratified " if is_stratified(view) else ""
    flips = None if base is None else count_flips(view, base)
    moved = 0 if base is None else count_moved(view, base)
    found = {}
    for known in specs:
        closed = known.name == "accuracy"
        column = 0 if closed else resampled.index(known)
        found[known.name] = Judged(
            known,
            view,
            base,
            flips,
            moved,
            draws=np.empty((0, len(views))) if closed else draws[:, :, column],
            parts=[] if closed else [part[:, column] for part in parts],
            parts_base=[] if closed else [part[:, column] for part in parts_base],
            seed=seed,
            method=f"{stratified}bootstrap of the rows, {count} resamples",
        )
    return found


def count_flips(view: View, base: View) -> Flips:
    """Rows won and lost against the baseline, and those answered differently."""
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


_OF_POSITIVES = (
    "f1",
    "precision",
    "recall",
    "f1_at_point",
    "precision_at_point",
    "recall_at_point",
)


def count_moved(view: View, base: View) -> int:
    """Rows whose scores differ by more than the rounding of an engine."""
    gap = np.abs(view.scores - base.scores)
    if view.classes:
        return int((gap.max(axis=1) > SAME_SCORE).sum())
    return int((gap > SAME_SCORE * float(view.values.std())).sum())


def leveled(make: Maker, judged: Judged, confidence: float, *, among: int = 1) -> Interval:
    """The interval at the wanted confidence, with those at all `CONFIDENCES` beside it.

    Args:
        make: `single` or `paired`.
        judged: What it is made from.
        confidence: Two-sided.
        among: So many intervals hold at once at each level (Bonferroni).
    """

    def at(level: float) -> Ends:
        return make(judged, 1 - (1 - level) / among)

    value, low, high, method = at(confidence)
    if among > 1:
        method += f", simultaneous for {among} slices (Bonferroni)"
    others = []
    for level in CONFIDENCES:
        _, at_low, at_high, _ = at(level)
        others.append(Level(confidence=level, low=at_low, high=at_high))
    return Interval(
        value=value,
        low=low,
        high=high,
        confidence=confidence,
        method=method,
        others=tuple(others),
    )


def single(judged: Judged, confidence: float) -> Ends:
    """Value, ends and method of a model alone: Wilson's for accuracy, else BCa."""
    known, view = judged.known, judged.view
    value = known.function(view)
    if known.name == "accuracy":
        low, high = _stats.wilson(value * view.rows, view.rows, confidence)
        return value, low, high, "Wilson score"
    size = _size(judged)
    low, high = accelerated_ends(judged.draws[:, 0], value, judged.parts, confidence, size)
    method = judged.method + ", BCa at expanded levels"
    if known.kind == "rank":
        low, high = _ranked(judged.parts, judged.ratios, low, high, value, view, confidence)
        method += _RANKED
    if low == high and known.bounded:  # no resample shows an error: there may still be some
        share = _stats.rule_of_three(size, confidence)
        low, high = value - share, value + share
        method += ", rule of three"
    if known.bounded:
        low, high = max(low, 0.0), min(high, 1.0)
    return value, min(low, value), max(high, value), method


def paired(judged: Judged, confidence: float) -> Ends:
    """The same of candidate minus baseline: Tango's for accuracy, else the expanded percentile."""
    known, view, base, flips = judged.known, judged.view, judged.base, judged.flips
    if base is None or flips is None:
        raise TypeError("a difference needs the baseline")
    if known.name == "accuracy":
        low, high = _stats.tango(flips.won, flips.lost, flips.rows, confidence)
        return (flips.won - flips.lost) / flips.rows, low, high, "Tango score, paired"
    value = known.function(view) - known.function(base)
    low, high = ends(judged.draws[:, 0] - judged.draws[:, 1], confidence, _size(judged))
    method = f"paired {judged.method}, expanded percentile"
    if known.kind == "rank":
        low, high = _ranked(judged.gaps, judged.gap_ratios, low, high, value, view, confidence)
        method += _RANKED
    floor = _floor(judged, base, flips, confidence)
    if value - low < floor or high - value < floor:
        low, high = min(low, value - floor), max(high, value + floor)
        method += ", rule of three"
    if known.bounded:
        low, high = max(low, -1.0), min(high, 1.0)
    return value, min(low, value), max(high, value), method


_RANKED = ", or bootstrap-t, or Student's t with z²/2 rows like the worst added, where wider"


def _ranked(
    parts: list[Floats],
    ratios: Floats,
    low: float,
    high: float,
    value: float,
    view: View,
    confidence: float,
) -> tuple[float, float]:
    """Ends for a metric that a few rows of a rare class may carry: the widest of three."""
    lows, highs = zip(
        studentized_ends(value, parts, ratios, confidence),
        cautious_ends(value, parts, strata_rows(view), confidence),
        strict=True,
    )
    return min(low, *lows), max(high, *highs)


def _floor(judged: Judged, base: View, flips: Flips, confidence: float) -> float:
    """Least half-width of a difference when hardly any row differs; else 0."""
    known, view = judged.known, judged.view
    few = _stats.two_sided_z(confidence) ** 2
    if judged.moved < few:
        share = _stats.rule_of_three(view.rows, confidence)
        return max(known.reach(view, share), known.reach(base, share))
    changed = flips.changed
    if known.needs:
        changed = int((view.decided != base.decided).sum())
    if known.kind == "label" and changed < few:
        if known.name == "cost":
            share = _stats.rule_of_three(view.rows, confidence)
            return max(known.reach(view, share), known.reach(base, share))
        counts = view.class_counts[view.class_counts > 0]
        if known.name in _OF_POSITIVES and len(view.classes) == 2:
            counts, classes = view.class_counts[1:], 1
        else:
            classes = len(counts)
        return max(_stats.rule_of_three(int(c), confidence) for c in counts) / classes
    return 0.0


def _size(judged: Judged) -> int:
    """Rows that carry a metric: the rarer class where one ranks or hits it."""
    view = judged.view
    if len(view.classes) == 2 and judged.known.kind != "score":
        return int(view.class_counts.min())
    return view.rows
