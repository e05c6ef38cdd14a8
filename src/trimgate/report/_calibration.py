"""Reliability: what the scores promise beside what happened, for both models."""

from typing import Any

from markupsafe import Markup

from trimgate.judge._stats import wilson
from trimgate.judge.records import Calibration, CalibrationBin
from trimgate.report._card import CardInput
from trimgate.report._chart import Chart, linear_axis
from trimgate.report._format import (
    Cell,
    count,
    number,
    percent,
    with_interval,
)


def calibration_view(card: CardInput) -> dict[str, Any] | None:
    """The reliability diagram of both models; None for regression and old records."""
    test, before = card.winner_test, card.baseline_test
    models = [
        (name, kind, found.calibration)
        for name, kind, found in (("Baseline", "baseline", before), ("Winner", "winner", test))
        if found and found.calibration and (kind == "baseline" or card.status != "baseline")
    ]
    if not models:
        return None
    binary = card.baseline.task == "binary"
    told = "; ".join(f"{name}: ECE {number(c.ece.value)}" for name, _, c in models)
    what = "positive rows" if binary else "right answers"
    chart = Chart(
        linear_axis(0, 1, "mean score of the bin"),
        linear_axis(0, 1, f"share of {what}"),
        f"Reliability: share of {what} by mean score. {told}. On the diagonal, scores are "
        "probabilities",
        "reliability",
        width=440,
        height=400,
    )
    chart.line([(0, 0), (1, 1)], "ideal")
    for name, kind, calibration in models:
        _draw(chart, name, kind, calibration, shift=-2.5 if kind == "baseline" else 2.5)
    return {
        "picture": Markup(chart.render()),  # noqa: S704  (charts escape their texts)
        "what": what,
        "models": [_numbers(name, calibration) for name, _, calibration in models],
        "bins": _bins(models),
    }


def _draw(chart: Chart, name: str, kind: str, found: Calibration, *, shift: float) -> None:
    chart.line([(b.mean_score, b.observed) for b in found.bins], kind)
    for b in found.bins:
        low, high = wilson(b.observed * b.rows, b.rows, 0.95)
        chart.interval(b.mean_score, low, high, kind, shift=shift)
        title = (
            f"{name}, scores {_range(b)}: {count(b.rows)} rows, mean score "
            f"{number(b.mean_score)}, observed {number(b.observed)}"
        )
        chart.mark(b.mean_score, b.observed, kind, title, shift=shift)


def _numbers(name: str, found: Calibration) -> dict[str, Any]:
    return {
        "name": name,
        "ece": with_interval(found.ece, "plain"),
        "brier": with_interval(found.brier, "plain"),
        "bins": count(len(found.bins)),
    }


def _bins(models: list[tuple[str, str, Calibration]]) -> list[dict[str, Any]]:
    """By bin of scores, what each model has in it."""
    found: dict[str, dict[str, Cell]] = {}
    for name, _, calibration in models:
        for b in calibration.bins:
            shown = Cell(percent(b.observed), f"{count(b.rows)} rows, mean {number(b.mean_score)}")
            found.setdefault(_range(b), {})[name] = shown
    order = sorted({(b.low, _range(b)) for _, _, c in models for b in c.bins})
    names = [name for name, _, _ in models]
    return [
        {"range": key, "cells": [found[key].get(name, Cell("–")) for name in names]}
        for _, key in order
    ]


def _range(b: CalibrationBin) -> str:
    return f"{number(b.low, 2)} to {number(b.high, 2)}"
