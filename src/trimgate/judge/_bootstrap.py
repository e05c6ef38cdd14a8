"""The paired bootstrap: every metric of every model on the same resamples.

Rows are drawn as counts, so that each model's scores are sorted once and a resample costs a few
passes over the rows.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trimgate.judge._metrics import Spec
from trimgate.judge._stats import normal_cdf, normal_quantile, t_quantile
from trimgate.judge._view import View

Floats = NDArray[np.float64]

RESAMPLES = 2000
# Below these the rarer class would be drawn too unevenly, or not at all.
RARE_SHARE = 0.05
RARE_ROWS = 100
# 2000 resamples of so many rows; with more rows fewer are drawn, never under 500.
_WORK = 400_000_000
# Of each class, left out one after the other.
_BLOCKS = 100
# Rows that tell their own tail.
_SOLID = 50
# No resample is so far out that it says more than this many standard errors.
_MOST_T = 12.0


def default_resamples(rows: int) -> int:
    """2000, or fewer when there are more than 200,000 rows."""
    return int(min(RESAMPLES, max(500, _WORK // rows)))


def is_stratified(view: View) -> bool:
    """Whether each class is resampled apart: when a class is rare."""
    if not view.classes:
        return False
    rarest = view.class_counts[view.class_counts > 0].min()
    return bool(rarest < max(RARE_ROWS, RARE_SHARE * view.rows))


def draw(views: Sequence[View], specs: Sequence[Spec], resamples: int, seed: int) -> Floats:
    """Metrics of the views on common resamples of the rows.

    Args:
        views: Models on the same rows.
        specs: The metrics.
        resamples: How often to resample.
        seed: Makes it reproducible.

    Returns:
        `(resamples, views, metrics)`.
    """
    rng = np.random.default_rng(seed)
    first = views[0]
    strata = _strata(first)
    counts = np.empty(first.rows, dtype=np.float64)
    drawn = np.empty((resamples, len(views), len(specs)))
    for sample in range(resamples):
        for rows in strata:
            picks = rng.integers(0, len(rows), len(rows))
            counts[rows] = np.bincount(picks, minlength=len(rows))
        for position, view in enumerate(views):
            view.weigh(counts)
            for column, known in enumerate(specs):
                drawn[sample, position, column] = known.function(view)
    for view in views:
        view.weigh(None)
    return drawn


def contributions(view: View, specs: Sequence[Spec], seed: int) -> list[Floats]:
    """What each block of rows adds to a metric's deviation, by leaving the blocks out in turn.

    Returns:
        `(blocks, metrics)` for each class where classes are resampled apart, else one for all:
        100 blocks, or as many as there are rows. Each sums to 0.
    """
    rng = np.random.default_rng(seed)
    weights = np.ones(view.rows)
    found = []
    for rows in _strata(view):
        shuffled = rng.permutation(rows)
        blocks = min(_BLOCKS, len(rows))
        left = np.empty((blocks, len(specs)))
        for block in range(blocks):
            weights[shuffled[block::blocks]] = 0
            view.weigh(weights)
            left[block] = [known.function(view) for known in specs]
            weights[shuffled[block::blocks]] = 1
        gaps = np.nan_to_num(np.nanmean(left, axis=0) - left)
        found.append(gaps * (blocks - 1) / blocks)
    view.weigh(None)
    return found


def strata_rows(view: View) -> list[int]:
    """Rows of what is resampled apart: of each class where one is rare, else of all."""
    return [len(rows) for rows in _strata(view)]


def _strata(view: View) -> list[NDArray[np.intp]]:
    if is_stratified(view):
        return [np.flatnonzero(view.codes == c) for c in np.flatnonzero(view.class_counts)]
    return [np.arange(view.rows)]


def ends(draws: Floats, confidence: float, size: int) -> tuple[float, float]:
    """Ends of the expanded percentile interval.

    The percentile interval is too narrow for small samples; its levels are moved outward as far
    as Student's t and the n / (n - 1) of the variance ask.
    Source: T. Hesterberg, "What teachers should know about the bootstrap", The American
    Statistician 69 (2015), section 5.2.

    Args:
        draws: `(resamples,)`; NaN (a metric that a resample left undefined) is left out.
        confidence: Two-sided.
        size: Rows that carry the metric: those of the rarer class where it ranks.
    """
    tail = _expanded((1 - confidence) / 2, size)
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def accelerated_ends(
    draws: Floats, value: float, parts: Sequence[Floats], confidence: float, size: int
) -> tuple[float, float]:
    """Ends of the bias-corrected and accelerated interval (BCa), at expanded levels.

    Resamples hold rows twice, which shifts a metric such as average precision; and its spread
    changes with its value. BCa moves the levels by as much. A difference of two models has
    hardly any of it, as both are shifted alike.
    Source: B. Efron, "Better bootstrap confidence intervals", JASA 82 (1987); the acceleration
    from blocks that are left out.

    Args:
        draws: `(resamples,)`.
        value: Of all rows.
        parts: `(blocks,)` each: see `contributions`.
        confidence: Two-sided.
        size: Rows that carry the metric.
    """
    known = draws[np.isfinite(draws)]
    share = float(((known < value).sum() + (known == value).sum() / 2) / max(1, len(known)))
    spread = float(sum((part**2).sum() for part in parts))
    outer = _expanded((1 - confidence) / 2, size)
    # nothing that could be corrected by, or so few rows that the expanded level is 0
    if not 0.01 < share < 0.99 or spread <= 0 or not 0 < outer < 1:
        return ends(draws, confidence, size)
    bias = normal_quantile(share)
    acceleration = float(sum((part**3).sum() for part in parts)) / (6 * spread**1.5)
    z = normal_quantile(outer)
    levels = []
    for side in (z, -z):
        shifted = bias + side
        levels.append(normal_cdf(bias + shifted / max(0.1, 1 - acceleration * shifted)))
    low, high = np.quantile(known, levels)
    return float(low), float(high)


def studentized(parts: Sequence[Floats], seed: int) -> Floats:
    """Deviations of resamples in units of their own standard errors (bootstrap-t).

    Where a few hard rows of a rare class carry most of a metric, resamples without them look too
    good and too certain; in units of their own error they say so.
    Source: B. Efron, R. Tibshirani, "An introduction to the bootstrap" (1993), section 12.5; on
    the linear part of the metric.

    Args:
        parts: `(blocks,)` each: see `contributions`.
        seed: Makes it reproducible.

    Returns:
        `(2000,)`.
    """
    rng = np.random.default_rng(seed)
    shifts, variances = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for part in parts:
        blocks = len(part)
        drawn = part[rng.integers(0, blocks, (RESAMPLES, blocks))]
        shifts += drawn.sum(axis=1)
        variances += blocks * drawn.var(axis=1, ddof=1 if blocks > 1 else 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = shifts / np.sqrt(variances)
    return np.clip(np.nan_to_num(ratios, posinf=_MOST_T, neginf=-_MOST_T), -_MOST_T, _MOST_T)


def studentized_ends(
    value: float, parts: Sequence[Floats], ratios: Floats, confidence: float
) -> tuple[float, float]:
    """Ends of the bootstrap-t interval; `ratios` are those of `studentized`."""
    error = math.sqrt(sum(len(part) * float(part.var(ddof=1)) for part in parts if len(part) > 1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return value - float(high) * error, value - float(low) * error


def cautious_ends(
    value: float, parts: Sequence[Floats], rows: Sequence[int], confidence: float
) -> tuple[float, float]:
    """Ends of a Student's t interval to whose rows z²/2 are added that are as bad as the worst.

    Where few rows carry a metric, the sample is likely to hold fewer of the worst ones than there
    are, and looks too good and too certain. The rows added are as many as the interval of
    Agresti and Coull adds to either side of a proportion, here at the value of the worst row seen
    for the lower end, and of the best for the upper one. Of fewer than 50 rows even the tail that
    is seen says too little: more are added in proportion (benchmarks/gate_simulation.py).
    Source: A. Agresti, B. Coull, "Approximate is better than 'exact' for interval estimation of
    binomial proportions", The American Statistician 52 (1998).

    Args:
        value: Of all rows.
        parts: `(blocks,)` each: see `contributions`.
        rows: Of each of the parts.
        confidence: Two-sided.
    """
    tail = (1 - confidence) / 2
    added = normal_quantile(tail) ** 2 / 2
    found = []
    for sign in (1, -1):
        shift = variance = 0.0
        for part, count in zip(parts, rows, strict=True):
            blocks = len(part)
            more = added * max(1.0, _SOLID / count) * blocks / count
            gaps = sign * part * blocks
            worst = float(gaps.min())
            centre = more * worst / (blocks + more)
            squares = float(((gaps - centre) ** 2).sum()) + more * (worst - centre) ** 2
            shift += centre
            variance += squares / (blocks + more - 1) / (blocks + more) if blocks > 1 else 0.0
        spread = -t_quantile(tail, max(1.0, min(rows) - 1 + added)) * math.sqrt(variance)
        found.append(value + sign * (shift - spread))
    return found[0], found[1]


def _expanded(tail: float, size: int) -> float:
    if size < 2:
        return tail
    return normal_cdf(math.sqrt(size / (size - 1)) * t_quantile(tail, size - 1))
