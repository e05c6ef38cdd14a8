"""Which trial is taken, and what it is worth on rows that did not choose it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimgate.data.dataset import Array
from trimgate.errors import InvalidInput
from trimgate.techniques.tune._config import Goal
from trimgate.training import Measure

_ROWS = 4_000
_WORK = 6_000
_RESAMPLES = (20, 200)


def best(complete: Sequence[Any], goals: tuple[Goal, ...], measure: Measure, tolerance: float) -> (
    Any
):  # fmt: skip
    """The trial to take.

    Args:
        complete: Trials with values, at least one.
        goals: What the values are.
        measure: Says which metric is better.
        tolerance: With several goals: of the trials whose metric is so close to the best one's,
            the one with the lowest second value (then the third, then the better metric).
    """
    sign = -1 if measure.higher_is_better else 1
    top = min(complete, key=lambda trial: (sign * trial.values[0], trial.number))
    if len(goals) == 1:
        return top
    near = [t for t in complete if measure.acceptable(t.values[0], top.values[0], tolerance)]
    return min(near, key=lambda t: (*t.values[1:], sign * t.values[0], t.number))


def front(study: Any, goals: tuple[Goal, ...]) -> list[dict[str, float]]:
    """The trials that no other is better than in every objective, by the metric."""
    points = {tuple(trial.values) for trial in study.best_trials}
    return [dict(zip(goals, point, strict=True)) for point in sorted(points)]


@dataclass(frozen=True)
class Expected:
    """What the choice is expected to be worth on other rows.

    Attributes:
        given: The metric of the given model.
        chosen: The metric of whichever trial is chosen.
        resamples: How many resamples of the rows this is the mean of.
    """

    given: float
    chosen: float
    resamples: int


def expected(given: Array, trials: Sequence[Array], measure: Measure, seed: int) -> Expected | None:
    """The metric without the optimism of having chosen the best of many on the same rows.

    The choice is repeated on bootstrap samples of the rows, and valued on the rows that are not
    in the sample (Tsamardinos, Greasidou and Borboudakis, 2018, arXiv:1708.07180). The given
    model is valued on the same ones.

    Args:
        given: Scores of the given model.
        trials: Scores of each trial.
        measure: The metric on the rows.
        seed: Of the sampling.

    Returns:
        None where the rows are too few for the metric.
    """
    generator = np.random.default_rng(seed)
    rows = np.arange(len(measure.labels))
    if len(rows) > _ROWS:
        rows = np.sort(generator.choice(rows, _ROWS, replace=False))
    low, high = _RESAMPLES
    values: list[tuple[float, float]] = []
    for _ in range(max(low, min(high, _WORK // len(trials)))):
        inside = generator.choice(rows, len(rows))
        outside = np.setdiff1d(rows, inside)
        within = Measure(measure.metric, measure.labels[inside], measure.classes)
        beyond = Measure(measure.metric, measure.labels[outside], measure.classes)
        try:
            found = [within(scores[inside]) for scores in trials]
            place = int(np.argmax(found) if measure.higher_is_better else np.argmin(found))
            values.append((beyond(given[outside]), beyond(trials[place][outside])))
        except InvalidInput:
            continue  # a class is missing among so few rows
    if len(values) < low:
        return None
    means = np.mean(values, axis=0)
    return Expected(float(means[0]), float(means[1]), len(values))


def importances(study: Any, higher_is_better: bool) -> dict[str, float]:
    """How much of the differences in the metric each parameter accounts for (PED-ANOVA,
    Watanabe, Bansal and Hutter, 2023, arXiv:2304.10255); empty where that cannot be told.
    """  # noqa: D205
    import optuna

    sign = -1 if higher_is_better else 1
    try:
        found = optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
            target=lambda trial: sign * trial.values[0],
        )
    except (ValueError, RuntimeError):
        return {}  # too few trials, or all alike
    return {name: round(float(value), 4) for name, value in found.items() if np.isfinite(value)}
