"""Rows on which the two models disagree, for those who opted in to show rows on the card."""

from collections.abc import Collection
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput
from trimgate.judge._intervals import SAME_VALUE
from trimgate.judge.predictions import Predictions

Array = NDArray[Any]
Effect = Literal["lost", "won", "changed"]

MOST_COLUMNS = 12
LONGEST_TEXT = 240


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Example(_Record):
    """One test row on which the answers differ.

    Attributes:
        row: Its position in the test split.
        effect: `lost`: the baseline was right and the winner is not (for values: it is further
            off); `won`: the reverse; `changed`: both are wrong.
        label, baseline, winner: The truth and the two answers, as text.
        baseline_score, winner_score: What each gave the true class; for values None.
        values: What the shown columns hold, as text.
    """

    row: int
    effect: Effect
    label: str
    baseline: str
    winner: str
    baseline_score: float | None = None
    winner_score: float | None = None
    values: tuple[str, ...] = ()


class Examples(_Record):
    """Rows on which the answers differ, the lost ones first.

    Attributes:
        columns: The columns that are shown.
        left_out: How many columns are not: hidden ones, and those beyond the twelfth.
        rows: The examples.
    """

    columns: tuple[str, ...] = ()
    left_out: int = 0
    rows: tuple[Example, ...] = ()


def pick_examples(
    baseline: Predictions,
    winner: Predictions,
    rows: Dataset,
    count: int,
    *,
    hide: Collection[str] = (),
) -> Examples:
    """The rows whose answers differ most.

    Lost rows come before won ones, and those before rows on which both are wrong; among them
    those whose score moved most.

    Args:
        baseline: Its predictions on the test rows, or on those of `changed_most`.
        winner: Its predictions on the same rows.
        rows: These rows.
        count: At most so many.
        hide: Columns whose values are not shown.

    Raises:
        InvalidInput: The predictions are of other rows.
    """
    if not len(baseline.rows) == len(winner.rows) == len(rows):
        raise InvalidInput(
            f"predictions of {len(baseline.rows)} and {len(winner.rows)} rows do not fit the "
            f"{len(rows)} test rows"
        )
    rank, _ = _effects(baseline, winner)
    chosen = changed_most(baseline, winner, count)
    columns = [name for name in rows.features if name not in hide][:MOST_COLUMNS]
    return Examples(
        columns=tuple(columns),
        left_out=len(rows.features) - len(columns),
        rows=tuple(
            _example(int(row), _EFFECTS[rank[row]], baseline, winner, rows, columns)
            for row in chosen
        ),
    )


def changed_most(baseline: Predictions, winner: Predictions, count: int) -> Array:
    """Positions of at most `count` rows whose answers differ most, in the order of the examples."""
    rank, moved = _effects(baseline, winner)
    order = np.lexsort((np.arange(len(rank)), -moved, rank))
    return order[rank[order] < len(_EFFECTS)][:count]


_EFFECTS: tuple[Effect, ...] = ("lost", "won", "changed")


def _effects(baseline: Predictions, winner: Predictions) -> tuple[Array, Array]:
    """For each row its place in `_EFFECTS` (3: the same answer), and how far the score moved."""
    same = len(_EFFECTS)
    if not baseline.classes:
        labels = baseline.labels.astype(np.float64)
        before, after = (np.abs(p.scores - labels) for p in (baseline, winner))
        gap = np.abs(winner.scores - baseline.scores)
        real = gap > SAME_VALUE * np.abs(baseline.scores)
        rank = np.where(after > before, 0, np.where(after < before, 1, 2))
        return np.where(real, rank, same), np.abs(after - before)
    right, was_right = winner.predicted == winner.labels, baseline.predicted == baseline.labels
    rank = np.select([was_right & ~right, right & ~was_right], [0, 1], 2)
    moved = np.abs(winner.scores - baseline.scores).max(axis=1)
    return np.where(winner.predicted != baseline.predicted, rank, same), moved


def _example(
    row: int,
    effect: Effect,
    baseline: Predictions,
    winner: Predictions,
    rows: Dataset,
    columns: list[str],
) -> Example:
    label = baseline.labels[row]
    scores: dict[str, float] = {}
    if baseline.classes:
        column = list(baseline.classes).index(label)
        scores = {
            "baseline_score": float(baseline.scores[row, column]),
            "winner_score": float(winner.scores[row, column]),
        }
    return Example(
        row=int(baseline.rows[row]),
        effect=effect,
        label=_text(label),
        baseline=_text(baseline.predicted[row]),
        winner=_text(winner.predicted[row]),
        values=tuple(_text(rows.features[name][row]) for name in columns),
        **scores,
    )


def _text(value: Any) -> str:
    """A cell as text: numbers short, long texts cut, arrays by their shape."""
    if value is None:
        return "missing"
    if isinstance(value, np.ndarray):
        shape = " × ".join(map(str, value.shape))
        return f"{shape} array, mean {float(np.mean(value)):.4g}"
    if isinstance(value, float | np.floating):
        return "missing" if np.isnan(value) else f"{float(value):.6g}"
    text = str(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
