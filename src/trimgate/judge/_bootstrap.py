"""The paired bootstrap: every metric of every model on the same resamples.

Rows are drawn as counts, so that each model's scores are sorted once and a resample costs a few
passes over the rows.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trimgate.judge._metrics import Spec
from trimgate.judge._stats import normal_cdf, t_quantile
from trimgate.judge._view import View

Floats = NDArray[np.float64]

RESAMPLES = 2000
# Below these the rarer class would be drawn too unevenly, or not at all.
RARE_SHARE = 0.05
RARE_ROWS = 100
# 2000 resamples of so many rows; with more rows fewer are drawn, never under 500.
_WORK = 400_000_000


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
    if is_stratified(first):
        strata = [np.flatnonzero(first.codes == c) for c in np.flatnonzero(first.class_counts)]
    else:
        strata = [np.arange(first.rows)]
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
    tail = (1 - confidence) / 2
    if size >= 2:
        tail = normal_cdf(math.sqrt(size / (size - 1)) * t_quantile(tail, size - 1))
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return float(low), float(high)
