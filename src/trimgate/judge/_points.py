"""The threshold of a binary model: chosen on some rows, for use on others."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trimgate.judge._view import View
from trimgate.judge.settings import PointRule

Rule = Literal["f1", "cost"] | PointRule
Costs = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Threshold:
    """Where a binary model decides.

    Attributes:
        value: Score of the positive class from which a row counts as positive.
        rule: How it was chosen, in words.
        rows: How many rows it was chosen on; 0 when it was given.
    """

    value: float
    rule: str
    rows: int


def choose_threshold(
    labels: NDArray[Any],
    scores: NDArray[Any],
    classes: tuple[Any, ...],
    rule: Rule,
    costs: Costs | None = None,
) -> Threshold:
    """Chooses the threshold that suits a rule best, halfway between two scores.

    Args:
        labels: `(rows,)`.
        scores: `(rows, 2)`.
        classes: The two labels; the second is the positive one.
        rule: What is wanted.
        costs: For the rule `cost`.

    Raises:
        InvalidInput: See `trimgate.judge.metrics.compute`.
    """
    if isinstance(rule, PointRule) and rule.threshold is not None:
        return Threshold(rule.threshold, f"given: {rule.threshold:g}", 0)
    view = View(labels, scores, classes)
    order = np.argsort(-view.scores[:, 1], kind="stable")
    ranked, positive = view.scores[order, 1], view.codes[order] == 1
    last = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))  # of each distinct score
    hits, taken = np.cumsum(positive)[last], last + 1
    total = int(positive.sum())
    precision, recall = hits / taken, hits / max(1, total)
    if rule == "f1":
        best, told = int((2 * hits / (taken + total)).argmax()), "highest F1"
    elif rule == "cost":
        if costs is None:
            raise TypeError("the rule `cost` needs costs")
        (calm, alarm), (miss, catch) = costs
        spent = (
            (taken - hits) * alarm
            + (view.rows - total - taken + hits) * calm
            + (total - hits) * miss
            + hits * catch
        )
        best, told = int(spent.argmin()), "least cost"
    else:
        best, told = _constrained(rule, precision, recall)
    lower = ranked[last[best] + 1] if last[best] + 1 < view.rows else 0.0
    value = float((ranked[last[best]] + lower) / 2)
    return Threshold(value, f"{told} on {view.rows} validation rows", view.rows)


def _constrained(rule: PointRule, precision: NDArray[Any], recall: NDArray[Any]) -> tuple[int, str]:
    if rule.recall_at_precision is not None:
        name, wanted, held, sought = "precision", rule.recall_at_precision, precision, recall
    else:
        name, wanted, held, sought = (
            "recall",
            float(rule.precision_at_recall or 0),
            recall,
            precision,
        )
    fits = held >= wanted
    if not fits.any():
        best = int(held.argmax())
        return best, f"no threshold reaches a {name} of {wanted:g}: the highest, {held[best]:.3g},"
    other = "recall" if name == "precision" else "precision"
    return int(np.where(fits, sought, -1.0).argmax()), f"highest {other} at {name} >= {wanted:g}"
