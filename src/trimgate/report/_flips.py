"""Which answers changed between the models: the two by two table, and example rows."""

from typing import Any

from trimgate.judge.records import Evaluation
from trimgate.report._card import CardInput
from trimgate.report._format import count, number, percent

_EFFECTS = {
    "lost": ("Lost", "fail", "the baseline was right"),
    "won": ("Won", "pass", "the winner is right"),
    "changed": ("Changed", "inconclusive", "both are wrong"),
}
_NEARER = {
    "lost": ("Further", "fail", "the winner is further off"),
    "won": ("Nearer", "pass", "the winner is nearer"),
    "changed": ("Changed", "inconclusive", "both are as far off"),
}


def flips_view(card: CardInput) -> dict[str, Any] | None:
    """The table of flips and the example rows; None where nothing was compared."""
    test = card.winner_test
    if test is None or test.flips is None or card.status == "baseline":
        return None
    return {
        "cells": _cells(test),
        "counts": _counts(test),
        "examples": _examples(card),
        "values": test.task == "regression",
    }


def _cells(test: Evaluation) -> list[list[str]]:
    """Baseline right, then wrong; each: winner right, winner wrong. Empty when not known."""
    flips = test.flips
    accuracy = test.metrics.get("accuracy")
    if flips is None or accuracy is None:
        return []
    right = round(accuracy.interval.value * flips.rows)
    both = right - flips.won
    neither = flips.rows - both - flips.won - flips.lost
    if both < 0 or neither < 0:  # records that contradict each other show no table
        return []
    return [
        [_share(both, flips.rows), _share(flips.lost, flips.rows)],
        [_share(flips.won, flips.rows), _share(neither, flips.rows)],
    ]


def _share(rows: int, total: int) -> str:
    return f"{count(rows)} ({percent(rows / total)})" if total else count(rows)


def _counts(test: Evaluation) -> list[tuple[str, str]]:
    flips = test.flips
    if flips is None:
        return []
    names = ("Nearer to the truth", "Further from it") if test.task == "regression" else (
        "Won", "Lost",
    )  # fmt: skip
    pairs = [
        (names[0], count(flips.won)),
        (names[1], count(flips.lost)),
        ("Changed in all", f"{count(flips.changed)} of {count(flips.rows)} rows"),
    ]
    if flips.p_value is not None:
        pairs.append(("Exact McNemar test", f"p = {number(flips.p_value, 2)}"))
    return pairs


def _examples(card: CardInput) -> dict[str, Any] | None:
    found = card.examples
    if found is None:
        return None
    effects = _NEARER if card.baseline.task == "regression" else _EFFECTS
    rows = [
        {
            "row": count(example.row),
            "effect": effects[example.effect],
            "label": example.label,
            "baseline": _answer(example.baseline, example.baseline_score),
            "winner": _answer(example.winner, example.winner_score),
            "cells": example.values,
        }
        for example in found.rows
    ]
    return {"columns": found.columns, "rows": rows, "left_out": found.left_out}


def _answer(answer: str, score: float | None) -> tuple[str, str]:
    return answer, "" if score is None else f"{percent(score)} for the truth"
